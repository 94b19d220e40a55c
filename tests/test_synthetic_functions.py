"""Families of functions: what they are, their best estimators, and what is measured of them."""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.linear_model import Ridge

from icl_mech.errors import InputError
from icl_mech.synthetic import (
    FUNCTIONS,
    Emergence,
    FunctionMixture,
    basis_posterior,
    draw_balanced,
    draw_batch,
    measure_emergence,
    predict,
    preset,
    reference,
    train,
)
from icl_mech.synthetic.leaky_posterior import leaky_predictive
from icl_mech.synthetic.reference import basis_predictions, predict_all, references
from icl_mech.synthetic.settings import from_json, to_json

MIXTURE = FunctionMixture(4, n_examples=8, noise_variance=0.05)
BATCH = draw_balanced(MIXTURE, 6, seed=1)
#: Without noise to speak of.
CLEAN = FunctionMixture(5, n_active=3, slope=0.2, noise_variance=1e-12, n_examples=6)


def of(name: str) -> slice:
    k = FUNCTIONS.index(name)
    return slice(6 * k, 6 * k + 6)


def with_few_particles(patch: pytest.MonkeyPatch) -> None:
    """An eighth of the time, where the posterior of leaky ReLU need not be precise."""
    patch.setattr(reference, "leaky_predictive", partial(leaky_predictive, n_particles=32))


@pytest.fixture
def few_particles(monkeypatch: pytest.MonkeyPatch) -> None:
    with_few_particles(monkeypatch)


def test_every_family_is_what_its_name_says() -> None:
    batch = draw_balanced(CLEAN, 3, seed=0)
    for k, name in enumerate(FUNCTIONS):
        for i in np.flatnonzero(batch.basis == k):
            w, xs = batch.weights[i].numpy(), batch.xs[i].numpy()
            if name == "quadratic":
                y = (xs**2 - 1) @ w / np.sqrt(10)
            elif name == "sparse":
                assert (w != 0).sum() == 3
                y = xs @ w / np.sqrt(3)
            else:
                y = xs @ w / np.sqrt(5)
            if name == "leaky_relu":
                y = np.where(y > 0, y, 0.2 * y)
            np.testing.assert_allclose(batch.ys[i].numpy(), y, atol=1e-5)


def test_sizes_of_y_are_alike_before_the_link() -> None:
    batch = draw_balanced(FunctionMixture(6), 4000, seed=0)
    for name in ("linear", "sparse", "quadratic"):
        ys = batch.ys[batch.basis == FUNCTIONS.index(name)]
        assert float(ys.var()) == pytest.approx(1.01, abs=0.08)
        assert float(ys.mean()) == pytest.approx(0, abs=0.03)


