"""Task maps: layers named by read-outs, tables, figures, and the report."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.stats import t

from icl_mech import load_result
from icl_mech.errors import InputError
from icl_mech.localize import Rule, TaskMap
from icl_mech.localize.page import task_map_report
from icl_mech.localize.plot import task_map_figure
from icl_mech.localize.result import helpful
from icl_mech.stats import MUTUAL, proportion, shares
from icl_mech.stats.curves import gathered, locate

N, LAYERS = 40, 18


def profile(up: int, down: int, seed: int, model: str = "model", layers: int = LAYERS) -> TaskMap:
    """Two tasks whose vector is formed at `up` and decoded at `down`, one of them a layer later."""
    rng = np.random.default_rng(seed)
    layer = np.arange(layers)

    def of(task: int) -> dict[str, np.ndarray]:
        start, end = up + task, down + task
        works = (layer >= start) & (layer < end)
        aie = np.zeros((N, layers, 4))
        aie[:, start, 2] = rng.normal(0.3, 0.05, N)
        aie[:, end, 1] = rng.normal(-0.2, 0.05, N)  # a harmful head is no part of the mass
        return {
            "encoding": (rng.random((N, layers)) < 0.25 + 0.7 * (layer >= start)).astype(float),
            "transfer": rng.random((N, layers)) < 0.02 + 0.8 * works,
            "lens": np.clip(rng.normal(0.01 + 0.6 * (layer >= end), 0.05, (N, layers)), 0, 1),
            "aie": aie,
            "regular": rng.random(N) < 0.8,
            "baseline": rng.random(N) < 0.02,
            "prior": rng.random(N) < 0.1,
            "query": np.array([f"query {i}" for i in range(N)]),
        }

    both = [of(0), of(1)]
    dims = {
        "encoding": ("task", "point", "layer"),
        "transfer": ("task", "prompt", "layer"),
        "lens": ("task", "prompt", "layer"),
        "aie": ("task", "aie_prompt", "layer", "head"),
        "regular": ("task", "prompt"),
        "baseline": ("task", "prompt"),
        "prior": ("task", "prompt"),
        "query": ("task", "point"),
    }
    data = xr.Dataset(
        {name: (d, np.stack([t[name] for t in both])) for name, d in dims.items()},
        coords={"task": ["<b>first", "second"], "layer": layer},
    )
    provenance = {
        "model": model,
        "rule": {"fraction": 0.5, "min_rise": 0.1},
        "n_prompts": N,
        "n_points": N,
        "n_shots": 5,
        "seed": 0,
        "notes": ["a note of <i>a part</i>"],
    }
    return TaskMap(data, provenance)


@pytest.fixture(scope="module")
def found() -> TaskMap:
    return profile(9, 12, 0)


@pytest.mark.parametrize(("up", "down"), [(9, 12), (4, 13), (7, 8)])
def test_every_readout_recovers_the_known_layers(up: int, down: int) -> None:
    found = profile(up, down, up)
    for shift, task in enumerate(found.tasks):
        for readout in ("encoding", "transfer", "heads"):
            assert abs(found.formation(task, readout).estimate.value - up - shift) <= 1
        for readout in ("transfer", "lens"):
            assert abs(found.decoding(task, readout).estimate.value - down - shift) <= 1


def test_noise_of_many_heads_names_no_layer() -> None:
    """Clipping each head's mean at 0 would find a thousand noisy heads' mass in the middle."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.005, (25, 32, 32))
    assert np.isnan(locate(helpful(noise), Rule(), gathered).estimate.value)
    noise[:, 8, 3] += 0.3
    found = locate(helpful(noise), Rule(), gathered).estimate
    assert found.low <= 8 <= found.high
    assert found.value == 8


