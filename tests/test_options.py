"""No option is ignored: every one is read by what a command plans, loads, measures or writes.

Each command runs on a tiny model, and the classes of its options note which of them are read.
Copying an option, checking it, or recording it in the provenance is no reading.
"""

import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import tyro
from commands import loaded

from icl_mech.cli.main import COMMANDS, command
from icl_mech.cli.options import ModelOptions
from icl_mech.results import load_result

SMALL = "--n-prompts 2 --n-shots 2"
#: Small runs of every command; TASK is a task that the model can do. An option must be read in one
#: of them: there are two where an option matters only without another.
RUNS: dict[str, list[str]] = {
    "scan": [f"--tasks to_upper {SMALL}"],
    "positions": [f"--tasks to_upper {SMALL} --corruption task"],
    "components": [f"--tasks to_upper {SMALL} --corruption task"],
    "mean-patching": [f"--tasks letters {SMALL} --n-mean 2 --layers 1"],
    "heads": [f"--tasks TASK {SMALL} --n-clean 2 --methods aie"],
    "ablate": [f"--tasks TASK {SMALL} --counts 1 --n-draws 1"],
    "function-vectors": [f"--tasks TASK {SMALL} --n-heads 1 --scale 1"],
    "lens": [f"--tasks to_upper {SMALL}"],
    "vector-lens": [
        f"--tasks TASK {SMALL} --layers 1",
        f"--tasks TASK {SMALL} --vector function --n-heads 1",
    ],
    "patchscope": [
        f"--tasks to_upper {SMALL} --layers 1 --invitations repeat --max-new-tokens 2 --into 0"
    ],
    "decodability": ["--tasks letters --n-prompts 6 --n-shots 2 --k 3 --layers 1"],
    "masking": [f"--tasks to_upper {SMALL} --masks labels"],
    "localize": ["--tasks letters --n-prompts 3 --n-points 6 --n-shots 2 --k 3"],
    "decoder": ["--tasks TASK --n-prompts 14 --n-shots 2 --n-dev 2 --layer 0 --n-draws 1"],
    "checkpoints": [
        f"--tasks letters {SMALL} --n-points 4 --k 2 --model org/name --revisions step1 step2",
        f"--tasks letters {SMALL} --n-points 4 --k 2 --models org/a org/b --steps 1 2",
    ],
    "table": [f"--tasks to_upper {SMALL}"],
    "sweep": [
        "--models MODEL --measures scan --tasks to_upper --set n_prompts=2 n_shots=2 "
        "--folder FOLDER/sweep",
        "--models MODEL --measures scan --tasks to_upper --dry-run",
    ],
    "answers": [f"--tasks to_upper {SMALL}"],
    "conflict": [f"--pairs next_letter:to_upper {SMALL}"],
    "variability": ["--tasks to_upper next_letter --n-prompts 4 --n-shots 2"],
    "vectors": [
        f"--tasks to_upper {SMALL} --methods theta learned --n-sets 2 --n-steps 1 --batch-size 2 "
        "--train-layers 1"
    ],
    "knowledge": [
        f"--tasks to_upper {SMALL} --methods theta learned --n-sets 2 --n-steps 1 --batch-size 2 "
        "--train-layers 1"
    ],
    "progressive": [
        f"--tasks to_upper {SMALL} --methods theta learned --n-sets 2 --n-steps 1 --batch-size 2 "
        "--train-layers 1 --first-tokens 0 1 --timed-tokens 1 --n-rounds 1"
    ],
    "transfer": [
        f"--tasks to_upper next_letter {SMALL} --k 1 --formats arrow qa",
        f"--tasks to_upper {SMALL}",
    ],
    "classify": [
        f"--tasks sentences/sentiment {SMALL} --methods theta learned --n-sets 2 --n-steps 1 "
        "--batch-size 2 --train-layers 1"
    ],
    "finetune": [
        "--model MODEL --folder FOLDER --tasks letters --n-prompts 2 --n-shots 1 --n-steps 1 "
        "--batch-size 3"
    ],
    "failures": ["--tasks lookup_once --n-prompts 3 --n-shots 3"],
    "check": [f"--tasks to_upper {SMALL} --n-edits 2"],
}
#: Commands that print only, or write other files.
NO_FILES = {"check", "sweep"}
#: Functions that copy, check or record options, which changes nothing by itself.
COPYING = {"__init__", "__post_init__", "__repr__", "recorded", "replace", "set_counts"}
#: What `train` reads is tested with the training itself: it takes no language model.
OTHERS = {"train"}


def options(given: Any) -> Iterator[Any]:
    """The command, and every group of options in it."""
    yield given
    for field in fields(given):
        if is_dataclass(getattr(given, field.name)):
            yield from options(getattr(given, field.name))


def names_of(group: Any) -> set[str]:
    """The options of one group, without those of the groups in it."""
    return {f.name for f in fields(group) if not is_dataclass(getattr(group, f.name))}


def copies(frame: FrameType | None) -> bool:
    """Whether an option is read only to be copied, checked or recorded."""
    while frame is not None and frame.f_code.co_filename != __file__:
        if frame.f_code.co_name in COPYING:
            return True
        frame = frame.f_back
    return False


def note_reads(group: type, names: set[str], read: set[str], patch: pytest.MonkeyPatch) -> None:
    def get(self: Any, name: str) -> Any:
        if name in names and not copies(sys._getframe(1)):
            read.add(name)
        return object.__getattribute__(self, name)

    patch.setattr(group, "__getattribute__", get, raising=False)


def parsed(name: str, words: str) -> Any:
    return tyro.cli(command(name), args=words.split())


#: These take seconds each.
LONG = {"checkpoints", "classify", "decoder", "knowledge", "progressive", "transfer"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in RUNS]
)
def test_no_option_is_ignored(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: list[str]
) -> None:
    model = loaded(small[1])
    monkeypatch.setattr("icl_mech.model.load_model", lambda *_, **__: model)
    monkeypatch.setattr("icl_mech.plotting.export", lambda figure, out, *_, **__: out)
    read: set[str] = set()
    unread: set[str] = set()
    for i, words in enumerate(RUNS[name]):
        out = tmp_path / f"{i}.html"
        for part, value in (("TASK", small[-1]), ("MODEL", small[1]), ("FOLDER", tmp_path)):
            words = words.replace(part, str(value))
        written = "" if name in NO_FILES else f"--out {out}"
        given = parsed(name, f"{words} --no-progress {written}")
        with monkeypatch.context() as patch:
            for group in options(given):
                unread |= names_of(group)
                note_reads(type(group), names_of(group), read, patch)
            given.run()
        if name not in NO_FILES:
            provenance = load_result(out.with_suffix(".nc")).provenance
            assert given.settings.recorded().keys() <= provenance.keys()
    assert unread - read == set()


def test_every_command_is_tried() -> None:
    assert RUNS.keys() | OTHERS == COMMANDS.keys()


def test_every_option_of_the_model_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {
        "model": "org/name",
        "adapter": Path("folder"),
        "device": "cpu",
        "dtype": "float64",
        "trust_remote_code": True,
        "sink": "<eos>",
        "engine": "plain",
        "matmul_precision": "medium",
    }
    loaded: list[Any] = []
    monkeypatch.setattr("icl_mech.model.load_model", lambda *args, **kw: loaded.append((args, kw)))
    monkeypatch.setattr("icl_mech.model.read_adapter", lambda folder: None)
    ModelOptions(**given).load()
    assert {f.name for f in fields(ModelOptions)} == set(given)
    assert loaded == [((given.pop("model"),), given)]
