"""Variability of vectors: distances by hand, no vector with itself, intervals over vectors."""

import importlib.util
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from commands import assert_quick_help, assert_refused, run_room
from plain import plain_logprobs
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from tiny_models import tiny_model

from icl_mech import load_result
from icl_mech.cli.options import OutputOptions
from icl_mech.cli.variability import VariabilityCommand
from icl_mech.errors import InputError
from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import Episode
from icl_mech.stats import pair_means
from icl_mech.stats.projection import project
from icl_mech.tasks import list_tasks, load_family, load_task
from icl_mech.variability import (
    VectorVariability,
    compare_variability,
    draw_sets,
    vector_variability,
)
from icl_mech.variability.models_plot import variability_models_figure
from icl_mech.variability.sampling import _overlap
from icl_mech.vectors import dummy_residuals, theta

TASKS = ("to_upper", "list_first", "antonyms")
SMALL = {"n_prompts": 4, "n_shots": (1, 3), "n_dev": 3, "progress": False}


@pytest.fixture(scope="module")
def measured() -> VectorVariability:
    return vector_variability(tiny_model("llama"), TASKS, **SMALL)


# --- what is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_tasks())
@pytest.mark.parametrize("counts", [(25, 15, 5, 2), (4, 2, 10, 2)], ids=str)
def test_queries_are_never_shown_and_sets_differ(name: str, counts: tuple) -> None:
    n_vectors, n_dev, n_shots, n_dummies = counts
    sets = draw_sets(load_task(name), *counts, seed=1)
    every = sets.test + sets.dev
    assert (len(sets.test), len(sets.dev)) == (n_vectors, n_dev)
    shown = {p.x for e in every for p in (*e.demonstrations, *e.dummies)}
    test, dev = ({e.query.x for e in es} for es in (sets.test, sets.dev))
    assert not (test | dev) & shown
    assert not test & dev
    assert (len(test), len(dev)) == (sets.n_queries, sets.n_dev_queries)
    assert len({frozenset(p.x for p in e.demonstrations) for e in every}) == len(every)
    for e in every:
        drawn = (*e.demonstrations, *e.dummies)
        assert len({p.x for p in drawn}) == n_shots + n_dummies
        assert len(e.dummies) == n_dummies
    first = [{p.x for p in (*e.demonstrations, *e.dummies)} for e in sets.test[: sets.n_disjoint]]
    assert all(not a & b for a, b in combinations(first, 2))
    if sets.n_disjoint >= n_vectors:
        assert sets.overlap == 0


def test_small_tasks_say_how_much_their_sets_overlap() -> None:
    sets = draw_sets(load_task("to_upper"), 25, 15, 5, 2, 0)
    assert sets.n_disjoint == 2  # of 26 pairs 7 are asked; 19 make two sets of 7
    demonstrations = [{p.x for p in e.demonstrations} for e in sets.test]
    shared = [len(a & b) / 5 for a, b in combinations(demonstrations, 2)]
    assert sets.overlap == pytest.approx(np.mean(shared))


def test_what_cannot_be_drawn() -> None:
    task = load_task("to_upper")
    with pytest.raises(InputError, match="26 pairs, too few: expected at least 27"):
        draw_sets(task, 4, 2, 23, 2, 0)
    with pytest.raises(InputError, match=r"make too few different sets of 17 \(found 1"):
        draw_sets(task, 200, 2, 17, 2, 0)
    with pytest.raises(InputError, match="n_prompts is 1; expected at least 2"):
        draw_sets(task, 1, 2, 2, 2, 0)
    with pytest.raises(InputError, match="seed is -3"):
        draw_sets(task, 4, 2, 2, 2, -3)


# --- means over pairs ---------------------------------------------------------------------------