def test_agreement_counts_layers_between_readouts(found: TaskMap) -> None:
    agreement = found.agreement("second")
    assert set(agreement.index) == {
        ("formation", "encoding", "transfer"),
        ("formation", "encoding", "heads"),
        ("formation", "transfer", "heads"),
        ("decoding", "transfer", "lens"),
    }
    assert agreement.loc[("formation", "transfer", "heads"), "layers"] == 0
    assert (agreement["within_one"] > 0.9).all()
    shifted = found.data.copy()
    shifted["lens"] = shifted["lens"].roll(layer=3)
    shifted["lens"][..., :3] = 0.01
    late = TaskMap(shifted, found.provenance).agreement("second")
    assert late.loc[("decoding", "transfer", "lens"), "layers"] == 3
    assert late.loc[("decoding", "transfer", "lens"), "within_one"] < 0.1


def with_points(found: TaskMap, more: np.ndarray) -> TaskMap:
    """`more` points for encoding, `[point, layer]`, after those that equal transfer."""
    first = found.data["transfer"].values.astype(float)
    both = np.stack([more, more])
    data = found.data.drop_vars(["encoding", "query"])
    data["encoding"] = (("task", "point", "layer"), np.concatenate([first, both], axis=1))
    n = data.sizes["point"]
    data["query"] = (("task", "point"), [[f"query {i}" for i in range(n)]] * 2)
    return TaskMap(data, found.provenance)


def test_agreement_is_paired_by_prompt(found: TaskMap) -> None:
    """Half of the prompts rise at 6 and half at 10, in both read-outs: never is there a gap."""
    layer, early = np.arange(LAYERS), np.arange(N) < N // 2
    works = (layer >= np.where(early, 6, 10)[:, None]) & (layer < 14)
    halves = found.data.copy()
    halves["transfer"] = halves["transfer"].copy(data=np.stack([works, works]))
    late = np.repeat([(layer >= 12).astype(float)], 3 * N, axis=0)
    task_map = with_points(TaskMap(halves, found.provenance), late)
    by_transfer = task_map.formation("second", "transfer").estimate
    assert (by_transfer.low, by_transfer.high) == (6, 10)  # resamples differ
    assert task_map.formation("second", "encoding").estimate.value == 12  # on all points
    gap = task_map.agreement("second").loc[("formation", "encoding", "transfer")]
    assert gap.tolist() == [0, 0, 0, 1]


def test_a_gap_needs_two_layers(found: TaskMap) -> None:
    flat = found.data.copy()
    flat["encoding"] = flat["encoding"] * 0 + 0.25
    agreement = TaskMap(flat, found.provenance).agreement("second")
    assert agreement.loc[("formation", "encoding", "transfer")].isna().all()
    assert agreement.loc[("formation", "transfer", "heads")].notna().all()


