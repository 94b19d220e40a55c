"""How often do 95 % intervals hold the truth? `python tests/slow/coverage_study.py` prints it.

Every row is a kind of interval on one kind of data; every cell the worst of several settings.
"""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from scipy.stats import norm

from icl_mech.stats import (
    Estimate,
    Estimates,
    crossed,
    means,
    paired_difference,
    ratio_of_means,
    shares,
)

#: Simulations per setting: two standard errors of a coverage of .95 are .02.
N_SIMULATIONS = 500
#: How many prompts each query has, by the name of the column.
SIZES = {
    "10": (1,) * 10,
    "20": (1,) * 20,
    "25": (1,) * 25,
    "50": (1,) * 50,
    "5 x 5": (5,) * 5,
    "10 x 5": (5,) * 10,
    "20 x 2": (2,) * 20,
    "unequal": (15, 10, 5, 3, 2, 1, 1, 1, 1, 1),
}
Sizes = tuple[int, ...]

SKEWED = {
    "normal": (lambda rng, shape: rng.standard_normal(shape), 0.0),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "log-normal": (lambda rng, shape: np.exp(rng.standard_normal(shape)), np.exp(0.5)),
}


def held(found: Estimate | Estimates, truth: float) -> np.ndarray:
    """Whether intervals hold the truth."""
    return (np.asarray(found.low) <= truth + 1e-12) & (truth - 1e-12 <= np.asarray(found.high))


def clusters_of(sizes: Sizes) -> np.ndarray:
    """The query of every prompt."""
    return np.repeat(np.arange(len(sizes)), sizes)


def clustered(
    rng: np.random.Generator, index: np.ndarray, n: int, correlation: float
) -> np.ndarray:
    """Standard normal values, a row per simulation, correlated within clusters."""
    own = rng.standard_normal((n, len(index)))
    common = rng.standard_normal((n, int(index.max()) + 1))[:, index]
    return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own


def mean_coverage(name: str, sizes: Sizes, rng: np.random.Generator) -> float:
    """Of a mean of skewed values, half of them shared by the prompts of a query."""
    draw, truth = SKEWED[name]
    index = clusters_of(sizes)
    values = draw(rng, (N_SIMULATIONS, len(index)))
    if max(sizes) > 1:
        common = draw(rng, (N_SIMULATIONS, len(sizes)))[:, index]
        values = np.where(rng.random(values.shape) < 0.5, common, values)
    clusters = index if max(sizes) > 1 else None
    return float(held(means(values.T, clusters=clusters), truth).mean())


def share_coverage(sizes: Sizes, rng: np.random.Generator) -> float:
    """Of a share, for rates and correlations within a query of all sizes: the worst."""
    index = clusters_of(sizes)
    found = []
    for p, correlation in product(
        (0.1, 0.3, 0.8, 0.95), (0.0, 0.3, 0.9) if max(sizes) > 1 else (0,)
    ):
        right = clustered(rng, index, N_SIMULATIONS, correlation) < norm.ppf(p)
        found.append(np.mean([held(e, p) for e in shares(right, index)]))
    return float(min(found))


def pairs(
    sizes: Sizes, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float, float]]:
    """Two arms of the same prompts, right or wrong, their rates, and which share a query."""
    index = clusters_of(sizes)
    rates = ((1, 0.98), (1, 0.9), (0.9, 0.9), (0.8, 0.6), (0.5, 0.1))
    within = (0.0, 0.8) if max(sizes) > 1 else (0.0,)
    for (p, q), between, correlation in product(rates, (0.0, 0.8), within):
        common, first, second = (
            clustered(rng, index, N_SIMULATIONS, correlation) for _ in range(3)
        )
        one, two = (
            (np.sqrt(between) * common + np.sqrt(1 - between) * own) < norm.ppf(rate)
            for own, rate in ((first, p), (second, q))
        )
        yield one, two, index, p, q


def difference_coverage(sizes: Sizes, rng: np.random.Generator) -> float:
    """Of a paired difference of shares: the worst."""
    return float(
        min(
            np.mean(
                [
                    held(paired_difference(a, b, clusters=index), p - q)
                    for a, b in zip(one, two, strict=True)
                ]
            )
            for one, two, index, p, q in pairs(sizes, rng)
        )
    )


def ratio_coverage(sizes: Sizes, rng: np.random.Generator) -> float:
    """Of a ratio of two shares of the same prompts, where there is an interval: the worst."""
    found = []
    for one, two, index, p, q in pairs(sizes, rng):
        if q < 0.5:
            continue
        kept = one.mean(axis=1) > 0
        rows = zip(two[kept].astype(float), one[kept].astype(float), strict=True)
        ratios = [ratio_of_means(b, a, clusters=index).at() for b, a in rows]
        found.append(np.mean([held(e, q / p) for e in ratios if not np.isnan(e.low)]))
    return float(min(found))


def number_ratio_coverage(sizes: Sizes, rng: np.random.Generator) -> float:
    """Of a ratio of two means of numbers that hang together."""
    index = clusters_of(sizes)
    below = 2 + clustered(rng, index, N_SIMULATIONS, 0.5)
    above = 0.5 * below + clustered(rng, index, N_SIMULATIONS, 0.5)
    found = [ratio_of_means(a, b, clusters=index).at() for a, b in zip(above, below, strict=True)]
    return float(np.mean([held(e, 0.5) for e in found if not np.isnan(e.low)]))


def crossed_coverage(sizes: Sizes, rng: np.random.Generator) -> float:
    """Of a share over prompts and ten draws, both of which differ: the worst."""
    found = []
    for p in (0.1, 0.5, 0.9):
        prompts = rng.standard_normal((N_SIMULATIONS, len(sizes), 1))
        draws = rng.standard_normal((N_SIMULATIONS, 1, 10))
        own = rng.standard_normal((N_SIMULATIONS, len(sizes), 10))
        right = (prompts + draws + own) / 3**0.5 < norm.ppf(p)
        found.append(np.mean([held(crossed(values), p) for values in right]))
    return float(min(found))


ROWS: dict[str, Callable[[Sizes, np.random.Generator], float]] = {
    **{
        f"mean, {name}": (lambda sizes, rng, name=name: mean_coverage(name, sizes, rng))
        for name in SKEWED
    },
    "share": share_coverage,
    "paired difference of shares": difference_coverage,
    "ratio of shares": ratio_coverage,
    "ratio of numbers": number_ratio_coverage,
    "share over prompts and draws": crossed_coverage,
}


def study(name: str, seed: int = 0) -> dict[str, float]:
    """Coverage of one kind of interval, by column."""
    measure, rng = ROWS[name], np.random.default_rng(seed)
    return {
        column: measure(sizes, rng)
        for column, sizes in SIZES.items()
        if max(sizes) == 1 or measure is not crossed_coverage
    }


def main() -> None:
    """Print the table as Markdown."""
    print(f"| interval | {' | '.join(SIZES)} |\n|{'---|' * (len(SIZES) + 1)}")
    for name in ROWS:
        row = study(name)
        cells = (f"{row[c]:.3f}".removeprefix("0") if c in row else "" for c in SIZES)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
