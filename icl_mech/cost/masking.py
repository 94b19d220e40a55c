"""What hiding demonstrations asks of an engine.

A branch runs the prompt's tokens from the first one on that no longer sees them.
"""

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine, Edited
from icl_mech.cost.patching import after_each

#: Masks whose first blinded token is the query's first; another one blinds the last token alone.
_FROM_QUERY = 4


def masking(engine: CountedEngine, a: Asked) -> None:
    """`context_masking` of one task, with all masks."""
    n, blinded = a.n_prompts, [a.per_query] * _FROM_QUERY + [1]
    branches = [branch for n_tokens in blinded for branch in _everywhere(engine, n_tokens)]
    none = after_each(engine)[-1:]
    engine.last_streams(n, a.few_shot, none + branches)
    engine.read(n * (1 + len(branches)))
    engine.distances(n, 1 + len(branches))
    engine.predict(n, a.zero_shot)


def read_until(engine: CountedEngine, n: int, a: Asked) -> None:
    """`read_until`: demonstrations are seen up to each block only."""
    none = after_each(engine)[-1:]
    engine.evaluate(n, a.few_shot, _until(engine, a.per_query) + none)


def _until(engine: CountedEngine, n_tokens: int) -> list[Edited]:
    """Something is hidden from the block after each one on."""
    return [Edited(n_tokens, layer) for layer in range(1, engine.sizes.n_layers)]


def _everywhere(engine: CountedEngine, n_tokens: int) -> list[Edited]:
    """The same, and hidden in the first blocks and in all, which begins with block 0."""
    return [Edited(n_tokens, 0)] * engine.sizes.n_layers + _until(engine, n_tokens)
