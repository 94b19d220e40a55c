"""Engine calls of the questions that write vectors of several methods into prompts.

By default these methods are two: θ, which is read from the model, and a learned vector.
"""

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine, Edited
from icl_mech.cost.methods import form_learned, form_theta
from icl_mech.cost.patching import after_each, after_some, thetas

#: The number of vectors, one per method.
_VECTORS = 2
#: Conditions with few-shot prompts, conditions in which heads are read, and layers after which a
#: learned vector is written.
_SHOWN, _LOOKED_AT, _LEARNED = 4, 2, 2
#: The most answer tokens whose divergence is measured; numbers of tokens that are generated with
#: demonstrations; new tokens beyond an answer's; tokens of a speed measurement, and its repeats.
_POSITIONS, _FIRST, _SPARE, _TIMED, _ROUNDS = 5, (0, 1, 2, 3), 2, 16, 3
#: Labels of a task.
_LABELS = 3


def knowledge(engine: CountedEngine, a: Asked) -> None:
    """Count `knowledge_conflict` for one task."""
    n = a.n_prompts
    for length in (a.zero_shot, *[a.few_shot] * _SHOWN):
        engine.observe(n, length)
        engine.read(n)
    for _ in range(_LOOKED_AT):
        for _ in ("direct effects", "attention"):
            engine.observe(n, a.few_shot)
    for form, layers in (
        (form_theta, after_each(engine)),
        (form_learned, after_some(engine, _LEARNED)),
    ):
        form(engine, a, True)
        form(engine, a, False)  # exchanged answers, with the layer of the first vector
        # Vectors of right and of exchanged answers, and random ones. θ is also formed from the
        # contradicting prompts themselves.
        sources = 4 if form is form_theta else 3
        for length in (a.zero_shot, a.few_shot):
            if form is form_theta:
                thetas(engine, n, a)
            engine.evaluate(n, length, after_some(engine) * sources)
            engine.evaluate(n, length, layers)
    engine.observe(n, a.few_shot)
    engine.evaluate(n, a.few_shot, after_each(engine))
    engine.predict(n, a.few_shot)  # whether the answer is known


def progressive(engine: CountedEngine, a: Asked) -> None:
    """Count `progressive_generation` for one task.

    It is assumed that generated texts reach the limit of new tokens, and that one token ends an
    answer.
    """
    n, n_layers = a.n_prompts, engine.sizes.n_layers
    engine.observe(a.n_dev, a.few_shot)
    engine.evaluate(a.n_dev, a.zero_shot, [Edited(1, 0)] * n_layers)
    engine.observe(n, a.few_shot)
    for form in (form_theta, form_learned):
        form(engine, a, True)
    none = after_each(engine)[-1:]
    for said in range(min(_POSITIONS, a.label + 1)):
        engine.last_streams(n, a.few_shot + said, none)
        engine.last_streams(n, a.zero_shot + said, _kept(engine, said))
        engine.distances(n, 2 + _VECTORS)
    n_new = a.label + _SPARE
    for first in _FIRST:
        _generated(engine, a, first, n_new, _kept(engine, first))
    engine.generate(n, a.few_shot, none, n_new)
    for _ in range(_ROUNDS):
        for first in _FIRST:
            _generated(engine, a, first, _TIMED, none)
        engine.generate(n, a.few_shot, none, _TIMED)


def _kept(engine: CountedEngine, said: int) -> list[Edited]:
    """Branches for an arrow that `said` tokens follow: no edit, attention states, and vectors."""
    states = Edited(1 + said, 0)
    vectors = [Edited(1 + said, layer) for _, layer in after_some(engine) * _VECTORS]
    return [*after_each(engine)[-1:], states, *vectors]


def _generated(
    engine: CountedEngine, a: Asked, first: int, n_new: int, branches: list[Edited]
) -> None:
    """Count generation with demonstrations for the first tokens, and without them afterwards."""
    if first:
        none = after_each(engine)[-1:]
        engine.generate(a.n_prompts, a.few_shot, none, min(first, n_new))
    if n_new > first:
        engine.generate(a.n_prompts, a.zero_shot + first, branches, n_new - first)


def classify(engine: CountedEngine, a: Asked) -> None:
    """Count `label_scores` for one task; all labels are assumed to have the same length."""
    for form in (form_theta, form_learned):
        form(engine, a, True)
    none = after_each(engine)[-1:]
    written = none + after_some(engine) * (_VECTORS + 1)  # and a random vector
    for length, branches in ((a.few_shot, none), (a.zero_shot, written)):
        engine.continuations(a.n_prompts, length, branches, _LABELS, a.label)
        engine.evaluate(a.n_prompts, length, branches)
