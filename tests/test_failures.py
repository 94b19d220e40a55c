"""What one task vector cannot do: the episodes, the edits, the errors, and the result."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from plain import assert_same, plain_logprobs
from tiny_models import tiny_model

from icl_mech import load_result
from icl_mech.errors import InputError
from icl_mech.failures import KINDS, REPAIRS, TaskVectorFailures, task_vector_failures
from icl_mech.failures.error_kinds import Classifier, Encoders, begins, most_frequent
from icl_mech.failures.plan import FailureSettings, load_any, plan_task
from icl_mech.failures.repair import States, placeholder
from icl_mech.model import HookedModel
from icl_mech.prompts import Split, draw_context_split, zero_shot
from icl_mech.tasks import (
    ContextTask,
    Episode,
    Pair,
    list_failures,
    load_failure,
    load_task,
    make_lookup_task,
)

SETTINGS = FailureSettings(n_prompts=4, n_dev=3, n_shots=3)


def split_of(name: str, seed: int = 0, n_test: int = 40, n_dev: int = 20) -> Split:
    return draw_context_split(load_failure(name), n_test, n_dev, 2, seed)


def inverse(word: str, answer: str) -> frozenset[str]:
    """A pair in either direction."""
    return frozenset((word, answer))


# --- episodes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 99])
@pytest.mark.parametrize("name", list_failures())
def test_what_is_asked_on_dev_is_never_asked_on_test(name: str, seed: int) -> None:
    task, split = load_failure(name), split_of(name, seed)
    both_ways = name.endswith("both_ways")
    dev, test = (
        {inverse(e.query.x, e.query.y) if both_ways else e.query.x for e in part}
        for part in (split.dev, split.test)
    )
    assert not dev & test
    assert (split.n_dev_queries, split.n_test_queries) == (len(dev), len(test))
    is_lookup = name.startswith(("lookup", "copy"))
    for episode in split.dev + split.test:
        shown = {pair.x for pair in episode.demonstrations}
        assert len(episode.demonstrations) == task.n_shots
        assert len(episode.dummies) == 2
        assert (episode.query.x in shown) == is_lookup
        dummies = {pair.x for pair in episode.dummies}
        assert len(dummies) == 2
        assert not dummies & (shown | {episode.query.x})
        assert set(episode.query.answers) <= set(task.answers)
        assert episode.query.x in task.inputs
        assert not {a for _, wrong in episode.wrong for a in wrong} & set(episode.query.answers)


@pytest.mark.parametrize("name", list_failures())
def test_the_same_seed_draws_the_same_episodes(name: str) -> None:
    assert split_of(name) == split_of(name)
    assert split_of(name) != split_of(name, seed=1)


@pytest.mark.parametrize("name", ["lookup", "lookup_once", "lookup_letter"])
def test_a_lookup_is_answered_by_its_own_prompt_only(name: str) -> None:
    answers = set()
    for episode in split_of(name).test:
        table = {pair.x: pair.y for pair in episode.demonstrations}
        assert table[episode.query.x] == episode.query.y
        assert len(set(table.values())) == len(table) == 4
        answers.add(episode.query.y)
    assert len(answers) > 10


def test_a_lookup_as_hard_as_one_likes() -> None:
    task = make_lookup_task(
        "easy", n_pairs=2, repeats=3, keys=tuple("abcdefgh"), values=("up", "down")
    )
    assert task.n_shots == 6
    for episode in draw_context_split(task, 5, 2, 1, 0).test:
        assert sorted(p.y for p in episode.demonstrations) == ["down"] * 3 + ["up"] * 3
        # Each round shows every pair once.
        assert len({p.x for p in episode.demonstrations[:2]}) == 2
    for options in ({"n_pairs": 1}, {"repeats": 0}, {"at": 1}, {"values": ("a", "b", "c")}):
        with pytest.raises(InputError, match="expected"):
            make_lookup_task(**options)
    with pytest.raises(InputError, match="each once"):
        make_lookup_task(values=("a", "a", "b", "c", "d"))


def test_copies_ask_the_first_or_the_last_demonstration() -> None:
    for name, at in (("copy_first", 0), ("copy_last", -1)):
        assert all(e.demonstrations[at] == e.query for e in split_of(name).test)
    places = {e.demonstrations.index(e.query) for e in split_of("lookup").test}
    assert places == {0, 1, 2, 3}


def test_a_constant_is_one_word_per_prompt() -> None:
    test = split_of("constant").test
    assert all({p.y for p in e.demonstrations} == {e.query.y} for e in test)
    assert len({e.query.y for e in test}) > 20


@pytest.mark.parametrize("name", ["case_both_ways", "en_fr_both_ways", "gerund_both_ways"])
def test_both_directions_are_shown_and_asked(name: str) -> None:
    task = load_failure(name)
    forward = set(task.items)
    asked = []
    for episode in split_of(name).test:
        ways = [pair.x in forward for pair in episode.demonstrations]
        assert sum(ways) == len(ways) / 2
        assert sum(pair.x in forward for pair in episode.dummies) == 1
        ((kind, wrong),) = episode.wrong
        assert kind == "wrong_direction"
        # The query's own side: every word of it but the right answer.
        assert episode.query.x in wrong
        asked.append(episode.query.x in forward)
    assert 0.25 < np.mean(asked) < 0.75


def test_no_word_is_on_both_sides_of_a_bijection() -> None:
    for name in ("case_both_ways", "en_fr_both_ways", "gerund_both_ways"):
        task = load_failure(name)
        assert len(set(task.inputs)) == len(task.inputs) == 2 * len(task.items)


def test_both_directions_accept_what_the_tasks_do() -> None:
    there = {pair.x: pair.answers for pair in load_task("en_fr").pairs}
    back = {pair.x: pair.answers for pair in load_task("fr_en").pairs}
    for episode in split_of("en_fr_both_ways").test:
        for pair in (episode.query, *episode.demonstrations, *episode.dummies):
            assert pair.answers == there.get(pair.x, back.get(pair.x))
    assert "travailler" in load_failure("en_fr_both_ways").answers
    assert "ship" in load_failure("en_fr_both_ways").answers


def test_fresh_labels_are_bound_by_the_prompt() -> None:
    pairs = set()
    for episode in split_of("fresh_labels").test:
        labels = {pair.y for pair in episode.demonstrations}
        assert len(labels) == 2
        assert episode.query.y in labels
        counts = [sum(p.y == label for p in episode.demonstrations) for label in labels]
        assert counts == [5, 5]
        pairs.add(frozenset(labels))
    assert len(pairs) > 20


def test_skewed_labels() -> None:
    task, split = load_failure("skewed_labels"), split_of("skewed_labels")
    shown = [p.y for e in split.dev + split.test for p in e.demonstrations]
    assert 0.7 < shown.count("person") / len(shown) < 0.9
    assert split.prior == "person"
    assert len(task.items) == 50


def test_lists() -> None:
    for episode in split_of("reverse_list").test:
        assert episode.query.y.split(",") == episode.query.x.split(",")[::-1]
    words = ["", "one", "two", "three", "four"]
    for episode in split_of("count_list").test:
        assert episode.query.y == words[len(episode.query.x.split(","))]


def test_every_task_says_what_theory_predicts() -> None:
    for name in list_failures():
        task = load_failure(name)
        assert task.category == "failure"
        assert task.prediction.outcome in ("works", "about half", "label prior")
        assert task.prediction.text.endswith(".")


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(InputError, match="unknown failure task 'lokup'; did you mean 'lookup'"):
        load_failure("lokup")
    with pytest.raises(InputError, match="26 items, too few: expected at least 32"):
        draw_context_split(load_failure("case_both_ways"), 5, 5, 20, 0)
    with pytest.raises(InputError, match="n_dummies is 0"):
        draw_context_split(load_failure("lookup"), 5, 5, 0, 0)
    with pytest.raises(InputError, match="seed is -1"):
        split_of("lookup", seed=-1)
    lookup = load_failure("lookup")
    with pytest.raises(InputError, match="an item appears twice"):
        ContextTask("t", "", lookup.prediction, ("a", "a"), (), (), 1, 1, lookup.compose)
    with pytest.raises(InputError, match="or a failure task: lookup"):
        load_any("country_captal")
    with pytest.raises(InputError, match="each once"):
        load_any(["lookup", "lookup"])


# --- the edits ----------------------------------------------------------------------------------


def test_repairs_equal_the_plain_way(tiny: HookedModel) -> None:
    """Joint edits at many tokens, and at one token in many layers: one full forward each."""
    p = plan_task(load_task("to_upper"), SETTINGS)
    encoders = Encoders.of(tiny, p, SETTINGS)
    episodes = p.split.test[:2]
    states = States.of(tiny, encoders.own, episodes, tuple(REPAIRS))
    for repair, parts in REPAIRS.items():
        asked = (
            [placeholder(encoders.own, e) for e in episodes]
            if parts
            else zero_shot(encoders.own, episodes)
        )
        assert_same(tiny, asked, [states.edits(repair, layer) for layer in (0, 2)])


def test_states_are_those_of_the_prompts(tiny_llama: HookedModel) -> None:
    p = plan_task(load_task("to_upper"), SETTINGS)
    encoders = Encoders.of(tiny_llama, p, SETTINGS)
    states = States.of(tiny_llama, encoders.own, p.split.test, tuple(REPAIRS))
    one = p.split.test[1]
    prompts = [encoders.own.encode(one.demonstrations, d.x) for d in one.dummies]
    last = tiny_llama.capture(prompts, ["final_arrow"])[:, 0].mean(dim=0)
    torch.testing.assert_close(states.theta[1], last, atol=1e-4, rtol=0)
    wrote = tiny_llama.capture(prompts, ["final_arrow"], "attn_out")[:, 0].mean(dim=0)
    assert states.attention is not None
    assert states.shown is not None
    torch.testing.assert_close(states.attention[1], wrote, atol=1e-4, rtol=0)
    role = states.roles.index("demo_2_arrow")
    arrow = tiny_llama.capture(prompts[:1], ["demo_2_arrow"])[0, 0]
    torch.testing.assert_close(states.shown[1, role], arrow, atol=1e-4, rtol=0)
    torch.testing.assert_close(states.rolled().shown[0, role], arrow, atol=1e-4, rtol=0)


def test_all_states_of_a_prompt_written_at_the_end_are_that_prompt(tiny: HookedModel) -> None:
    """After the last block only the final arrow matters: the dummy prompt's answer comes back."""
    p = plan_task(load_task("to_upper"), SETTINGS)
    encoders = Encoders.of(tiny, p, SETTINGS)
    one = Episode(
        p.split.test[0].demonstrations, p.split.test[0].query, p.split.test[0].dummies[:1]
    )
    states = States.of(tiny, encoders.own, [one], ("demonstrations",))
    edits = states.edits("demonstrations", tiny.n_layers - 1)
    dummy = encoders.own.encode(one.demonstrations, one.dummies[0].x)
    expected = plain_logprobs(tiny, dummy)
    readout = tiny.evaluate([placeholder(encoders.own, one)], [edits], [[7]])
    assert abs(float(readout.logprob[0, 0, 0] - expected[7])) < 1e-4