def test_a_vector_is_never_paired_with_itself() -> None:
    distances = np.full((6, 6), 2.0)
    np.fill_diagonal(distances, 0.0)
    every = ~np.eye(6, dtype=bool)
    groups = np.zeros(6, int)
    found = pair_means(distances, every, groups)
    # Resampled too: a vector drawn twice is not at distance 0 from itself.
    assert (found.value, found.low, found.high) == (2, 2, 2)
    np.fill_diagonal(distances, np.nan)
    assert pair_means(distances, every, groups).value == 2
    with pytest.raises(ValueError, match="counted with itself"):
        pair_means(distances, np.ones((6, 6), bool), groups)
    with pytest.raises(ValueError, match="no pair is counted"):
        pair_means(distances, np.zeros((6, 6), bool), groups)


def test_pair_means_by_hand() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((3, 9))
    distances = np.abs(points[:, :, None] - points[:, None])
    groups = np.array([0] * 5 + [1] * 4)
    within = np.triu(groups[:, None] == groups, k=1)
    found = pair_means(distances, within, groups, seed=4)
    for cell in range(3):
        by_hand = [distances[cell, i, j] for i, j in combinations(range(9), 2) if within[i, j]]
        assert found.value[cell] == pytest.approx(np.mean(by_hand))
    assert (found.low < found.value).all()
    assert (found.value < found.high).all()
    # A triangle or the whole square: the same pairs.
    both = pair_means(distances, within | within.T, groups, seed=4)
    np.testing.assert_allclose(both.low, found.low)
    few = pair_means(distances[:, :7, :7], within[:7, :7], groups[:7])
    assert np.isnan(few.low).all()  # two vectors of one task


def test_intervals_over_vectors_are_wider_than_over_pairs() -> None:
    """One vector that lies apart moves every pair that it is in."""
    distances = np.ones((10, 10))
    distances[0], distances[:, 0] = 3, 3
    np.fill_diagonal(distances, np.nan)
    counted = np.triu(np.ones((10, 10), bool), k=1)
    found = pair_means(distances, counted, np.zeros(10, int))
    values = distances[counted]
    rng = np.random.default_rng(0)
    naive = [rng.choice(values, len(values)).mean() for _ in range(1000)]
    assert found.high - found.low > 1.5 * (np.quantile(naive, 0.975) - np.quantile(naive, 0.025))


# --- what is measured ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_equals_the_plain_way(family: str) -> None:
    model = tiny_model(family)
    result = vector_variability(model, TASKS, **SMALL)
    tasks = [load_task(name) for name in TASKS]
    encoder = model.encoder("{x}->{y}", [p.y for t in tasks for p in t.pairs])
    for shots in (1, 3):
        vectors = []
        for task in tasks:
            sets = draw_sets(task, 4, 3, 3, 2, 0)
            fewer = [Episode(e.demonstrations[:shots], e.query, e.dummies) for e in sets.test]
            own = theta(dummy_residuals(model, encoder, fewer))
            vectors.append(own)
            data = result.data.sel(task=task.name, shots=shots, kind="theta")
            np.testing.assert_allclose(data["norm"], own.norm(dim=-1), rtol=1e-4)
            for i, episode in enumerate(fewer):
                prompt = encoder.encode((), episode.query.x)
                tokens = encoder.first_tokens(prompt, episode.query.answers)
                for layer in range(model.n_layers):
                    edit = Edit(layer, own[i, layer], position="final_arrow")
                    expected = plain_logprobs(model, prompt, edit)
                    right = int(expected.argmax()) in tokens
                    assert bool(data["right"].isel(vector=i, layer=layer)) == right
        points = torch.cat(vectors).double()
        for form in ("raw", "centred"):
            moved = points if form == "raw" else points - points.mean(0)
            for layer in range(model.n_layers):
                unit = moved[:, layer] / moved[:, layer].norm(dim=-1, keepdim=True)
                expected = (1 - unit @ unit.T).numpy()
                found = result.square(layer, shots, form)
                assert np.isnan(found.diagonal()).all()
                np.fill_diagonal(expected, np.nan)
                np.testing.assert_allclose(found, expected, atol=2e-6)
                expected = np.nan_to_num(expected)
                labels = np.repeat(np.arange(3), 4)
                ours = result.separation(None, shots, [layer], form).value[0]
                theirs = silhouette_score(np.clip(expected, 0, None), labels, metric="precomputed")
                assert ours == pytest.approx(theirs, abs=1e-4)


