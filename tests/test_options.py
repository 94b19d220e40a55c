"""Every option of every command does something in every mode, or is refused by its name."""

from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import MISSING, fields, is_dataclass, replace
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import xarray as xr

from icl_mech import cli
from icl_mech.errors import InputError
from icl_mech.modes import flag
from icl_mech.results import Result

#: A value that works and is not the default, for every option of every command.
OTHER: dict[str, Any] = {
    "also": ("org/other",),
    "average": "vector",
    "control_layers": "all",
    "corruption": "query",
    "device": "cpu",
    "direction": "noise",
    "dtype": "float64",
    "form": "centred",
    "formats": ("csv",),
    "fraction": 0.4,
    "by": "begins",
    "json": True,
    "k": 3,
    "layer": 2,
    "layers": (1, 2),
    "leave_out": "point",
    "max_new_tokens": 3,
    "methods": ("aie",),
    "metric": "euclidean",
    "model": "org/another",
    "modes": ("add",),
    "n_clean": 7,
    "n_dev": 6,
    "n_heads": (3,),
    "n_mean": 11,
    "n_points": 21,
    "n_prompts": 9,
    "n_rivals": 3,
    "n_shots": 3,
    "n_vectors": 8,
    "no_controls": True,
    "no_heads": True,
    "no_probe": True,
    "no_progress": True,
    "no_repairs": True,
    "normalise": "standardise",
    "off": "zero",
    "only_words": True,
    "other_task": "en_fr",
    "output_bias": True,
    "pairs": ("next_letter:to_upper",),
    "projection": "tsne",
    "repairs": ("layers",),
    "roles": ("query",),
    "scale": (3.0,),
    "seed": 5,
    "sink": "<eos>",
    "sites": ("attn_out",),
    "task": ("next_letter", "to_upper"),
    "template": "{x}:{y}",
    "top_k": 4,
    "trust_remote_code": True,
    "vector": "function",
}
#: The modes of each command: its fields and their values.
MODES: dict[str, list[dict[str, Any]]] = {
    "answers": [{}],
    "conflict": [{}, {"pairs": ("antonyms:en_fr",)}],
    "decodability": [{}, {"mean_patching": True}],
    "failures": [{}, {"no_repairs": True}],
    "heads": [{}, {"ablation": True}, {"function_vectors": True}],
    "lens": [{}, {"vectors": True}, {"vectors": True, "vector": "function"}],
    "localize": [{}, {"no_heads": True}],
    "patch": [{"layer_scan": True}, {"position_scan": True}, {"component_scan": True}],
    "table": [{}],
    "variability": [{}, {"also": ("org/third",)}],
}
#: Small numbers where the defaults would draw for long.
SMALL = {"n_prompts": 10, "n_points": 20, "n_vectors": 10}
SMALL_TASKS = {
    "table": ("antonyms", "es_en"),
    "failures": ("lookup_once", "antonyms"),
    "decodability": ("letters",),
    "localize": ("letters",),
}
#: Tasks that work and are others: means are written between tasks that share their inputs.
OTHER_TASKS = {"decodability": ("verbs",)}
#: What is called in the end, by command: public functions, and what else takes options.
CALLED = {
    "answers": ["answer_scores"],
    "conflict": ["conflicting_tasks"],
    "decodability": ["task_decodability", "mean_patching"],
    "failures": ["task_vector_failures"],
    "heads": ["head_attribution", "head_ablation", "function_vectors"],
    "lens": ["logit_lens", "vector_lens"],
    "localize": ["localize"],
    "patch": ["layer_scan", "patch_positions"],
    "table": ["task_table"],
    "variability": ["vector_variability"],
}


class _Found(Result):
    """A result that notes what is asked of it."""

    calls: list[Any]

    def summary(self, **_: Any) -> pd.DataFrame:
        return pd.DataFrame({"right": [0.5]}, index=pd.Index(["task"], name="task"))

    def to_frame(self) -> pd.DataFrame:
        return self.summary()

    def table(self) -> pd.DataFrame:
        return self.summary()

    def plot(self, *args: Any, **options: Any) -> go.Figure:
        self.calls.append(("plot", args, options))
        return go.Figure()


