"""`localize` on the packaged model: curves against the plain way, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import assert_refused, loaded, run_room
from plain import plain_logprobs

from icl_mech import load_result
from icl_mech.cli.localize import LocalizeCommand
from icl_mech.cli.options import ModelOptions, TaskOptions
from icl_mech.decodability import knn_credit
from icl_mech.errors import InputError
from icl_mech.localize import TaskMap, localize
from icl_mech.localize.__main__ import main
from icl_mech.localize.plan import MapPlan, MapSettings, plan_map
from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import Encoder
from icl_mech.run_names import model_label
from icl_mech.tasks import list_tasks

TASKS = ["countries/capital", "countries/language"]
N, POINTS, SHOTS = 4, 12, 2


@pytest.fixture(scope="module")
def found(gemma: HookedModel) -> TaskMap:
    return localize(gemma, TASKS, N, SHOTS, n_points=POINTS, heads=False, progress=False)


def planned_with_encoder(model: HookedModel) -> tuple[MapPlan, Encoder]:
    settings = MapSettings(n_prompts=N, n_points=POINTS, n_shots=SHOTS)
    planned = plan_map(TASKS, settings)
    words = [pair.y for t in planned.tasks for pair in t.task.pairs]
    return planned, model.encoder("{x}->{y}", words)


def test_curves_equal_the_plain_way(gemma: HookedModel, found: TaskMap) -> None:
    """Theta of two dummies into the zero-shot prompt; the lens by final norm and unembedding."""
    planned, encoder = planned_with_encoder(gemma)
    e, i = planned.tasks[0].episodes[3], 3
    few = encoder.encode(e.demonstrations, e.query.x)
    answer = encoder.answer_tokens(few, [e.query.y])[0][0]
    with torch.no_grad():
        thetas = torch.zeros(gemma.n_layers, gemma.d_model)
        for dummy in e.dummies:
            prompt = encoder.encode(e.demonstrations, dummy.x)
            _, cache = gemma.bridge.run_with_cache(torch.tensor([prompt.tokens]))
            for layer in range(gemma.n_layers):
                thetas[layer] += cache[f"blocks.{layer}.hook_resid_post"][0, -1] / 2
        _, cache = gemma.bridge.run_with_cache(torch.tensor([few.tokens]))
        for layer in (4, 17):
            resid = cache[f"blocks.{layer}.hook_resid_post"][:, -1:]
            logits = gemma.bridge.unembed(gemma.bridge.ln_final(resid))[0, 0]
            expected = float(logits.softmax(-1)[answer])
            ours = float(found.data["lens"].sel(task=TASKS[0], layer=layer)[i])
            assert abs(ours - expected) < 1e-4
    zero = encoder.encode((), e.query.x)
    target = encoder.answer_tokens(zero, [e.query.y])[0][0]
    for layer in (5, 14):
        edit = Edit(layer, thetas[layer], "resid_post", "final_arrow")
        logprobs = plain_logprobs(gemma, zero, edit)
        ours = bool(found.data["transfer"].sel(task=TASKS[0], layer=layer)[i])
        assert ours == bool(logprobs.argmax() == target)


def test_encoding_is_leave_one_out_decodability(gemma: HookedModel, found: TaskMap) -> None:
    planned, encoder = planned_with_encoder(gemma)
    prompts = [
        encoder.encode(e.demonstrations, e.query.x) for t in planned.tasks for e in t.episodes
    ]
    rows = gemma.capture(prompts, ["final_arrow"])[:, 0].numpy()
    credit = knn_credit(rows, *planned.labels_and_groups())
    expected = credit.reshape(2, POINTS, gemma.n_layers)
    assert abs(found.data["encoding"].values - expected).max() < 0.51  # ties of near neighbours
    assert np.mean(found.data["encoding"].values == expected) > 0.99


def test_a_model_that_cannot_do_the_task(tiny_llama: HookedModel) -> None:
    task_map = localize(tiny_llama, "letters", 6, 2, n_points=12, heads=False, progress=False)
    assert set(task_map.table()["decoding (lens)"]) == {"no in-context learning"}
    assert any("no in-context learning to localise" in note for note in task_map.caveats())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_prompts": 0}, "n_prompts is 0; expected at least 1"),
        ({"n_points": 5}, "n_points is 5; expected more than k = 10 neighbours"),
        ({"n_points": 12, "n_shots": 1}, "heads need at least 2 shots"),
        ({"fraction": 2.0}, "fraction is 2.0"),
    ],
)
def test_bad_input(tiny_llama: HookedModel, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        localize(tiny_llama, "letters", progress=False, **({"n_prompts": 3} | arguments))


QUICK = ["--task", "letters", "--n-prompts", "4", "--n-points", "14", "--no-heads"]


def test_the_command_writes_a_report(small_model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "map.html"
    done = run_room("localize", *QUICK, *small_model, "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    tasks = ["letters/next", "letters/previous", "letters/upper"]
    assert [row["task"] for row in printed["summary"]] == tasks
    assert {row["model"] for row in printed["summary"]} == {loaded(small_model[1]).name}
    assert printed["report"] == str(out)
    assert "What was run" in out.read_text()
    # As other commands do.
    saved = load_result(printed["data"])
    assert isinstance(saved, TaskMap)
    assert printed["provenance"] == saved.provenance
    assert printed["provenance"]["rule"] == {"fraction": 0.5, "min_rise": 0.1, "min_found": 0.95}


def test_the_command_tells_people_where_everything_lies(
    small_model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    main([*QUICK, *small_model, "--no-progress"])
    *_, report, data = capsys.readouterr().out.splitlines()
    name = f"task_map-letters-{model_label(small_model[1])}-n_prompts_4-n_points_14-no_heads"
    stem = tmp_path / "figures" / name
    assert report.split() == ["report:", f"{stem}.html"]
    assert data.split() == ["data:", f"{stem}.nc"]


def page_of(task: list[str], model: str, *also: str) -> Path:
    tasks, models = TaskOptions(task=tuple(task)), ModelOptions(model=model)
    return LocalizeCommand(tasks=tasks, models=models, also=also).page()


def test_no_report_is_written_over_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = ["antonyms", "es_en"]
    pages = [
        page_of(first, "gemma-3-270m"),
        page_of(first, "org/other@v1"),
        page_of(first, "gemma-3-270m", "org/other"),
        page_of([*first, "en_es"], "gemma-3-270m"),
        page_of([*first, "fr_en"], "gemma-3-270m"),
        page_of(["all"], "gemma-3-270m"),
        page_of(list_tasks()[:-1] + first[:1], "gemma-3-270m"),
    ]
    assert len(set(pages)) == len(pages)
    assert {page.parent for page in pages} == {Path("figures")}
    assert pages[1].name == "task_map-antonyms-es_en-org-other-v1.html"
    assert max(len(page.name) for page in pages) < 150


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "country"], "unknown task 'country'"),
        (["--out", "map.png"], "a report is a page"),
        (["--n-points", "0"], "is 0; expected at least 1"),
        (["--n-prompts", "0", "--no-heads"], "n_prompts is 0; expected at least 1"),
        (["--also", "./nothere"], "./nothere: no such folder or file; expected a model"),
        (["--fraction", "3", "--task", "letters", "--n-points", "14"], "fraction is 3"),
    ],
)
def test_the_command_refuses(options: list[str], message: str) -> None:
    assert_refused(run_room("localize", *options), message)
