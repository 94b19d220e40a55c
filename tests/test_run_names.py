"""Names of files tell runs apart, and say nothing of where things lie."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from icl_mech.cli.options import ModelOptions, OutputOptions, TaskOptions
from icl_mech.prompts import PromptSettings
from icl_mech.run_names import model_label, run_name, task_label
from icl_mech.tasks import list_tasks


@dataclass(frozen=True)
class Options:
    """Of some command."""

    n_shots: tuple[int, ...] = (5,)
    settings: PromptSettings = field(default_factory=PromptSettings)
    also: tuple[str, ...] = ()
    tasks: TaskOptions = field(default_factory=TaskOptions)
    models: ModelOptions = field(default_factory=ModelOptions)
    output: OutputOptions = field(default_factory=OutputOptions)


def name(*task: str, **changes: object) -> str:
    tasks = TaskOptions(task=task or ("country_capital",))
    return run_name(Options(tasks=tasks, **changes), "scan")


def test_what_is_at_its_default_is_not_named() -> None:
    assert name() == "scan-country_capital-gemma-3-270m"
    assert name(output=OutputOptions(json=True, no_progress=True)) == name()
    assert name(models=ModelOptions(device="cpu")) == name()


def test_what_is_changed_is_named() -> None:
    assert (
        name(settings=PromptSettings(n_prompts=8))
        == "scan-country_capital-gemma-3-270m-n_prompts_8"
    )
    assert name("es_en", "en_es", n_shots=(1, 4)) == "scan-es_en-en_es-gemma-3-270m-n_shots_1_4"
    assert name(models=ModelOptions(model="org/m@v1")) == "scan-country_capital-org-m-v1"
    seeded = Options(settings=PromptSettings(seed=3))
    assert run_name(seeded, "scan") == "scan-country_capital-gemma-3-270m-seed_3"


def test_no_two_runs_share_a_name() -> None:
    templates = [
        run_name(Options(settings=PromptSettings(template=text)), "scan")
        for text in ("{x}->{y}", "{x}=>{y}", "{x} -> {y}", "{x}=>{y}\n")
    ]
    every = list_tasks()
    names = [
        *templates,
        *(name(settings=PromptSettings(n_prompts=n)) for n in (1, 2)),
        name("antonyms", "es_en"),
        name("antonyms", "en_es"),
        name(*every),
        name(*every[:-1]),
        name("all"),
        name(also=("org/m",)),
        *(name(models=ModelOptions(model=m)) for m in ("one/m", "other/m", "m")),
        name(models=ModelOptions(dtype="float16")),
    ]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 200


def test_files_are_named_by_stem_and_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = []
    for folder, text in (("a", "1"), ("b", "2"), ("c", "1")):
        file = tmp_path / folder / "secret place" / "=my words.csv"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        labels += [task_label(str(file)), task_label(f"pos:{file}"), task_label(f"pos:{file}/noun")]
    monkeypatch.chdir(tmp_path / "a" / "secret place")
    assert task_label("=my words.csv") == labels[0] == labels[6] != labels[3]
    assert labels[0].startswith("my-words-")
    assert labels[1] == f"pos-{labels[0]}"
    assert labels[2] == f"{labels[1]}-noun"
    assert not any("secret" in label or "/" in label for label in labels)


def test_folders_of_models_are_named_by_stem_and_place(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "model").mkdir(parents=True)
    one, other = (model_label(str(tmp_path / folder / "model")) for folder in ("a", "b"))
    assert one.startswith("model-")
    assert one != other
    assert str(tmp_path.name) not in one
