"""When curves over checkpoints rise, with bootstrap intervals over queries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from icl_mech.stats import (
    CONFIDENCE,
    ENDS,
    MUTUAL,
    N_RESAMPLES,
    Estimate,
    paired_difference,
    widened,
)
from icl_mech.stats.onset import crossings, share_of_change
from icl_mech.stats.resampling import draw_counts

#: The name of the mean over tasks, in places where tasks are named.
MEAN = "mean"


@dataclass(frozen=True)
class Rise:
    """A curve over checkpoints, and its bootstrap draws over queries.

    Attributes:
        curve: the mean at every checkpoint.
        draws: the curve in every bootstrap draw; NaN if a draw has no query of some task.
        whole: the last checkpoint minus the first, with its interval.
        latest: the last checkpoint minus the one before it, with its interval.
        n, n_queries: the number of prompts, and of different queries among them.
    """

    curve: Float[np.ndarray, "step"]
    draws: Float[np.ndarray, "draw step"]
    whole: Estimate
    latest: Estimate
    n: int
    n_queries: int

    @property
    def rose(self) -> bool:
        """Whether the last checkpoint is better than the first beyond the interval."""
        return bool(self.whole.low > 0)

    @property
    def still_rising(self) -> bool:
        """Whether the last checkpoint is better than the one before it beyond the interval."""
        return bool(self.latest.low > 0)


@dataclass(frozen=True)
class Onset:
    """An onset (a step), or the distance of two onsets, with its interval.

    Attributes:
        estimate: the value for the curves over all prompts, with the 2.5 and 97.5 % quantiles over
            the draws that have an onset. NaN if there is no onset; no interval if fewer than 95 %
            of the draws have one.
        draws: the value in every bootstrap draw, NaN if it has no onset.
    """

    estimate: Estimate
    draws: Float[np.ndarray, "draw"]

    @property
    def found(self) -> float:
        """Share of the draws in which there is one."""
        return float(np.isfinite(self.draws).mean())


def rise_of(
    values: Float[np.ndarray, "task step prompt"],
    queries: Int[np.ndarray, "task prompt"],
    n_clusters: int,
    votes: bool = False,
) -> Rise:
    """The mean over tasks of a curve over checkpoints, resampled by query.

    A query that is drawn counts in all tasks that ask it. Curves whose queries have the same
    numbers are resampled together.

    Args:
        values: per prompt, 0 to 1.
        queries: what every prompt asks, as a number from 0 to `n_clusters` - 1.
        n_clusters: how many queries are drawn from.
        votes: whether values are votes of neighbours, which are correlated. The draws are then
            widened by the same factor as intervals of TD (`icl_mech.decodability.intervals`).
    """
    n_queries = len(np.unique(queries))
    curve = values.mean(axis=(0, 2))
    drawn = np.zeros((N_RESAMPLES, values.shape[1]))
    counts = draw_counts(n_clusters)
    for own, of_task in zip(queries, values, strict=True):
        weights = counts[:, own]
        with np.errstate(invalid="ignore"):
            drawn += weights @ of_task.T / weights.sum(axis=1, keepdims=True)
    drawn /= len(values)
    if votes:
        drawn = curve + MUTUAL * (drawn - curve)
    steps = values.transpose(1, 0, 2).reshape(values.shape[1], -1)

    def since(step: int) -> Estimate:
        found = paired_difference(steps[-1], steps[step], clusters=queries.ravel())
        return widened([found], n_queries)[0] if votes else found

    return Rise(curve, drawn, since(0), since(-2), steps.shape[1], n_queries)


def together(
    steps: Sequence[int], encoding: Rise, accuracy: Rise, fraction: float
) -> dict[str, Onset]:
    """The onsets of both curves, and how much later that of accuracy is (`"lead"`).

    Raises:
        InputError: where the fraction is not between 0 and 1, or there are not two checkpoints.
    """
    first, second = (_onset(steps, rise, fraction) for rise in (encoding, accuracy))
    lead = _with_interval(
        second.estimate.value - first.estimate.value,
        second.draws - first.draws,
        min(encoding.n, accuracy.n),
        min(encoding.n_queries, accuracy.n_queries),
    )
    return {"encoding": first, "accuracy": second, "lead": lead}


def _onset(steps: Sequence[int], rise: Rise, fraction: float) -> Onset:
    value = float(_crossed(steps, rise.curve[None], fraction)[0])
    draws = _crossed(steps, rise.draws, fraction)
    if not rise.rose:
        value, draws = np.nan, np.full(len(draws), np.nan)
    return _with_interval(value, draws, rise.n, rise.n_queries)


def _crossed(
    steps: Sequence[int], curves: Float[np.ndarray, "curve step"], fraction: float
) -> Float[np.ndarray, "curve"]:
    """The onset of every curve; NaN if it does not end higher than it began."""
    gone = share_of_change(curves, fraction)
    found = crossings(steps, gone, fraction, log=True)
    return np.where(curves[:, -1] > curves[:, 0], found, np.nan)


def _with_interval(value: float, draws: Float[np.ndarray, "draw"], n: int, n_queries: int) -> Onset:
    there = np.isfinite(draws)
    low = high = np.nan
    if np.isfinite(value) and there.mean() >= CONFIDENCE:
        low, high = np.quantile(draws[there], ENDS)
    return Onset(Estimate(value, float(low), float(high), n, n_queries), draws)
