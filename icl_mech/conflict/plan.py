"""The episodes of every pair, for one tokenizer."""

from collections.abc import Sequence

from icl_mech.conflict.sampling import ConflictUndefined, Differ, Drawn
from icl_mech.conflict.settings import Settings, Undefined, first_reason, pair_name, why
from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.prompts import Encoder
from icl_mech.tasks import Pair, Task


def plan(
    model: HookedModel,
    pairs: Sequence[tuple[Task, Task]],
    undefined: Undefined,
    matrix: bool,
    settings: Settings,
) -> list[tuple[Drawn, Encoder]]:
    """The episodes of every pair whose answers the model's tokenizer tells apart.

    Args:
        model: from `load_model`.
        pairs: from `defined`.
        undefined: further pairs are added to it.
        matrix: whether a pair may turn out to have no conflict.
        settings: all of them.

    Raises:
        InputError: as `defined`.
    """
    plans = []
    for a, b in pairs:
        # One encoder for both tasks: only answers may tell their prompts apart.
        words = [pair.y for task in (a, b) for pair in task.pairs]
        encoder = model.encoder(settings.template, words, settings.leading_space)
        try:
            plans.append((settings.draw(a, b, _begin_differently(encoder)), encoder))
        except ConflictUndefined as error:
            if not matrix:
                raise
            undefined[pair_name(a, b)] = why(a, b, error)
    if not plans:
        raise InputError(f"no pair is left: {first_reason(undefined)}")
    return plans


def _begin_differently(encoder: Encoder) -> Differ:
    """Whether the first tokens of two tasks' answers differ, after the input alone."""

    def differ(first: Pair, second: Pair) -> bool:
        prompt = encoder.encode((), first.x)
        ids = [encoder.first_tokens(prompt, pair.answers) for pair in (first, second)]
        return set(ids[0]).isdisjoint(ids[1])

    return differ
