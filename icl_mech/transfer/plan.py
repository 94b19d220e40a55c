"""The settings of `vector_transfer`, the formats of a pair, and the episodes of every task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icl_mech.errors import InputError, choose
from icl_mech.prompts import DEFAULT_TEMPLATE, Split, Template, VectorSettings, header
from icl_mech.tasks import Task, Tasks, load_tasks

#: Named templates of a pair. A format is one of these, or a template of your own, with or without
#: `INSTRUCTED` at its end.
FORMATS = {
    "arrow": "{x}->{y}",
    "qa": "Q: {x}\nA: {y}",
    "sentence": "{x} goes with {y}.",
    "spanish": "Pregunta: {x}\nRespuesta: {y}",
}
#: Suffix of a format with an instruction: the line that names the task comes before the
#: demonstrations, and before the query that the vector is written into.
INSTRUCTED = "+instruction"
#: Tokens at which a vector is formed: names, and roles in which `{last}` is the last demonstration.
FORMED_AT = {
    "final arrow": "final_arrow",
    "query": "query",
    "last label": "demo_{last}_y",
    "last arrow": "demo_{last}_arrow",
}
#: Tokens of the zero-shot prompt over which a vector is written.
WRITTEN_AT = {"final arrow": "final_arrow", "query": "query"}


@dataclass(frozen=True, kw_only=True)
class TransferSettings(VectorSettings):
    """Settings of `vector_transfer`.

    Example:
        >>> TransferSettings(formats=("qa", "qa+instruction")).formats
        ('qa', 'qa+instruction')
    """

    n_prompts: int = 20
    """Test prompts per task, each with the vector of other demonstrations."""
    formats: tuple[str, ...] | None = None
    """How pairs are written: arrow, qa, sentence, spanish, or templates of your own; each also with
    +instruction at its end. By default all four (--template in place of arrow), and the first with
    +instruction if every task has one (which line: --instruction, by default the task's own)."""
    k: int = 5
    """Nearest neighbours that vote for a vector's task."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("k")
        if self.formats is None:
            return
        if self.template != DEFAULT_TEMPLATE:
            raise InputError(
                f"template {self.template!r} beside formats; expected one of them (a template may "
                "be among the formats)"
            )
        for name in self.formats:
            parse(name)
        if len(self.formats) < 2 or len(set(self.formats)) < len(self.formats):
            raise InputError(f"formats {list(self.formats)}; expected at least two, each once")


@dataclass(frozen=True)
class Format:
    """A way to write pairs.

    Attributes:
        name: the name as the caller gave it.
        template: the template of a pair.
        instructed: whether prompts begin with the line that names the task.
    """

    name: str
    template: str
    instructed: bool


def parse(name: str) -> Format:
    """A format by its name.

    >>> parse("qa+instruction")
    Format(name='qa+instruction', template='Q: {x}\\nA: {y}', instructed=True)

    Raises:
        InputError: if it is neither a name of `FORMATS` nor a template.
    """
    base = name.removesuffix(INSTRUCTED)
    if "{x}" not in base and "{y}" not in base:
        choose(base, FORMATS, "format")
    template = FORMATS.get(base, base.replace("\\n", "\n"))
    Template(template)
    return Format(name, template, base != name)


@dataclass(frozen=True)
class TransferPlan:
    """All tasks with their episodes, the formats, and the settings.

    Attributes:
        tasks, formats, settings: of the measurement.
        lines: the instruction line of every task, for formats that have one.
    """

    tasks: Sequence[tuple[Task, Split]]
    formats: tuple[Format, ...]
    lines: Mapping[str, str]
    settings: TransferSettings


def plan_transfer(tasks: Tasks, settings: TransferSettings) -> TransferPlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist, has too few pairs, or lacks the instruction that a
            format needs.

    Example:
        >>> [format.name for format in plan_transfer("antonyms", TransferSettings()).formats]
        ['arrow', 'qa', 'sentence', 'spanish', 'arrow+instruction']
    """
    loaded, s = load_tasks(tasks), settings
    line = "true" if s.instruction == "none" else s.instruction
    names = s.formats
    if names is None:
        first, *others = FORMATS
        first = first if s.template == DEFAULT_TEMPLATE else s.template
        names = (first, *others)
        if line != "true" or all(task.instruction for task in loaded):
            names = (*names, first + INSTRUCTED)
    formats = tuple(map(parse, names))
    any_line = any(of.instructed for of in formats)
    lines = {task.name: header(task, line) for task in loaded if any_line}
    return TransferPlan([(task, s.split(task)) for task in loaded], formats, lines, s)