def test_intervals_are_over_queries(found: TaskMap) -> None:
    """40 prompts of 4 queries are four, and 4 of 4 say little."""
    few = found.data.copy()
    few["encoding"] = few["encoding"] * 0 + 1
    few["regular"] = few["regular"] | True
    few["query"] = few["query"].copy(data=[[f"query {i % 4}" for i in range(N)]] * 2)
    task_map = TaskMap(few, found.provenance)
    z = t.ppf(0.975, 3)
    right = task_map.share("second", "regular")
    assert (right.value, right.high) == (1, 1)
    assert right.low == pytest.approx(4 / (4 + z**2))
    # Of decodability, where points vote for one another, the intervals are wider by sqrt(2).
    encoding = task_map.curve("second", "encoding")[3]
    assert (encoding.value, encoding.low, encoding.high) == (1, 0, 1)
    forty = TaskMap(few.assign(query=found.data["query"]), found.provenance)
    alone = proportion(np.ones(N, dtype=bool)).low
    assert forty.share("second", "regular").low == pytest.approx(alone)
    assert 1 - forty.curve("second", "encoding")[3].low == pytest.approx(2**0.5 * (1 - alone))
    # A layer is bootstrapped over queries too: one query of four that rises is no evidence.
    works = (np.arange(N) % 4 == 0)[:, None] & (np.arange(LAYERS) // 3 == 3)
    few["transfer"] = few["transfer"].copy(data=np.stack([works, works]))
    for queries, layer in ((few["query"], "none"), (found.data["query"], "9 [9, 9]")):
        again = TaskMap(few.assign(query=queries), found.provenance)
        assert str(again.formation("second")) == layer


def test_noise_names_no_layer_and_the_reason_is_given(found: TaskMap) -> None:
    rng = np.random.default_rng(0)
    noisy = found.data.copy()
    noisy["transfer"] = noisy["transfer"].copy(data=rng.random((2, N, LAYERS)) < 0.3)
    task_map = TaskMap(noisy, found.provenance)
    row = task_map.full_summary().loc["<b>first"]
    assert np.isnan(row["formation_transfer"])
    assert row["formation_transfer_found"] > 0.9
    assert row["decoding_lens_found"] == 1
    reason = "<b>first: the transfer curve names no formation layer (its rise of "
    (note,) = (n for n in task_map.caveats() if n.startswith(reason))
    assert "is within noise: " in note
    assert not np.isnan(task_map.with_rule(min_found=0.0).formation("<b>first").estimate.value)


def test_the_rule_is_an_argument(found: TaskMap) -> None:
    slope = found.data.copy()
    ramp = np.clip((np.arange(LAYERS) - 3.5) / 8, 0, 1)
    slope["lens"] = slope["lens"] * 0 + xr.DataArray(ramp, dims="layer")
    task_map = TaskMap(slope, found.provenance)
    assert task_map.decoding("second").estimate.value == 8
    assert task_map.with_rule(0.9).decoding("second").estimate.value == 11
    assert task_map.rule.fraction == 0.5


def test_summary_gives_layers_intervals_and_depth(found: TaskMap) -> None:
    summary = found.full_summary()
    assert list(summary.index) == ["<b>first", "second"]
    row = summary.loc["second"]
    assert row["formation_transfer_low"] <= row["formation_transfer"] == 10
    assert row["formation_transfer_depth"] == pytest.approx(11 / 18)
    assert 0.6 < row["few_shot"] < 1
    frame = found.to_frame()
    assert len(frame) == 2 * 4 * N * LAYERS
    assert set(frame["readout"]) == {"encoding", "transfer", "lens", "heads"}


def test_a_flat_curve_names_no_layer_and_says_so(found: TaskMap) -> None:
    flat = found.data.copy()
    flat["encoding"] = flat["encoding"] * 0 + 0.25
    task_map = TaskMap(flat, found.provenance)
    assert str(task_map.formation("second", "encoding")) == "none"
    assert "second: the encoding curve names no formation layer (too flat)" in task_map.caveats()
    assert np.isnan(task_map.summary().loc["second", "formation_encoding"])
    assert task_map.plot().data


def test_no_layer_where_demonstrations_do_not_help(found: TaskMap) -> None:
    failed = found.data.copy()
    failed["regular"] = failed["regular"].where(failed["task"] == "second", other=False)
    task_map = TaskMap(failed, found.provenance)
    assert str(task_map.formation("<b>first")) == "none"
    assert task_map.table().loc["<b>first", "decoding (lens)"] == "no in-context learning"
    assert any(
        "<b>first: no in-context learning to localise" in note for note in task_map.caveats()
    )
    assert task_map.formation("second").estimate.value == 10


def test_a_high_label_prior_is_reported(found: TaskMap) -> None:
    skewed = found.data.copy()
    skewed["prior"] = skewed["regular"].copy()
    notes = TaskMap(skewed, found.provenance).caveats()
    assert sum("the label prior is high" in note for note in notes) == 2


def test_an_uncertain_layer_is_reported() -> None:
    found = profile(9, 12, 0)
    rng = np.random.default_rng(0)
    slope = found.data.copy()
    right = rng.random((2, N, LAYERS)) < np.linspace(0, 0.9, LAYERS)
    slope["transfer"] = slope["transfer"].copy(data=right)
    few = slope.isel(prompt=slice(12))
    notes = TaskMap(few, found.provenance).caveats()
    assert any("the formation layer by transfer is uncertain" in note for note in notes)


def test_without_heads(found: TaskMap) -> None:
    task_map = TaskMap(found.data.drop_vars("aie"), found.provenance)
    assert task_map.readouts == ["encoding", "transfer", "lens"]
    with pytest.raises(InputError, match="unknown read-out of formation 'heads'"):
        task_map.formation("second", "heads")
    assert task_map.plot().data


def test_saved_and_loaded(found: TaskMap, tmp_path: Path) -> None:
    again = load_result(found.save(tmp_path / "map.nc"))
    assert isinstance(again, TaskMap)
    assert again.data.identical(found.data)
    assert str(again.formation("second")) == str(found.formation("second"))


def test_report_holds_everything_and_opens_offline(found: TaskMap, tmp_path: Path) -> None:
    text = found.report(tmp_path / "map.html").read_text()
    assert 'src="http' not in text
    assert text.count("plotly.js v") == 1  # the library comes once
    assert "at least\n95 % of resamples have one" in text  # the rule, written down
    for part in ("Do the read-outs agree?", "What to keep in mind", "What was run"):
        assert part in text
    # Names are text, not markup.
    assert "a note of &lt;i&gt;a part&lt;/i&gt;" in text
    assert "<b>first" not in text
    assert r"\u003cb\u003efirst" not in text  # as plotly writes it
    assert [p.name for p in tmp_path.iterdir()] == ["map.html"]


def test_several_models_by_relative_depth(found: TaskMap, tmp_path: Path) -> None:
    deeper = profile(18, 24, 1, "deeper", layers=36)
    figure = task_map_figure([found, deeper])
    (small, large) = (
        next(t for t in figure.data if t.name == "formation by transfer" and t.xaxis == axis)
        for axis in ("x", "x2")
    )
    assert small.x[0] == pytest.approx(10 / 18)
    assert large.x[0] == pytest.approx(19 / 36, abs=1 / 36)
    text = task_map_report([found, deeper], tmp_path / "both.html").read_text()
    assert "<h2>deeper</h2>" in text


def test_many_tasks_share_rows(found: TaskMap) -> None:
    """As many layers as in a row each, at the task's own height."""
    names = [f"<b>{i}" for i in range(8)]
    data = xr.concat([found.data.isel(task=[i % 2]) for i in range(8)], dim="task")
    many = TaskMap(data.assign_coords(task=names), found.provenance)
    figure = task_map_figure([many])
    assert list(figure.layout.yaxis.ticktext) == [f"&lt;b&gt;{i}" for i in range(8)]
    heights = [trace.y for trace in figure.data]
    assert len(set(heights)) == len(figure.data) == 5
    assert all([round(y) for y in of] == list(range(8)) for of in heights)
    by_name = {trace.name: trace for trace in task_map_figure([found]).data}
    for trace in figure.data:
        assert list(trace.x[:2]) == pytest.approx(list(by_name[trace.name].x), nan_ok=True)


def test_maps_that_cannot_be_compared(found: TaskMap, tmp_path: Path) -> None:
    other = profile(9, 12, 0)
    renamed = TaskMap(other.data.assign_coords(task=["x", "y"]), other.provenance)
    with pytest.raises(InputError, match="share no task"):
        task_map_report([found, renamed], tmp_path / "none.html")
    with pytest.raises(InputError, match="define risen differently"):
        task_map_report([found, other.with_rule(0.7)], tmp_path / "none.html")
    assert list(tmp_path.iterdir()) == []


def test_encoding_has_the_intervals_of_decodability(found: TaskMap) -> None:
    """Prompts vote for one another: the bands are wider than those of independent shares."""
    task = found.tasks[0]
    values = found.data["encoding"].sel(task=task).transpose("layer", "point").values
    plain = shares(values.astype(float), found.data["query"].sel(task=task).values)
    inside = 0
    for ours, narrow in zip(found.curve(task, "encoding"), plain, strict=True):
        assert ours.low == pytest.approx(max(0, ours.value - MUTUAL * (narrow.value - narrow.low)))
        assert ours.high == pytest.approx(
            min(1, ours.value + MUTUAL * (narrow.high - narrow.value))
        )
        inside += ours.low > 0 and ours.high < 1
    assert inside
