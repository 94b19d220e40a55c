"""Task decodability: the vote as defined, against a plain loop and against known answers."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from commands import assert_quick_help, assert_refused, run_room
from tiny_models import tiny_model

from icl_mech import load_result
from icl_mech.decodability import TaskDecodability, knn_credit, task_decodability
from icl_mech.decodability.chance import chances
from icl_mech.decodability.measure import measure
from icl_mech.decodability.neighbours import credit, decoded, distances, vote_shares
from icl_mech.decodability.plan import DecodabilitySettings, Plan, plan
from icl_mech.decodability.probe import folds, probe
from icl_mech.errors import InputError, NotFiniteError
from icl_mech.model import HookedModel
from icl_mech.patch import MeanPatching
from icl_mech.prompts import load_pool
from icl_mech.tasks import Pair, Task, load_family, load_task


def settings(**changes: object) -> DecodabilitySettings:
    defaults = {
        "n_prompts": 30,
        "n_shots": (2,),
        "seed": 0,
        "k": 5,
        "role": "final_arrow",
        "metric": "cosine",
        "normalise": "none",
        "leave_out": "query",
        "template": "{x}->{y}",
        "leading_space": None,
    }
    return DecodabilitySettings(**{**defaults, **changes})


def planned(**changes: object) -> Plan:
    return plan("verbs", settings(**changes))


def cloud(n_tasks: int, n_points: int, apart: float, seed: int = 0) -> np.ndarray:
    """`[row, layer, d]`: a Gaussian cloud per task, `apart` standard deviations from the others."""
    rng = np.random.default_rng(seed)
    centres = apart * np.eye(n_tasks, 16).repeat(n_points, axis=0)
    points = centres + rng.standard_normal((n_tasks * n_points, 16))
    return points[:, None].astype(np.float32)


def credit_of(rows: np.ndarray, p: Plan) -> np.ndarray:
    return measure(rows, p)["credit"].values


def plain_credit(
    points: np.ndarray, labels: np.ndarray, groups: np.ndarray, k: int, metric: str
) -> list[float]:
    """The definition, one point after another."""
    found = []
    for i, point in enumerate(points):
        far = []
        for j, other in enumerate(points):
            if groups[j] != groups[i]:
                if metric == "cosine":
                    scale = np.linalg.norm(point) * np.linalg.norm(other)
                    far.append((1 - point @ other / scale, j))
                else:
                    far.append((float(np.linalg.norm(point - other)), j))
        votes = Counter(labels[j] for _, j in sorted(far)[:k])
        best = [label for label, n in votes.items() if n == max(votes.values())]
        found.append((labels[i] in best) / len(best))
    return found


# --- the vote -------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_equals_a_plain_loop(metric: str, k: int) -> None:
    rng = np.random.default_rng(1)
    labels, groups = np.repeat([0, 1, 2], 20), rng.integers(15, size=60)
    points = rng.standard_normal((60, 6)) + labels[:, None]
    shares = vote_shares(distances(points, metric, "none"), labels, groups, [2, k])[1]
    assert credit(shares, labels) == pytest.approx(plain_credit(points, labels, groups, k, metric))
    assert shares.sum(axis=1) == pytest.approx(1)


def test_standardised_distances_equal_those_of_standardised_points() -> None:
    points = np.random.default_rng(2).standard_normal((30, 5)) * [1, 10, 100, 0, 1] + 3
    scaled = (points - points.mean(0)) / np.where(points.std(0) > 0, points.std(0), 1)
    ours = distances(points, "euclidean", "standardise")
    assert ours == pytest.approx(distances(scaled, "euclidean", "none"), abs=1e-6)


def test_separate_clusters_are_decoded_and_one_cluster_is_at_chance() -> None:
    p = planned()
    far = credit_of(cloud(4, 30, 20.0), p)
    assert far.mean() == 1
    one = np.mean([credit_of(cloud(4, 30, 0.0, seed), p).mean() for seed in range(10)])
    assert one == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_point_is_never_its_own_neighbour(metric: str) -> None:
    """The only point of its task right where it is: with itself, every point would be decoded."""
    rng = np.random.default_rng(0)
    places = 10 * rng.standard_normal((12, 8))
    points, labels = places.repeat(2, axis=0), np.tile([0, 1], 12)  # each place: one of each task
    shares = vote_shares(distances(points, metric, "none"), labels, np.arange(24), [1])[0]
    assert (credit(shares, labels) == 0).all()
    # Duplicates of one task are neighbours, though at distance 0: exclusion is by index.
    labels = np.arange(12).repeat(2) % 2
    shares = vote_shares(distances(points, metric, "none"), labels, np.arange(24), [1])[0]
    assert (credit(shares, labels) == 1).all()


def test_no_point_of_the_same_query_is_a_neighbour() -> None:
    labels, groups = np.tile([0, 1], 10), np.arange(10).repeat(2)
    points = np.random.default_rng(0).standard_normal((10, 4)).repeat(2, axis=0)
    between = distances(points, "euclidean", "none")
    for k in (1, 2, 3, 7):
        assert vote_shares(between, labels, groups, [k])[0] == pytest.approx(0.5)


def test_ties_share() -> None:
    shares = np.array([[0.4, 0.4, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.1, 0.2, 0.7]])
    assert decoded(shares) == pytest.approx(
        np.array([[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0, 0, 1]])
    )
    # Four at the same distance, two places: each of them gets half of one.
    between = np.array([[0.0, 1, 1, 1, 1], *np.ones((4, 5))])
    shares = vote_shares(between, np.array([0, 0, 0, 1, 1]), np.arange(5), [2])[0]
    assert shares[0] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("normalise", ["none", "standardise"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equal_points_are_exactly_at_chance(metric: str, normalise: str) -> None:
    p = planned(metric=metric, normalise=normalise)
    same = np.random.default_rng(0).standard_normal((30, 2, 300)).astype(np.float32)
    credits = credit_of(np.tile(same, (4, 1, 1)), p)
    assert credits == pytest.approx(0.25, abs=1e-7)


# --- chance ---------------------------------------------------------------------------------


def plain_chance(labels: np.ndarray, groups: np.ndarray, k: int) -> list[float]:
    """The credit of every choice of `k` neighbours: of a point on average, then of a label."""
    of_points = []
    for label, group in zip(labels, groups, strict=True):
        credits = []
        for chosen in combinations(labels[groups != group], k):
            votes = Counter(chosen)
            best = [one for one, n in votes.items() if n == max(votes.values())]
            credits.append((label in best) / len(best))
        of_points.append(np.mean(credits))
    return [float(np.mean(np.array(of_points)[labels == one])) for one in np.unique(labels)]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_chance_is_the_credit_of_random_neighbours(k: int) -> None:
    labels = np.repeat([0, 1, 2], 4)
    groups = np.array([0, 0, 0, 1, 2, 3, 4, 5, 6, 6, 7, 7])
    assert chances(labels, groups, k) == pytest.approx(plain_chance(labels, groups, k))
    shared = np.tile(np.arange(4), 3)
    assert chances(labels, shared, k) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("n_queries", [2, 5, 10, 50])
def test_noise_scores_chance_where_tasks_have_inputs_of_their_own(n_queries: int) -> None:
    """Two tasks of 60 points; one asks 50 queries, the other fewer, each several times over."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    groups = np.concatenate([np.arange(60) % 50, 100 + np.arange(60) % n_queries])
    noise = rng.standard_normal((120, 40, 24))
    found = knn_credit(noise, labels, groups).mean(axis=1).reshape(2, 60).mean(axis=1)
    assert chances(labels, groups, 10) == pytest.approx(found, abs=0.02)
    if n_queries == 2:
        assert found[1] < 0.2  # 1 / (number of tasks) is far off


