"""Engine calls of the questions that hide demonstrations.

A branch runs a prompt's tokens from the first one that no longer sees the demonstrations.
"""

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine, Edited
from icl_mech.cost.patching import after_each

#: The number of masks whose first blinded token is the query's first. One more mask blinds only the
#: last token.
_FROM_QUERY = 4


def masking(engine: CountedEngine, a: Asked) -> None:
    """Count `context_masking` for one task, with all masks."""
    n, blinded = a.n_prompts, [a.per_query] * _FROM_QUERY + [1]
    branches = [branch for n_tokens in blinded for branch in _everywhere(engine, n_tokens)]
    none = after_each(engine)[-1:]
    engine.last_streams(n, a.few_shot, none + branches)
    engine.read(n * (1 + len(branches)))
    engine.distances(n, 1 + len(branches))
    engine.predict(n, a.zero_shot)


def read_until(engine: CountedEngine, n: int, a: Asked) -> None:
    """Count `read_until`: demonstrations are visible only up to each block."""
    none = after_each(engine)[-1:]
    engine.evaluate(n, a.few_shot, _until(engine, a.per_query) + none)


def _until(engine: CountedEngine, n_tokens: int) -> list[Edited]:
    """Branches in which keys are hidden after each block."""
    return [Edited(n_tokens, layer) for layer in range(1, engine.sizes.n_layers)]


def _everywhere(engine: CountedEngine, n_tokens: int) -> list[Edited]:
    """As `_until`, and branches that hide keys from block 0 on, up to each block or in all."""
    return [Edited(n_tokens, 0)] * engine.sizes.n_layers + _until(engine, n_tokens)
