"""The logit lens: the last layer is the model itself, and what is counted is what was read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from commands import assert_quick_help, assert_refused, run_room

from icl_mech import load_result
from icl_mech.errors import InputError
from icl_mech.lens import LogitLens, VectorLens, logit_lens
from icl_mech.lens.plan import LensSettings, check_roles, plan_lens, sharing_task
from icl_mech.lens.result import VALUES
from icl_mech.lens.targets import TARGETS, Asked, Columns
from icl_mech.model import HookedModel
from icl_mech.prompts import Encoder
from icl_mech.tasks import Pair, Task, load_task

N_PROMPTS, N_SHOTS, SEED = 6, 5, 1
ROLES = ("query", "final_arrow")


@pytest.fixture(scope="module")
def result(gemma: HookedModel) -> LogitLens:
    return logit_lens(
        gemma, "country_capital", N_PROMPTS, N_SHOTS, SEED, roles=ROLES, top_k=3, progress=False
    )


def words(n: int = 24) -> Task:
    """Letters and their upper case, of which one answer is more frequent than any other."""
    pairs = [Pair(chr(97 + i), (chr(65 + i),)) for i in range(n)]
    more = [Pair(f"q{i}", ("Q",)) for i in range(2 * n)]
    return Task("words", "user", "letters", (*pairs, *more))


def asked_of(task: Task, encoder: Encoder, n_prompts: int, n_shots: int, seed: int = 0) -> Asked:
    settings = LensSettings(n_prompts=n_prompts, n_shots=n_shots, seed=seed)
    return Asked.of(encoder, plan_lens(task, settings).tasks[0])


def model_logprobs(model: HookedModel, tokens: tuple[int, ...], at: int = -1) -> torch.Tensor:
    with torch.inference_mode():
        return model.bridge(torch.tensor([tokens]))[0, at].double().log_softmax(-1)


# --- what it reads ------------------------------------------------------------------------------


def test_the_last_layer_is_the_model_and_every_layer_is_the_plain_lens(tiny: HookedModel) -> None:
    """The last layer against the model's logits, all of them against `logit_readout`."""
    tools = "transformer_lens.tools.analysis.logit_lens"
    logit_readout = pytest.importorskip(tools, reason="TransformerLens 3 has none").logit_readout
    task = words()
    lens = logit_lens(tiny, task, 4, 2, roles=ROLES, top_k=6, progress=False)
    encoder = tiny.encoder("{x}->{y}", [p.y for p in task.pairs])
    asked = asked_of(task, encoder, 4, 2)
    for i, prompt in enumerate(asked.prompts):
        with torch.inference_mode():
            _, cache = tiny.bridge.run_with_cache(torch.tensor([prompt.tokens]))
        for role in ROLES:
            at = prompt.position(role)
            stages = [cache["blocks.0.hook_resid_pre"][0, at]]
            stages += [cache[f"blocks.{x}.hook_resid_post"][0, at] for x in range(tiny.n_layers)]
            plain = logit_readout(tiny.bridge, torch.stack(stages), return_type="log_probs").values
            said = model_logprobs(tiny, prompt.tokens, at)
            torch.testing.assert_close(plain[-1].double(), said, rtol=1e-4, atol=1e-4)
            here = lens.data.isel(task=0).sel(role=role).isel(prompt=i)
            for t, ids in enumerate(asked.tokens[i]):
                ours = here.isel(target=t)
                if not ids:
                    assert np.isnan(ours["logprob"]).all()
                    assert (ours["rank"] == -1).all()
                    continue
                best = plain[:, list(ids)].max(dim=1)
                np.testing.assert_allclose(ours["logprob"], best.values, rtol=1e-4, atol=1e-4)
                ranks = (plain > best.values[:, None]).sum(dim=1)
                near = ((plain - best.values[:, None]).abs() < 2e-4).sum(dim=1) - 1
                assert (np.abs(ours["rank"].values - ranks.numpy()) <= near.numpy()).all()
            top = plain.topk(6)
            np.testing.assert_allclose(here["top_logprob"], top.values, rtol=1e-4, atol=1e-4)
            chosen = plain.gather(1, torch.tensor(here["top"].values))
            torch.testing.assert_close(chosen, top.values, rtol=1e-4, atol=1e-4)