# --- the probe ------------------------------------------------------------------------------


def test_the_probe_never_sees_a_query_in_both_folds() -> None:
    queries = np.random.default_rng(0).integers(9, size=80)
    seen = np.zeros(80, dtype=int)
    for train, test in folds(queries):
        assert not set(queries[train]) & set(queries[test])
        seen[test] += 1
    assert (seen == 1).all()


def test_the_probe_cannot_learn_queries_by_heart() -> None:
    """Labels that follow the query alone: right on seen queries only, so wrong here."""
    rng = np.random.default_rng(0)
    queries = np.arange(24).repeat(6)
    labels = queries % 2
    points = rng.standard_normal((24, 40))[queries] + 0.01 * rng.standard_normal((144, 40))
    assert (probe(points, labels, queries) == labels).mean() < 0.75
    assert (probe(points, labels, np.arange(144)) == labels).mean() > 0.95


def test_the_probe_reads_what_is_linear_and_repeats_itself() -> None:
    labels = np.repeat([0, 1, 2], 40)
    points = cloud(3, 40, 6.0)[:, 0]
    said = probe(points, labels, np.tile(np.arange(40), 3))
    assert (said == labels).mean() > 0.95
    assert (said == probe(points, labels, np.tile(np.arange(40), 3))).all()


