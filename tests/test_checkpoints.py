"""`over_checkpoints` on the checkpoints of a tiny model, and onsets of planted curves."""

import inspect
import json
import weakref
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from commands import assert_refused, loaded, run_room
from tiny_models import D_VOCAB, byte_tokenizer, config, saved
from transformers import AutoModelForCausalLM

import icl_mech
from icl_mech.checkpoints import Checkpoints, over_checkpoints, run as checkpoints_run, step_of
from icl_mech.checkpoints.plan import CheckpointSettings, order_checkpoints
from icl_mech.cli.main import command
from icl_mech.errors import InputError
from icl_mech.localize import TaskMap, localize
from icl_mech.localize.plan import MapPlan, plan_map
from icl_mech.model import HookedModel, load_model
from icl_mech.sweep import DamagedFileWarning

TASKS = ["letters/next", "letters/upper"]
STEPS = [0, 20, 100]
N: dict[str, Any] = {"n_prompts": 12, "n_shots": 3, "n_points": 20, "k": 4, "progress": False}


def texts(n: int, seed: int) -> list[str]:
    """Few-shot prompts with their answers, of either task, to train on."""
    sizes = {"n_prompts": n, "n_shots": 3, "n_points": n, "k": 4, "seed": seed}
    planned = plan_map(TASKS, CheckpointSettings(**sizes)).tasks
    return [
        "\n".join(f"{pair.x}->{pair.y}" for pair in (*e.demonstrations, e.query))
        for of in planned
        for e in of.episodes
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A tiny Llama that learns what comes after "->", at every one of `STEPS`."""
    where, tokenizer = tmp_path_factory.mktemp("training"), byte_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = config("llama")
        small.initializer_range = 0.05
        model = AutoModelForCausalLM.from_config(small, attn_implementation="eager")
        model.config.architectures = [type(model).__name__]
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        rows = [tokenizer(text)["input_ids"] for text in texts(100, seed=5)]
        longest = max(map(len, rows))
        padded = torch.tensor([[D_VOCAB - 1, *r] + [-100] * (longest - len(r)) for r in rows])
        for step in range(STEPS[-1] + 1):
            if step in STEPS:
                saved(model, where / f"step_{step:07d}")
            batch = padded[torch.randperm(len(padded))[:32]]
            loss = model(batch.clamp(min=0), labels=batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return [where / f"step_{step:07d}" for step in STEPS]


@pytest.fixture(scope="module")
def measured(folders: list[Path]) -> Checkpoints:
    # In another order: steps are sorted.
    return over_checkpoints(folders[::-1], TASKS, device="cpu", **N)


class Counting:
    """Stands before `measure_map`: notes how often it runs, and is interrupted at some time."""

    def __init__(self, stop_after: int = 100) -> None:
        self.models: list[str] = []
        self.stop_after = stop_after

    def __call__(self, model: HookedModel, plan: MapPlan, progress: bool) -> TaskMap:
        if len(self.models) >= self.stop_after:
            raise KeyboardInterrupt
        self.models.append(model.name)
        return localize_run(model, plan, progress)


localize_run: Callable[..., TaskMap] = checkpoints_run.measure_map


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step1000", 1000),
        ("step-1000", 1000),
        ("runs/checkpoint-500/", 500),
        ("global_step143000", 143_000),
        ("org/name@step1000-tokens4B", 1000),
        ("org/name@stage1-step2000-tokens9B", 2000),
        ("a/b/step_0000100", 100),
        ("a/step200/hf", 200),
        ("step100/step200", 200),
        ("ckpt_10k", 10_000),
        ("step2M", 2_000_000),
        ("iter=7", 7),
        ("EleutherAI/pythia-70m@step0", 0),
        ("EleutherAI/pythia-70m", None),
        ("org/step5@main", None),
        ("footstep5", None),
        ("step10b", None),
        ("step1-step2", None),
    ],
)
def test_steps_in_names(name: str, step: int | None) -> None:
    assert step_of(name) == step
    assert step_of(Path(name)) == step


def test_order_is_by_step() -> None:
    def load() -> None: ...

    ordered = order_checkpoints({200: load, 3: "name", 10: Path("folder")})
    assert [c.step for c in ordered] == [3, 10, 200]
    assert [str(c) for c in ordered] == ["step 3 (name)", "step 10 (folder)", "step 200"]
    assert [c.source for c in order_checkpoints(["b", "a"], steps=[7, 5])] == ["a", "b"]


@pytest.mark.parametrize(
    ("models", "steps", "message"),
    [
        (["step1", "pythia"], None, "no training step can be read from 'pythia'; expected one"),
        (["step1", print], None, "no training step can be read from 'a function'"),
        (["a/step1", "b/step1"], None, r"step 1 \(a/step1\) and step 1 \(b/step1\) are of the sa"),
        (["step1"], None, "1 model; expected at least 2 checkpoints"),
        (["a", "b"], [1], "1 steps for 2 models"),
        (["a", "b"], [1, -1], "step is -1; expected 0 or more"),
        ({1: "a", 2: "b"}, [1, 2], "steps beside a mapping"),
        ({1: "a", 2.5: "b"}, None, "step is 2.5; expected a whole number"),
        ("step1", None, "models is 'step1'; expected several"),
        ({1: "a", 2: torch.nn.Linear(1, 1)}, None, "a model is Linear"),
        ({1: "a", 2: 7}, None, "a model is 7; expected a name, a folder, or a function"),
    ],
)
def test_checkpoints_that_cannot_be_ordered(models: Any, steps: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        order_checkpoints(models, steps)


def test_every_step_is_a_map_of_that_model(measured: Checkpoints, folders: list[Path]) -> None:
    assert measured.steps == STEPS
    for step, folder in zip(STEPS, folders, strict=True):
        model = loaded(folder, device="cpu")
        alone = localize(model, TASKS, heads=False, masking=False, **N)
        ours = measured.at(step)
        for name, array in alone.data.items():
            np.testing.assert_array_equal(ours.data[name], array, err_msg=name)
        assert ours.summary().equals(alone.summary())
        assert ours.provenance["weights_sha256"] == model.weight_hash
    last = measured.at()
    for task in TASKS:
        assert measured.accuracy(task=task) == last.share(task, "regular")
        assert measured.accuracy(task=task, which="baseline") == last.share(task, "baseline")
        for ours, theirs in (
            (measured.td_by_layer(task=task), last.curve(task, "encoding")),
            (measured.transfer(task=task), last.curve(task, "transfer")),
        ):
            for one, other in zip(ours, theirs, strict=True):
                assert one.columns("") == pytest.approx(other.columns(""))
    with pytest.raises(InputError, match="no checkpoint after 70 steps; the nearest is after 100"):
        measured.at(70)
    with pytest.raises(InputError, match="layer 9 was not measured"):
        measured.td(layer=9)


def test_training_teaches_it(measured: Checkpoints) -> None:
    first, last = measured.accuracy(0), measured.accuracy()
    assert first.value < 0.2 < 0.35 < last.value
    assert measured.td().value > 0.8
    assert measured.data["chance"].values == pytest.approx(0.5, abs=0.05)


def test_td_is_read_at_a_layer_chosen_on_the_other_half(measured: Checkpoints) -> None:
    layers = measured.td_layers()
    half = measured.data["half_td"].sel(step=STEPS[-1]).transpose("half", "layer").values
    assert layers == (int(half[1].argmax()), int(half[0].argmax()))
    credit = measured.data["encoding"].transpose("step", "task", "point", "layer").values
    own = measured.data["query_half"].values
    for i, step in enumerate(STEPS):
        picked = np.where(own == 0, credit[i, ..., layers[0]], credit[i, ..., layers[1]])
        assert measured.td(step).value == pytest.approx(picked.mean())
        for task, row in zip(TASKS, picked, strict=True):
            assert measured.td(step, task).value == pytest.approx(row.mean())
    # Both tasks ask the same, so that a query is in one half.
    queries, halves = measured.data["query"].values.ravel(), own.ravel()
    assert all(len(set(halves[queries == q])) == 1 for q in set(queries))


def test_it_is_saved_and_shown(measured: Checkpoints, tmp_path: Path) -> None:
    again = icl_mech.load_result(measured.save(tmp_path / "c.nc"))
    assert isinstance(again, Checkpoints)
    assert again.onsets().equals(measured.onsets())
    assert repr(again) == repr(measured)
    summary, full = measured.summary(), measured.full_summary()
    assert len(summary.columns) == 8
    for step in STEPS:
        assert summary.loc[(step, "mean"), "td"] == measured.td(step).value
        assert summary.loc[(step, "mean"), "few_shot"] == measured.accuracy(step).value
    assert list(full.loc[STEPS[0]].index) == ["mean", *TASKS]
    assert "formation_transfer" in full
    onset = measured.onset(TASKS[1])["accuracy"].estimate
    row = full.loc[(STEPS[0], TASKS[1])]
    ends = row["accuracy_onset"], row["accuracy_onset_low"], row["accuracy_onset_high"]
    np.testing.assert_equal(ends, (onset.value, onset.low, onset.high))
    frame = measured.to_frame()
    assert len(frame) == len(STEPS) * len(measured.at().to_frame())
    layers = measured.map_layers()
    found = measured.at().formation(TASKS[0], "transfer")
    row = layers.loc[(STEPS[-1], TASKS[0], "formation", "transfer")]
    assert row["why"] == found.why
    np.testing.assert_equal(row["layer"], found.estimate.value)
    notes = " ".join(measured.caveats())
    assert "3 checkpoints are few" in notes
    assert "2 tasks; fewer than 4 give no interval over tasks" in notes
    figure = measured.plot()
    assert [t.type for t in figure.data].count("heatmap") == 2
    heat = next(t for t in figure.data if t.type == "heatmap")
    assert heat.z.shape == (measured.data.sizes["layer"], len(STEPS))
    assert list(figure.layout.xaxis.ticktext) == ["0", "20", "100"]
    assert figure.layout.xaxis.tickvals[0] == 0


@pytest.mark.slow
def test_an_interrupted_run_goes_on(
    measured: Checkpoints, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, options = tmp_path / "runs", {"device": "cpu", "folder": tmp_path / "runs", **N}
    first = Counting(stop_after=2)
    monkeypatch.setattr(checkpoints_run, "measure_map", first)
    with pytest.raises(KeyboardInterrupt):
        over_checkpoints(folders, TASKS, **options)
    assert sorted(p.name.partition("-")[0] for p in kept.glob("*.nc")) == ["step0", "step20"]
    assert isinstance(icl_mech.load_result(next(kept.glob("step20-*.nc"))), TaskMap)
    second = Counting()
    monkeypatch.setattr(checkpoints_run, "measure_map", second)
    resumed = over_checkpoints(folders, TASKS, **options)
    assert len(second.models) == 1
    assert resumed.provenance["resumed"] == STEPS[:2]
    for name, array in measured.data.items():
        np.testing.assert_array_equal(resumed.data[name], array, err_msg=name)
    assert resumed.summary().equals(measured.summary())
    with pytest.raises(InputError, match="seed is 0, not 1"):
        over_checkpoints(folders, TASKS, seed=1, **options)
    # Another task in the pool changes how well all are told apart.
    with pytest.raises(InputError, match="checkpoints.tasks"):
        over_checkpoints(folders, "letters", **options)
    next(kept.glob("step0-*.nc")).write_bytes(b"")
    with pytest.warns(DamagedFileWarning, match="step0 is run again"):
        over_checkpoints(folders[:2], TASKS, **options)


def test_functions_that_load_are_told_apart_by_weights(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [loaded(f, device="cpu") for f in folders[:2]]
    loaders = {step: (lambda m=m: m) for step, m in enumerate(models)}
    counting = Counting()
    monkeypatch.setattr(checkpoints_run, "measure_map", counting)
    options = N | {"n_prompts": 2, "n_points": 6, "folder": tmp_path}
    over_checkpoints(loaders, TASKS, **options)
    over_checkpoints(loaders, TASKS, **options)
    assert len(counting.models) == 2
    with pytest.raises(InputError, match="holds 'step0' of other weights"):
        over_checkpoints({0: loaders[1], 1: loaders[1]}, TASKS, **options)


def test_one_model_is_in_memory_at_a_time(folders: list[Path]) -> None:
    seen: list[weakref.ref[HookedModel]] = []

    def load() -> HookedModel:
        assert [model() for model in seen] == [None] * len(seen)
        model = load_model(folders[0], device="cpu")
        seen.append(weakref.ref(model))
        return model

    over_checkpoints({0: load, 1: load}, TASKS, **N | {"n_prompts": 2, "n_points": 6})
    assert len(seen) == 2


def test_models_of_another_kind(folders: list[Path], tmp_path: Path) -> None:
    def with_config(**changes: Any) -> Path:
        changed = config("llama")
        for name, value in changes.items():
            setattr(changed, name, value)
        model = AutoModelForCausalLM.from_config(changed, attn_implementation="eager")
        model.config.architectures = [type(model).__name__]
        return saved(model, tmp_path / "step500")

    few = {"device": "cpu", **N, "n_prompts": 2, "n_points": 6}
    shallow = with_config(num_hidden_layers=2)
    with pytest.raises(
        InputError, match=r"step 500 \(.*\): has layers 2, not 4 as step 0 \(step_0"
    ):
        over_checkpoints([shallow, folders[0]], TASKS, **few)
    with_config()
    tokens = byte_tokenizer()
    tokens.add_tokens(["<new>"])
    tokens.save_pretrained(shallow)
    with pytest.raises(InputError, match="has another vocabulary than step 0"):
        over_checkpoints([shallow, folders[0]], TASKS, **few)
    loaders = {
        step: (lambda d=d: load_model(folders[0], device="cpu", dtype=d))
        for step, d in enumerate(("float32", "float64"))
    }
    with pytest.raises(InputError, match="step 1: has number format 'float64', not 'float32'"):
        over_checkpoints(loaders, TASKS, **few)
    with pytest.raises(InputError, match="no such folder"):
        over_checkpoints([folders[0], "/none/step7"], TASKS, **few)


# --- planted curves ---------------------------------------------------------------------------


def planted(
    encoded: dict[str, list[float]], solved: dict[str, list[float]], steps: list[int]
) -> Checkpoints:
    """Shares of right points and prompts per task and step, at the best layer (1)."""
    n, tasks = 100, list(encoded)
    rng = np.random.default_rng(0)

    def drawn(curve: list[float]) -> np.ndarray:
        order = rng.permutation(n)  # the same prompts stay right
        return np.array([order < share * n for share in curve])

    credit = np.zeros((len(steps), len(tasks), n, 2), dtype=np.float32)
    right = np.zeros((len(steps), len(tasks), n), dtype=bool)
    for i, task in enumerate(tasks):
        credit[:, i, :, 1] = drawn(encoded[task])
        right[:, i] = drawn(solved[task])
    per_prompt = ("step", "task", "prompt")
    half_td = np.zeros((len(steps), 2, 2), dtype=np.float32)
    half_td[..., 1] = 1
    data = xr.Dataset(
        {
            "encoding": (("step", "task", "point", "layer"), credit),
            "half_td": (("step", "half", "layer"), half_td),
            "transfer": ((*per_prompt, "layer"), credit > 0),
            "lens": ((*per_prompt, "layer"), credit),
            "regular": (per_prompt, right),
            "baseline": (per_prompt, np.zeros_like(right)),
            "prior": (("task", "prompt"), np.zeros((len(tasks), n), bool)),
            "query": (("task", "point"), [[f"x{i}" for i in range(n)]] * len(tasks)),
            "query_half": (("task", "point"), [[i % 2 for i in range(n)]] * len(tasks)),
            "chance": ("task", [0.5] * len(tasks)),
        },
        coords={"step": steps, "task": tasks, "layer": [0, 1], "half": [0, 1]},
    )
    rule = {"rule": {"fraction": 0.5, "min_rise": 0.1, "min_found": 0.95}}
    run = {"model": "m", "readouts": {"n": 0, "tied": 0}, **rule, "seed": 0, "n_shots": 4}
    run |= {"n_prompts": n, "n_points": n}
    return Checkpoints(data, {**run, "runs": [deepcopy(run) for _ in steps]})


GRID = [0, 100, 1_000, 10_000]


def at(low: int, high: int, share: float) -> float:
    """A step between two, in logarithms of 1 + step / 100."""
    one, two = (np.log1p(step / 100) for step in (low, high))
    return 100 * float(np.expm1(one + share * (two - one)))


def test_planted_onsets_and_lead() -> None:
    found = planted(
        {"a": [0, 0, 1, 1], "b": [0.2, 0.2, 0.7, 0.7]},
        {"a": [0, 0, 0, 1], "b": [0, 0, 0.2, 1]},
        GRID,
    )
    onsets = found.onsets()
    for task in ("a", "b", "mean"):
        assert onsets.loc[task, "encoding"] == pytest.approx(at(100, 1_000, 0.5))
    assert onsets.loc["a", "accuracy"] == pytest.approx(at(1_000, 10_000, 0.5))
    assert onsets.loc["b", "accuracy"] == pytest.approx(at(1_000, 10_000, 3 / 8))
    assert onsets.loc["mean", "accuracy"] == pytest.approx(at(1_000, 10_000, 4 / 9))
    # Where every prompt turns at the same step nothing varies; else it does.
    assert onsets.loc["a", "lead_low"] == pytest.approx(onsets.loc["a", "lead"])
    b = onsets.loc["b"]
    assert b["accuracy_low"] < b["accuracy"] < b["accuracy_high"]
    assert 0 < b["lead_low"] < b["lead"] < b["lead_high"]
    lead = found.lead()
    assert lead.value == pytest.approx(onsets.loc[["a", "b"], "lead"].mean())
    assert lead.n == 2
    assert found.finding().startswith("Encoding rises before accuracy: half by step")
    assert "still rose" in " ".join(found.caveats())
    quarter = found.onset("a", fraction=0.25)["encoding"].estimate
    assert quarter.value == pytest.approx(at(100, 1_000, 0.25))
    with pytest.raises(InputError, match="expected between 0 and 1"):
        found.onsets(1.0)


def test_no_onset_where_nothing_rose() -> None:
    found = planted(
        {"a": [0.5, 0.9, 0.5, 0.52], "b": [1, 1, 1, 1]},
        {"a": [0.5, 0.4, 0.2, 0.1], "b": [0, 0, 1, 1]},
        GRID,
    )
    onsets = found.onsets()
    assert np.isnan(onsets.loc[["a", "b"], "encoding"]).all()
    assert np.isnan(onsets.loc["a", "accuracy"])
    assert onsets.loc["b", "accuracy"] == pytest.approx(at(100, 1_000, 0.5))
    assert np.isnan(onsets["lead"]).all()
    assert np.isnan(found.lead().value)
    notes = " ".join(found.caveats())
    assert "no onset of encoding (a, b, mean): TD at the last checkpoint is not above" in notes
    assert found.finding().startswith("Accuracy rises (half by step")
    assert "still rose" not in notes
    found.plot()


def test_both_curves_are_resampled_with_the_same_queries() -> None:
    """The same curve twice: encoding's draws lie wider, and both move together."""
    curve = {"a": [0.0, 0.3, 0.6, 1.0]}
    found = planted(curve, curve, GRID)
    found.data["regular"][:] = found.data["encoding"].isel(layer=1).values > 0
    when = found.onset("a")
    assert when["lead"].estimate.value == 0
    together = np.corrcoef(when["encoding"].draws, when["accuracy"].draws)[0, 1]
    assert together > 0.95
    widths = [when[w].estimate.high - when[w].estimate.low for w in ("encoding", "accuracy")]
    assert 1.2 < widths[0] / widths[1] < 1.7


def test_tasks_that_all_score_the_same_have_an_interval_over_queries() -> None:
    curves = {task: [0, 0.5, 1.0] for task in "abcd"}
    found = planted(curves, curves, GRID[:3])
    assert found.accuracy(0).high < 0.2
    assert found.accuracy(0).value == 0


def test_settings_have_the_defaults_of_the_function() -> None:
    given = {n: p.default for n, p in inspect.signature(over_checkpoints).parameters.items()}
    assert list(given)[:5] == ["models", "tasks", "n_prompts", "n_shots", "seed"]
    settings = vars(CheckpointSettings())
    for name, value in (settings | vars(settings["rule"])).items():
        assert name == "rule" or given[name] == value, name
    assert command("checkpoints")().settings == CheckpointSettings()


# --- the command ------------------------------------------------------------------------------

QUICK = ["--task", *TASKS, "--n-prompts", "4", "--n-points", "14", "--n-shots", "2"]


@pytest.mark.slow
def test_the_command(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "c.html"
    named = ["--models", str(folders[2]), str(folders[0])]
    done = run_room("checkpoints", *QUICK, *named, "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert sorted({row["step"] for row in printed["summary"]}) == [0, 100]
    assert printed["provenance"]["n_shots"] == 2
    assert isinstance(icl_mech.load_result(printed["data"]), Checkpoints)
    assert "When is the task encoded" in out.read_text()
    names = sorted(p.name.partition("-")[0] for p in (tmp_path / "c-runs").glob("*.nc"))
    assert names == ["step0", "step100"]
    again = run_room("checkpoints", *QUICK, *named, "--json", "--out", str(out))
    assert json.loads(again.stdout)["provenance"]["resumed"] == [0, 100]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected either --revisions (of --model) or --models"),
        (["--models", "a/step1", "a/step2", "--revisions", "step1"], "expected either"),
        (["--models", "a/step1", "a/step2", "--model", "a/b"], "--model beside --models"),
        (["--model", "a/b", "--revisions", "step1", "main"], "from 'a/b@main'"),
        (["--models", "a/b", "c/d", "--steps", "1"], "1 steps for 2 models"),
        (["--models", "/none/step1", "/none/step2"], "no such folder"),
    ],
)
def test_the_command_refuses(options: list[str], message: str) -> None:
    assert_refused(run_room("checkpoints", *QUICK, *options), message)