def test_sparse_functions_choose_coordinates_of_their_own() -> None:
    batch = draw_batch(MIXTURE, 600, seed=0)
    active = batch.weights[batch.basis == FUNCTIONS.index("sparse")] != 0
    assert (active.sum(1) == 2).all()
    assert active.float().mean(0).numpy() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"functions": ("linear", "cubic")}, "unknown family of functions 'cubic'"),
        ({"functions": ("linear", "linear")}, "each once"),
        ({"functions": ()}, "expected some"),
        ({"n_active": 5}, "at most dim"),
        ({"slope": 1.0}, "slope is 1.0"),
        ({"noise_variance": 0.0}, "noise_variance is 0.0"),
        ({"n_examples": 0}, "n_examples is 0"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FunctionMixture(4, **options)


@pytest.mark.usefixtures("few_particles")
@pytest.mark.parametrize("name", ["linear", "quadratic"])
def test_a_known_linear_family_is_ridge_regression(name: str) -> None:
    found = predict("known_family", BATCH, MIXTURE)[of(name)].numpy()
    xs = MIXTURE.features(BATCH.xs[of(name)].double(), name).numpy()
    ys = BATCH.ys[of(name)].double().numpy()
    for s, n in itertools.product(range(6), range(1, 9)):
        model = Ridge(alpha=0.05, fit_intercept=False).fit(xs[s, :n], ys[s, :n])
        assert found[s, n] == pytest.approx(model.predict(xs[s, n : n + 1])[0], abs=1e-8)


def by_sampling(name: str, s: int, n: int) -> tuple[float, float]:
    """Prediction and evidence from weights drawn from the prior, each with its likelihood."""
    generator = torch.Generator().manual_seed(0)
    task = torch.full((400_000,), FUNCTIONS.index(name))
    w = MIXTURE.weights(torch.randn(400_000, 4, generator=generator), task, generator).double()
    u = MIXTURE.features(BATCH.xs[s : s + 1].double(), name)[0] @ w.T
    ys = (MIXTURE.link(u) if name == "leaky_relu" else u).T
    log = -0.5 * ((BATCH.ys[s, :n].double() - ys[:, :n]) ** 2).sum(1) / 0.05
    weight = log.exp() / (2 * np.pi * 0.05) ** (n / 2)
    return float((weight * ys[:, n]).sum() / weight.sum()), float(weight.mean())


@pytest.mark.parametrize("name", ["sparse", "leaky_relu"])
def test_the_other_families_are_the_mean_over_the_prior(name: str) -> None:
    found = predict("known_family", BATCH, MIXTURE)
    errors = []
    for s, n in itertools.product(range(of(name).start, of(name).stop), (2, 4)):
        errors.append(abs(by_sampling(name, s, n)[0] - float(found[s, n])))
    assert np.median(errors) < 0.03


def test_the_posterior_is_that_of_evidence_over_the_prior() -> None:
    found = basis_posterior(BATCH, MIXTURE)
    gaps = []
    for s in range(0, 24, 3):
        evidence = np.array([by_sampling(name, s, 3)[1] for name in FUNCTIONS])
        gaps.append(np.abs(evidence / evidence.sum() - found[s, 3].numpy()).max())
    assert np.median(gaps) < 0.05


@pytest.mark.usefixtures("few_particles")
def test_the_mixture_is_the_best_of_its_references() -> None:
    batch = draw_balanced(MIXTURE, 40, seed=2)
    found, as_if = predict_all(batch, MIXTURE)
    assert list(found) == references(MIXTURE)
    errors = {n: float((p - batch.ys)[:, -1].square().mean()) for n, p in found.items()}
    assert errors["known_family"] < errors["bayes_mixture"] < errors["ridge"]
    own = as_if[torch.arange(len(batch)), :, batch.basis]
    assert torch.equal(own, found["known_family"])
    with pytest.raises(InputError, match="unknown reference 'lasso'"):
        predict("lasso", batch, MIXTURE)


@pytest.mark.usefixtures("few_particles")
def test_one_reference_is_what_all_together_say() -> None:
    batch = draw_balanced(MIXTURE, 1, seed=1)
    found, as_if = predict_all(batch, MIXTURE)
    for name, together in found.items():
        assert torch.equal(predict(name, batch, MIXTURE), together), name
    assert torch.equal(basis_predictions(batch, MIXTURE), as_if)


def test_settings_are_kept_as_text() -> None:
    settings = preset("families", mixture=MIXTURE)
    assert from_json(to_json(settings)) == settings
    assert from_json(to_json(preset("small"))) == preset("small")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Emergence:
    folder = tmp_path_factory.mktemp("families")
    small = FunctionMixture(3, n_examples=4, noise_variance=0.05)
    train(preset("tiny", mixture=small), folder, n_log=0, n_regular=2, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        with_few_particles(patch)
        return measure_emergence(folder, n_per_basis=60, n_probe=40, k=3, progress=False)


def test_every_number_has_its_family(measured: Emergence) -> None:
    assert measured.names == list(FUNCTIONS)
    assert measured.kind == "family"
    rows = measured.by_task()
    assert rows.index.tolist() == list(FUNCTIONS)
    for k, name in enumerate(FUNCTIONS):
        errors = measured.data["squared_error"].isel(step=-1, basis=k, n_seen=-1)
        assert rows.loc[name, "mse"] == pytest.approx(float(errors.mean()), rel=1e-5)
        known = measured.data["reference_squared_error"].sel(reference="known_family")
        ratio = float(errors.mean() / known.isel(basis=k, n_seen=-1).mean())
        assert rows.loc[name, "over_known_family"] == pytest.approx(ratio, rel=1e-5)
    assert rows["td"].mean() == pytest.approx(measured.td().value)


def test_figures_and_page_name_the_families(measured: Emergence, tmp_path: Path) -> None:
    from icl_mech.synthetic.page import emergence_report

    assert {t.name for t in measured.plot().data} >= set(FUNCTIONS)
    assert [a.text for a in measured.plot_heads().layout.annotations][:4] == list(FUNCTIONS)
    text = emergence_report(measured, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "families</b> of functions (linear, sparse, leaky_relu, quadratic)" in text
    assert "one run: seeds differ in which family" in " ".join(measured.caveats())


def test_shared_heads_are_those_that_both_need(measured: Emergence) -> None:
    """Planted: head 0.0 is needed by all but the last family, head 1.1 by the last alone."""
    data = measured.data.copy(deep=True)
    clean = data["squared_error"].isel(n_seen=-1)
    off = clean.broadcast_like(data["head_off"].isel(layer=0, head=0)).copy()
    planted = xr.zeros_like(data["head_off"]) + off
    for k in range(4):
        layer, head = (0, 0) if k < 3 else (1, 1)
        planted[{"basis": k, "layer": layer, "head": head}] *= 3
    data["head_off"] = planted
    found = Emergence(data, measured.provenance)
    heads = found.needed_heads()
    assert heads.loc["0.0", "needed_by"] == "linear, sparse, leaky_relu"
    assert heads.loc["1.1", "needed_by"] == "quadratic"
    assert heads.loc["0.1", "needed_by"] == ""
    assert heads.loc["0.0", "linear"] == pytest.approx(3)
    shared = found.shared_heads()
    assert shared.loc[("linear", "sparse"), ["both", "either"]].tolist() == [1, 1]
    assert shared.loc[("linear", "quadratic"), ["both", "either"]].tolist() == [0, 2]
    assert shared.loc[("linear", "sparse"), "correlation"] == pytest.approx(1)
