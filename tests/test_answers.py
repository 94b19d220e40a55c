"""Whole answers: on the prompts of a layer scan, by every score."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Done, run_room
from plain import plain_logprobs, prompt_of
from tiny_models import tiny_model

from icl_mech.answers import CONDITIONS, SCORES, AnswerScores, answer_scores
from icl_mech.answers.text_scores import judge_text
from icl_mech.errors import InputError
from icl_mech.model import Edit, HookedModel, Readout
from icl_mech.patch import layer_scan
from icl_mech.prompts import Episode, Template, accepted, draw_split, zero_shot
from icl_mech.results import load_result
from icl_mech.scores import score
from icl_mech.tasks import Pair, Task, load_task
from icl_mech.vectors import dummy_residuals, theta

N, SHOTS = 4, 2
TASKS = ["to_upper", "country_capital"]


@pytest.fixture(scope="module")
def scores() -> AnswerScores:
    """On a tiny random model, one token per byte: nearly all answers take several tokens."""
    return answer_scores(tiny_model("llama"), TASKS, N, SHOTS, seed=3, progress=False)


def test_the_prompts_and_layers_are_those_of_a_layer_scan(scores: AnswerScores) -> None:
    scan = layer_scan(tiny_model("llama"), TASKS, N, SHOTS, seed=3, progress=False)
    for task in TASKS:
        ours, theirs = scores.of(task), scan.of(task)
        layer = scan.read_at(task)
        assert int(ours["layer"]) == layer
        assert ours["query"].values.tolist() == theirs["query"].values.tolist()
        for measure in ("first_token", "two_way_prefix"):
            at_best = theirs[measure].sel(vector="theta", layer=layer)
            expected = [
                theirs[f"reference_{measure}"].sel(reference="baseline"),
                at_best,
                theirs[f"reference_{measure}"].sel(reference="regular"),
            ]
            assert np.array_equal(ours[measure].values, np.stack([e.values for e in expected]))
        for name, expected in (("baseline", 0), ("hypothesis", None), ("regular", 1)):
            found = ours["first_logprob"].sel(condition=name).values
            wanted = (
                theirs["logprob"].sel(vector="theta", layer=layer)
                if expected is None
                else theirs["reference_logprob"].isel(reference=expected)
            )
            np.testing.assert_allclose(found, wanted.values, atol=1e-4)


def test_log_probability_is_of_the_whole_answer_with_theta_in_place(scores: AnswerScores) -> None:
    """Worked out the plain way for one prompt: a full forward per token with theta's hook."""
    model, task = tiny_model("llama"), load_task("country_capital")
    episode = draw_split(task, N, N // 2, SHOTS, 2, 3).test[1]
    encoder = model.encoder("{x}->{y}", [pair.y for pair in task.pairs])
    of = scores.of(task.name).isel(prompt=1)
    layer = int(of["layer"])
    vector = theta(dummy_residuals(model, encoder, [episode]))[0, layer]
    zero = encoder.encode((), episode.query.x)
    few = encoder.encode(episode.demonstrations, episode.query.x)
    edit = Edit(layer, vector, position=len(zero) - 1)
    for condition, prompt, edits in (
        ("baseline", zero, None),
        ("hypothesis", zero, edit),
        ("regular", few, None),
    ):
        totals = []
        for ids in encoder.answer_tokens(prompt, episode.query.answers):
            steps = [
                plain_logprobs(model, prompt_of([*prompt.tokens, *ids[:i]]), edits)
                for i in range(len(ids))
            ]
            totals.append(sum(float(s[t]) for s, t in zip(steps, ids, strict=True)))
        found = float(of["logprob"].sel(condition=condition))
        assert found == pytest.approx(max(totals), abs=2e-3)
    assert int(of["n_tokens"]) == len(encoder.answer_tokens(zero, [episode.query.y])[0]) > 1


def test_scores_agree_with_what_was_said(scores: AnswerScores) -> None:
    frame = scores.to_frame()
    assert len(frame) == len(TASKS) * len(CONDITIONS) * N
    for row in frame.itertuples():
        assert row.strict == (row.text.strip() == row.answer)
        assert row.most_probable == (row.logprob > row.rival_logprob)
        assert row.logprob <= row.first_logprob + 1e-4  # more tokens, less probable
        assert not row.strict or row.accepted
        assert not row.accepted or row.begins


@pytest.mark.parametrize(
    ("said", "answers", "right"),
    [
        (" hot", ["hot"], (True, True, True)),
        ("warm", ["hot", "warm"], (True, True, False)),
        ("hot, and", ["hot"], (True, False, False)),
        ("hot_", ["hot"], (True, False, False)),
        ("hotel", ["hot"], (False, False, False)),
        ("Hot", ["hot"], (False, False, False)),
        ("a.b", ["a.b"], (True, True, True)),
        ("axb", ["a.b"], (False, False, False)),
        ("", ["hot"], (False, False, False)),
    ],
)
def test_judging_a_text(said: str, answers: list[str], right: tuple[bool, ...]) -> None:
    found = judge_text(said, answers)
    assert (found["begins"], found["accepted"], found["strict"]) == right


@pytest.mark.parametrize(
    ("template", "stop"), [("{x}->{y}", "\n"), ("{x}: {y};", ";"), ("Q {x} A {y} .", ".")]
)
def test_what_ends_an_answer(template: str, stop: str) -> None:
    assert Template(template).stop == stop


def made(accepted: list[list[bool]], cut: list[list[bool]]) -> AnswerScores:
    """A result with known answers, from a computed one's shape."""
    result = answer_scores(
        tiny_model("llama"), "to_upper", len(cut[0]), SHOTS, layer=1, progress=False
    )
    result.data["accepted"][0] = accepted
    for lenient in ("first_token", "begins"):
        result.data[lenient][0] = [[True] * len(of) for of in accepted]
    result.data["cut"][0] = cut
    return result


def test_what_the_score_changes() -> None:
    none, half, most = [False] * 8, [True] * 4 + [False] * 4, [True] * 6 + [False] * 2
    result = made([none, half, most], [none, half, none])
    assert result.accuracy("to_upper", "hypothesis", "accepted").value == 0.5
    assert result.ratio("to_upper", "accepted").value == pytest.approx(4 / 6)
    assert result.ratio("to_upper", "first_token").value == 1
    change = result.difference("to_upper", "hypothesis", "accepted")
    assert change.value == -0.5
    assert -1 < change.low < -0.5 < change.high < 0.1
    row = result.full_summary().loc[("to_upper", "accepted")]
    assert row["hypothesis_minus_first_token"] == -0.5
    assert row["ratio"] == pytest.approx(4 / 6)
    assert any("to_upper, hypothesis: 4 of 8 texts had not ended" in c for c in result.caveats())
    assert not any("to_upper, regular" in c for c in result.caveats())
    weak = made([none, [True] + [False] * 7, most], [none] * 3)
    assert any("to_upper: with θ, 0.88 [" in c for c in weak.caveats())
    ended = made([none, most, most], [none] * 3)
    ended.data["begins"][0] = ended.data["accepted"][0]
    assert not any("not its end" in c for c in ended.caveats())


def test_caveat_on_answers_of_several_tokens(scores: AnswerScores) -> None:
    several = [c for c in scores.caveats() if "take more than one token" in c]
    assert several[-1].startswith("country_capital: 4 of 4 answers")
    assert any("against 7 of each task's other answers" in c for c in scores.caveats())


def test_it_comes_back_as_it_was(scores: AnswerScores, tmp_path: Path) -> None:
    back = load_result(scores.save(tmp_path / "a.nc"))
    assert isinstance(back, AnswerScores)
    assert back.to_frame().equals(scores.to_frame())
    assert repr(back) == repr(scores)
    assert list(back.logprobs().index.names) == ["task", "condition"]


def test_the_figure(scores: AnswerScores) -> None:
    figure = scores.plot()
    assert len(figure.data) == len(TASKS) * len(CONDITIONS) * 2
    regular = figure.data[4]
    expected = [scores.accuracy("to_upper", "regular", s).value for s in SCORES]
    assert list(regular.y) == expected
    nats = figure.data[5]
    assert list(nats.y) == [scores.logprob("to_upper", "regular").value]
    assert sum(bool(t.showlegend) for t in figure.data) == len(CONDITIONS)
    scores.data["task"] = ["<b>x", "country_capital"]
    try:
        assert any("&lt;b&gt;x" in a.text for a in scores.plot().layout.annotations)
    finally:
        scores.data["task"] = TASKS


@pytest.mark.parametrize(
    ("answer", "said", "first_token", "two_way_prefix"),
    [
        ("東京", "東京", True, True),  # the token is the first byte of 東
        ("กรุงเทพ", "กรุงเทพ", True, True),
        ("Bern", "B", True, True),
        ("Bern", "é", False, False),
        ("東京", "é", False, False),
    ],
)
def test_a_two_way_prefix_is_right_where_the_first_token_is(
    tiny_llama: HookedModel, answer: str, said: str, first_token: bool, two_way_prefix: bool
) -> None:
    """Here a token is one byte: that of a longer character has no text of its own."""
    encoder = tiny_llama.encoder("{x} -> {y}", [], leading_space=False)
    episode = Episode((), Pair("capital", (answer,)), ())
    prompts = zero_shot(encoder, [episode])
    answers = accepted(encoder, prompts, [episode])
    top = torch.tensor(encoder.first_tokens(prompts[0], [said]))
    targets = torch.tensor(answers.first_tokens)
    readout = Readout(
        top, torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.long), top == targets[0], top < 0
    )
    scored = score(tiny_llama, readout, answers)
    assert scored.first_token.tolist() == [first_token]
    assert scored.two_way_prefix.tolist() == [two_way_prefix]


