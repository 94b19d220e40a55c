"""Mixtures of sparse linear regressions: what is drawn is what was asked."""

import numpy as np
import pytest
import torch

from icl_mech.errors import InputError
from icl_mech.synthetic.data import Mixture, draw_balanced, draw_batch, make_mixture, variant


def test_the_papers_mixture_is_the_default() -> None:
    mixture = make_mixture()
    assert (mixture.dim, mixture.n_bases, mixture.n_examples) == (16, 4, 20)
    assert mixture.noise_variance == 0.01
    assert mixture.bases == ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11), (12, 13, 14, 15))
    assert variant("orthogonal4") == mixture


def test_variants() -> None:
    six = variant("orthogonal6")
    assert (six.dim, six.n_bases) == (24, 6)
    assert six.masks.sum(0).eq(1).all()  # every coordinate is in one basis
    eight = variant("overlapping8")
    shared = (eight.masks @ eight.masks.T).int()
    assert eight.n_bases == 8
    assert shared.diagonal().eq(4).all()
    assert shared[:4, 4:].eq(0).all()  # groups share nothing
    assert shared[:4, :4].ge(1).all()  # members do
    with pytest.raises(InputError, match="did you mean 'orthogonal4'"):
        variant("ortogonal4")


@pytest.mark.parametrize("name", ["orthogonal4", "orthogonal6", "overlapping8"])
def test_y_is_a_sparse_linear_function_of_x_plus_noise(name: str) -> None:
    mixture = variant(name)
    batch = draw_batch(mixture, 4000, seed=3)
    outside = 1 - mixture.masks[batch.basis]
    assert (batch.weights * outside).abs().max() == 0
    noise = batch.ys - (batch.xs * batch.weights[:, None]).sum(-1)
    n = noise.numel()
    # Means and variances within five standard errors.
    assert abs(noise.mean()) < 5 * 0.1 / n**0.5
    assert abs(noise.var() / mixture.noise_variance - 1) < 5 * (2 / n) ** 0.5
    assert abs(batch.xs.var() - 1) < 5 * (2 / batch.xs.numel()) ** 0.5
    drawn = batch.weights[mixture.masks[batch.basis] == 1]
    assert abs(drawn.var() - 1) < 5 * (2 / drawn.numel()) ** 0.5
    counts = np.bincount(batch.basis.numpy(), minlength=mixture.n_bases)
    expected = 4000 / mixture.n_bases
    assert np.abs(counts - expected).max() < 5 * expected**0.5


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    mixture = variant("orthogonal4")
    first = draw_batch(mixture, 8, seed=1, step=7)
    torch.randn(100)
    draw_batch(mixture, 8, seed=1, step=6)
    again = draw_batch(mixture, 8, seed=1, step=7)
    for name in ("xs", "ys", "weights", "basis"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    for other in (draw_batch(mixture, 8, seed=1, step=8), draw_batch(mixture, 8, seed=2, step=7)):
        assert not torch.isclose(first.xs, other.xs).any()
    held_out = draw_batch(mixture, 8, seed=1, step=7, held_out=True)
    assert not torch.isclose(first.xs, held_out.xs).any()
    # Nothing is shared between sequences either.
    assert len(first.weights.unique(dim=0)) == 8


def test_balanced_draws_and_chosen_bases() -> None:
    mixture = make_mixture(6, 2, 3, n_examples=4)
    batch = draw_balanced(mixture, 5, seed=0)
    assert batch.basis.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert batch.xs.shape == (15, 5, 6)
    assert (batch.weights[:5, 2:] == 0).all()
    own = make_mixture(5, bases=[[0, 4], [1, 2, 3]])
    assert own.masks.tolist() == [[1, 0, 0, 0, 1], [0, 1, 1, 1, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 15}, "4 disjoint bases of rank 4 need 16 coordinates; expected at most dim .15."),
        ({"rank": 0}, "rank is 0; expected at least 1"),
        ({"n_bases": 0}, "n_bases is 0"),
        ({"n_examples": 0}, "n_examples is 0"),
        ({"noise_variance": 0.0}, "noise_variance is 0.0; expected above 0"),
        ({"noise_variance": float("nan")}, "noise_variance is nan"),
        ({"layout": "overlapping", "n_bases": 5}, "5 bases in 2 groups"),
        ({"layout": "overlapping", "rank": 9}, "bases of rank 9 in a group of 8 coordinates"),
        ({"layout": "overlapping", "rank": 8}, "expected at most 8 different windows"),
        ({"layout": "overlapping", "n_groups": 0}, "n_groups is 0"),
        ({"bases": [[0, 16]]}, "basis .0, 16. has coordinate 16; expected 0 to 15"),
        ({"bases": [[0, 0]]}, "expected coordinates, each once"),
        ({"bases": [[]]}, "expected coordinates, each once"),
        ({"bases": []}, "no bases"),
        ({"bases": [[0, 1], [1, 0]]}, "two bases have the same coordinates"),
    ],
)
def test_bases_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_mixture(**options)


def test_weights_with_a_mean() -> None:
    """Variance about the mean is 1 - m^2: the variance of y stays that of the paper."""
    mixture = variant("orthogonal4")
    batch = draw_batch(mixture, 4000, seed=3, weight_mean=0.6)
    on = batch.weights[mixture.masks[batch.basis] == 1]
    assert on.mean().item() == pytest.approx(0.6, abs=5 * 0.8 / on.numel() ** 0.5)
    assert on.var().item() == pytest.approx(0.64, rel=5 * (2 / on.numel()) ** 0.5)
    noise = batch.ys - (batch.xs * batch.weights[:, None]).sum(-1)
    assert abs(noise.var() / mixture.noise_variance - 1) < 5 * (2 / noise.numel()) ** 0.5
    fixed = draw_batch(mixture, 10, seed=3, weight_mean=1.0)
    assert torch.equal(fixed.weights, mixture.masks[fixed.basis])
    with pytest.raises(InputError, match="weight_mean is 1.5"):
        draw_batch(mixture, 10, seed=3, weight_mean=1.5)


def test_draws_that_make_no_sense_are_refused() -> None:
    mixture = Mixture(2, ((0,), (1,)))
    with pytest.raises(InputError, match="n is 0; expected at least 1"):
        draw_batch(mixture, 0, 0)
    with pytest.raises(InputError, match="seed is -1; expected at least 0"):
        draw_batch(mixture, 1, -1)
    with pytest.raises(InputError, match="n is 0"):
        draw_balanced(mixture, 0, 0)
    for basis in ([2, 0], [0], [-1, 0]):
        with pytest.raises(InputError, match="expected 2 numbers from 0 to 1"):
            draw_batch(mixture, 2, 0, basis=torch.tensor(basis))
