"""Conflicting tasks: what is drawn, equality with full forwards, and the paper's finding."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import assert_refused, run_room
from plain import plain_logprobs

from icl_mech import load_result
from icl_mech.conflict import (
    CONDITIONS,
    ConflictingTasks,
    ConflictUndefined,
    as_pairs,
    conflicting_tasks,
    draw_conflict,
    paper_pairs,
)
from icl_mech.conflict.plan import parse_pair
from icl_mech.errors import InputError
from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import generator
from icl_mech.reference import hendel2023
from icl_mech.tasks import Pair, Task, load_family, load_task
from icl_mech.vectors import dummy_residuals, random_like, theta

SMALL = {"n_prompts": 6, "n_shots": 2, "n_dev": 4, "progress": False}


def task_of(name: str, pairs: dict[str, str]) -> Task:
    return Task(name, "user", "", tuple(Pair(x, (y,)) for x, y in pairs.items()))


def inputs(*pairs: Pair) -> set[str]:
    return {pair.x for pair in pairs}


@pytest.mark.parametrize("names", [*paper_pairs(), ("antonyms", "en_fr"), ("en_fr", "antonyms")])
@pytest.mark.parametrize("seed", [0, 5])
def test_nothing_that_is_asked_is_shown(names: tuple[str, str], seed: int) -> None:
    a, b = map(load_task, names)
    drawn = draw_conflict(a, b, 50, 25, 4, 2, seed)
    asked = {e.query.x for e in drawn.prompts}
    assert len(asked) == drawn.n_queries >= 10
    assert len(drawn.prompts) == len(drawn.own) == len(drawn.injected) == 50
    assert len(drawn.dev) == 25
    in_a, in_b = ({p.x: p for p in t.pairs} for t in (a, b))
    for prompt, own, injected in zip(drawn.prompts, drawn.own, drawn.injected, strict=True):
        assert prompt.query == own.query == in_a[prompt.query.x]
        assert injected.query == in_b[prompt.query.x]
        assert not set(prompt.query.answers) & set(injected.query.answers)
        # The control's demonstrations are others than the prompt's.
        assert not inputs(*prompt.demonstrations) & inputs(*own.demonstrations, *own.dummies)
        assert len(own.dummies) == len(injected.dummies) == 2
        assert set(prompt.demonstrations) <= set(a.pairs)
        assert set(injected.demonstrations) <= set(b.pairs)
    every = drawn.prompts + drawn.own + drawn.injected + drawn.dev
    shown = {p.x for e in every for p in (*e.demonstrations, *e.dummies)}
    assert not asked & shown
    on_dev = {e.query.x for e in drawn.dev}
    assert len(on_dev) == drawn.n_dev_queries
    assert not on_dev & asked
    of_b = {p.x for e in drawn.injected + drawn.dev for p in (*e.demonstrations, *e.dummies)}
    assert not on_dev & of_b
    # The layer is never chosen on a vector that is injected.
    sets = [
        {frozenset(inputs(*e.demonstrations)) for e in es} for es in (drawn.dev, drawn.injected)
    ]
    assert not sets[0] & sets[1]


def test_inputs_answered_alike_are_neither_asked_nor_shown() -> None:
    a = task_of("a", {f"x{i}": f"a{i}" for i in range(30)})
    b = task_of("b", {f"x{i}": f"a{i}" if i < 12 else f"b{i}" for i in range(30)})
    drawn = draw_conflict(a, b, 9, 4, 2, 1, 0)
    assert (drawn.n_shared, drawn.n_agreed, drawn.n_left_out) == (30, 12, 0)
    every = drawn.prompts + drawn.own + drawn.injected + drawn.dev
    used = {p.x for e in every for p in (*e.demonstrations, *e.dummies, e.query)}
    assert used <= {f"x{i}" for i in range(12, 30)}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("antonyms", "country_capital"), "conflict undefined: .* share no input"),
        (("fr_en", "es_en"), "same answers to every input that they share \\(4\\)"),
        (("fr_en", "antonyms"), "too few pairs; expected at least 5 inputs .* \\(there are 2\\)"),
        (("to_upper", "to_upper"), "conflict undefined: 'to_upper' with itself"),
    ],
)
def test_pairs_without_a_conflict(names: tuple[str, str], message: str) -> None:
    with pytest.raises(ConflictUndefined, match=message):
        draw_conflict(load_task(names[0]), load_task(names[1]), 10, 5, 4, 2, 0)


def test_tasks_that_are_too_small() -> None:
    letters = load_family("letters")
    a, b = letters.task("next"), letters.task("upper")
    with pytest.raises(ConflictUndefined, match=r"20 pairs of 'letters/next' \(2 x 9 shots \+ 2"):
        draw_conflict(a, b, 10, 5, 9, 2, 0)
    with pytest.raises(InputError, match="n_dev is 0"):
        draw_conflict(a, b, 10, 0, 2, 2, 0)
    with pytest.raises(InputError, match="seed is -1"):
        draw_conflict(a, b, 10, 3, 2, 2, -1)
    # Three pairs to show make three sets of two, and all of them are injected.
    a = task_of("a", {f"x{i}": f"a{i}" for i in range(20)})
    b = task_of("b", {f"x{i}": f"b{i}" for i in range(9)})
    with pytest.raises(ConflictUndefined, match="make too few different sets of 2"):
        draw_conflict(a, b, 40, 5, 2, 1, 0)


def test_pairs_and_matrices() -> None:
    pairs, matrix = as_pairs(None)
    assert [(a.name, b.name) for a, b in pairs] == paper_pairs()
    assert not matrix
    pairs, matrix = as_pairs("letters")
    assert matrix
    assert len(pairs) == 6
    assert as_pairs([("prev_letter", "next_letter")])[0][0][0].name == "previous_letter"
    with pytest.raises(InputError, match="one task .*; expected two or more"):
        as_pairs(["antonyms"])
    with pytest.raises(InputError, match="is given twice"):
        as_pairs([("en_es", "en_fr"), ("en_es", "en_fr")])
    with pytest.raises(InputError, match="among pairs of tasks"):
        as_pairs([("en_es", "en_fr"), "en_es"])
    with pytest.raises(InputError, match="did you mean 'antonyms'"):
        as_pairs([("antonym", "en_fr")])
    assert [t.name for t in parse_pair("verbs/past:verbs/gerund")] == ["verbs/past", "verbs/gerund"]
    with pytest.raises(InputError, match="expected the prompt's task, a colon"):
        parse_pair("en_es")
    with pytest.raises(InputError, match="did you mean 'en_fr'"):
        parse_pair("en_es:en_fra")


def test_a_colon_in_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a:b.csv"
    path.write_text("input,output\na,b\n")
    assert [t.name for t in parse_pair(f"{path}:en_es")] == ["a:b", "en_es"]


def test_equals_one_full_forward_per_prompt(tiny: HookedModel) -> None:
    """Every condition, the plain way: one hook, one prompt."""
    a, b = load_task("list_last"), load_task("list_first")
    result = conflicting_tasks(tiny, [(a, b)], seed=3, **SMALL)
    assert result.pairs == ["list_last:list_first"]
    encoder = tiny.encoder("{x}->{y}", [p.y for t in (a, b) for p in t.pairs])
    drawn = draw_conflict(a, b, 6, 4, 2, 2, 3)
    layer = result.layer(result.pairs[0])
    vectors = {
        "injected": theta(dummy_residuals(tiny, encoder, drawn.injected))[:, layer],
        "own": theta(dummy_residuals(tiny, encoder, drawn.own))[:, layer],
    }
    vectors["random"] = random_like(
        vectors["injected"], generator(3, "list_last", "list_first", "random")
    )
    row = result.data.isel(pair=0)
    for i, episode in enumerate(drawn.prompts):
        few = encoder.encode(episode.demonstrations, episode.query.x)
        zero = encoder.encode((), episode.query.x)
        for condition in CONDITIONS:
            prompt = zero if condition == "zero_shot" else few
            vector = vectors.get("injected" if condition == "zero_shot" else condition)
            edit = None if vector is None else Edit(layer, vector[i], position="final_arrow")
            expected = plain_logprobs(tiny, prompt, edit)
            got = row.sel(condition=condition).isel(prompt=i)
            for follows, pair in (("prompt", episode.query), ("injected", drawn.injected[i].query)):
                tokens = encoder.first_tokens(prompt, pair.answers)
                best = max(float(expected[t]) for t in tokens)
                assert float(got[f"{follows}_logprob"]) == pytest.approx(best, abs=2e-3)
                assert bool(got[f"follows_{follows}"]) == (int(got["top"]) in tokens)
            assert expected.max() - expected[int(got["top"])] < 1e-3


def test_the_layer_is_the_best_on_the_injected_tasks_dev_prompts(tiny_llama: HookedModel) -> None:
    """Zero-shot, theta of B, other queries: the plain way."""
    a, b = load_task("list_last"), load_task("list_first")
    result = conflicting_tasks(tiny_llama, [(a, b)], seed=1, **SMALL)
    encoder = tiny_llama.encoder("{x}->{y}", [p.y for t in (a, b) for p in t.pairs])
    drawn = draw_conflict(a, b, 6, 4, 2, 2, 1)
    vectors = theta(dummy_residuals(tiny_llama, encoder, drawn.dev))
    right = np.zeros((4, tiny_llama.n_layers), bool)
    for i, episode in enumerate(drawn.dev):
        prompt = encoder.encode((), episode.query.x)
        for layer in range(tiny_llama.n_layers):
            edit = Edit(layer, vectors[i, layer], position="final_arrow")
            top = int(plain_logprobs(tiny_llama, prompt, edit).argmax())
            right[i, layer] = top in encoder.first_tokens(prompt, episode.query.answers)
    pair = result.pairs[0]
    assert (result.data["dev_right"].sel(pair=pair).values == right).all()
    # Nothing is right here: the layer is the one with the most probable answer, and it is said.
    assert not right.any()
    logprob = result.data["dev_logprob"].sel(pair=pair).values
    assert result.layer(pair) == logprob.mean(0).argmax()
    assert any("θ of list_first works at no layer" in note for note in result.caveats())
    # Whatever is best there: also where it is not the first.
    for best in range(tiny_llama.n_layers):
        result.data["chosen_layer"][:] = best
        assert result.dev_accuracy(pair).value == right[:, best].mean()


def drawn_result(**follows: list[bool]) -> ConflictingTasks:
    """A result with given answers under `injected`; two prompts share each query."""
    n = len(follows["injected"])
    zero = np.zeros((1, len(CONDITIONS), n), bool)
    data = {
        "follows_prompt": zero.copy(),
        "follows_injected": zero.copy(),
        "prompt_logprob": zero.astype(float),
        "injected_logprob": zero.astype(float),
        "top": zero.astype(int),
    }
    data["follows_prompt"][0, 1] = follows["prompt"]
    data["follows_injected"][0, 1] = follows["injected"]
    data["follows_prompt"][0, 0] = True
    dims = ("pair", "condition", "prompt")
    names = [f"q<b>{i // 2}" for i in range(n)]
    return ConflictingTasks(
        xr.Dataset(
            {
                **{name: (dims, values) for name, values in data.items()},
                "dev_right": (("pair", "dev_prompt", "layer"), np.ones((1, 4, 3), bool)),
                "dev_query": (("pair", "dev_prompt"), [list("abcd")]),
                "chosen_layer": ("pair", [2]),
                "query": (("pair", "prompt"), [names]),
                "prompt_answer": (("pair", "prompt"), [names]),
                "injected_answer": (("pair", "prompt"), [names]),
                "prompt_task": ("pair", ["<b>a"]),
                "injected_task": ("pair", ["en_fr"]),
            },
            coords={"pair": ["<b>a:en_fr"], "condition": list(CONDITIONS), "layer": range(3)},
        ),
        {
            "model": "<b>m",
            "seed": 0,
            "n_shots": 4,
            "matrix": True,
            "tasks": ["<b>a", "en_fr"],
            "pairs": {"<b>a:en_fr": {"n_queries": n // 2}},
            "undefined": {
                "en_fr:<b>a": {
                    "prompt_task": "en_fr", "injected_task": "<b>a", "reason": "because <i>",
                }
            },
        },
    )  # fmt: skip


def test_shares_by_hand() -> None:
    result = drawn_result(injected=[True] * 6 + [False] * 2, prompt=[False] * 6 + [True, False])
    (pair,) = result.pairs
    assert result.share(pair, "injected").value == 0.75
    assert result.share(pair, "prompt").value == 0.125
    assert result.share(pair, "neither").value == 0.125
    assert result.difference(pair).value == 0.625
    assert (result.difference(pair).n, result.difference(pair).n_clusters) == (8, 4)
    assert result.share(pair, "prompt", "regular").value == 1
    assert result.share(pair, "prompt", "regular").low == pytest.approx(0.2831, abs=1e-4)
    assert result.flipped() == {pair: True}
    worse = drawn_result(injected=[False] * 4, prompt=[True] * 4)
    assert worse.flipped() == {pair: False}
    worse.data["follows_prompt"][0, 0] = False
    assert worse.flipped() == {}
    assert worse.matrix().loc["<b>a", "en_fr"] == -1
    assert worse.matrix().isna().sum().sum() == 3
    with pytest.raises(InputError, match="en_fr:<b>a was not measured: because <i>"):
        result.share("en_fr:<b>a")
    with pytest.raises(InputError, match="unknown condition"):
        result.share(pair, condition="other")
    with pytest.raises(InputError, match="unknown follows"):
        result.share(pair, "both")


@pytest.mark.parametrize("kind", ["bars", "matrix"])
def test_names_are_text_in_figures(kind: str) -> None:
    result = drawn_result(injected=[True] * 4, prompt=[False] * 4)
    shown = result.plot(kind).to_json()
    for markup in ("<b>a", "<b>m", "<i>"):
        assert markup not in shown.replace("<b>&lt;b&gt;a", "")
        assert markup.replace("<", "\\u003c").replace(">", "\\u003e") not in shown
    assert "&lt;b&gt;a" in shown
    with pytest.raises(InputError, match="unknown kind of figure"):
        result.plot("bar")


def test_the_map_shows_differences_and_reasons() -> None:
    result = drawn_result(injected=[True, True, True, False], prompt=[False] * 4)
    blank, cells = result.plot().data
    assert np.array(blank.z, dtype=float)[1, 0] == 1  # en_fr <- a
    assert np.isnan(np.array(blank.z, dtype=float)[0, 1])
    assert "because" in blank.customdata[1][0]
    assert np.array(cells.z, dtype=float)[0, 1] == 0.75
    assert "follows en_fr: 0.75" in cells.customdata[0][1]


def test_the_bars_show_shares_and_what_is_published(tiny_llama: HookedModel) -> None:
    result = conflicting_tasks(tiny_llama, [("list_last", "list_first")], **SMALL)
    figure = result.plot()
    (bars,) = [t for t in figure.data if t.type == "bar" and t.name.endswith("(B)")]
    pair = result.pairs[0]
    assert list(bars.y) == [result.share(pair, "injected", c).value for c in CONDITIONS]
    known = next(c for c in hendel2023().conflicts if c.task == "list_last")
    points = [t for t in figure.data if t.type == "scatter"]
    assert [list(t.y) for t in points] == [[known.regular[i], known.injected[i]] for i in range(2)]


def test_a_family_gives_a_matrix(tiny_llama: HookedModel, tmp_path: Path) -> None:
    asked = [*load_family("letters").tasks, load_task("antonyms")]
    result = conflicting_tasks(tiny_llama, asked, **SMALL)
    assert len(result.pairs) == 6
    assert len(result.undefined) == 6
    assert result.tasks == [t.name for t in asked]
    assert len(result.summary()) == 12
    assert result.summary().loc[("antonyms", "letters/next"), "undefined"].startswith("conflict un")
    assert result.matrix().notna().sum().sum() == 6
    again = load_result(result.save(tmp_path / "conflict.nc"))
    assert isinstance(again, ConflictingTasks)
    assert again.data.identical(result.data)
    assert again.provenance == result.provenance
    frame = again.to_frame()
    assert len(frame) == 6 * len(CONDITIONS) * 6
    row = frame[(frame.pair == result.pairs[0]) & (frame.condition == "own")]
    assert (row.follows == "prompt").mean() == result.share(result.pairs[0], "prompt", "own").value
    assert any("6 of 12 pairs are undefined" in note for note in result.caveats())
    assert "ConflictingTasks" in result._repr_html_()
    other = conflicting_tasks(tiny_llama, asked[:2], seed=1, **SMALL)
    same = conflicting_tasks(tiny_llama, asked[:2], **SMALL)
    assert same.data.identical(result.data.sel(pair=same.pairs))
    assert not other.data["query"].equals(same.data["query"])


def test_answers_that_begin_with_the_same_token(tiny_llama: HookedModel) -> None:
    """By letters, "walked" and "walking" cannot be told apart."""
    names = ("verbs/past", "verbs/gerund")
    with pytest.raises(ConflictUndefined, match="more begin with the same token"):
        conflicting_tasks(tiny_llama, [names], **SMALL)
    with pytest.raises(InputError, match="no pair is left"):
        conflicting_tasks(tiny_llama, list(names), **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pairs", "en_es:en_fra"], "did you mean 'en_fr'"),
        (["--pairs", "en_es"], "expected the prompt's task, a colon"),
        (["--pairs", "en_es:en_fr", "--tasks", "letters"], "at once; expected one of them"),
        (["--pairs", "antonyms:country_capital"], "conflict undefined"),
        (["--tasks", "antonyms", "country_capital"], "none of 2 pairs conflicts"),
        (["--pairs", "next_letter:to_upper", "--n-shots", "11"], "too few pairs"),
        (["--n-prompts", "0"], "n_prompts is 0"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(options: list[str], message: str) -> None:
    done = run_room("conflict", *options)
    assert_refused(done, message)
    assert "loading" not in done.stderr


def test_command(small_model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "conflict.html"
    done = run_room(
        "conflict", "--pairs", "list_last:list_first", "--n-prompts", "4", "--n-dev", "2", "--json",
        "--out", str(out), *small_model,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["summary"]
    assert (row["prompt_task"], row["injected_task"]) == ("list_last", "list_first")
    assert row["published_injected_follows_injected"] == 0.78
    assert out.exists()
    assert isinstance(load_result(out.with_suffix(".nc")), ConflictingTasks)