def test_given_layer_and_limit(tiny_llama: HookedModel) -> None:
    result = answer_scores(
        tiny_llama, "to_upper", N, SHOTS, layer=2, max_new_tokens=1, n_rivals=3, progress=False
    )
    assert int(result.data["layer"][0]) == 2
    assert int(result.data["max_new_tokens"][0]) == 1
    assert int(result.data["n_rivals"][0]) == 3
    assert result.data["text"].str.len().max() <= 1
    assert result.provenance["layer"] == 2


def test_what_cannot_be_scored(tiny_llama: HookedModel) -> None:
    for options, message in (
        ({"layer": 9}, "layer 9 out of range: expected 0 to 3"),
        ({"layer": 1, "by": "strict"}, "by is 'strict', .* but layer 1 is given; expected one"),
        ({"n_rivals": 0}, "n_rivals is 0; expected at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected at least 1"),
        ({"n_dev": 0}, "n_dev is 0"),
    ):
        with pytest.raises(InputError, match=message):
            answer_scores(tiny_llama, "to_upper", N, SHOTS, **options)
    same = Task("same", "user", "", tuple(Pair(f"w{i}", ("yes",)) for i in range(20)))
    with pytest.raises(InputError, match="'same' has one answer only"):
        answer_scores(tiny_llama, same, N, SHOTS)


def run(*options: str) -> Done:
    return run_room("answers", *options)


def test_command(small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "answers.html"
    done = run(*small, "--n-prompts", "3", "--n-shots", "4", "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [row["score"] for row in printed["summary"]] == list(SCORES)
    assert 'src="http' not in out.read_text()
    assert isinstance(load_result(out.with_suffix(".nc")), AnswerScores)


def test_command_refuses() -> None:
    done = run("--n-prompts", "0")
    assert done.returncode == 2
    assert "n_prompts is 0; expected at least 1" in done.stderr
    assert "loading" not in done.stderr