def test_the_last_layer_is_the_packaged_model(gemma: HookedModel, result: LogitLens) -> None:
    task = load_task("country_capital")
    encoder = gemma.encoder("{x}->{y}", [p.y for p in task.pairs])
    asked = asked_of(task, encoder, N_PROMPTS, N_SHOTS, SEED)
    last = result.data.sel(task="country_capital", role="final_arrow", layer=gemma.n_layers - 1)
    for i, prompt in enumerate(asked.prompts):
        said = model_logprobs(gemma, prompt.tokens)
        here = last.isel(prompt=i)
        for t, ids in enumerate(asked.tokens[i]):
            if ids:
                expected = float(max(said[token] for token in ids))
                # A log probability near 0 is what is left of two logits that are far from it.
                close = pytest.approx(expected, rel=1e-4, abs=1e-4)
                assert float(here["logprob"][t]) == close
                assert int(here["rank"][t]) == int((said > expected).sum())
        assert here["top"].values.tolist() == said.topk(3).indices.tolist()
        assert here["top_text"].values[0] == gemma.to_string(int(here["top"][0]))


def test_capitals_are_decoded_late(gemma: HookedModel, result: LogitLens) -> None:
    ranks = result.data["rank"].sel(task="country_capital", role="final_arrow", target="answer")
    assert int(ranks.sel(layer=5).min()) > 100
    assert int(ranks.sel(layer=range(-1, 10)).min()) > 0
    assert float((ranks.sel(layer=17) == 0).mean()) > 0.4
    first = result.first_layer("country_capital")
    assert 11 <= first.value <= 17
    # At the query itself, nothing is on top but what follows a query.
    at_query = result.data["top_text"].sel(role="query", layer=17).isel(k=0)
    assert (at_query == "->").all()


# --- what it looks for --------------------------------------------------------------------------


def test_targets_are_the_first_tokens_that_count(gemma: HookedModel) -> None:
    task, other = load_task("en_fr"), load_task("en_es")
    encoder = gemma.encoder("{x}->{y}", [p.y for p in task.pairs])
    asked = asked_of(task, encoder, 12, 3)
    spanish = {pair.x: pair.answers for pair in other.pairs}
    assert asked.plan.other == other
    for prompt, episode, (answer, query, prior, rival) in zip(
        asked.prompts, asked.plan.split.test, asked.tokens, strict=True
    ):

        def first(labels: tuple[str, ...], prompt=prompt) -> set[int]:
            return {ids[0] for ids in encoder.answer_tokens(prompt, labels)}

        assert set(answer) == first(episode.query.answers)
        assert set(query) == first((episode.query.x,)) - set(answer)
        assert set(prior) == first((asked.plan.split.prior,)) - set(answer)
        assert set(rival) == first(spanish[episode.query.x]) - set(answer)


def test_a_rival_that_is_the_answer_is_left_out(tiny_llama: HookedModel) -> None:
    lens = logit_lens(tiny_llama, words(), 20, 2, progress=False)
    data = lens.data.isel(task=0)
    prior = str(data["prior_answer"].item())
    assert prior == "Q"
    without = (data["rank"].sel(target="prior") < 0).isel(role=0)
    assert (without == (data["answer"] == prior)).all()
    n = int((data["answer"] != prior).sum())
    assert 0 < n < 20
    assert lens.curve("words", "prior")[0].n == n
    assert any(f"{20 - n} of 20 prompts have no 'prior'" in note for note in lens.caveats())
    # Nothing else knows these inputs well enough to be compared with.
    assert sharing_task(words()) is None
    assert lens.provenance["tasks"]["words"]["other_task"] is None
    nothing = lens.curve("words", "other")
    assert nothing[0].n == 0
    assert np.isnan(nothing[0].value)


def test_tasks_that_share_inputs() -> None:
    names = {name: sharing_task(load_task(name)) for name in ("en_fr", "present_past", "antonyms")}
    assert names["en_fr"].name == "en_es"
    assert names["present_past"].name == "present_gerund"
    assert names["antonyms"] is None


def test_several_tokens_of_one_target_count_as_the_most_probable() -> None:
    columns = Columns.of([[(1, 2), ()], [(3,), (4,)]])
    assert columns.ids.tolist() == [[1, 2, -1], [3, -1, 4]]
    logprob = np.array([[-3.0, -2.0, np.nan], [-1.0, np.nan, -5.0]])
    logprob, rank = columns.reduce(logprob, np.array([[9, 4, -1], [0, -1, 7]]))
    np.testing.assert_array_equal(logprob, [[-2.0, np.nan], [-1.0, -5.0]])
    assert rank.tolist() == [[4, -1], [0, 7]]


