"""Engine calls of the questions about heads."""

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine, Edited
from icl_mech.cost.patching import after_each, thetas

#: The number of random-token prompts that find induction heads, and their length.
_REPEATED, _REPEATED_TOKENS = 8, 101
#: How many heads an ablation switches off, and how many sets of each size: the ranked one and
#: random ones.
_OFF, _SETS = (1, 2, 5, 10, 20), 11
#: The number of prompts of the other built-in tasks, over which a head's output is averaged.
_ELSEWHERE = 72
#: The numbers of sets of heads and of scales that are tried for a function vector, and the step
#: between the blocks that are tried.
_SUMS, _SCALES, _EVERY = 8, 3, 2
#: The number of vectors that are compared.
_VECTORS = 6


def of_every_head(engine: CountedEngine) -> list[Edited]:
    """An edit of each head at the last token."""
    layers, heads = range(engine.sizes.n_layers), range(engine.sizes.n_heads)
    return [Edited(1, layer) for layer in layers for _ in heads]


def effects(engine: CountedEngine, n: int, a: Asked) -> None:
    """Count `indirect_effects`: heads' mean outputs, each written into corrupted prompts."""
    engine.predict(n, a.few_shot)
    engine.observe(n, a.few_shot)
    engine.evaluate(n, a.few_shot, of_every_head(engine))


def attribution(engine: CountedEngine, a: Asked) -> None:
    """Count `head_attribution` for one task, with the exact AIE alone."""
    engine.predict(a.n_prompts, a.few_shot)
    effects(engine, a.n_prompts, a)
    engine.observe(a.n_prompts, a.few_shot, patterns=True)  # attention by role


def induction(engine: CountedEngine, a: Asked) -> None:
    """Count what `head_attribution` runs once for all tasks."""
    engine.observe(_REPEATED, _REPEATED_TOKENS, patterns=True)


def ablation(engine: CountedEngine, a: Asked) -> None:
    """Count `head_ablation` for one task."""
    s = engine.sizes
    engine.predict(a.n_prompts, a.few_shot)
    effects(engine, a.n_dev, a)
    engine.observe(_ELSEWHERE, a.few_shot)
    # On average, the first of k heads is in block n_layers / (k + 1).
    counts = [k for k in _OFF if k <= s.n_layers * s.n_heads]
    branches = [Edited(1, s.n_layers // (k + 1)) for k in counts for _ in range(_SETS)]
    engine.evaluate(a.n_prompts, a.few_shot, branches)


def function_vectors(engine: CountedEngine, a: Asked) -> None:
    """Count `function_vectors` for one task, from the heads with the largest effect."""
    engine.predict(a.n_prompts, a.few_shot)
    effects(engine, a.n_dev, a)
    for _ in ("outputs of heads", "mean of the stream"):
        engine.observe(a.n_dev, a.few_shot)
    tried = after_each(engine)
    engine.evaluate(a.n_dev, a.zero_shot, tried[::_EVERY] * (_SUMS * _SCALES))
    for n in (a.n_prompts, a.n_dev):
        thetas(engine, n, a)
        for length in (a.zero_shot, a.few_shot):
            engine.evaluate(n, length, tried * _VECTORS)
    for length in (a.zero_shot, a.few_shot):
        engine.predict(a.n_prompts, length)