# --- what is drawn --------------------------------------------------------------------------


def test_points_match_across_the_tasks_of_a_family() -> None:
    p = planned(n_prompts=60, n_shots=(1, 4))
    rows = p.points.episodes
    shown = {d.x for row in rows for e in row for d in e.demonstrations}
    asked = {e.query.x for row in rows for e in row}
    assert not shown & asked
    for episodes in zip(*rows, strict=True):
        assert len({e.query.x for e in episodes}) == 1
        assert len({tuple(d.x for d in e.demonstrations) for e in episodes}) == 1
        assert len({tuple(d.y for d in e.demonstrations) for e in episodes}) == len(rows)
    assert p.points.n_queries == len(asked) == 43  # of 73 verbs, the others are shown
    assert (p.queries == p.queries[0]).all()


def test_tasks_with_inputs_of_their_own() -> None:
    p = plan(["antonyms", "country_capital"], settings())
    assert not p.pool.shared
    assert p.pool.distinct is None
    for row in p.points.episodes:
        asked = {e.query.x for e in row}
        for e in row:
            assert not asked & {d.x for d in e.demonstrations}
            # "cold -> hot" would give "hot -> cold" away.
            assert all(d.x not in e.query.answers for d in e.demonstrations)


def test_a_family_without_its_null_task() -> None:
    pool = load_pool("pos")
    assert len(pool.tasks) == 6
    assert pool.null is not None
    assert pool.null.name == "pos/null"
    assert load_pool(load_family("verbs")).names == load_pool("verbs").names
    assert load_pool(["verbs", "letters"]).names == [
        *load_pool("verbs").names,
        *load_pool("letters").names,
    ]


def task(name: str, answer: str, n: int = 20) -> Task:
    return Task(name, "user", "", tuple(Pair(f"w{i}", (f"{answer}{i}",)) for i in range(n)))


