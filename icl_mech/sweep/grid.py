"""Plans a sweep (models x measures x tasks x seeds) and checks it before anything runs."""

import hashlib
import json
import shutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from icl_mech.errors import IclMechError, InputError, choose, shown
from icl_mech.sweep.measures import MEASURES, Asked, as_option, asked, having
from icl_mech.sweep.models import Loading, ModelEntry, plan_models
from icl_mech.tasks import (
    ContextTask,
    Family,
    Task,
    flat,
    list_failures,
    list_tasks,
    load_parts,
    load_tasks,
)
from icl_mech.tasks.seeds import check_seed

#: The keys of a file that specifies a sweep.
KEYS = ("models", "measures", "tasks", "seeds", "settings", "load")
#: The assumed size of a result file in bytes.
CELL_BYTES = 500_000
#: A set of more tasks than this is named by their number.
_NAMED = 4


@dataclass(frozen=True)
class Subject:
    """The subject of a cell: one task, or several that are measured together.

    Attributes:
        name: of the task or family, of a few tasks with "+" between them, or their number.
        tasks: as a plan takes them; failure tasks by name.
        made_of: the sha256 of all pairs; `"built in"` for failure tasks.
    """

    name: str
    tasks: tuple[Task | Family | str, ...]
    made_of: str