# --- the errors ---------------------------------------------------------------------------------


@pytest.fixture
def classifier(tiny_llama: HookedModel) -> Classifier:
    """Of one prompt: a->A, b->B, C->c, then D."""
    p = plan_task(load_failure("case_both_ways"), SETTINGS)
    encoders = Encoders.of(tiny_llama, p, SETTINGS)
    shown = (Pair("a", ("A",)), Pair("b", ("B",)), Pair("C", ("c",)))
    wrong = (("wrong_direction", tuple("ABCDEF")),)
    episode = Episode(shown, Pair("D", ("d",)), (Pair("z", ("Z",)),), wrong)
    split = Split((episode,), (episode,), "A", 1, 1)
    return Classifier.of(
        tiny_llama, replace(p, split=split), encoders, zero_shot(encoders.own, [episode])
    )


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("d", ""),
        ("D", "copied_input"),
        ("E", "wrong_direction"),
        ("c", "shown_answer"),
        ("b", "shown_input"),
        ("k", "task_answer"),
        ("\n", "not_a_word"),
        ("-", "not_a_word"),
        ("7", "other"),
    ],
)
def test_errors_have_names(
    tiny_llama: HookedModel, classifier: Classifier, said: str, kind: str
) -> None:
    (token,) = tiny_llama.tokenizer(said, add_special_tokens=False)["input_ids"]
    assert classifier.kind(0, token) == kind


