"""Engine calls of the comparison of methods that make a task vector."""

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine, Edited
from icl_mech.cost.heads import effects
from icl_mech.cost.patching import after_each, after_some, thetas

#: Numbers of demonstration sets, updates, prompts of an update, batches that are used in turn, and
#: updates between two evaluations on dev prompts.
_SETS, _STEPS, _BATCH, _BATCHES, _LOOK = 10, 40, 12, 8, 10
#: The number of pairs from which an in-context vector is made, and tokens of a pair's side.
_PAIRS, _SIDE = 20, 2
#: Sets of heads from which a function vector is chosen, and scales of it and of added vectors.
_SUMS, _SCALES = 8, 3
#: Numbers of all methods, and of those whose layer is chosen.
_METHODS, _LAYERED = 11, 8
#: New tokens beyond an answer's.
_SPARE = 2


def vectors(engine: CountedEngine, a: Asked) -> None:
    """Count `compare_vectors` for one task, with all methods and controls."""
    for _ in ("own", "other task"):
        for form in _FORMED:
            form(engine, a, True)
    for form in _FORMED:
        form(engine, a, False)  # shuffled labels, with the layer of the task's own vector
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
    """Count θ of demonstration sets, or its mean; if `chosen`, dev prompts choose its layer."""
    thetas(engine, _SETS, a)
    if chosen:
        _on_dev(engine, a, after_each(engine))


def _means(engine: CountedEngine, a: Asked, chosen: bool) -> None:
    """Count the layer mean and both state vectors."""
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
    """Count a learned vector; if `chosen`, it is trained at two layers, and dev prompts choose."""
    thetas(engine, _SETS, a)
    n_layers = engine.sizes.n_layers
    if chosen:
        _on_dev(engine, a, after_each(engine))
    for layer in (n_layers // 4, n_layers // 2) if chosen else (n_layers // 2,):
        _descent(engine, a, a.zero_shot, a.label + 1, layer + 1)
    if chosen:
        _on_dev(engine, a, after_some(engine, 2))


def _weighted(engine: CountedEngine, a: Asked, chosen: bool) -> None:
    """Count trained weights of heads (few-shot prompts) and of mean outputs (zero-shot prompts)."""
    engine.observe(_SETS, a.few_shot)
    _descent(engine, a, a.few_shot, 1, 1)
    for _ in ("attention", "MLPs"):
        engine.observe(_SETS, a.few_shot)
    _descent(engine, a, a.zero_shot, a.label + 1, 1)
    if chosen:
        for _ in ("ltv", "i2cl"):
            _on_dev(engine, a, [Edited(1, 1)])


def _descent(engine: CountedEngine, a: Asked, length: int, n_answer: int, entry: int) -> None:
    """Count training on answers of `n_answer` tokens, each predicted after those before it."""
    for tokens in range(1, n_answer + 1):
        branch = Edited(tokens, entry)
        engine.gradients(_BATCH, length + tokens - 1, branch, _STEPS, _BATCHES)
    for _ in range(1 + _STEPS // _LOOK):
        engine.continuations(a.n_dev, length, [Edited(1, entry)], 1, n_answer)


#: θ, its mean, and then the other methods.
_FORMED = (
    *(form_theta, form_theta, _means, _function_vector),
    *(_in_context_vector, form_learned, _weighted),
)