@dataclass(frozen=True)
class Cell:
    """One result: a measure of one task (or of a set of tasks) on a model, with a seed.

    Attributes:
        model: its name.
        asked: the measure with its options and the seed.
        subject: the task or tasks.
        made_of: the hash of everything that determines the numbers.
    """

    model: str
    asked: Asked
    subject: Subject
    made_of: str

    @property
    def seed(self) -> int:
        """The seed of every random draw."""
        return self.asked.settings.seed

    @property
    def name(self) -> str:
        """A name that no other cell has."""
        return f"{self.model}/{self.asked.entry}/{self.subject.name}/seed{self.seed}"

    def recorded(self) -> dict[str, Any]:
        """The facts about the cell that a folder holds before it runs."""
        return {
            "model": self.model,
            "entry": self.asked.entry,
            "measure": self.asked.measure,
            "task": self.subject.name,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Grid:
    """All cells of a sweep.

    Attributes:
        models: by their names.
        measures: in the order given, each with the first seed.
        cells: all cells, model by model.
    """

    models: Mapping[str, ModelEntry]
    measures: Sequence[Asked]
    cells: Sequence[Cell]
    identities: Mapping[str, Mapping[str, Any]]

    @cached_property
    def recorded(self) -> dict[str, dict[str, Any]]:
        """The settings that two runs must share to write into one folder, part by part."""
        tasks = {c.subject.name: {"pairs_sha256": c.subject.made_of} for c in self.cells}
        return {
            **{f"models.{name}": dict(of) for name, of in self.identities.items()},
            **{f"measures.{of.entry}": of.recorded() for of in self.measures},
            **{f"tasks.{name}": of for name, of in tasks.items()},
        }


def read_specification(path: str | Path) -> dict[str, Any]:
    """Read the specification of a sweep from a YAML or TOML file, as arguments of `plan_sweep`.

    Raises:
        InputError: where the file is not there, is of neither kind, or holds unknown keys.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "sweep.yaml"
        >>> _ = file.write_text("models: [gemma-3-270m]\\nmeasures: {scan: {n_shots: 2}}")
        >>> read_specification(file)["measures"]
        {'scan': {'n_shots': 2}}
    """
    path = Path(path)
    choose(path.suffix.lower(), (".yaml", ".yml", ".toml"), "kind of file for a sweep")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected a YAML or TOML file"
        ) from None
    import yaml

    try:
        said = tomllib.loads(text) if path.suffix.lower() == ".toml" else yaml.safe_load(text)
    except (yaml.YAMLError, tomllib.TOMLDecodeError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({why}); expected YAML or TOML") from None
    if not isinstance(said, dict):
        raise InputError(f"{path}: holds {shown(said)}; expected the keys {', '.join(KEYS)}")
    for key in said:
        choose(str(key), KEYS, f"key in {path}:")
    return said


def plan_sweep(
    models: Any,
    measures: Any,
    tasks: Any = None,
    seeds: Any = (0,),
    settings: Mapping[str, Any] | None = None,
    load: Mapping[str, Any] | Loading | None = None,
) -> Grid:
    """Check a whole sweep and list its cells, without loading any model.

    Prompts are drawn once for every measure and task, so that impossible cells are refused now.

    Args:
        models: as in `plan_models`.
        measures: a name, a list of names, or a mapping from names to options. A measure that is
            used twice needs names of your own: `{"few": {"measure": "scan", "n_shots": 2}, ...}`.
            The option `tasks` sets the tasks of that measure alone.
        tasks: tasks, families or paths to pairs, or `"all"`; by default every measure's own. If a
            measure compares tasks, each family and each list within the list is a set of its own,
            and all single tasks together are one more set.
        seeds: one or several.
        settings: options for every measure that has them.
        load: arguments of `load_model` for all models.

    Raises:
        InputError: where a name is unknown (the message gives the nearest), of another kind, named
            twice or missing, or a cell cannot work, such as one of a task with too few pairs.

    Example:
        >>> grid = plan_sweep("gemma-3-270m", ["scan", "decodability"], "letters", seeds=[0, 1])
        >>> len(grid.cells), grid.cells[0].name
        (8, 'gemma-3-270m/scan/letters/next/seed0')
    """
    entries = plan_models(models, _loading(load))
    drawn = _seeds(seeds)
    listed = list(_measures(measures, dict(settings or {}), drawn[0]))
    identities = {entry.name: entry.identity() for entry in entries}
    hashes = {name: _hash(of) for name, of in identities.items()}
    rows: list[tuple[Asked, Subject, str]] = []
    for of, own in listed:
        subjects = _subjects(of, tasks if own is None else own)
        for subject in subjects:
            try:
                of.plan(list(subject.tasks))
            except IclMechError as error:
                raise InputError(f"{of.entry}: {error}") from None
        for each in (of.with_seed(seed) for seed in drawn):
            decides = _hash({**each.recorded(), "seed": each.settings.seed})
            rows += [(each, subject, decides + subject.made_of) for subject in subjects]
    cells = [
        Cell(entry.name, each, subject, _hash(f"{hashes[entry.name]}{decides}"))
        for entry in entries
        for each, subject, decides in rows
    ]
    return Grid({e.name: e for e in entries}, [of for of, _ in listed], cells, identities)


def check_models(grid: Grid, waiting: Iterable[str]) -> dict[str, Any]:
    """Read the configuration of every waiting model that has a name, and check its layers.

    Raises:
        InputError: where a model is not there, or lacks a layer that an option names.
        ModelError: where a model's files are damaged, or it cannot be edited.
    """
    from icl_mech.layers import check_layer

    entries = [grid.models[name] for name in waiting]
    configs = {entry.name: entry.config() for entry in entries if entry.named}
    for name, config in configs.items():
        n_layers = config.get_text_config().num_hidden_layers
        for of in grid.measures:
            for layer in _named_layers({**vars(of.settings), **of.measured}):
                try:
                    check_layer(layer, n_layers)
                except InputError as error:
                    raise InputError(f"{of.entry} on {name}: {error}") from None
    return configs


def _named_layers(options: Mapping[str, Any]) -> list[int]:
    """The layers that options name: `layers`, `repair_layers`, `into`, ..."""
    values = [v for n, v in options.items() if n == "into" or n.endswith(("layer", "layers"))]
    return [x for v in values for x in (v if isinstance(v, tuple) else (v,)) if isinstance(x, int)]


def check_room(folder: Path, n_cells: int) -> None:
    """Refuse to fill a disk: there must be room for all cells.

    Raises:
        InputError: with the free space and the space that is assumed to be needed.
    """
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free, needed = shutil.disk_usage(there).free, n_cells * CELL_BYTES
    if free < needed:
        raise InputError(
            f"{folder}: {free / 1e6:,.0f} MB are free; expected {needed / 1e6:,.0f} MB for "
            f"{n_cells:,} cells of about {CELL_BYTES / 1e6:.1f} MB"
        )


def _loading(load: Any) -> Loading:
    if isinstance(load, Loading):
        return load
    hints = get_type_hints(Loading)
    for key in load or {}:
        choose(str(key), [f.name for f in fields(Loading)], "option of loading")
    return Loading(**{k: as_option(f"load.{k}", v, hints[k]) for k, v in (load or {}).items()})


def _seeds(seeds: Any) -> list[int]:
    drawn = [check_seed(s) for s in (seeds if isinstance(seeds, Iterable) else [seeds])]
    if not drawn or len(set(drawn)) < len(drawn):
        raise InputError(f"seeds {shown(drawn)}; expected at least one, each once")
    return drawn


def _measures(measures: Any, shared: dict[str, Any], seed: int) -> Iterable[tuple[Asked, Any]]:
    """Every measure with its options, and its own tasks, if it has any."""
    if isinstance(measures, str):
        measures = [measures]
    if isinstance(measures, Mapping):
        named = {str(name): options for name, options in measures.items()}
    elif isinstance(measures, list | tuple) and all(isinstance(m, str) for m in measures):
        named = dict.fromkeys(measures)
        if len(named) < len(measures):
            raise InputError(f"measures {list(measures)}; expected each once")
    else:
        raise InputError(
            f"measures are {shown(measures)}; expected names, or a mapping from names to options"
        )
    if not named:
        raise InputError(f"no measure is named; expected one of: {', '.join(MEASURES)}")
    for option in shared:
        if not having(option):
            every = dict.fromkeys(o for of in MEASURES.values() for o in of.options())
            choose(str(option), every, "setting")
    for entry, given in named.items():
        if given is not None and not isinstance(given, Mapping):
            raise InputError(f"{entry} is {shown(given)}; expected its options, by name")
        options = dict(given or {})
        measure, own = options.pop("measure", entry), options.pop("tasks", None)
        choose(measure, MEASURES, "measure")
        if "/" in entry:
            raise InputError(f"a measure is called {entry!r}; expected a name without '/'")
        known = MEASURES[measure].options()
        yield (
            asked(entry, measure, {n: v for n, v in shared.items() if n in known} | options, seed),
            own,
        )


def _subjects(of: Asked, tasks: Any) -> list[Subject]:
    """The subjects of a measure's cells."""
    given = of.of.tasks if tasks is None else tasks
    listed = list(given) if isinstance(given, list | tuple) else [given]
    names = [n for each in listed for n in (list_tasks() if each == "all" else [each])]
    if of.measure == "failures":
        found = [s for name in names for s in _failure_subjects(name)]
    elif of.of.per_task:
        named = flat(load_parts([n for n in names if not isinstance(n, list | tuple)]))
        # A list within the list is a set, but this measure takes single tasks.
        in_sets = [t for n in names if isinstance(n, list | tuple) for t in load_tasks(n)]
        others = {task.name: task for task in in_sets if task not in named}
        found = [_subject([task]) for task in (*named, *others.values())]
    else:
        sets: list[list[Task | Family]] = [
            load_parts(n) for n in names if isinstance(n, list | tuple)
        ]
        parts = load_parts([n for n in names if not isinstance(n, list | tuple)])
        sets += [[part] for part in parts if isinstance(part, Family)]
        alone: list[Task | Family] = [part for part in parts if isinstance(part, Task)]
        found = [_subject(each) for each in [*sets, alone] if each]
    if not found:
        raise InputError(f"{of.entry}: no task is named; expected at least one")
    twice = {s.name for s in found if [t.name for t in found].count(s.name) > 1}
    if twice:
        raise InputError(f"{of.entry}: task {min(twice)!r} is named twice; expected each once")
    return found


def _failure_subjects(name: Any) -> list[Subject]:
    if isinstance(name, ContextTask):
        name = name.name
    if name == "failures":
        return [s for each in list_failures() for s in _failure_subjects(each)]
    key = str(name).lower().replace("-", "_")
    if isinstance(name, str) and key in list_failures():
        return [Subject(key, (key,), "built in")]
    return [_subject([task]) for task in flat(load_parts([name]))]


def _subject(parts: Sequence[Task | Family]) -> Subject:
    made_of = _hash([[t.name, hash_pairs(t)] for t in flat(parts)])
    name = "+".join(p.name for p in parts)
    if len(parts) > _NAMED:
        name = f"{len(parts)} tasks {made_of[:6]}"
    return Subject(name, tuple(parts), made_of)


def hash_pairs(task: Task) -> str:
    """The sha256 of a task's inputs and answers."""
    pairs = [[pair.x, *pair.answers] for pair in task.pairs]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _hash(of: Any) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