# --- translators --------------------------------------------------------------------------------


def test_a_translator_is_applied_before_the_final_norm(tiny: HookedModel) -> None:
    """The last layer's stream in place of every layer's: every layer is then the model."""
    task = words()
    plain = logit_lens(tiny, task, 3, 2, progress=False)
    encoder = tiny.encoder("{x}->{y}", [p.y for p in task.pairs])
    prompts = asked_of(task, encoder, 3, 2).prompts
    final = tiny.residual_stream(prompts, ["final_arrow"])[:, 0, -1]
    seen = []

    def to_the_end(layer: int, resid: torch.Tensor) -> torch.Tensor:
        seen.append((layer, tuple(resid.shape)))
        return final

    lens = logit_lens(tiny, task, 3, 2, translator=to_the_end, progress=False)
    assert seen == [(layer, (3, tiny.d_model)) for layer in range(-1, tiny.n_layers)]
    last = plain.data["logprob"].isel(layer=-1)
    np.testing.assert_allclose(
        lens.data["logprob"], last.broadcast_like(plain.data["logprob"]), rtol=1e-4, atol=1e-4
    )
    assert "to_the_end" in lens.provenance["translator"]
    assert plain.provenance["translator"] is None
    same = logit_lens(tiny, task, 3, 2, translator=lambda layer, h: h, progress=False)
    assert same.data.equals(plain.data)


@pytest.mark.parametrize(
    ("translator", "message"),
    [
        (lambda layer, h: h[:, :5], r"returned \[2, 5\] at layer -1; expected .* \[2, 32\]"),
        (lambda layer, h: None, "returned NoneType at layer -1"),
    ],
)
def test_a_translator_of_the_wrong_shape(tiny_llama, translator, message: str) -> None:
    with pytest.raises(InputError, match=message):
        logit_lens(tiny_llama, "to_upper", 2, 2, translator=translator, progress=False)


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"roles": ["final_arow"]}, "unknown role 'final_arow'; did you mean 'final_arrow'"),
        ({"roles": "demo_2_x"}, "unknown role 'demo_2_x'; did you mean"),
        ({"roles": []}, "expected at least one, each once"),
        ({"roles": ["query", "query"]}, "expected at least one, each once"),
        ({"top_k": 0}, "top_k is 0; expected at least 1"),
        ({"top_k": 258}, "top_k is 258; expected 1 to 257"),
        ({"other_task": "to_upper"}, "other_task is the task itself"),
        ({"other_task": "to_uper"}, "unknown task 'to_uper'"),
        ({"n_prompts": 0}, "n_prompts is 0"),
        ({"n_shots": 0}, "n_shots is 0"),
        ({"tasks": "to_uper"}, "unknown task 'to_uper'; did you mean 'to_upper'"),
    ],
)
def test_mistakes_are_named(tiny_llama: HookedModel, settings: dict, message: str) -> None:
    asked = {"tasks": "to_upper", "n_prompts": 2, "n_shots": 2, "progress": False, **settings}
    with pytest.raises(InputError, match=message):
        logit_lens(tiny_llama, **asked)


def test_roles_that_prompts_have() -> None:
    check_roles(["demo_1_arrow"], "{x}->{y}", 2)
    check_roles(["sink", "query_start"], "Q: {x} A: {y}", 1)
    with pytest.raises(InputError, match="unknown role 'query_start'"):
        check_roles(["query_start"], "{x}->{y}", 2)


def test_names_in_a_result(result: LogitLens) -> None:
    task = "country_capital"
    with pytest.raises(InputError, match="unknown target 'anwser'; did you mean 'answer'"):
        result.curve(task, "anwser")
    with pytest.raises(InputError, match="unknown role 'sink'"):
        result.curve(task, role="sink")
    with pytest.raises(InputError, match="unknown task 'capital'"):
        result.first_layer("capital")
    with pytest.raises(InputError, match="unknown value 'prob'"):
        result.curve(task, value="prob")
    with pytest.raises(InputError, match="prompt 6; expected 0 to 5"):
        result.plot_prompt(6)


# --- results ------------------------------------------------------------------------------------


