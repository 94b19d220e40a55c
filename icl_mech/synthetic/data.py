"""Mixtures of sparse linear regressions: the task is which coordinates matter.

Han, Song, Gore and Agrawal (2024), arXiv 2412.12276, section 3: every sequence draws one of K bases
(sets of coordinates) and a weight vector that is 0 outside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import InputError, choose

#: The largest seed that every random generator used here takes (scikit-learn's: 32 bits).
MOST_SEED = 2**32 - 1
Layout = Literal["disjoint", "overlapping"]


def at_least(least: int, **values: int) -> None:
    """Refuse values below `least`, by name.

    Raises:
        InputError: naming the first of them.
    """
    for name, value in values.items():
        if value < least:
            raise InputError(f"{name} is {value}; expected at least {least}")


def check_seed(seed: int) -> None:
    """Refuse a seed that a random generator does not take.

    Raises:
        InputError: where it is negative or has more than 32 bits.
    """
    at_least(0, seed=seed)
    if seed > MOST_SEED:
        raise InputError(
            f"seed is {seed}; expected at most {MOST_SEED} (32 bits, which every random generator "
            "takes)"
        )


def check_noise(noise_variance: float) -> None:
    """Refuse a noise variance that is not above 0: without noise, posteriors have no density.

    Raises:
        InputError: where it is not above 0.
    """
    if not 0 < noise_variance < float("inf"):
        raise InputError(f"noise_variance is {noise_variance}; expected above 0")


@runtime_checkable
class TaskMixture(Protocol):
    """What training and measuring need to know about a distribution of sequences."""

    @property
    def dim(self) -> int:
        """D, the number of coordinates of x."""

    @property
    def noise_variance(self) -> float:
        """Of the noise on every y."""

    @property
    def n_examples(self) -> int:
        """Demonstrations in a sequence."""

    @property
    def n_bases(self) -> int:
        """The number of tasks."""

    @property
    def names(self) -> list[str]:
        """Of the tasks."""

    def weights(
        self, free: Float[Tensor, "seq dim"], task: Int[Tensor, "seq"], generator: torch.Generator
    ) -> Float[Tensor, "seq dim"]:
        """W of every sequence, from the normal numbers `free`."""

    def respond(
        self,
        xs: Float[Tensor, "seq pair dim"],
        weights: Float[Tensor, "seq dim"],
        task: Int[Tensor, "seq"],
    ) -> Float[Tensor, "seq pair"]:
        """y without noise."""


@dataclass(frozen=True)
class Mixture:
    """The distribution that sequences are drawn from; checked when it is made.

    y = W.x + noise, with x ~ N(0, I) in `dim` dimensions and W ~ N(0, I) on the coordinates of one
    basis, 0 elsewhere; each sequence has a basis, a W and xs of its own.

    Attributes:
        dim: D, the number of coordinates of x.
        bases: the coordinates of each basis, 0-based.
        noise_variance: of the noise on every y.
        n_examples: demonstrations (x, y) in a sequence. One more x follows as the query.

    Raises:
        InputError: where a basis does not fit `dim`, or a number is out of range.
    """

    dim: int
    bases: tuple[tuple[int, ...], ...]
    noise_variance: float = 0.01
    n_examples: int = 20

    def __post_init__(self) -> None:
        at_least(1, dim=self.dim, n_examples=self.n_examples)
        check_noise(self.noise_variance)
        if not self.bases:
            raise InputError("no bases; expected at least one")
        for basis in self.bases:
            if not basis or len(set(basis)) < len(basis):
                raise InputError(f"basis {list(basis)}; expected coordinates, each once")
            outside = [c for c in basis if not 0 <= c < self.dim]
            if outside:
                raise InputError(
                    f"basis {list(basis)} has coordinate {outside[0]}; expected 0 to "
                    f"{self.dim - 1} (dim is {self.dim})"
                )
        sets = [frozenset(basis) for basis in self.bases]
        if len(set(sets)) < len(sets):
            raise InputError("two bases have the same coordinates; expected each basis once")

    @property
    def n_bases(self) -> int:
        """K."""
        return len(self.bases)

    @property
    def names(self) -> list[str]:
        """Of the bases."""
        return [f"basis {k}" for k in range(self.n_bases)]

    def weights(
        self, free: Float[Tensor, "seq dim"], task: Int[Tensor, "seq"], generator: torch.Generator
    ) -> Float[Tensor, "seq dim"]:
        """W of every sequence: `free` on the coordinates of its basis."""
        return free * self.masks[task]

    def respond(
        self,
        xs: Float[Tensor, "seq pair dim"],
        weights: Float[Tensor, "seq dim"],
        task: Int[Tensor, "seq"],
    ) -> Float[Tensor, "seq pair"]:
        """y without noise: x.W."""
        return torch.einsum("sed,sd->se", xs, weights)

    @property
    def masks(self) -> Float[Tensor, "basis dim"]:
        """1 on the coordinates of each basis, 0 elsewhere."""
        masks = torch.zeros(self.n_bases, self.dim)
        for mask, basis in zip(masks, self.bases, strict=True):
            mask[list(basis)] = 1
        return masks


def make_mixture(
    dim: int = 16,
    rank: int = 4,
    n_bases: int = 4,
    *,
    layout: Layout = "disjoint",
    n_groups: int = 2,
    bases: Sequence[Sequence[int]] | None = None,
    noise_variance: float = 0.01,
    n_examples: int = 20,
) -> Mixture:
    """A mixture from its sizes; the defaults are the paper's.

    Args:
        dim: D.
        rank: r, coordinates per basis.
        n_bases: K.
        layout: `"disjoint"` bases share no coordinate (0 to r-1, r to 2r-1, ...). `"overlapping"`
            bases come in `n_groups` groups of D / n_groups coordinates. Within a group each basis
            has r coordinates in a row, starts one coordinate after the basis before it, and wraps
            round at the end, so that two neighbours share r-1 coordinates. The paper does not say
            how its bases overlap.
        n_groups: of overlapping bases.
        bases: their coordinates, instead of `rank`, `n_bases` and `layout`.
        noise_variance, n_examples: as in `Mixture`.

    Raises:
        InputError: where the bases do not fit into `dim` coordinates.

    Example:
        >>> make_mixture(dim=8, n_bases=2).bases
        ((0, 1, 2, 3), (4, 5, 6, 7))
    """
    if bases is not None:
        chosen = tuple(tuple(int(c) for c in basis) for basis in bases)
        return Mixture(dim, chosen, noise_variance, n_examples)
    choose(layout, get_args(Layout), "layout")
    at_least(1, dim=dim, rank=rank, n_bases=n_bases, n_groups=n_groups)
    make = _disjoint if layout == "disjoint" else _overlapping
    return Mixture(dim, make(dim, rank, n_bases, n_groups), noise_variance, n_examples)


def _disjoint(dim: int, rank: int, n_bases: int, _: int) -> tuple[tuple[int, ...], ...]:
    if rank * n_bases > dim:
        raise InputError(
            f"{n_bases} disjoint bases of rank {rank} need {rank * n_bases} coordinates; expected "
            f"at most dim ({dim})"
        )
    return tuple(tuple(range(k * rank, (k + 1) * rank)) for k in range(n_bases))


def _overlapping(dim: int, rank: int, n_bases: int, n_groups: int) -> tuple[tuple[int, ...], ...]:
    if n_bases % n_groups:
        raise InputError(
            f"{n_bases} bases in {n_groups} groups; expected a multiple of {n_groups} bases"
        )
    width, members = dim // n_groups, n_bases // n_groups
    if rank > width or members > (1 if rank == width else width):
        raise InputError(
            f"{members} bases of rank {rank} in a group of {width} coordinates (dim {dim} over "
            f"{n_groups} groups); expected at most {width} different windows, and a rank below "
            f"{width}"
        )
    return tuple(
        tuple(sorted(g * width + (m + c) % width for c in range(rank)))
        for g in range(n_groups)
        for m in range(members)
    )


#: The mixtures of the paper, by name.
VARIANTS = {
    "orthogonal4": make_mixture(16, 4, 4),
    "orthogonal6": make_mixture(24, 4, 6),
    "overlapping8": make_mixture(16, 4, 8, layout="overlapping"),
}


def variant(name: str) -> Mixture:
    """One of the paper's mixtures: orthogonal4, orthogonal6 or overlapping8.

    Raises:
        InputError: naming the nearest.

    Example:
        >>> variant("orthogonal4").n_bases
        4
    """
    return VARIANTS[choose(name, VARIANTS, "variant")]


@dataclass(frozen=True)
class Batch:
    """Sequences. The last of the n_examples + 1 pairs is the query and its answer.

    Attributes:
        xs: inputs.
        ys: noisy outputs.
        weights: W of every sequence.
        basis: the number of its task, from 0: of the basis that W lies on, or of its family.
    """

    xs: Float[Tensor, "seq pair dim"]
    ys: Float[Tensor, "seq pair"]
    weights: Float[Tensor, "seq dim"]
    basis: Int[Tensor, "seq"]

    def __len__(self) -> int:
        return len(self.ys)


def draw_batch(
    mixture: TaskMixture,
    n: int,
    seed: int,
    step: int = 0,
    basis: Int[Tensor, "seq"] | None = None,
    weight_mean: float = 0.0,
    held_out: bool = False,
) -> Batch:
    """Fresh sequences. The same (seed, step) gives the same ones, whatever was drawn before.

    Args:
        mixture: to draw from, a `Mixture` or a `FunctionMixture`.
        n: number of sequences.
        seed, step: of the draw, which is made on the CPU, so that all devices train on the same.
        basis: of every sequence, `[n]` (of a `FunctionMixture`, its family); by default drawn with
            equal probabilities.
        weight_mean: m, from 0 (the paper) to 1: weights are N(m, 1 - m^2) on the basis. With m = 1
            all sequences of a basis share one W, and only the basis is left to infer.
        held_out: draw from another stream, which training with this seed never draws from.

    Raises:
        InputError: where `n`, `seed`, `step`, a basis or `weight_mean` is out of range.

    Example:
        >>> batch = draw_batch(variant("orthogonal4"), 3, seed=0)
        >>> tuple(batch.xs.shape)
        (3, 21, 16)
    """
    at_least(1, n=n)
    at_least(0, step=step)
    check_seed(seed)
    if not 0 <= weight_mean <= 1:
        raise InputError(f"weight_mean is {weight_mean}; expected 0 to 1")
    (state,) = np.random.SeedSequence((seed, step, int(held_out))).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state))
    drawn = torch.randint(mixture.n_bases, (n,), generator=generator)
    if basis is not None:
        if basis.shape != (n,) or not 0 <= int(basis.min()) <= int(basis.max()) < mixture.n_bases:
            raise InputError(f"basis: expected {n} numbers from 0 to {mixture.n_bases - 1}")
        drawn = basis.long()
    free = torch.randn(n, mixture.dim, generator=generator)
    xs = torch.randn(n, mixture.n_examples + 1, mixture.dim, generator=generator)
    noise = torch.randn(n, mixture.n_examples + 1, generator=generator)
    moved = weight_mean + (1 - weight_mean**2) ** 0.5 * free
    weights = mixture.weights(moved, drawn, generator)
    ys = mixture.respond(xs, weights, drawn) + mixture.noise_variance**0.5 * noise
    return Batch(xs, ys, weights, drawn)


def draw_balanced(mixture: TaskMixture, n_per_basis: int, seed: int, step: int = 0) -> Batch:
    """`n_per_basis` held-out sequences of every basis, basis by basis.

    Example:
        >>> batch = draw_balanced(variant("orthogonal4"), 2, seed=0)
        >>> batch.basis.tolist()
        [0, 0, 1, 1, 2, 2, 3, 3]
    """
    basis = torch.arange(mixture.n_bases).repeat_interleave(max(n_per_basis, 0))
    chosen = basis if len(basis) else None
    return draw_batch(mixture, len(basis), seed, step, chosen, held_out=True)