def test_within_and_between_are_means_over_different_vectors(measured: VectorVariability) -> None:
    n, layer = 4, 2
    table = measured.square(layer)
    within = [table[i, j] for i, j in combinations(range(n, 2 * n), 2)]
    at = {"layers": [layer]}
    assert measured.distances("list_first", **at).value[0] == pytest.approx(np.mean(within))
    with_self = np.sum(within) * 2 / n**2  # what counting a vector with itself would give
    assert measured.distances("list_first", **at).value[0] != pytest.approx(with_self)
    between = table[:n, 2 * n :].mean()
    assert measured.distances("to_upper", "antonyms", **at).value[0] == pytest.approx(between)
    assert measured.distances("antonyms", "to_upper", **at).value[0] == pytest.approx(between)
    others = table[:n, n:].mean()
    assert measured.distances("to_upper", "other", **at).value[0] == pytest.approx(others)
    over_tasks = np.mean([measured.distances(t, **at).value[0] for t in TASKS])
    assert measured.distances(**at).value[0] == pytest.approx(over_tasks)
    frame = measured.to_frame()
    assert len(frame) == 2 * measured.data.sizes["layer"] * 3 * 4
    row = frame[(frame.shots == 3) & (frame.layer == layer) & (frame.task == "list_first")]
    assert row["within"].mean() == pytest.approx(np.mean(within))
    first = row[row.vector == 0].iloc[0]
    assert first["within"] == pytest.approx(np.mean(table[n, n + 1 : 2 * n]))


def test_controls(measured: VectorVariability) -> None:
    random = measured.controls("random")
    # In 32 dimensions a random direction is at 1, give or take 1 / sqrt(32) a vector.
    assert (np.abs(random.value - 1) < 0.25).all()
    assert np.isnan(measured.controls("shuffled", shots=1).value).all()
    assert (measured.controls("shuffled", shots=3).value > 0).any()
    moved = measured.data["shuffled_distance"].sel(shots=1, form="raw")
    assert np.abs(moved).max() < 1e-6  # one label cannot be shuffled
    same = measured.data["right"].sel(shots=1)
    assert (same.sel(kind="theta") == same.sel(kind="shuffled")).all()
    assert any("with one shot" in note for note in measured.caveats())
    assert any("show different inputs" in note for note in measured.caveats())


def test_the_layer_is_chosen_on_dev(measured: VectorVariability) -> None:
    result = VectorVariability(measured.data.copy(deep=True), measured.provenance)
    result.data["dev_right"][:] = False
    result.data["dev_logprob"][:] = -1.0
    assert result.best_layer() == 0
    result.data["dev_right"].loc[{"task": "antonyms", "layer": 2}] = True
    result.data["right"][:] = False
    assert result.best_layer() == result.best_layer("antonyms") == 2
    assert result.best_layer("to_upper") == 0
    assert result.accuracy("antonyms")[2].value == 0
    assert "after block 2" in result.plot().layout.annotations[0].text


def test_saved_and_loaded(measured: VectorVariability, tmp_path: Path) -> None:
    again = load_result(measured.save(tmp_path / "v.nc"))
    assert isinstance(again, VectorVariability)
    assert again.data.identical(measured.data)
    summary = again.full_summary(layer=1)
    assert list(summary.index) == [*TASKS, "all tasks"]
    assert (summary["within_low"] <= summary["within"]).all()
    assert summary.loc["to_upper", "overlap"] > 0
    assert list(again.by_shots(1).index) == [1, 3]
    assert "VectorVariability" in again._repr_html_()


