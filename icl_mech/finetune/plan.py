"""What is finetuned, and on which prompts: settings, blocks, tasks."""

from dataclasses import dataclass, replace
from typing import Annotated, Any
from zlib import crc32

import numpy as np
import tyro

from icl_mech.errors import InputError, choose, shown
from icl_mech.prompts import HeldOut, Pool, PromptSettings, hold_out, instructed, load_pool, whole
from icl_mech.tasks import Task, Tasks

#: Thirds of a model's blocks, each with the same number of blocks; and all blocks.
BLOCKS = ("first", "middle", "last", "all")
#: The losses of every update are written with each checkpoint.
MOST_STEPS = 1_000_000
#: The largest learning rate, so that its products with gradients fit into float32.
FASTEST = 1e30


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(PromptSettings):
    """Settings of `finetune`.

    Raises:
        InputError: where a name is unknown or a number cannot work.

    Example:
        >>> FinetuneSettings(blocks="0:6", targets=("mlp",)).checkpoints()
        [0, 1, 2, 6, 14, 34, 83, 200]
    """

    n_prompts: int = 25
    """Held-out prompts per task, asked at every checkpoint."""
    n_shots: int = 4
    """Demonstrations per prompt, in training and on held-out prompts."""
    blocks: Annotated[str, tyro.conf.arg(metavar="{first,middle,last,all,A:B}")] = "first"
    """Which blocks get adapters: a third of them, all, or those from A to before B."""
    rank: int = 16
    """Of the adapters (LoRA)."""
    alpha: int = 16
    """Scale of the adapters, times the rank."""
    dropout: float = 0.1
    """Share of an adapter's input that is dropped in training."""
    targets: tuple[str, ...] = ("attention", "mlp")
    """Linear maps that get adapters: attention, mlp, or names in the model such as q_proj."""
    n_steps: int = 200
    """Updates."""
    batch_size: int = 8
    """Prompts per update, at least one of every task."""
    learning_rate: float = 1e-3
    """Of AdamW, after the warm-up."""
    warmup_steps: int = 10
    """Updates over which the learning rate rises to its value."""
    n_checkpoints: int = 8
    """Checkpoints, the start and the end among them, evenly spaced on a logarithmic scale."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("n_shots", "rank", "alpha", "batch_size")
        for name, least, most in (
            ("n_steps", 1, MOST_STEPS),
            ("warmup_steps", 0, MOST_STEPS),
            ("n_checkpoints", 2, 1000),
        ):
            number = whole(name, getattr(self, name))
            if not least <= number <= most:
                raise InputError(f"{name} is {shown(number)}; expected from {least} to {most:,}")
            self._set(name, number)
        if not 0 <= _number("dropout", self.dropout) < 1:
            raise InputError(f"dropout is {self.dropout}; expected from 0 to below 1")
        if not 0 < _number("learning_rate", self.learning_rate) <= FASTEST:
            raise InputError(
                f"learning_rate is {self.learning_rate}; expected above 0 and at most {FASTEST:g} "
                "(what float32 can take)"
            )
        _parse(self.blocks)
        targets = tuple(self.targets)
        if not targets or len(set(targets)) < len(targets):
            raise InputError(f"targets are {shown(list(targets))}; expected some, each once")
        self._set("targets", targets)

    def rate(self, step: int) -> float:
        """The learning rate of an update; the first is step 0.

        >>> FinetuneSettings(learning_rate=1.0, warmup_steps=4).rate(1)
        0.5
        """
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))

    def checkpoints(self) -> list[int]:
        """The steps at which adapters are kept: 0, the last, and between on a logarithmic scale.

        >>> FinetuneSettings(n_steps=100, n_checkpoints=4).checkpoints()
        [0, 1, 10, 100]
        """
        between = np.geomspace(1, self.n_steps, min(self.n_checkpoints - 1, self.n_steps))
        return sorted({0, self.n_steps, *between.round().astype(int).tolist()})

    def dropout_seed(self, step: int) -> int:
        """The seed of an update's dropout; step -1 gives the seed of the initial adapters.

        >>> FinetuneSettings().dropout_seed(0) == FinetuneSettings().dropout_seed(1)
        False
        """
        return crc32(f"{self.seed} {step}".encode())


def _number(name: str, value: Any) -> float:
    """Any kind of number as a float.

    Raises:
        InputError: where it is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InputError(f"{name} is {shown(value)}; expected a number")
    return float(value)


