"""The options that subcommands share, and the base class of subcommands."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import tyro

from icl_mech.cli.output import deliver
from icl_mech.errors import InputError
from icl_mech.files import PlotlyJs
from icl_mech.imports import uncollected
from icl_mech.prompts import PromptSettings
from icl_mech.run_names import run_name
from icl_mech.tasks import Task, list_tasks, load_tasks

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result

T = TypeVar("T")
S = TypeVar("S", bound=PromptSettings)
#: The fields of a dataclass as options of their own names.
Flat = Annotated[T, tyro.conf.OmitArgPrefixes]
#: An option without a value, which is given or not.
Flag = tyro.conf.FlagCreatePairsOff[bool]


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Which tasks."""

    task: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--tasks"])] = ("country_capital",)
    """Tasks by name, files of pairs (.json, .jsonl, .csv, .tsv), families of tasks that share
    their inputs (verbs, english_words, countries, letters, sentences, pos, bitwise), or 'all'."""

    @property
    def names(self) -> list[str]:
        """The names, with 'all' spelled out."""
        return [n for name in self.task for n in (list_tasks() if name == "all" else [name])]

    def load(self) -> list[Task]:
        """The tasks named."""
        return load_tasks(self.names)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and where it runs."""

    model: str = "gemma-3-270m"
    """The packaged model, a hub name (org/name or org/name@revision), a folder, or a .gguf file."""
    adapter: Path | None = None
    """A folder with an adapter of the model in peft's format, such as a checkpoint of finetune."""
    device: str | None = None
    """cuda, mps or cpu; by default the first that is there. auto spreads a model over GPUs, CPU and
    disk."""
    dtype: Literal["float32", "bfloat16", "float16", "float64", "auto"] = "float32"
    """Of weights and activations; auto takes that of the files."""
    trust_remote_code: Flag = False
    """Let a hub model run its own code. Only for sources that you trust."""
    sink: str | None = None
    """The token that every prompt begins with, such as "<|endoftext|>"; by default BOS where the
    tokenizer itself prepends it, else the end-of-text token."""
    engine: Literal["auto", "shared", "plain"] = "auto"
    """How edits are run: shared (what prompts share runs once), plain (a full forward pass for
    every edit, in any family), or auto: shared where it gives the model's own numbers."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Of products of float32 matrices, as in torch: medium is faster where the processor multiplies
    bfloat16; the error is measured, and stands in the result."""

    def load(self) -> HookedModel:
        """The model that the options name."""
        with uncollected():
            from icl_mech.model import load_model, read_adapter

        if self.adapter is not None:
            read_adapter(self.adapter)
        print(f"loading {self.model}", file=sys.stderr, flush=True)
        return load_model(
            self.model,
            adapter=self.adapter,
            device=self.device,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
            sink=self.sink,
            engine=self.engine,
            matmul_precision=self.matmul_precision,
        )

    def several(self, also: Sequence[str]) -> list[ModelOptions]:
        """The same options for this model and for others.

        Raises:
            InputError: where one could not be loaded later, or is named twice.
        """
        from icl_mech.model import check_source

        names = (self.model, *also)
        if also and self.adapter is not None:
            raise InputError("--adapter beside several models; expected one, whose adapter it is")
        for name in names:
            check_source(name)
            if names.count(name) > 1:
                raise InputError(f"model {name!r} is named twice; expected each once")
        return [replace(self, model=name) for name in names]


@dataclass(frozen=True, kw_only=True)
class PrintOptions:
    """What is shown."""

    json: Flag = False
    """Print the summary as one JSON object on stdout, and nothing else there."""
    no_progress: Flag = False
    """No progress bar."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions(PrintOptions):
    """What is written and shown."""

    out: Path | None = None
    """The figure: .html, or .png, .svg, .pdf (these need Chrome). The data go beside it as .nc.
    By default in figures/, named after the question, tasks, model and changed settings."""
    plotlyjs: PlotlyJs = "inline"
    """Where pages have plotly.js from (4.8 MB): inside; from plotly's server, which needs network;
    or from a file beside them, written once a folder."""


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """A subcommand: a frozen dataclass of options, with methods that plan and measure.

    `plan` and `target` refuse everything that cannot work, before a model is loaded.
    """

    #: The name of the question, with which file names begin.
    what: ClassVar[str]
    tasks: Flat[TaskOptions] = field(default_factory=TaskOptions)
    models: Flat[ModelOptions] = field(default_factory=ModelOptions)
    output: Flat[OutputOptions] = field(default_factory=OutputOptions)
    if TYPE_CHECKING:
        settings: Any  # of the question: every subclass declares this field with its own type

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", as_meant(self.settings))

    @property
    def progress(self) -> bool:
        """Whether to show a progress bar."""
        return not self.output.no_progress

    @abstractmethod
    def plan(self) -> Any:
        """Load the tasks, draw the prompts, and refuse input that cannot work."""

    @abstractmethod
    def measure(self, model: HookedModel, plan: Any) -> Result:
        """Run the plan."""

    def run(self) -> None:
        """Plan, load the model, measure, and write and print what was found."""
        plan = self.plan()
        out = target(self)
        deliver(self.measure(self.models.load(), plan), out, self.output)


def as_meant(settings: S) -> S:
    """Settings with line breaks in the prompts' texts; a shell passes "\\n" as two characters."""
    texts = {n: getattr(settings, n).replace("\\n", "\n") for n in ("template", "instruction")}
    return replace(settings, **texts)


def target(command: Command) -> Path:
    """The path of the figure; an error is raised now if it could not be written later.

    By default it is named after the question, the tasks, the models and all settings that differ
    from their defaults, so that another run does not write over it.
    """
    from icl_mech.plotting import check_target

    if command.output.out is None:
        out = Path("figures") / f"{run_name(command, command.what)}.html"
    else:
        out = command.output.out
    check_target(out)
    if command.output.out is not None and os.path.exists(out):
        print(f"note: {out} exists and will be replaced", file=sys.stderr)
    return out