def leaves(options: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every option: its name, its default, and the dataclass that holds it (None: the top)."""
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from ((name, default, field.name) for name, default, _ in leaves(value))
        else:
            yield field.name, field.default, None


def changed(options: Any, name: str, value: Any) -> Any:
    """The options with one of them changed."""
    (group,) = (group for leaf, _, group in leaves(options) if leaf == name)
    if group is None:
        return replace(options, **{name: value})
    return replace(options, **{group: replace(getattr(options, group), **{name: value})})


def defaults(main: Any, out: Path) -> Any:
    """The options of a command that is called without any but `--out`."""
    given: dict[str, Any] = {"models": cli.ModelOptions(), "output": cli.OutputOptions(out=out)}
    (tasks,) = (field for field in fields(main.Options) if field.name == "tasks")
    factory = tasks.default_factory
    given["tasks"] = cli.TaskOptions() if factory is MISSING else factory()
    return main.Options(**given)


def effect(room: str, options: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """All that the command does: the model it loads, the functions it calls, what it writes."""
    calls: list[Any] = []
    main, package = import_module(f"icl_mech.{room}.__main__"), import_module(f"icl_mech.{room}")

    def load(models: Any) -> str:
        calls.append(("load", vars(models)))
        return SimpleNamespace(n_layers=18)

    def stub(name: str, returned: Any) -> Any:
        def call(*args: Any, **given: Any) -> Any:
            calls.append((name, [_plain(a) for a in args], {k: _plain(given[k]) for k in given}))
            if returned is not None:
                return returned(*args)
            found = _Found(xr.Dataset({"right": ("x", np.ones(2))}), {"model": "m"})
            found.calls = calls
            return found

        return call

    with monkeypatch.context() as patched:
        patched.setattr(main, "load", load)
        for name in CALLED[room]:
            patched.setattr(package, name, stub(name, None), raising=False)
        if room == "table":
            patched.setattr(package, "write_table", stub("write_table", lambda _, path: path))
        page = import_module("icl_mech.localize.page")
        patched.setattr(page, "task_map_report", stub("report", lambda _, path: path))
        models = import_module("icl_mech.variability.models_plot")
        patched.setattr(models, "variability_models_figure", stub("models", lambda *_: go.Figure()))
        patch = import_module("icl_mech.patch")
        patched.setattr(patch, "mean_patching", stub("mean_patching", None))
        said = StringIO()
        with redirect_stdout(said), redirect_stderr(StringIO()):
            main._main(options)
    files = sorted(path.name for path in folder.rglob("*") if path.is_file())
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()
    return [*calls, files, said.getvalue()]


def _plain(value: Any) -> Any:
    """What can be compared and printed."""
    return "result" if isinstance(value, Result) else repr(value)


@pytest.mark.parametrize(
    ("room", "mode"), [(room, mode) for room, modes in MODES.items() for mode in modes], ids=str
)
def test_no_option_is_ignored(
    room: str, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    main = import_module(f"icl_mech.{room}.__main__")
    options = defaults(main, tmp_path / "figure.html")
    small = {name: SMALL[name] for name, *_ in leaves(options) if name in SMALL}
    small |= {"task": SMALL_TASKS[room]} if room in SMALL_TASKS else {}
    for name, value in {**small, **mode}.items():
        options = changed(options, name, value)
    usual = effect(room, options, monkeypatch, tmp_path)
    ignored: list[Any] = []
    for name, default, _ in leaves(options):
        value = tmp_path / f"{name}.html" if name in ("out", "folder") else OTHER.get(name, True)
        if name == "task":
            value = OTHER_TASKS.get(room, value)
        if isinstance(default, tuple) and not isinstance(value, tuple):
            value = (value,)
        if name in mode:
            continue
        assert value not in (default, small.get(name)), name
        try:
            found = effect(room, changed(options, name, value), monkeypatch, tmp_path)
        except InputError as error:
            found = str(error)
        if found == usual or (isinstance(found, str) and flag(name) not in found):
            ignored.append((flag(name), found))
    assert ignored == []


def test_every_command_is_tried() -> None:
    package = Path(cli.__file__).parent
    rooms = {path.parent.name for path in package.glob("*/__main__.py")}
    # `synthetic` takes no language model and has a test of its own.
    assert rooms - {"synthetic"} == set(MODES)