def _parse(blocks: Any) -> tuple[int, int] | None:
    """The ends of a range "a:b"; None for a name.

    Raises:
        InputError: where it is neither.
    """
    if not isinstance(blocks, str) or ":" not in blocks:
        if not isinstance(blocks, str):
            raise InputError(f"blocks is {shown(blocks)}; expected text such as 'first' or '0:6'")
        choose(blocks, (*BLOCKS, "A:B"), "blocks")
        if blocks == "A:B":
            raise InputError("blocks is 'A:B'; expected numbers, such as '0:6'")
        return None
    start, _, end = blocks.partition(":")
    if not (start.strip().isdecimal() and end.strip().isdecimal()):
        raise InputError(f"blocks is {shown(blocks)}; expected two whole numbers, such as '0:6'")
    first, last = int(start), int(end)
    if first >= last:
        raise InputError(
            f"blocks {blocks!r} is an empty range; expected A:B with A below B (B is not in it)"
        )
    return first, last


def chosen_blocks(blocks: str, n_layers: int) -> list[int]:
    """The numbers of the chosen blocks.

    The first, middle and last third have the same number of blocks, so that each trains the same
    number of weights. If three does not divide the number of blocks, the remaining blocks lie
    between the thirds.

    Raises:
        InputError: where the range is not in the model.

    Example:
        >>> chosen_blocks("first", 18), chosen_blocks("last", 4), chosen_blocks("1:3", 4)
        ([0, 1, 2, 3, 4, 5], [3], [1, 2])
    """
    ends = _parse(blocks)
    if ends is not None:
        if ends[1] > n_layers:
            raise InputError(
                f"blocks {blocks!r} are out of range: expected A:B within 0:{n_layers}"
            )
        return list(range(*ends))
    if blocks == "all":
        return list(range(n_layers))
    third = max(1, n_layers // 3)
    start = {"first": 0, "middle": (n_layers - third) // 2, "last": n_layers - third}[blocks]
    return list(range(start, start + third))


@dataclass(frozen=True)
class Plan:
    """Tasks, cut into pairs that are trained on and pairs that are held out.

    Attributes:
        pool: the tasks.
        settings: all of them.
        cut: of their inputs, with the held-out prompts.
    """

    pool: Pool
    settings: FinetuneSettings
    cut: HeldOut

    @property
    def held_out(self) -> tuple[Task, ...]:
        """The tasks, each with the pairs that are never trained on.

        Use these for other questions about the adapted model: they show what it has learnt and not
        what it has memorised.
        """
        pairs = self.cut.held_out
        return tuple(replace(t, pairs=p) for t, p in zip(self.pool.tasks, pairs, strict=True))

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to resume, in the form in which files hold it."""
        pairs = repr([(task.name, task.pairs) for task in self.pool.tasks])
        return self.settings.recorded() | {
            "tasks": self.pool.names,
            "pairs": f"{crc32(pairs.encode()):08x}",
        }


def plan(tasks: Tasks, settings: FinetuneSettings) -> Plan:
    """Load the tasks, hold inputs out, and refuse what cannot be trained on.

    Raises:
        InputError: where a task or count cannot work; no model was read yet.

    Example:
        >>> drawn = plan("verbs", FinetuneSettings(n_prompts=5))
        >>> drawn.pool.names[0], len(drawn.cut.test[0])
        ('verbs/gerund', 5)
    """
    pool = load_pool(tasks)
    if settings.batch_size < len(pool.tasks):
        raise InputError(
            f"batch_size is {settings.batch_size} for {len(pool.tasks)} tasks; expected at least "
            f"{len(pool.tasks)}: every update has a prompt of each"
        )
    cut = hold_out(pool.tasks, settings.n_prompts, settings.n_shots, settings.seed)
    test = tuple(
        instructed(of, task, settings.instruction)
        for of, task in zip(cut.test, pool.tasks, strict=True)
    )
    return Plan(pool, settings, replace(cut, test=test))
