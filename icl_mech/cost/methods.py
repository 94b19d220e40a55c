"""What a comparison of ways to get a task vector asks of an engine."""

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine, Edited
from icl_mech.cost.heads import effects
from icl_mech.cost.patching import after_each, after_some, thetas

#: Demonstration sets, updates, prompts of each, batches that come in turn, and updates between two
#: looks at dev prompts.
_SETS, _STEPS, _BATCH, _BATCHES, _LOOK = 10, 40, 12, 8, 10
#: Pairs whose two sides in-context vectors are made of, and tokens of a side.
_PAIRS, _SIDE = 20, 2
#: Sets of heads and scales that a function vector is chosen from, and scales of added vectors.
_SUMS, _SCALES = 8, 3
#: Methods, those whose layer is chosen, and those whose vector other labels change.
_METHODS, _LAYERED, _LABELS = 11, 8, 10
#: New tokens beside an answer's.
_SPARE = 2


def vectors(engine: CountedEngine, a: Asked) -> None:
    """`compare_vectors` of one task, all methods, with every control."""
    for _ in ("own", "other task"):
        for form in _FORMED:
            form(engine, a, True)
    for form in _FORMED:
        form(engine, a, False)  # shuffled labels; the layer is the own vector's
    none = after_each(engine)[-1:]
    each = none + after_some(engine) * _METHODS
    for length, branches in ((a.zero_shot, each), (a.few_shot, each), (a.few_shot, none)):
        engine.last_streams(a.n_prompts, length, branches)
        engine.read(a.n_prompts * len(branches))
        engine.generate(a.n_prompts, length, branches, a.label + _SPARE)
    engine.distances(a.n_prompts, len(each))
    engine.evaluate(a.n_prompts, a.zero_shot, after_each(engine) * _LAYERED)
    for _ in range(_METHODS):
        engine.evaluate(a.n_prompts, a.zero_shot, after_some(engine) * 3)
    engine.observe(a.n_prompts, a.zero_shot)


def _on_dev(engine: CountedEngine, a: Asked, branches: list[Edited]) -> None:
    engine.evaluate(a.n_dev, a.zero_shot, branches)


def form_theta(engine: CountedEngine, a: Asked, chosen: bool) -> None:
    """Theta of demonstration sets, or its mean; `chosen`: its layer is chosen on dev prompts."""
    thetas(engine, _SETS, a)
    if chosen:
        _on_dev(engine, a, after_each(engine))


def _means(engine: CountedEngine, a: Asked, chosen: bool) -> None:
    """The layer mean, and both state vectors."""
    for _ in ("layer_mean", "state_vector", "state_vector_momentum"):
        engine.observe(_SETS, a.few_shot)
        if chosen:
            _on_dev(engine, a, after_each(engine))


def _function_vector(engine: CountedEngine, a: Asked, chosen: bool) -> None:
    engine.observe(_SETS, a.few_shot)
    if chosen:
        effects(engine, _SETS, a)
        for _ in range(_SUMS * _SCALES):
            _on_dev(engine, a, after_each(engine)[::2])
        _on_dev(engine, a, after_each(engine))


def _in_context_vector(engine: CountedEngine, a: Asked, chosen: bool) -> None:
    for _ in ("inputs", "answers"):
        engine.observe(_PAIRS, _SIDE)
    if chosen:
        for _ in range(_SCALES):
            _on_dev(engine, a, [Edited(1, 1)])


def form_learned(engine: CountedEngine, a: Asked, chosen: bool) -> None:
    """A learned vector; `chosen`: its layer is chosen on dev prompts, of two that are trained."""
    thetas(engine, _SETS, a)
    n_layers = engine.sizes.n_layers
    if chosen:
        _on_dev(engine, a, after_each(engine))
    for layer in (n_layers // 4, n_layers // 2) if chosen else (n_layers // 2,):
        _descent(engine, a, a.zero_shot, a.label + 1, layer + 1)
    if chosen:
        _on_dev(engine, a, after_some(engine, 2))


def _weighted(engine: CountedEngine, a: Asked, chosen: bool) -> None:
    """Trained weights of heads, on few-shot prompts; of mean outputs, on zero-shot prompts."""
    engine.observe(_SETS, a.few_shot)
    _descent(engine, a, a.few_shot, 1, 1)
    for _ in ("attention", "MLPs"):
        engine.observe(_SETS, a.few_shot)
    _descent(engine, a, a.zero_shot, a.label + 1, 1)
    if chosen:
        for _ in ("ltv", "i2cl"):
            _on_dev(engine, a, [Edited(1, 1)])


def _descent(engine: CountedEngine, a: Asked, length: int, n_answer: int, entry: int) -> None:
    """Training on answers of so many tokens, each of which is asked after those before it."""
    for tokens in range(1, n_answer + 1):
        branch = Edited(tokens, entry)
        engine.gradients(_BATCH, length + tokens - 1, branch, _STEPS, _BATCHES)
    for _ in range(1 + _STEPS // _LOOK):
        engine.continuations(a.n_dev, length, [Edited(1, entry)], 1, n_answer)


#: Theta and its mean, then the others.
_FORMED = (
    *(form_theta, form_theta, _means, _function_vector),
    *(_in_context_vector, form_learned, _weighted),
)
