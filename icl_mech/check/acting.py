"""Checks that edits change the output, and that writing an activation over itself does not."""

from collections.abc import Iterator, Sequence

import torch

from icl_mech.check.ask import Asked
from icl_mech.check.engines import broken
from icl_mech.check.facts import spans
from icl_mech.check.result import Row
from icl_mech.check.trials import Trials, described
from icl_mech.errors import ModelError
from icl_mech.model import Edit, HookedModel
from icl_mech.model.verification import tolerance_of
from icl_mech.progress import Tick

ACTS = "adding a vector changes the output"
RESTORES = "an activation over itself changes nothing"
#: The least change (nats) that is expected in the block with the largest one; `LEAST_HALF` is for
#: half precision, in which rounding changes log probabilities, too.
LEAST = 0.01
LEAST_HALF = 0.1
#: An edit did nothing if its change is below this share of the tolerance.
_NOTHING = 0.1


def acts(model: HookedModel, asked: Asked, trials: Trials, tick: Tick) -> Iterator[Row]:
    """For each site: the largest change in log probability when a vector is added to one block.

    A site fails if this change is small, or if adding a vector has no effect in one of its blocks.
    """
    exact = model.dtype in (torch.float32, torch.float64)
    least = LEAST if exact else LEAST_HALF
    for site, edits in trials.items():
        try:
            changes = _changes(model, asked, edits, tick)
        except ModelError as error:
            yield broken(ACTS, site, error)
            continue
        floor = _NOTHING * tolerance_of(model.dtype) if exact else -1.0
        by_block = dict(zip(asked.sites[site], changes, strict=True))
        dead = [block for block, change in by_block.items() if change <= floor]
        weakest = min(by_block, key=by_block.__getitem__)
        note = f"least in block {weakest}: {by_block[weakest]:.2g}"
        if dead:
            note = f"does nothing in block{'s' * (len(dead) > 1)} {spans(dead)}"
        largest = max(changes)
        passed = largest >= least and not dead
        yield Row(ACTS, site, largest, least=least, passed=passed, note=note)


def restores(model: HookedModel, asked: Asked, trials: Trials, tick: Tick) -> Iterator[Row]:
    """For each site: the largest change when an activation is written over itself."""
    most = tolerance_of(model.dtype)
    for site, edits in trials.items():
        try:
            changes = _changes(model, asked, edits, tick)
        except ModelError as error:
            yield broken(RESTORES, site, error)
            continue
        value = max(changes)
        note = described(edits[changes.index(value)])
        yield Row(RESTORES, site, value, most=most, passed=value <= most, note=note)


def _changes(
    model: HookedModel, asked: Asked, edits: Sequence[list[Edit]], tick: Tick
) -> list[float]:
    """For each edit: the largest change in log probability, over prompts and targets."""
    found = asked.logprob(model, [None, *edits], tick)
    changes: list[float] = (found[:, 1:] - found[:, :1]).abs().amax(dim=(0, 2)).tolist()
    return changes