def test_the_most_frequent_answer_leads_alone() -> None:
    def shown(text: str) -> list[Pair]:
        return [Pair(f"x{i}", (y,)) for i, y in enumerate(text)]

    assert most_frequent(shown("aab")) == ["a"]
    assert most_frequent(shown("aabb")) == []
    assert most_frequent(shown("abc")) == []
    assert most_frequent(shown("aaa")) == ["a"]


def test_beginnings() -> None:
    assert begins("K", ["K"])
    assert not begins("K", ["Kabul"])
    assert begins("kab", ["Kabul"])
    assert not begins("", ["Kabul"])


# --- the result ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_result() -> TaskVectorFailures:
    tasks = ["lookup_once", "country_capital", "skewed_labels"]
    return task_vector_failures(
        tiny_model("llama"), tasks, 4, 2, n_dev=3, repair_layers=[1, 3], progress=False
    )


def test_everything_is_measured_per_prompt(tiny_result: TaskVectorFailures) -> None:
    r = tiny_result
    controls = [f"{repair}{c}" for repair in REPAIRS for c in ("_other_prompt", "_shuffled")]
    expected = {"few_shot", "zero_shot", "theta", "shuffled", "other_task", "random", "placeholder"}
    assert set(r.conditions) == expected | set(REPAIRS) | set(controls)
    frame = r.to_frame()
    assert len(frame) == 3 * 4 * len(r.conditions)
    assert (frame["right"] == (frame["error"] == "")).all()
    assert set(frame["error"]) <= {"", *KINDS}
    assert (frame["logprob"] <= 0).all()
    dev = r.data["dev_right"]
    assert dev.sel(injected="theta").notnull().all()
    tried = dev.sel(injected="arrows").notnull().any(["task", "dev_prompt"])
    assert tried.values.tolist() == [False, True, False, True]
    assert r.data["prior_right"].sel(task="skewed_labels").values.mean() > 0
    np.testing.assert_allclose(r.data["guess_right"].sel(task="lookup_once"), 0.25)
    assert r.provenance["tasks"]["lookup_once"]["predicted"] == "label prior"


