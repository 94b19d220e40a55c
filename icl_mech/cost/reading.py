"""Engine calls of the questions that read the residual stream or write θ."""

from dataclasses import replace

from icl_mech.cost.asked import Asked
from icl_mech.cost.engines import CountedEngine, Edited
from icl_mech.cost.heads import effects
from icl_mech.cost.masking import read_until
from icl_mech.cost.patching import after_each, after_some, thetas

#: Rows that the lens reads together, and prompts that decodability reads together.
_LENS_ROWS, _STEP = 512, 100
#: Prompts of a task for decodability in a map.
_POINTS = 100
#: Prompts that ask a model what a vector holds: the tokens of each, and those from the token at
#: which the vector is written to the last.
INVITED = ((18, 3), (26, 2), (27, 2))
#: New tokens after these prompts, and vectors: the task's own and a random one.
_SAID, _HELD = 12, 2
#: By how many tokens the longest answer exceeds the usual one, tokens that may follow it, and the
#: number of wrong answers.
_LONGER, _SPARE, _RIVALS = 1, 3, 7
#: The share of blocks after which θ works: on dev prompts it is right at least half as often as
#: after the best block.
_WORKS = 0.33
#: Repairs written into prompts with placeholders, and the most blocks at which they are tried.
_REPAIRS, _REPAIR_LAYERS = 3, 6
#: Formats in which vectors are formed and written, in tokens of Gemma 3: how much longer a
#: demonstration and a query are than in the arrow format, and the length of the instruction.
FORMATS = ((0, 0, 0), (4, 4, 0), (2, 1, 0), (6, 6, 0), (0, 0, 8))
#: The number of tokens at which a vector is formed in the first format, and the number of tokens
#: from the query's last one to the prompt's end.
_FORMED_AT, _FROM_QUERY = 4, 2


def decodability(engine: CountedEngine, a: Asked) -> None:
    """Count `task_decodability` for all tasks: prompts and answers, shuffled labels, and queries.

    The streams of all prompts stay in memory. Tasks share their queries, which run once.
    """
    n, sizes = a.n_tasks * a.n_prompts, engine.sizes
    engine.keep(n * (sizes.n_layers + 1) * sizes.d_model)
    controls = a.controls and a.n_prompts > 1  # a single prompt has none
    for _ in ("right labels", "shuffled labels")[: 1 + controls]:
        for start in range(0, n, _STEP):
            engine.observe(min(_STEP, n - start), a.few_shot)
    engine.read(n)
    if controls:
        engine.observe(a.n_prompts, a.zero_shot)


