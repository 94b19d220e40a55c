"""What the questions about heads ask of an engine."""

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine, Edited
from icl_mech.cost.patching import after_each, thetas

#: Prompts of random tokens that find induction heads, and their length.
_REPEATED, _REPEATED_TOKENS = 8, 101
#: How many heads an ablation switches off, and sets of them: the ranked one, and random ones.
_OFF, _SETS = (1, 2, 5, 10, 20), 11
#: Prompts of the other built-in tasks, over which a head's output is averaged.
_ELSEWHERE = 72
#: Sets of heads that a function vector may sum, and scales; every second block is tried.
_SUMS, _SCALES, _EVERY = 8, 3, 2
#: Vectors that are compared.
_VECTORS = 6


def of_every_head(engine: CountedEngine) -> list[Edited]:
    """An edit of each head at the last token."""
    layers, heads = range(engine.sizes.n_layers), range(engine.sizes.n_heads)
    return [Edited(1, layer) for layer in layers for _ in heads]


def effects(engine: CountedEngine, n: int, a: Asked) -> None:
    """`indirect_effects`: the mean outputs of heads, and each written into corrupted prompts."""
    engine.predict(n, a.few_shot)
    engine.observe(n, a.few_shot)
    engine.evaluate(n, a.few_shot, of_every_head(engine))


def attribution(engine: CountedEngine, a: Asked) -> None:
    """`head_attribution` of one task, the exact AIE alone."""
    engine.predict(a.n_prompts, a.few_shot)
    effects(engine, a.n_prompts, a)
    engine.observe(a.n_prompts, a.few_shot, patterns=True)  # attention by role


def induction(engine: CountedEngine, a: Asked) -> None:
    """What `head_attribution` runs once for all tasks."""
    engine.observe(_REPEATED, _REPEATED_TOKENS, patterns=True)


def ablation(engine: CountedEngine, a: Asked) -> None:
    """`head_ablation` of one task."""
    s = engine.sizes
    engine.predict(a.n_prompts, a.few_shot)
    effects(engine, a.n_dev, a)
    engine.observe(_ELSEWHERE, a.few_shot)
    # The first of k heads stands in block n_layers / (k + 1), on average.
    counts = [k for k in _OFF if k <= s.n_layers * s.n_heads]
    branches = [Edited(1, s.n_layers // (k + 1)) for k in counts for _ in range(_SETS)]
    engine.evaluate(a.n_prompts, a.few_shot, branches)


def function_vectors(engine: CountedEngine, a: Asked) -> None:
    """`function_vectors` of one task, from the heads with the largest effect."""
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