def test_the_seed_decides(tiny_llama: HookedModel, measured: VectorVariability) -> None:
    again = vector_variability(tiny_llama, TASKS, **SMALL)
    assert again.data.identical(measured.data)
    other = vector_variability(tiny_llama, TASKS, seed=1, **SMALL)
    assert not other.data["distance"].equals(measured.data["distance"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["antonyms"]}, r"one task \('antonyms'\); expected two or more"),
        ({"n_shots": (3, 3)}, r"n_shots \[3, 3\]; expected at least one, each once"),
        ({"n_shots": ()}, "expected at least one"),
        ({"n_shots": 0}, "n_shots is 0"),
        ({"n_prompts": 1}, "n_prompts is 1"),
        ({"n_dev": 0}, "n_dev is 0"),
        ({"template": "{x}"}, "expected {x}"),
        ({"tasks": ["antonyms", "upper"]}, "unknown task 'upper'"),
    ],
)
def test_mistakes_are_named(tiny_llama: HookedModel, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        vector_variability(tiny_llama, **{"tasks": TASKS, **SMALL, **settings})


def test_questions_that_have_no_answer(measured: VectorVariability) -> None:
    with pytest.raises(InputError, match="2 shots were not measured; expected one of 1, 3"):
        measured.distances(shots=2)
    with pytest.raises(InputError, match="layer 9 out of range: expected 0 to 3"):
        measured.plot(layer=9)
    with pytest.raises(InputError, match="did you mean 'antonyms'"):
        measured.distances("antonym")
    with pytest.raises(InputError, match="unknown form"):
        measured.separation(form="center")
    with pytest.raises(InputError, match="unknown control"):
        measured.controls("other")


# --- in the plane -------------------------------------------------------------------------------


def test_pca_is_that_of_the_directions() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((12, 5)) + 3
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    found, axes = project(1 - unit @ unit.T, "pca")
    expected = PCA(2).fit(unit)
    np.testing.assert_allclose(np.abs(found), np.abs(expected.transform(unit)), atol=1e-8)
    assert f"{expected.explained_variance_ratio_.sum():.0%}" in axes


def test_projections_are_seeded(measured: VectorVariability) -> None:
    first, again, other = (measured.projection("tsne", 1, seed=seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)
    assert first.attrs["axes"] == "t-SNE"
    assert list(first["task"].unique()) == list(TASKS)
    with pytest.raises(InputError, match="unknown projection 'pcaa'; did you mean 'pca'"):
        measured.projection("pcaa")


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is there")
def test_umap_that_is_missing_is_named(measured: VectorVariability) -> None:
    with pytest.raises(InputError, match=r"needs umap-learn; .*pip install 'icl-mech\[umap\]'"):
        measured.projection("umap")


def test_umap(measured: VectorVariability) -> None:
    pytest.importorskip("umap")
    first, again = (measured.projection("umap", 1) for _ in range(2))
    assert first.equals(again)
    assert np.isfinite(first[["x", "y"]].to_numpy()).all()


# --- figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["raw", "centred"])
def test_figure(measured: VectorVariability, form: str) -> None:
    figure = measured.plot(layer=1, form=form)
    points = [t for t in figure.data if t.name in TASKS]
    assert [len(t.x) for t in points] == [4, 4, 4]
    within, between = (t for t in figure.data if t.type == "histogram")
    assert (len(within.x), len(between.x)) == (3 * 6, 3 * 16)
    assert np.isfinite(within.x).all()
    assert np.mean(within.x) == pytest.approx(measured.distances(layers=[1], form=form).value[0])
    scatter = [t for t in figure.data if t.type == "scatter"]
    lines = {t.name: t for t in scatter if t.mode == "lines+markers" and len(t.x) == 4}
    assert list(lines["within a task"].y) == pytest.approx(measured.distances(form=form).value)
    assert list(lines["silhouette"].y) == pytest.approx(measured.separation(form=form).value)
    assert len(measured.plot(shots=1, layer=1, form=form).data) == len(figure.data) - 2


def test_which_tasks_lie_near_one_another(measured: VectorVariability) -> None:
    """Six tasks of known means: the two that are nearly one are told, and no others."""
    rng, n, d = np.random.default_rng(0), 12, 400
    means = rng.standard_normal((6, d)) + 3 * rng.standard_normal(d)
    means[4] = means[1] + 0.1 * rng.standard_normal(d)
    vectors = means[:, None] + 0.5 * rng.standard_normal((6, n, d))
    result = known(measured, vectors)
    table = result.pairs_of_tasks(0)
    assert table.index[0] == ("t1", "t4")
    assert table["p"].iloc[0] < 0.05 < table["p"].iloc[1:].min()
    assert len(table) == 15
    centred = means - means.mean(0)
    for (one, other), row in table.iterrows():
        a, b = centred[int(one[1])], centred[int(other[1])]
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert row["cosine"] == pytest.approx(cosine, abs=0.05)
        at = result.distances(one, other, None, [0], "centred").at(0)
        assert (row["distance"], row["distance_low"]) == (at.value, at.low)
    (line,) = [c for c in result.caveats() if "nearer than chance" in c]
    assert line.endswith("t1 and t4")


def test_few_tasks_are_never_said_to_be_near(measured: VectorVariability) -> None:
    assert measured.pairs_of_tasks()["p"].min() > 0.05
    assert any("3 tasks are too few to say that two are near" in c for c in measured.caveats())
    assert "unrelated" not in measured.plot(form="centred").to_json()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("same", [torch.ones_like, torch.zeros_like])
def test_vectors_without_direction_are_said_to_have_none(
    tiny_llama: HookedModel, monkeypatch: pytest.MonkeyPatch, same: Callable
) -> None:
    from icl_mech.variability import run

    monkeypatch.setattr(run, "theta", lambda resid: same(theta(resid)) * 0.3)
    result = vector_variability(tiny_llama, TASKS, **SMALL)
    assert "nan" not in str(result)
    (line,) = [c for c in result.caveats() if "no direction" in c]
    assert line.startswith("after block 0, 1, 2, 3 ")
    for form in ("raw", "centred"):
        result.plot(form=form)
    assert result.pairs_of_tasks()["p"].isna().all()
    assert len(result.to_frame()) == 96


def known(measured: VectorVariability, vectors: np.ndarray) -> VectorVariability:
    """A result of these vectors, `[task, vector, d]`, at one layer."""
    n_tasks, n, _ = vectors.shape
    flat = vectors.reshape(n_tasks * n, -1)
    names = [f"t{i}" for i in range(n_tasks)]
    forms = [pdist(v, "cosine") for v in (flat, flat - flat.mean(0))]
    places = {"shots": [3], "layer": [0], "form": ["raw", "centred"], "task": names}
    own = {"vector": n, "kind": 2, "dev_vector": 2}
    data = xr.Dataset(coords={**places, "kind": ["theta", "shuffled"]})
    data["distance"] = (("shots", "form", "layer", "pair"), np.array(forms)[None, :, None])
    for name, array in measured.data.items():
        if name == "distance":
            continue
        shape = [len(places[d]) if d in places else own[d] for d in array.dims]
        data[name] = (array.dims, np.zeros(shape, dtype=array.dtype))
    lengths = np.linalg.norm(vectors, axis=-1)
    data["norm"] = (("shots", "task", "vector", "layer"), lengths[None, ..., None])
    about = {"overlap": 0.0, "n_queries": n, "n_disjoint_sets": n}
    return VectorVariability(
        data, {**measured.provenance, "tasks": dict.fromkeys(names, about), "n_shots": [3]}
    )


def test_names_are_text(tiny_llama: HookedModel) -> None:
    from icl_mech.tasks import Task

    task = Task("<b>mine", "user", "", load_task("to_upper").pairs)
    result = vector_variability(tiny_llama, [task, "antonyms"], **SMALL)
    result.provenance["model"] = "<i>m"
    for figure in (result.plot(), variability_models_figure([result])):
        shown = figure.to_json()
        assert "<b>mine" not in shown
        assert "<i>m" not in shown
        assert "&lt;" in shown


def test_models_side_by_side(measured: VectorVariability, tiny_llama: HookedModel) -> None:
    other = VectorVariability(measured.data.isel(layer=[0, 1]), {**measured.provenance})
    other.data["distance"].load()
    other.provenance["model"] = "shallow"
    table = compare_variability([measured, other])
    assert list(table[table.model == "shallow"]["depth"]) == [0.5, 1]
    assert list(table[table.model == "tiny-llama"]["depth"]) == [0.25, 0.5, 0.75, 1]
    assert list(table["within"][:4]) == pytest.approx(measured.distances().value)
    figure = variability_models_figure([measured, other], "centred")
    assert len([t for t in figure.data if t.showlegend is not False]) == 2
    less = vector_variability(tiny_llama, TASKS[:2], **SMALL)
    with pytest.raises(InputError, match="tasks .* differ from"):
        compare_variability([measured, less])
    with pytest.raises(InputError, match="no results"):
        compare_variability([])


# --- the packaged model, and the command --------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "antonyms"], "expected two or more"),
        (["--tasks", "to_upper", "to_lower", "--n-shots", "30"], "too few: expected at least 34"),
        (["--n-prompts", "1"], "n_prompts is 1"),
        (["--tasks", "verb", "en_fr"], "unknown task 'verb'"),
        (["--tasks", "letters", "--also", "./nothere"], "./nothere: no such folder or file"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(options: list[str], message: str) -> None:
    done = run_room("variability", *options)
    assert_refused(done, message)
    assert "loading" not in done.stderr


@pytest.mark.parametrize("room", ["conflict", "variability"])
def test_help_does_not_wait_for_torch(room: str) -> None:
    assert_quick_help(room, "torch")


def test_command(small_model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "v.html"
    done = run_room(
        "variability", "--tasks", "letters", "--n-prompts", "3", "--n-shots", "2", "--n-dev", "2",
        "--json", "--out", str(out), *small_model,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    names = [t.name for t in load_family("letters").tasks]
    assert [row["task"] for row in printed["summary"]] == [*names, "all tasks"]
    assert isinstance(load_result(out.with_suffix(".nc")), VectorVariability)


def test_a_layer_that_the_model_lacks_is_refused_before_measuring(tmp_path: Path) -> None:
    done = run_room(
        "variability", "--tasks", "letters", "--layer", "99", "--out", str(tmp_path / "v.html")
    )
    assert_refused(done, "layer 99 out of range: expected 0 to 17")
    assert not list(tmp_path.iterdir())


def test_what_more_models_add_to_the_command(measured: VectorVariability, tmp_path: Path) -> None:
    command = VariabilityCommand(output=OutputOptions(json=True))
    more = command._compared(tmp_path / "v.html", measured, [measured])
    assert set(more) == {"data_1", "models"}
    assert isinstance(load_result(more["data_1"]()), VectorVariability)
    written = more["models"]()
    assert written.name == "v-models.html"
    assert written.exists()


def test_overlap_is_the_mean_over_pairs_of_sets() -> None:
    task = load_task("to_upper")
    rng = np.random.default_rng(0)
    episodes = [
        Episode(tuple(task.pairs[i] for i in rng.choice(len(task), 4, False)), task.pairs[0], ())
        for _ in range(30)
    ]
    sets = [{pair.x for pair in e.demonstrations} for e in episodes]
    expected = np.mean([len(a & b) / 4 for a, b in combinations(sets, 2)])
    assert _overlap(episodes) == pytest.approx(expected, abs=1e-12)
    assert _overlap([episodes[0], episodes[0]]) == 1
