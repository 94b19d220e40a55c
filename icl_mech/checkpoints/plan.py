"""Which checkpoints are followed, in which order, and on which prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_mech.errors import InputError, shown
from icl_mech.localize.plan import MapSettings
from icl_mech.prompts import whole
from icl_mech.run_names import step_of

#: Where a model is read from: a name or folder, as `load_model` takes it, or a function without
#: arguments that returns a loaded model.
Source = str | Path | Callable[[], Any]
Models = Sequence[Source] | Mapping[int, Source]


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings(MapSettings):
    """Settings of `over_checkpoints`: those of `localize`, three of them with other defaults.

    Example:
        >>> CheckpointSettings().n_shots, CheckpointSettings().heads
        (4, False)
    """

    n_shots: int = 4
    """Demonstrations per prompt."""
    heads: bool = False
    """Measure the heads' average indirect effect, too; takes by far the longest."""
    masking: bool = False
    """Hide the demonstrations from each block on, too."""


@dataclass(frozen=True)
class Checkpoint:
    """A model at one step of its training.

    Attributes:
        step: updates done.
        source: where the model is read from.
    """

    step: int
    source: Source

    def __str__(self) -> str:
        named = f" ({self.source})" if isinstance(self.source, str | Path) else ""
        return f"step {self.step}{named}"


def order_checkpoints(models: Models, steps: Sequence[int] | None = None) -> list[Checkpoint]:
    """The models by their steps, the earliest first.

    Args:
        models: sources in any order, or a mapping from steps to sources.
        steps: of the sources, in their order; by default read from their names (`step_of`).

    Raises:
        InputError: where there are fewer than two, a step cannot be read, is negative or no whole
            number, or comes twice, or a source is nothing that a model can be read from.

    Example:
        >>> [str(c) for c in order_checkpoints(["run/step200", "run/step0"])]
        ['step 0 (run/step0)', 'step 200 (run/step200)']
    """
    if isinstance(models, str | Path) or not isinstance(models, Mapping | Sequence):
        raise InputError(
            f"models is {shown(models)}; expected several: a list of names or folders, or a "
            "mapping from steps to them"
        )
    if isinstance(models, Mapping):
        if steps is not None:
            raise InputError("steps beside a mapping, which has them; expected one of both")
        sources, numbers = list(models.values()), list(models)
    else:
        sources = list(models)
        numbers = _numbers(sources) if steps is None else list(steps)
    if len(numbers) != len(sources):
        raise InputError(f"{len(numbers)} steps for {len(sources)} models; expected one for each")
    if len(sources) < 2:
        raise InputError(f"{len(sources)} model; expected at least 2 checkpoints")
    for source in sources:
        # A torch module is callable, too, but it is no function that loads a model.
        loads = callable(source) and not hasattr(source, "forward")
        if not isinstance(source, str | Path) and not loads:
            raise InputError(
                f"a model is {shown(source)}; expected a name, a folder, or a function that loads "
                "it, so that one is in memory at a time: {1000: lambda: load_model(...)}"
            )
    found: dict[int, Checkpoint] = {}
    for step, source in zip(numbers, sources, strict=True):
        checkpoint = Checkpoint(whole("step", step), source)
        if checkpoint.step < 0:
            raise InputError(f"step is {checkpoint.step}; expected 0 or more")
        if checkpoint.step in found:
            raise InputError(
                f"{found[checkpoint.step]} and {checkpoint} are of the same step; expected each "
                "step once (steps= says which model is of which step)"
            )
        found[checkpoint.step] = checkpoint
    return [found[step] for step in sorted(found)]


def _numbers(sources: Sequence[Source]) -> list[int]:
    """The steps in the sources' names.

    Raises:
        InputError: where a name has none.
    """
    found = []
    for source in sources:
        step = step_of(source) if isinstance(source, str | Path) else None
        if step is None:
            named = source if isinstance(source, str | Path) else "a function"
            raise InputError(
                f"no training step can be read from {str(named)!r}; expected one such as step1000 "
                "or checkpoint-1000 in the name, or steps=, or a mapping from steps to models"
            )
        found.append(step)
    return found