def planted(ranks: list[list[int]], text: str = "a") -> LogitLens:
    """A lens with these ranks of the answer, `[prompt][layer]`, at one role."""
    rank = np.array(ranks)[None, :, None, :, None].repeat(4, axis=-1)
    rank[..., 1:] = 50
    rank[..., 3] = -1
    logprob = np.where(rank < 0, np.nan, -np.log(abs(rank) + 1.0)).astype("f4")
    n, layers = len(ranks), len(ranks[0])
    cell = ("task", "prompt", "role", "layer")
    data = xr.Dataset(
        {
            "logprob": ((*cell, "target"), logprob),
            "rank": ((*cell, "target"), rank),
            "top": ((*cell, "k"), np.zeros((1, n, 1, layers, 1), int)),
            "top_logprob": ((*cell, "k"), np.full((1, n, 1, layers, 1), -0.5)),
            "top_text": ((*cell, "k"), np.full((1, n, 1, layers, 1), text)),
            "query": (("task", "prompt"), [[f"{text}{i}" for i in range(n)]]),
            "answer": (("task", "prompt"), np.full((1, n), text)),
            "n_answer_tokens": (("task", "prompt"), np.ones((1, n), int)),
            "prior_answer": ("task", ["p"]),
            "n_queries": ("task", [n]),
        },
        coords={
            "task": ["<i>t</i>"],
            "role": ["final_arrow"],
            "layer": np.arange(-1, layers - 1),
            "target": list(TARGETS),
        },
    )
    provenance = {
        "model": "<u>m</u>",
        "n_shots": 2,
        "seed": 0,
        "translator": None,
        "tasks": {"<i>t</i>": {"other_task": None}},
    }
    return LogitLens(data, provenance)


def test_curves_and_first_layers_by_hand() -> None:
    lens = planted([[9, 0, 3, 0], [9, 4, 0, 0], [9, 9, 9, 9]])
    task = lens.tasks[0]
    assert lens.first_layers(task).tolist() == [0, 1, np.inf]
    assert lens.first_layer(task).value == 1
    assert [e.value for e in lens.curve(task, value="rank1")] == pytest.approx(
        [0, 1 / 3, 1 / 3, 2 / 3]
    )
    assert lens.curve(task)[1].value == pytest.approx((1 + 1 / 5 + 1 / 10) / 3)
    log_rank = lens.curve(task, value="log_rank")[1].value
    assert log_rank == pytest.approx((0 + np.log10(5) + 1) / 3)
    assert lens.curve(task, "query")[0].value == pytest.approx(1 / 51)
    row = lens.full_summary().iloc[0]
    assert row["answer_peak_layer"] == 2
    assert row["right_at_last_layer"] == pytest.approx(2 / 3)
    assert row["first_layer"] == 1
    assert row["other_n"] == 0
    assert planted([[9, 9], [9, 9], [9, 0]]).summary().iloc[0].isna()["first_layer"]


def test_intervals_of_few_prompts_and_of_prompts_that_share_queries() -> None:
    lens = planted([[9, 0]] * 5 + [[9, 9]] * 5)
    task = lens.tasks[0]
    assert str(lens.curve(task, value="rank1")[1]) == "0.50 [0.24, 0.76]"  # Wilson, 5 of 10
    apart = {value: lens.curve(task, value=value)[1] for value in VALUES}
    # Two prompts each ask one thing: five queries, not ten.
    lens.data["query"][:] = [[query for query in "abcde" for _ in range(2)]]
    lens.data["n_queries"][:] = 5
    for value, alone in apart.items():
        together = lens.curve(task, value=value)[1]
        assert together.value == alone.value
        assert together.high - together.low > 1.2 * (alone.high - alone.low)
    (note,) = [note for note in lens.caveats() if "different queries" in note]
    assert "5 different queries in 10 prompts (a small task); intervals are over queries" in note
    assert note.endswith("; but that of the median first layer is over prompts")


@pytest.mark.parametrize(("right", "n", "said"), [(0, 6, True), (4, 6, False), (1, 20, True)])
def test_a_task_that_is_hardly_done(right: int, n: int, said: bool) -> None:
    lens = planted([[9, 0]] * right + [[9, 9]] * (n - right))
    assert any("hardly does this task" in note for note in lens.caveats()) == said


def test_a_median_that_is_never_reached() -> None:
    lens = planted([[9, 9]] * 5 + [[9, 0]] * 3)
    first = lens.first_layer(lens.tasks[0])
    assert first.value == np.inf
    assert first.low == 0
    assert "never [0, never]" in str(lens)


