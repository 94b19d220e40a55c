"""Does an edit reach the output? And does one that changes nothing leave it as it is?"""

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
#: The least change (nats) of the block where it is largest; of number formats in which rounding
#: moves log probabilities too.
LEAST = 0.01
LEAST_HALF = 0.1
#: Where a change is below so much of the tolerance, an edit did nothing.
_NOTHING = 0.1


def acts(model: HookedModel, asked: Asked, trials: Trials, tick: Tick) -> Iterator[Row]:
    """By site, the largest change in log probability that adding to one block makes.

    A site fails where that is small, and where it does nothing in any of its blocks.
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
    """By site, the largest change that writing an activation over itself makes."""
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
    """The largest change in log probability that each edit makes."""
    found = asked.logprob(model, [None, *edits], tick)
    changes: list[float] = (found[:, 1:] - found[:, :1]).abs().amax(dim=(0, 2)).tolist()
    return changes
