"""Engine calls of the questions in `patch/`, and of those that build on them."""

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine, Edited

#: Controls of a scan: θ of shuffled labels, θ of another task, and random vectors.
_CONTROLS = 3
#: At most this many layers are best on dev prompts, one by each score.
_CHOSEN = 2
#: The number of prompts that a position scan patches together.
_PAIRS = 8
#: The number of prompts in a task's mean; the most blocks after which it is written; the ways to
#: write it; and the means besides those of the tasks.
_MEAN, _MEAN_LAYERS, _MODES, _MEAN_CONTROLS = 50, 6, 2, 3


def after_each(engine: CountedEngine) -> list[Edited]:
    """An edit at the last token after every block."""
    return [Edited(1, layer + 1) for layer in range(engine.sizes.n_layers)]


def after_some(engine: CountedEngine, n: int = 1) -> list[Edited]:
    """Edits at the last token after n blocks in the middle, in place of those chosen on dev."""
    every = after_each(engine)
    return every[len(every) // 2 :][:n]


def thetas(engine: CountedEngine, n: int, a: Asked) -> None:
    """Count `dummy_residuals`: θ of n sets of demonstrations."""
    engine.groups(n, a.n_dummies, a.demonstrations, a.per_query)


def scan(engine: CountedEngine, a: Asked) -> None:
    """Count `layer_scan` for one task."""
    n = a.n_prompts
    engine.groups(n + a.n_dev, 1 + a.n_dummies, a.demonstrations, a.per_query)
    for _ in ("shuffled labels", "another task"):
        thetas(engine, n, a)
    every = after_each(engine)
    engine.evaluate(a.n_dev, a.zero_shot, every)
    engine.evaluate(n, a.zero_shot, every)
    controls = every if a.everywhere else after_some(engine, _CHOSEN)
    engine.evaluate(n, a.zero_shot, controls * _CONTROLS)
    engine.predict(n, a.zero_shot)
    engine.read(n)


def table(engine: CountedEngine, a: Asked) -> None:
    """Count a row of `task_table`: a scan whose controls are injected after chosen blocks."""
    n = a.n_prompts
    engine.groups(n + a.n_dev, 1 + a.n_dummies, a.demonstrations, a.per_query)
    for _ in ("shuffled labels", "another task"):
        thetas(engine, n, a)
    for m in (a.n_dev, n):
        engine.evaluate(m, a.zero_shot, after_each(engine))
    engine.evaluate(n, a.zero_shot, after_some(engine, _CHOSEN) * _CONTROLS)
    engine.predict(n, a.zero_shot)
    engine.read(n)


def positions(engine: CountedEngine, a: Asked) -> None:
    """Count `patch_positions` for one task, in both directions, with shuffled labels."""
    layers = range(engine.sizes.n_layers)
    _patched(engine, a, [[Edited(n, layer) for n in a.roles for layer in layers]])


def components(engine: CountedEngine, a: Asked) -> None:
    """Count `icl-mech components` for one task: attention, MLPs, and heads at the last token."""
    layers, heads = range(engine.sizes.n_layers), range(engine.sizes.n_heads)
    every = [Edited(n, layer) for n in a.roles for layer in layers]
    _patched(engine, a, [every, every, [Edited(1, layer) for layer in layers for _ in heads]])


def _patched(engine: CountedEngine, a: Asked, sites: list[list[Edited]]) -> None:
    """Count every branch of every site, in both directions."""
    for start in range(0, a.n_prompts, _PAIRS):
        n = min(_PAIRS, a.n_prompts - start)
        for _ in ("denoise", "noise"):
            engine.predict(n, a.few_shot)
            for branches in sites:
                engine.observe(n, a.few_shot)
                engine.evaluate(n, a.few_shot, branches)


def means(engine: CountedEngine, a: Asked) -> None:
    """Count `mean_patching` for one task: the means of all tasks are written into its prompts."""
    engine.observe(_MEAN, a.few_shot)
    engine.observe(a.n_prompts, a.few_shot)
    engine.read(a.n_prompts)
    n_layers = min(_MEAN_LAYERS, engine.sizes.n_layers)
    written = after_each(engine)[:: max(1, engine.sizes.n_layers // n_layers)][:n_layers]
    per_layer = _MODES * (a.n_tasks + _MEAN_CONTROLS)
    engine.evaluate(a.n_prompts, a.few_shot, written * per_layer)