def test_it_survives_a_file(tiny_result: TaskVectorFailures, tmp_path: Path) -> None:
    again = load_result(tiny_result.save(tmp_path / "r.nc"))
    assert isinstance(again, TaskVectorFailures)
    assert again.data.identical(tiny_result.data)
    assert again.table().equals(tiny_result.table())


def test_bad_input_is_refused_before_anything_runs(tiny_llama: HookedModel) -> None:
    for options, message in (
        ({"repairs": ["arows"]}, "unknown repair 'arows'; did you mean 'arrows'"),
        ({"repairs": ["arrows", "arrows"]}, "each once"),
        ({"repair_layers": [4]}, "layer 4 out of range: expected 0 to 3"),
        ({"repair_layers": []}, "at least one"),
        ({"n_prompts": 0}, "n_prompts is 0"),
        ({"template": "{x}"}, "expected {x}"),
    ):
        with pytest.raises(InputError, match=message):
            task_vector_failures(tiny_llama, "lookup", **options)


def made(
    right: dict[str, list[int]], guess: float = 0.0, by_chance: float = 0.0
) -> TaskVectorFailures:
    """A result of one task with given outcomes."""
    n = len(right["few_shot"])
    names = list(right)
    table = np.array([right[name] for name in names], bool).T
    errors = np.where(table, "", "copied_input")
    data = xr.Dataset(
        {
            "right": (("task", "prompt", "condition"), table[None]),
            "error": (("task", "prompt", "condition"), errors[None]),
            "prior_right": (("task", "prompt"), np.zeros((1, n), bool)),
            "guess_right": (("task", "prompt"), np.full((1, n), guess)),
            "best_layer": (("task", "injected"), [[2, 1]]),
            "dev_right": (("task", "injected", "dev_prompt", "layer"), np.ones((1, 2, 1, 3))),
            "predicted": ("task", ["label prior"]),
            "category": ("task", ["failure"]),
            "query": (("task", "prompt"), [[f"q{i}" for i in range(n)]]),
            "named_by_chance": ("task", [by_chance]),
            "n_queries": ("task", [n]),
            "n_shown": ("task", [8]),
        },
        coords={"task": ["<b>t"], "condition": names, "injected": ["theta", "arrows"]},
    )
    return TaskVectorFailures(data, {"model": "<i>m", "seed": 0, "n_shots": 5})


def outcomes(few: int, theta: int, arrows: int = 0, zero: int = 0, n: int = 40) -> dict:
    """The first so many prompts right."""
    counts = {"few_shot": few, "zero_shot": zero, "theta": theta, "shuffled": 0, "arrows": arrows}
    return {name: [int(i < k) for i in range(n)] for name, k in counts.items()}