def lens(engine: CountedEngine, a: Asked) -> None:
    """Count `logit_lens` for one task at the last token."""
    stages = engine.sizes.n_layers + 1
    step = max(1, _LENS_ROWS // stages)
    for start in range(0, a.n_prompts, step):
        n = min(step, a.n_prompts - start)
        engine.observe(n, a.few_shot)
        engine.read(n * stages)


def vector_lens(engine: CountedEngine, a: Asked) -> None:
    """Count `vector_lens` for one task's θ: its mean, every vector, and random ones."""
    rows = a.n_prompts * engine.sizes.n_layers
    thetas(engine, a.n_prompts, a)
    engine.top_of_means(engine.sizes.n_layers, a.n_prompts)
    engine.top_of_means(2 * rows, 1)


def localize(engine: CountedEngine, a: Asked) -> None:
    """Count `localize` for one task."""
    n, n_layers = a.n_prompts, engine.sizes.n_layers
    engine.groups(n, 1 + a.n_dummies, a.demonstrations, a.per_query)
    engine.groups(max(0, _POINTS - n), 1, a.few_shot - 1, 1)
    engine.read(n * n_layers)
    engine.evaluate(n, a.zero_shot, after_each(engine))
    engine.predict(n, a.zero_shot)
    if a.heads:
        effects(engine, n, a)
    if a.masking:
        read_until(engine, n, a)


def checkpoint(engine: CountedEngine, a: Asked) -> None:
    """Count `over_checkpoints` for one checkpoint and one task, without heads and masking."""
    localize(engine, replace(a, heads=False, masking=False))


def answers(engine: CountedEngine, a: Asked) -> None:
    """Count `answer_scores` for one task; texts are assumed to reach the limit of new tokens."""
    n, n_new = a.n_prompts, a.label + _LONGER + _SPARE
    engine.groups(n + a.n_dev, 1 + a.n_dummies, a.demonstrations, a.per_query)
    engine.evaluate(a.n_dev, a.zero_shot, after_each(engine))
    works = after_some(engine, max(1, round(_WORKS * engine.sizes.n_layers)))
    none = after_each(engine)[-1:]
    engine.generate(a.n_dev, a.zero_shot, works, n_new)
    engine.evaluate(n, a.zero_shot, none + works)
    engine.read(n)
    engine.generate(n, a.zero_shot, none + works, n_new)
    engine.generate(n, a.few_shot, none, n_new)
    longest = a.label + _LONGER
    engine.continuations(n, a.zero_shot, none + works[:1], 1 + _RIVALS, longest)
    engine.continuations(n, a.few_shot, none, 1 + _RIVALS, longest)


def conflict(engine: CountedEngine, a: Asked) -> None:
    """Count `conflicting_tasks` for one pair of tasks, whose layer is chosen for it alone."""
    thetas(engine, a.n_dev, a)
    engine.evaluate(a.n_dev, a.zero_shot, after_each(engine))
    for _ in ("the other task", "the prompt's own"):
        thetas(engine, a.n_prompts, a)
    engine.evaluate(a.n_prompts, a.few_shot, after_some(engine) * 4)
    engine.evaluate(a.n_prompts, a.zero_shot, after_some(engine))


def variability(engine: CountedEngine, a: Asked) -> None:
    """Count `vector_variability` for one task, with right and shuffled labels."""
    for _ in ("right labels", "shuffled labels"):
        thetas(engine, a.n_prompts, a)
    engine.evaluate(a.n_prompts, a.zero_shot, after_each(engine) * 2)
    thetas(engine, a.n_dev, a)
    engine.evaluate(a.n_dev, a.zero_shot, after_each(engine))
    engine.predict(a.n_prompts, a.zero_shot)


def transfer(engine: CountedEngine, a: Asked) -> None:
    """Count `vector_transfer` for one task among several, in all formats."""
    n, written = a.n_prompts, [(a.zero_shot, 1), (a.zero_shot, _FROM_QUERY)]
    for demonstration, query, line in FORMATS:
        bare = a.zero_shot + query + line
        shown = bare + a.n_shots * (a.per_demonstration + demonstration)
        for m in (a.n_dev, n):
            engine.observe(m * a.n_dummies, shown)
        for _ in FORMATS:  # where the vector was formed; own, random and another task's vector
            _written(engine, a, bare, 1, 3)
        for length in (bare, shown):
            engine.predict(n, length)
    for length, n_tokens in written * _FORMED_AT:
        _written(engine, a, length, n_tokens, 1)


def _written(engine: CountedEngine, a: Asked, length: int, n_tokens: int, n_vectors: int) -> None:
    """Count vectors written after each block on dev prompts, and after the best on the others."""
    every = [Edited(n_tokens, layer) for _, layer in after_each(engine)]
    engine.evaluate(a.n_dev, length, every)
    engine.evaluate(a.n_prompts, length, every[len(every) // 2 :][:1] * n_vectors)


def failures(engine: CountedEngine, a: Asked) -> None:
    """Count `task_vector_failures` for one task, with every repair."""
    n, n_layers = a.n_prompts, engine.sizes.n_layers
    first, last = n_layers // 3, n_layers - 1
    spaced = (first + i * (last - first) / (_REPAIR_LAYERS - 1) for i in range(_REPAIR_LAYERS))
    tried = sorted({round(layer) for layer in spaced})
    thetas(engine, a.n_dev, a)
    _states(engine, a.n_dev, a)
    engine.evaluate(a.n_dev, a.zero_shot, after_each(engine))
    _repaired(engine, a.n_dev, a, tried)
    engine.groups(n, 1 + a.n_dummies, a.demonstrations, a.per_query)
    for _ in ("shuffled labels", "another task"):
        thetas(engine, n, a)
    engine.evaluate(n, a.zero_shot, after_some(engine) * 4)
    engine.read(n)
    for length in (a.zero_shot, a.few_shot):
        engine.predict(n, length)
    for _ in ("right labels", "shuffled labels"):
        _states(engine, n, a)
    _repaired(engine, n, a, [n_layers // 2] * 3)


def _states(engine: CountedEngine, n: int, a: Asked) -> None:
    engine.observe(n * a.n_dummies, a.few_shot)
    engine.observe(n, a.few_shot)


def _repaired(engine: CountedEngine, n: int, a: Asked, layers: list[int]) -> None:
    """Count repairs: attention outputs up to a block, and states of demonstrations."""
    engine.evaluate(n, a.zero_shot, [Edited(1, 0) for _ in layers])
    for _ in range(_REPAIRS):
        shown = [Edited(a.few_shot - 2, layer + 1) for layer in layers]
        engine.evaluate(n, a.few_shot, shown)


def patchscope(engine: CountedEngine, a: Asked) -> None:
    """Count `patchscope` for one task; texts are assumed to reach the limit of new tokens."""
    thetas(engine, a.n_prompts, a)
    layers = range(engine.sizes.n_layers)
    for length, n_tokens in INVITED:
        written = [Edited(n_tokens, layer + 1) for layer in layers] * _HELD
        engine.generate(a.n_prompts, length, written, _SAID)