def test_top_table_counts_prompts(result: LogitLens) -> None:
    table = result.top_table("country_capital", n=N_PROMPTS)
    assert table["share"].groupby("layer").sum().to_numpy() == pytest.approx(np.ones(19))
    at_last = result.data["top_text"].sel(role="final_arrow", layer=17).isel(k=0, task=0)
    assert set(table.loc[17]["token"]) == set(at_last.values.tolist())


def test_saved_and_loaded(result: LogitLens, tmp_path: Path) -> None:
    again = load_result(result.save(tmp_path / "lens.nc"))
    assert isinstance(again, LogitLens)
    assert again.data.identical(result.data)
    assert again.provenance == result.provenance
    assert len(again.to_frame()) == N_PROMPTS * len(ROLES) * 19 * len(TARGETS)
    assert "no token is left out" in again.provenance["filters"]


def test_the_figure_shows_the_curves(result: LogitLens) -> None:
    figure = result.plot()
    drawn = [t for t in figure.data if t.name == "right answer"]
    assert list(drawn[0].y) == [e.value for e in result.curve("country_capital")]
    log_rank = result.curve("country_capital", value="log_rank")
    assert list(drawn[1].y) == [e.value for e in log_rank]
    named = [t.name for t in figure.data if t.showlegend]
    assert len(named) == len(set(named)) == 3  # no other task knows countries' continents


def test_tokens_are_text_and_not_markup() -> None:
    lens = planted([[0, 0], [1, 1]], text='<b>"')
    assert list(lens.plot_prompt(1).data[0].text[0]) == ["'&lt;b&gt;\"'"]
    for figure in (lens.plot(), lens.plot_prompt(1)):
        shown = figure.to_json()
        assert "<u>" not in shown
        assert "\\u003cu\\u003e" not in shown
        assert "&lt;u&gt;m" in shown
        assert "<i>t" not in shown
    assert "<i>t" not in lens._repr_html_()


def test_one_role_shows_the_top_tokens_and_several_show_one_each(result: LogitLens) -> None:
    several = result.plot_prompt(2).data[0]
    assert np.array(several.text).shape == (19, len(ROLES))
    one = LogitLens(result.data.sel(role=["final_arrow"]), result.provenance)
    cells = one.plot_prompt(2).data[0]
    assert np.array(cells.text).shape == (19, 3)
    top = result.data["top_text"].sel(role="final_arrow").isel(prompt=2, task=0)
    assert cells.text[18][0] == f"'{top.values[18, 0]}'"


# --- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "antonym"], "did you mean 'antonyms'"),
        (["--roles", "final"], "unknown role 'final'; did you mean 'final_arrow'"),
        (["--top-k", "0"], "top_k is 0; expected at least 1"),
        (["--other-task", "country_capital"], "other_task is the task itself"),
        (["--n-shots", "0"], "n_shots is 0; expected at least 1"),
        (["--out", "figure.gif"], "unknown kind of figure '.gif'"),
        (["--only-words"], "Unrecognized options: --only-words"),
        (["--vector", "function"], "Unrecognized options: --vector"),
        (["--average", "vector"], "Unrecognized options: --average"),
        (["--vectors", "--roles", "query"], "Unrecognized options: --roles"),
        (["--vectors", "--other-task", "en_fr"], "Unrecognized options: --other-task"),
        (["--vectors", "--output-bias"], "output_bias is for function vectors"),
        (["--vectors", "--vector", "function", "--layers", "3"], "layers of a function vector"),
    ],
)
def test_the_command_refuses_before_it_loads_a_model(options: list[str], message: str) -> None:
    done = run_room("lens", *options)
    assert_refused(done, message)
    assert "loading" not in done.stderr


def test_help_does_not_wait_for_torch() -> None:
    assert_quick_help("lens", "torch")


def test_the_command_writes_figure_and_data(small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "lens.html"
    options = ["--n-prompts", "2", "--n-shots", "2", "--top-k", "2", "--out", str(out)]
    done = run_room("lens", *small, *options)
    assert done.returncode == 0, done.stderr
    assert "LogitLens on small" in done.stdout
    loaded = load_result(out.with_suffix(".nc"))
    assert isinstance(loaded, LogitLens)
    assert loaded.data.sizes["k"] == 2


def test_the_command_reads_vectors(small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "vectors.html"
    done = run_room(
        "lens", "--vectors", "--only-words", "--n-prompts", "2", "--top-k", "10", "--json",
        "--out", str(out), *small,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert len(printed["summary"]) == 4
    assert printed["provenance"]["only_words"] is True
    assert isinstance(load_result(out.with_suffix(".nc")), VectorLens)