def test_shares_by_hand() -> None:
    result = made(outcomes(few=40, theta=20, arrows=30, zero=8))
    assert result.explained("<b>t").value == pytest.approx((0.5 - 0.2) / (1 - 0.2))
    assert result.explained("<b>t", "arrows").value == pytest.approx((0.75 - 0.2) / 0.8)
    assert result.recovered("<b>t", "arrows").value == pytest.approx(0.5)
    assert result.explained("<b>t", "few_shot").value == 1
    assert result.explained("<b>t").low < 0.375 < result.explained("<b>t").high
    # The label prior is the floor where it is higher than the zero-shot prompt.
    result = made(outcomes(few=40, theta=20, zero=8), guess=0.25)
    assert result.prior("<b>t").value == 0.25
    assert result.explained("<b>t").value == pytest.approx((0.5 - 0.25) / 0.75)
    assert result.errors("<b>t") == {"copied_input": 20}
    assert result.named("<b>t") == 1


def test_what_was_observed() -> None:
    assert made(outcomes(few=3, theta=20), guess=0.25).observed("<b>t") == "not in context"
    assert made(outcomes(few=35, theta=11), guess=0.25).observed("<b>t") == "label prior"
    assert made(outcomes(few=35, theta=35), guess=0.25).observed("<b>t") == "works"
    in_part = made(outcomes(few=40, theta=25), guess=0.25)
    assert in_part.observed("<b>t") == "in part"
    assert any("predicted: label prior; observed: in part" in line for line in in_part.caveats())
    none = made(outcomes(few=3, theta=2), guess=0.25)
    assert np.isnan(none.explained("<b>t").value)
    assert none.table().loc["<b>t", "explained"] == "undefined"
    assert [t.x for t in none.plot().data if t.name == "θ, one vector"] == [(None,)]
    assert any("nothing for a vector to explain" in line for line in none.caveats())


def test_a_constant_can_work() -> None:
    """Its guess is always right: it is what the vector is to carry, and no floor."""
    constant = made(outcomes(few=40, theta=40), guess=1.0)
    constant.data["predicted"][:] = "works"
    assert constant.observed("<b>t") == "works"
    assert constant.explained("<b>t").value == 1
    assert constant.prior("<b>t").value == 0
    assert not any("explain" in line or "predicted" in line for line in constant.caveats())
    wrong = made(outcomes(few=40, theta=0), guess=1.0)
    assert wrong.observed("<b>t") == "label prior"
    never = made(outcomes(few=2, theta=2), guess=1.0)
    (line,) = [line for line in never.caveats() if "nothing for a vector to explain" in line]
    assert "the better of the zero-shot prompt and the label prior (0.00)" in line
    # A guess that is right most of the time stays a floor.
    skewed = made(outcomes(few=40, theta=40), guess=1.0)
    skewed.data["guess_right"][0, 0] = 0
    assert skewed.observed("<b>t") == "not in context"
    assert skewed.prior("<b>t").value == 39 / 40


def test_names_by_chance(
    tiny_llama: HookedModel, classifier: Classifier, tiny_result: TaskVectorFailures
) -> None:
    tokens = range(len(tiny_llama.tokenizer))  # few: every one is looked at
    kinds = [classifier.kind(0, token) for token in tokens]
    wrong = [kind for kind in kinds if kind]
    assert classifier.by_chance() == pytest.approx(1 - wrong.count("other") / len(wrong))
    assert 0 < classifier.by_chance() < 1
    summary = tiny_result.full_summary()
    for task in tiny_result.tasks:
        assert summary.loc[task, "named_by_chance"] == tiny_result.by_chance(task)
    (line,) = [c for c in made(outcomes(9, 9), by_chance=0.32).caveats() if "blindly" in c]
    assert "32% to 32%" in line
    assert not any("blindly" in c for c in made(outcomes(9, 9), by_chance=0.02).caveats())


def test_the_figure_clips_and_escapes() -> None:
    result = made(outcomes(few=20, theta=30, arrows=10))
    figure = result.plot()
    (bar,) = [t for t in figure.data if t.name == "θ, one vector"]
    assert bar.x == (1.0,)
    assert "explained: 1.50" in bar.customdata[0]
    html = figure.to_json()
    assert "<b>t" not in html.replace("<b>&lt;b&gt;t", "")
    assert "<i>m" not in html
    right = [t for t in figure.data if t.name == "right"]
    assert [t.x[0] for t in right] == [0.75, 0.5]


# --- the packaged model -------------------------------------------------------------------------


def test_a_lookup_of_counts_that_cannot_be() -> None:
    with pytest.raises(InputError, match="n_pairs x repeats is 4000000000; expected at most 10"):
        make_lookup_task(repeats=10**9)
