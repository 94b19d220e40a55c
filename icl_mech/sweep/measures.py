"""The measures of a sweep: every question's plan and measurement, by the command's name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pkgutil import resolve_name
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from typeguard import TypeCheckError, check_type

from icl_mech.errors import InputError, choose, nearest, shown
from icl_mech.prompts import PromptSettings

#: Options that a sweep sets itself.
_OWN = ("seed",)


@dataclass(frozen=True)
class Measure:
    """A question, with the functions that plan and measure it.

    Attributes:
        room: the package of the three names that follow, each `.module:name`.
        settings: the class of its settings.
        plan: the function that draws prompts and refuses what cannot work, without a model.
        measure: the function that runs a plan on a model.
        per_task: whether every task is a cell; otherwise every family or list of tasks is one.
        planned, measured: options of `plan` and `measure` besides the settings, with their types.
        always: further arguments that `plan` always gets.
        tasks: the default tasks.
        keeps: whether `measure` takes `kept`: the vectors that earlier cells of a model formed.
    """

    room: str
    settings: str
    plan: str
    measure: str
    per_task: bool = True
    planned: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    always: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("country_capital",)
    keeps: bool = False

    def get(self, name: str) -> Any:
        """Import the object that one of the three names stands for."""
        return resolve_name(f"{self.room}{getattr(self, name)}")

    def options(self) -> dict[str, Any]:
        """Every option with its type."""
        cls = self.get("settings")
        hints = get_type_hints(cls)
        own = {f.name: hints[f.name] for f in fields(cls) if f.name not in _OWN}
        return {**own, **self.planned, **self.measured}


_LAYERS = tuple[int, ...] | None
_OTHER = {"other_task": str | None}
#: All measures, by the names of their commands.
MEASURES = {
    "scan": Measure(
        "icl_mech.patch",
        ".scan_plan:ScanSettings",
        ".scan_plan:plan_scan",
        ".scan:measure_scan",
        planned=_OTHER,
    ),
    "positions": Measure(
        "icl_mech.patch",
        ".positions_plan:PositionSettings",
        ".positions_plan:plan_positions",
        ".positions:measure_positions",
        planned=_OTHER,
        always={"head_roles": "final_arrow"},
    ),
    "components": Measure(
        "icl_mech.patch",
        ".positions_plan:ComponentSettings",
        ".positions_plan:plan_positions",
        ".positions:measure_positions",
        planned=_OTHER,
        always={"head_roles": "final_arrow"},
    ),
    "mean-patching": Measure(
        "icl_mech.patch",
        ".means_plan:MeanSettings",
        ".means_plan:plan_means",
        ".means:measure_means",
        per_task=False,
        tasks=("verbs",),
    ),
    "heads": Measure(
        "icl_mech.heads",
        ".plan:AttributionSettings",
        ".plan:plan_heads",
        ".attribution:measure_attribution",
    ),
    "ablate": Measure(
        "icl_mech.heads", ".plan:AblationSettings", ".plan:plan_heads", ".ablation:measure_ablation"
    ),
    "function-vectors": Measure(
        "icl_mech.heads",
        ".plan:FunctionVectorSettings",
        ".plan:plan_heads",
        ".vectors:measure_function_vectors",
    ),
    "lens": Measure(
        "icl_mech.lens",
        ".plan:LensSettings",
        ".plan:plan_lens",
        ".run:measure_lens",
        planned=_OTHER,
    ),
    "vector-lens": Measure(
        "icl_mech.lens",
        ".plan:VectorLensSettings",
        ".plan:plan_vectors",
        ".vectors:measure_vectors",
    ),
    "decodability": Measure(
        "icl_mech.decodability",
        ".plan:DecodabilitySettings",
        ".plan:plan",
        ".run:measure",
        per_task=False,
        measured={"layers": _LAYERS, "probe": bool, "controls": bool},
        tasks=("verbs",),
    ),
    "masking": Measure("icl_mech.masking", ".plan:MaskingSettings", ".plan:plan", ".run:measure"),
    "decoder": Measure("icl_mech.decoder", ".plan:DecoderSettings", ".plan:plan", ".run:measure"),
    "localize": Measure(
        "icl_mech.localize",
        ".plan:MapSettings",
        ".plan:plan_map",
        ".run:measure_map",
        per_task=False,
        tasks=("countries",),
    ),
    "answers": Measure(
        "icl_mech.answers", ".plan:AnswerSettings", ".plan:plan_answers", ".run:measure_answers"
    ),
    "conflict": Measure(
        "icl_mech.conflict",
        ".plan:ConflictSettings",
        ".plan:plan",
        ".run:measure",
        per_task=False,
        tasks=("countries",),
    ),
    "variability": Measure(
        "icl_mech.variability",
        ".plan:VariabilitySettings",
        ".plan:plan",
        ".run:measure",
        per_task=False,
        tasks=("next_letter", "es_en", "present_gerund", "country_capital"),
    ),
    "vectors": Measure(
        "icl_mech.vector_methods",
        ".plan:CompareSettings",
        ".plan:plan_compare",
        ".run:measure_compare",
        planned=_OTHER,
        keeps=True,
    ),
    "patchscope": Measure(
        "icl_mech.patchscope",
        ".plan:PatchscopeSettings",
        ".plan:plan",
        ".run:measure",
        planned={"naming": Mapping[str, Sequence[str]] | None},
    ),
    "knowledge": Measure(
        "icl_mech.knowledge",
        ".plan:KnowledgeSettings",
        ".plan:plan_knowledge",
        ".run:measure_knowledge",
    ),
    "progressive": Measure(
        "icl_mech.progressive",
        ".plan:ProgressiveSettings",
        ".plan:plan_progressive",
        ".run:measure_progressive",
        tasks=("present_past",),
    ),
    "transfer": Measure(
        "icl_mech.transfer",
        ".plan:TransferSettings",
        ".plan:plan_transfer",
        ".run:measure_transfer",
        per_task=False,
        tasks=("countries",),
    ),
    "classify": Measure(
        "icl_mech.classification",
        ".plan:LabelSettings",
        ".plan:plan_labels",
        ".run:measure_labels",
        tasks=("sentences/sentiment",),
    ),
    "failures": Measure(
        "icl_mech.failures",
        ".plan:FailureSettings",
        ".plan:plan",
        ".run:measure",
        measured={"repair_layers": _LAYERS},
        tasks=("failures",),
    ),
}


@dataclass(frozen=True)
class Asked:
    """A measure with its options, which all its cells share.

    Attributes:
        entry: its name in the sweep, by default the measure's name.
        measure: its name in `MEASURES`.
        of: the measure itself.
        settings: of the question, including the seed.
        planned, measured: options of its plan and of its measurement besides the settings.
    """

    entry: str
    measure: str
    of: Measure
    settings: PromptSettings
    planned: Mapping[str, Any]
    measured: Mapping[str, Any]

    def with_seed(self, seed: int) -> "Asked":
        """The same measure with another seed."""
        return replace(self, settings=replace(self.settings, seed=seed))

    def recorded(self) -> dict[str, Any]:
        """All options except the seed, as a manifest holds them."""
        settings = {n: v for n, v in self.settings.recorded().items() if n not in _OWN}
        return {"measure": self.measure, **settings, **self.planned, **self.measured}

    def plan(self, tasks: list[Any]) -> Any:
        """Draw the prompts of some tasks, without a model.

        Raises:
            InputError: where the measure cannot work on these tasks.
        """
        plan: Callable[..., Any] = self.of.get("plan")
        return plan(tasks, self.settings, **self.planned, **self.of.always)


def asked(entry: str, measure: str, options: Mapping[str, Any], seed: int) -> Asked:
    """Make a measure with the options that a file or a caller gives.

    Raises:
        InputError: where there is no such measure or option (the message gives the nearest, or the
            measures that have it), or a value is of another kind or cannot work.

    Example:
        >>> asked("scan", "scan", {"n_prompts": 4}, seed=1).settings.n_prompts
        4
    """
    of = MEASURES[choose(measure, MEASURES, "measure")]
    known = of.options()
    for name in options:
        if name not in known:
            raise InputError(f"{entry}: {_unknown(str(name), measure, known)}")
    values = {n: as_option(f"{entry}.{n}", v, known[n]) for n, v in options.items()}
    own = {f.name for f in fields(of.get("settings"))}
    try:
        settings = of.get("settings")(**{n: v for n, v in values.items() if n in own}, seed=seed)
    except InputError as error:
        raise InputError(f"{entry}: {error}") from None
    planned = {n: v for n, v in values.items() if n in of.planned and n not in own}
    measured = {n: v for n, v in values.items() if n in of.measured and n not in own}
    return Asked(entry, measure, of, settings, planned, measured)


def having(option: str) -> list[str]:
    """The measures that have an option."""
    return [name for name, of in MEASURES.items() if option in of.options()]


def _unknown(name: str, measure: str, known: Iterable[str]) -> str:
    if name in _OWN:
        return f"{name} is no option of a measure; expected seeds: a list, for the whole sweep"
    others = having(name)
    if others:
        return f"{name} is no option of {measure}, but of {', '.join(others)}"
    near = nearest(name, known)
    hint = f"; did you mean {near!r}?" if near else "."
    return f"unknown option {shown(name)} of {measure}{hint} Choose from: {', '.join(known)}"


def as_option(name: str, value: Any, kind: Any) -> Any:
    """Convert a value from a file to the type of an option: lists become tuples.

    Raises:
        InputError: where it is of another kind.

    Example:
        >>> as_option("layers", [3, 9], tuple[int, ...] | None)
        (3, 9)
    """
    for each in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        if is_dataclass(each) and isinstance(value, Mapping):
            return _nested(name, value, each)
        if get_origin(each) is tuple and value is not None:
            value = tuple(value) if isinstance(value, list | tuple) else (value,)
    try:
        check_type(value, kind)
    except TypeCheckError:
        told = getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind)
        raise InputError(f"{name} is {shown(value)}; expected {told}") from None
    if isinstance(value, bool) and kind in (int, float):
        raise InputError(f"{name} is {value}; expected a number")
    return value


def _nested(name: str, value: Mapping[str, Any], cls: Any) -> Any:
    known = get_type_hints(cls)
    for key in value:
        choose(str(key), known, f"entry of {name}")
    missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in value]
    if missing:
        raise InputError(f"{name} lacks {missing[0]}")
    return cls(**{k: as_option(f"{name}.{k}", v, known[k]) for k, v in value.items()})
