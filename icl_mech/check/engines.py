"""Runs the same edits in two ways, which must give the same numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.check.ask import Asked
from icl_mech.check.result import Row
from icl_mech.check.trials import Trials, described
from icl_mech.errors import ModelError
from icl_mech.model import Edit, HookedModel
from icl_mech.model.verification import tolerance_of
from icl_mech.progress import Tick

#: Two ways to compute a log probability may differ by this many units of its last bit.
_BITS = 4


@dataclass(frozen=True)
class Twins:
    """A model, run in two ways.

    Attributes:
        check: what is compared, in words.
        one, other: the model, set up for either way.
        engines: the model on every engine that runs it.
    """

    check: str
    one: HookedModel
    other: HookedModel
    engines: Sequence[HookedModel]


def twins(model: HookedModel) -> Twins:
    """The model on both engines, or, if the shared engine cannot run it, with and without batches.

    Raises:
        ModelError: where the plain engine cannot run it either.
    """
    plain = model if model.engine == "plain" else model.with_engine("plain")
    try:
        shared = model if model.engine == "shared" else model.with_engine("shared")
    except ModelError:
        alone = plain.with_engine("plain", batch_tokens=1)
        return Twins("plain engine: in batches = one by one", plain, alone, [plain])
    return Twins("shared engine = plain engine", shared, plain, [shared, plain])


def compare(pair: Twins, asked: Asked, trials: Trials, tick: Tick) -> Iterator[Row]:
    """The largest difference in log probability, without edits and with those at each site."""
    whole: list[tuple[str, Sequence[Any]]] = [("", [None]), *trials.items()]
    most = tolerance_of(pair.one.dtype)
    for site, edits in whole:
        try:
            ours, theirs = (asked.logprob(m, edits, tick) for m in (pair.one, pair.other))
        except ModelError as error:
            yield broken(pair.check, site, error)
            continue
        differences = counted(ours, theirs, pair.one.dtype).amax(dim=(0, 2))
        at = int(differences.argmax())
        value = float(differences[at])
        note = described(edits[at]) if site else "without edits"
        yield Row(pair.check, site, value, most=most, passed=value <= most, note=note)


def counted(
    ours: Float[Tensor, "*shape"], theirs: Float[Tensor, "*shape"], dtype: torch.dtype
) -> Float[Tensor, "*shape"]:
    """Differences of log probabilities, scaled down because rounding grows with their size.

    An edit may make a token so improbable that the last bit of its log probability is more than the
    tolerance: in bfloat16, at -150 nats, it is a whole nat.

    >>> found = [torch.tensor([-1.0, -150.0]), torch.tensor([-1.2, -151.0])]
    >>> counted(*found, torch.float32), counted(*found, torch.bfloat16)
    (tensor([0.1999, 0.9332]), tensor([0.1882, 0.0964]))
    """
    tolerance = tolerance_of(dtype)
    size = torch.minimum(ours.abs(), theirs.abs())
    return (ours - theirs).abs() * tolerance / (tolerance + _BITS * torch.finfo(dtype).eps * size)


def speeds(pair: Twins, asked: Asked, edits: Sequence[list[Edit]], tick: Tick) -> Iterator[Row]:
    """The number of edits per second of each engine, without an expected value."""
    for model in pair.engines:
        check = f"{model.engine} engine: edits a second"
        start = perf_counter()
        try:
            float(asked.logprob(model, edits, tick).sum())  # waits for the device
        except ModelError as error:
            yield broken(check, "resid_post", error)
            continue
        n, seconds = len(edits) * len(asked.prompts), perf_counter() - start
        note = f"{n} edits in {seconds:.2g} s"
        yield Row(check, "resid_post", n / seconds, unit="a second", note=note)


def broken(check: str, site: str, error: ModelError) -> Row:
    """The row of a check in which the model or an engine failed."""
    return Row(check, site, float("nan"), passed=False, note=str(error))