@pytest.mark.parametrize(
    ("tasks", "changes", "message"),
    [
        ("country_capital", {}, "expected two or more, each once (one task alone cannot be told"),
        ("verb", {}, "unknown task 'verb'"),
        (["verbs/gerund", "verbs/gerund"], {}, "expected two or more, each once"),
        ([task("a", "y"), task("b", "y")], {}, "tasks 'a' and 'b' have the same pairs"),
        ([task("a", "y", 4), task("b", "z", 4)], {"n_shots": (3,)}, "has 4 inputs, too few"),
        ("verbs", {"n_prompts": 5}, "n_prompts is 5 for k = 5 neighbours; expected at least 6"),
        ("verbs", {"k": 0}, "k is 0; expected at least 1"),
        ("verbs", {"n_shots": (0,)}, "n_shots is 0; expected at least 1"),
        ("verbs", {"n_shots": (2, 2)}, "expected at least one, each once"),
        ("verbs", {"metric": "cosin"}, "unknown metric 'cosin'; did you mean 'cosine'?"),
        ("verbs", {"normalise": "std"}, "unknown normalisation 'std'"),
        ("verbs", {"leave_out": "all"}, "unknown leave_out 'all'"),
        ("verbs", {"seed": -1}, "seed is -1; expected 0 or more"),
        ("verbs", {"template": "{x} is"}, "template '{x} is': expected {x}"),
    ],
)
def test_mistakes_are_named(tasks: object, changes: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        plan(tasks, settings(**changes))
    assert message in str(error.value)


def test_layers_and_roles_that_do_not_exist(tiny_llama: HookedModel) -> None:
    run = {"n_prompts": 6, "n_shots": 2, "k": 2, "progress": False}
    with pytest.raises(InputError, match="layer 4 out of range: expected 0 to 3"):
        task_decodability(tiny_llama, "verbs", layers=[4], **run)
    with pytest.raises(InputError, match="the prompt has no role 'demo_5_x'"):
        task_decodability(tiny_llama, "verbs", role="demo_5_x", **run)


def test_a_model_that_returns_nonsense(
    tiny_llama: HookedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = tiny_llama.capture
    monkeypatch.setattr(tiny_llama, "capture", lambda *args: capture(*args) * torch.inf)
    with pytest.raises(NotFiniteError, match="tiny-llama: activations that are not finite"):
        task_decodability(tiny_llama, "verbs", 6, 2, k=2, progress=False)


# --- a whole run ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_run() -> TaskDecodability:
    return task_decodability(
        tiny_model("llama"), "verbs", 12, (1, 3), k=3, keep=True, progress=False
    )


def test_credit_is_that_of_the_representations(
    tiny_run: TaskDecodability, tiny_llama: HookedModel
) -> None:
    """From one full forward per prompt to the vote, all of it the plain way."""
    d, p = tiny_run.data, plan("verbs", settings(n_prompts=12, n_shots=(1, 3), k=3))
    words = [pair.y for t in p.pool.tasks for pair in t.pairs]
    encoder = tiny_llama.encoder("{x}->{y}", words)
    rows = []
    with torch.inference_mode():
        for e in (e for row in p.points.episodes for e in row):
            prompt = encoder.encode(e.demonstrations[:3], e.query.x)
            _, cache = tiny_llama.bridge.run_with_cache(torch.tensor([prompt.tokens]))
            rows.append(cache["blocks.2.hook_resid_post"][0, -1].numpy())
    ours = d["representation"].sel(shots=3, layer=2).values.reshape(48, -1)
    assert ours == pytest.approx(np.array(rows), abs=1e-4)
    expected = plain_credit(ours.astype(float), p.labels, p.queries.ravel(), 3, "cosine")
    assert d["credit"].sel(shots=3, layer=2).values.ravel() == pytest.approx(expected, abs=1e-6)


def test_the_query_alone_is_exactly_at_chance_within_a_family(tiny_run: TaskDecodability) -> None:
    assert [e.value for e in tiny_run.td(control="input")] == [0.25] * 4


def test_left_out_alone_the_same_query_pushes_td_below_chance(tiny_llama: HookedModel) -> None:
    run = task_decodability(
        tiny_llama, "verbs", 12, 2, k=3, leave_out="point", probe=False, progress=False
    )
    assert [e.value for e in run.td(control="input")] == [0] * 4
    assert any("only the point itself is left out" in c for c in run.caveats())
    usual = task_decodability(
        tiny_llama, "verbs", 12, 2, k=3, probe=False, controls=False, progress=False
    )
    for one, other in ((run, "query"), (usual, "point")):
        asked = "query" if one is usual else "point"
        table = one.sensitivity()
        assert table.loc[f"left out: the {asked}", "td"] == pytest.approx(one.held_out().value)
        there = usual if other == "query" else run
        assert table.loc[f"left out: the {other}", "best_layer"] == there.best_layer()
    with pytest.raises(InputError, match="this run had no probe"):
        run.probe()


def test_tables_hang_together(tiny_run: TaskDecodability) -> None:
    for shots in tiny_run.shots:
        layer = tiny_run.best_layer(shots)
        best = tiny_run.td(shots)[layer]
        assert best.value == max(e.value for e in tiny_run.td(shots))
        assert best.low <= best.value <= best.high
        confusion = tiny_run.confusion(shots)
        assert confusion.sum(axis=1).to_numpy() == pytest.approx(1)
        assert np.diag(confusion).mean() == pytest.approx(best.value, abs=1e-6)
        assert list(np.diag(confusion)) == pytest.approx(
            [tiny_run.td(shots, t)[layer].value for t in tiny_run.tasks], abs=1e-6
        )
        table = tiny_run.sensitivity(shots)
        for usual in ("k = 3", "cosine, none", "left out: the query"):
            assert table.loc[usual, "td"] == pytest.approx(tiny_run.held_out(shots).value)
            assert table.loc[usual, "best_layer"] == layer
        peak = tiny_run.peak(shots)
        assert peak.value == best.value
        assert peak.low <= best.low
    summary = tiny_run.summary()
    assert list(summary.index.names) == ["shots", "task"]
    assert len(summary) == 2 * 5
    for shots, task in ((1, "all"), (3, "verbs/past")):
        row = summary.loc[(shots, task)]
        name = None if task == "all" else task
        assert row["td"] == tiny_run.held_out(shots, name).value
        assert row["probe"] == tiny_run.probe_held_out(shots, name).value
        layers = (row["layer_first_half"], row["layer_second_half"])
        assert layers == tiny_run.held_out_layers(shots)
    assert summary["n_queries"].unique().tolist() == [12]
    assert np.isnan(summary.loc[(1, "all"), "shuffled"])
    assert len(tiny_run.to_frame()) == 2 * 4 * 12 * 4
    assert "one shot" in " ".join(tiny_run.caveats())
    with pytest.raises(InputError, match=r"no run with 2 shots; expected one of \[1, 3\]"):
        tiny_run.td(2)
    with pytest.raises(InputError, match="unknown control"):
        tiny_run.td(control="label")


def test_two_tasks_at_a_time(tiny_run: TaskDecodability) -> None:
    """As if the two had been the whole pool."""
    rows = tiny_run.data["representation"].sel(shots=3, layer=1).values
    table = tiny_run.pairwise(3, 1).to_numpy()
    queries = np.tile(np.arange(12), 2)
    for i, j in ((0, 1), (1, 3)):
        pair = np.concatenate([rows[i], rows[j]]).astype(float)
        expected = plain_credit(pair, np.repeat([0, 1], 12), queries, 3, "cosine")
        assert table[i, j] == table[j, i] == pytest.approx(np.mean(expected), abs=1e-6)
    assert np.isnan(np.diag(table)).all()


def test_the_held_out_layer_is_chosen_on_other_queries(tiny_run: TaskDecodability) -> None:
    result = TaskDecodability(tiny_run.data.copy(deep=True), tiny_run.provenance)
    even = result.data["query_id"] % 2 == 0
    # Layer 1 is right for even queries only, layer 2 for odd ones only; the best layer on either
    # half is useless on the other.
    credits = result.data["credit"]
    credits[:] = 0
    credits.loc[{"layer": 1}] = even
    credits.loc[{"layer": 2}] = ~even
    result.data["half_td"][:] = 0
    result.data["half_td"].loc[{"layer": 1, "half": 0}] = 1
    result.data["half_td"].loc[{"layer": 2, "half": 1}] = 1
    assert result.held_out_layers(3) == (2, 1)
    assert result.held_out(3).value == 0
    assert max(e.value for e in result.td(3)) == 0.5
    assert result.table()["layers"].tolist() == ["1, 2"] * 10


def test_a_layer_is_chosen_in_a_pool_of_its_own_half(tiny_run: TaskDecodability) -> None:
    """As if the other half's prompts had never been run, and with half as many votes."""
    rows = tiny_run.data["representation"].sel(shots=3).values.reshape(48, 4, -1).astype(float)
    queries = tiny_run.data["query_id"].values.ravel()
    for half in (0, 1):
        own = np.flatnonzero(queries % 2 == half)
        labels = np.repeat(np.arange(4), 12)[own]
        for layer in range(4):
            expected = plain_credit(rows[own, layer], labels, queries[own], 1, "cosine")
            found = tiny_run.data["half_td"].sel(shots=3, half=half, layer=layer)
            assert float(found) == pytest.approx(np.mean(expected))


def test_a_half_without_neighbours_chooses_the_first_layer() -> None:
    """Two queries: one a half, so that no prompt of a half may vote for another."""
    two = [Task(n, "user", "", task(n, n).pairs[:4]) for n in "ab"]
    p = plan(two, settings(n_prompts=12, n_shots=(1,), k=3))
    assert len(np.unique(p.queries)) <= 3
    rows = np.random.default_rng(0).standard_normal((24, 2, 4))
    assert np.isfinite(measure(rows, p, pairs=True)["half_td"]).all()


def test_results_of_an_earlier_version_say_why_they_hold_out_no_layer(
    tiny_run: TaskDecodability,
) -> None:
    before = TaskDecodability(tiny_run.data.drop_vars("half_td"), tiny_run.provenance)
    assert before.td()[0].value == tiny_run.td()[0].value
    with pytest.raises(InputError, match="written by an earlier version"):
        before.held_out()


def test_saved_loaded_and_drawn(tiny_run: TaskDecodability, tmp_path: Path) -> None:
    again = load_result(tiny_run.save(tmp_path / "td.nc"))
    assert isinstance(again, TaskDecodability)
    assert again.data.identical(tiny_run.data)
    assert again.provenance == tiny_run.provenance
    figure = again.plot()
    lines = {t.name: t for t in figure.data if t.type == "scatter" and t.name}
    for shots, name in ((1, "TD, 1 shot"), (3, "TD, 3 shots")):
        assert lines[name].y == tuple(e.value for e in tiny_run.td(shots))
    assert set(lines["chance: 0.25"].y) == {0.25}
    assert lines["query alone"].y == (0.25,) * 4
    assert lines["linear probe, 3 shots"].y == tuple(e.value for e in tiny_run.probe())
    confusion, pairwise = (t for t in figure.data if t.type == "heatmap")
    assert np.array(confusion.z) == pytest.approx(tiny_run.confusion().to_numpy())
    assert np.array(pairwise.z) == pytest.approx(tiny_run.pairwise().to_numpy(), nan_ok=True)
    assert list(confusion.x) == ["gerund", "past", "participle", "third_person"]


def test_names_are_text_and_not_markup(tiny_llama: HookedModel) -> None:
    tasks = [task("<b>a", "y"), task("b", "z")]
    run = task_decodability(tiny_llama, tasks, 6, 2, k=2, controls=False, progress=False)
    assert "<b>" not in run.plot().to_json()
    assert "<b>a" not in run._repr_html_()
    with pytest.raises(InputError, match="no control .input.; expected .*controls=True"):
        run.td(control="input")


def test_words_give_tasks_with_other_inputs_away(tiny_llama: HookedModel) -> None:
    run = task_decodability(
        tiny_llama, ["to_upper", "country_capital"], 30, 2, k=3, probe=False, progress=False
    )
    assert max(e.low for e in run.td(control="input")) > 0.5
    assert any("words alone" in c for c in run.caveats())
    assert any("the queries alone give the task away" in c for c in run.caveats())


def test_chance_of_tasks_with_inputs_of_their_own(
    tiny_llama: HookedModel, tiny_run: TaskDecodability
) -> None:
    """30 points of few queries each: noise in their place is decoded as often as chance says."""
    small = Task("small", "user", "", task("small", "z").pairs[:7])
    run = task_decodability(
        tiny_llama, [small, "country_capital"], 30, 2, k=5, probe=False, progress=False
    )
    noise = np.random.default_rng(0).standard_normal((60, 300, 16))
    credits = knn_credit(noise, np.repeat([0, 1], 30), run.data["query_id"].values.ravel(), 5)
    by_task = credits.mean(axis=1).reshape(2, 30).mean(axis=1)
    rows = run.summary().loc[2]
    for i, name in enumerate(run.tasks):
        assert run.chance_of(name) == rows.loc[name, "chance"]
        assert run.chance_of(name) == pytest.approx(by_task[i], abs=0.02)
    assert run.chance == rows.loc["all", "chance"] == pytest.approx(by_task.mean(), abs=0.02)
    assert run.chance_of("small") < 0.45
    assert f"chance: {run.chance:.2f}" in {t.name for t in run.plot().data}
    assert "chance 0.5)" not in run.plot().to_json()
    assert "chance 0.5)" in tiny_run.plot().to_json()
    assert {tiny_run.chance, *map(tiny_run.chance_of, tiny_run.tasks)} == {0.25}
    with pytest.raises(InputError, match="unknown task 'smal'"):
        run.chance_of("smal")


def test_confusion_counts_votes_as_credit_does(tiny_run: TaskDecodability) -> None:
    """Votes a little apart are no tie, in either."""
    data = tiny_run.data.copy(deep=True)
    data["votes"] = data["votes"].astype(float)
    data["votes"][:] = xr.DataArray([0.4 + 5e-6, 0.4, 0.2, 0.0], dims="voted")
    found = TaskDecodability(data, tiny_run.provenance).confusion(3, 1)
    assert found.to_numpy() == pytest.approx(np.array([[1, 0, 0, 0]] * 4))
    assert list(found.columns) == list(found.index) == tiny_run.tasks


@pytest.mark.filterwarnings("error")
def test_constant_activations_are_chance_and_said_to_be(
    tiny_llama: HookedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = tiny_llama.capture
    monkeypatch.setattr(tiny_llama, "capture", lambda *args: torch.ones_like(capture(*args)))
    run = task_decodability(tiny_llama, "verbs", 12, (1, 3), k=3, progress=False)
    assert [e.value for e in run.td()] == [0.25] * 4
    assert run.probe_held_out().value == 0.25
    assert run.without_difference() == run.layers
    assert any("after block 0, 1, 2, 3 every task gets the same votes" in c for c in run.caveats())
    run.plot()
    assert "nan" not in str(run)


# --- the command line -----------------------------------------------------------------------


def test_the_command_writes_figure_data_and_json(small_model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "td.html"
    done = run_room(
        "decodability", "--task", "letters", "--n-prompts", "6", "--n-shots", "1", "2", "--k", "3",
        "--no-probe", "--json", "--out", str(out), *small_model,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [(row["shots"], row["task"]) for row in printed["summary"]][:2] == [
        (1, "all"),
        (1, "letters/next"),
    ]
    assert printed["provenance"]["n_shots"] == [1, 2]
    assert isinstance(load_result(printed["data"]), TaskDecodability)
    assert out.is_file()


def test_the_command_writes_means_into_prompts(small_model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "means.html"
    done = run_room(
        "decodability", "--mean-patching", "--task", "letters", "--n-prompts", "2",
        "--n-shots", "2", "--n-mean", "3", "--layers", "2", "--modes", "add", "--json",
        *small_model, "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [(row["mode"], row["layer"]) for row in printed["summary"]] == [("add", 2)]
    result = load_result(printed["data"])
    assert isinstance(result, MeanPatching)
    assert result.provenance["n_mean"] == 3
    assert out.is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mean-patching", "--n-shots", "1", "4"], "Unrecognized options: 4"),
        (["--mean-patching", "--task", "antonyms", "fr_en"], "ask different inputs"),
        (["--mean-patching", "--modes", "ad"], "ad"),
        (["--task", "verb"], "unknown task 'verb'"),
        (["--task", "antonyms"], "expected two or more, each once"),
        (["--n-prompts", "8"], "n_prompts is 8 for k = 10 neighbours"),
        (["--n-shots", "0"], "n_shots is 0; expected at least 1"),
        (["--metric", "cosin"], "cosin"),
        (["--out", "figure.gif"], "unknown kind of figure '.gif'"),
        (["--model", "nothing.gguf"], "nothing.gguf: no such file"),
        (["--mean-patching", "--n-mean", "0"], "n_mean is 0; expected at least 1"),
        (["--mean-patching", "--n-prompts", "0"], "n_prompts is 0; expected at least 1"),
        (["--n-mean", "3"], "Unrecognized options: --n-mean"),
        (["--modes", "add"], "Unrecognized options: --modes"),
        (["--mean-patching", "--k", "5"], "Unrecognized options: --k"),
        (["--mean-patching", "--metric", "euclidean"], "Unrecognized options: --metric"),
        (["--mean-patching", "--normalise", "standardise"], "Unrecognized options: --normalise"),
        (["--mean-patching", "--leave-out", "point"], "Unrecognized options: --leave-out"),
        (["--mean-patching", "--no-probe"], "Unrecognized options: --no-probe"),
        (["--mean-patching", "--no-controls"], "Unrecognized options: --no-controls"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(options: list[str], message: str) -> None:
    done = run_room("decodability", *options)
    assert_refused(done, message)
    assert "loading" not in done.stderr or "nothing.gguf" in message


def test_help_does_not_wait_for_torch() -> None:
    assert_quick_help("decodability", "torch", "sklearn")
    assert load_task("verbs/past").name == "verbs/past"
