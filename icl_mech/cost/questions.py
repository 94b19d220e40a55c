"""What each question asks of an engine, as its room does, with prompts of one length."""

from collections.abc import Callable
from dataclasses import dataclass

from icl_mech.cost.engines import CountedEngine, Edited

#: What else a scan injects: θ of shuffled labels, θ of another task, and random vectors.
_CONTROLS = 3
#: Layers that are best on dev prompts by either score, at most.
_CHOSEN = 2
#: Prompts that are patched together by a position scan.
_PAIRS = 8
#: Prompts of random tokens that find induction heads, and their length.
_REPEATED, _REPEATED_TOKENS = 8, 101
#: Rows that the lens reads together, and prompts that decodability reads together.
_LENS_ROWS, _STEP = 512, 100


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How much is asked, of one task.

    Attributes:
        n_prompts, n_shots, n_dummies: as in the questions.
        per_demonstration: tokens of a demonstration.
        per_query: tokens of the query and the arrow behind it.
        everywhere: whether a scan's controls are injected after every block.
    """

    n_prompts: int
    n_shots: int
    n_dummies: int
    per_demonstration: int
    per_query: int
    everywhere: bool

    @property
    def demonstrations(self) -> int:
        """Tokens before the query: the sink and the demonstrations."""
        return 1 + self.n_shots * self.per_demonstration

    @property
    def few_shot(self) -> int:
        """Tokens of a prompt with demonstrations."""
        return self.demonstrations + self.per_query

    @property
    def zero_shot(self) -> int:
        """Tokens of a prompt without."""
        return 1 + self.per_query

    @property
    def roles(self) -> list[int]:
        """The tokens that a position scan's branches run: from each role to the last token.

        Labels are shuffled: prompts are the same up to the first label, where nothing is patched.
        """
        n, last = self.per_demonstration, self.few_shot
        ends = (max(n - 4, 0), max(n - 3, 0), max(n - 2, 0))  # x, arrow, y; then a line break
        demos = [1 + i * n + end for i in range(self.n_shots) for end in ends][2:]
        return [last - at for at in (*demos, last - 2, last - 1)]


def scan(engine: CountedEngine, a: Asked) -> None:
    """`layer_scan` of one task."""
    n, n_dev, n_layers = a.n_prompts, max(1, a.n_prompts // 2), engine.sizes.n_layers
    engine.groups(n + n_dev, 1 + a.n_dummies, a.demonstrations, a.per_query)
    for _ in ("shuffled labels", "another task"):
        engine.groups(n, a.n_dummies, a.demonstrations, a.per_query)
    after_each = [Edited(1, layer + 1) for layer in range(n_layers)]
    chosen = after_each if a.everywhere else after_each[n_layers // 2 :][:_CHOSEN]
    engine.evaluate(n_dev, a.zero_shot, after_each)
    engine.evaluate(n, a.zero_shot, after_each)
    engine.evaluate(n, a.zero_shot, chosen * _CONTROLS)
    engine.predict(n, a.zero_shot)
    engine.read(n)


def heads(engine: CountedEngine, a: Asked) -> None:
    """`head_attribution` of one task, the exact AIE alone."""
    s = engine.sizes
    for _ in ("right labels", "shuffled labels"):
        engine.predict(a.n_prompts, a.few_shot)
    for _ in ("mean outputs", "attention by role"):
        engine.observe(a.n_prompts, a.few_shot)
    every = [Edited(1, layer) for layer in range(s.n_layers) for _ in range(s.n_heads)]
    engine.evaluate(a.n_prompts, a.few_shot, every)


def induction(engine: CountedEngine) -> None:
    """What `head_attribution` runs once for all tasks."""
    engine.observe(_REPEATED, _REPEATED_TOKENS)


def decodability(engine: CountedEngine, a: Asked) -> None:
    """`task_decodability`: the few-shot prompts of one task, read and answered."""
    for start in range(0, a.n_prompts, _STEP):
        engine.observe(min(_STEP, a.n_prompts - start), a.few_shot)
    engine.read(a.n_prompts)


def lens(engine: CountedEngine, a: Asked) -> None:
    """`logit_lens` of one task at the last token."""
    stages = engine.sizes.n_layers + 1
    step = max(1, _LENS_ROWS // stages)
    for start in range(0, a.n_prompts, step):
        n = min(step, a.n_prompts - start)
        engine.observe(n, a.few_shot)
        engine.read(n * stages)


def positions(engine: CountedEngine, a: Asked) -> None:
    """`patch_positions` of one task, both directions, with shuffled labels."""
    every = [Edited(n, layer) for n in a.roles for layer in range(engine.sizes.n_layers)]
    for start in range(0, a.n_prompts, _PAIRS):
        n = min(_PAIRS, a.n_prompts - start)
        for _ in ("denoise", "noise"):
            engine.predict(n, a.few_shot)
            engine.observe(n, a.few_shot)
            engine.evaluate(n, a.few_shot, every)


QUESTIONS: dict[str, Callable[[CountedEngine, Asked], None]] = {
    "scan": scan,
    "heads": heads,
    "decodability": decodability,
    "lens": lens,
    "positions": positions,
}
#: What is run once, however many tasks there are.
ONCE: dict[str, Callable[[CountedEngine], None]] = {"heads": induction}
