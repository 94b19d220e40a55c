"""Pictures of one prompt: the numbers are the model's, and every text is shown as text."""

import json
import math
import re
from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from plain import plain_logprobs, prompt_of
from tiny_models import tiny_bridge, tiny_model

from icl_mech import TaskVector, compare_prompts, prompt_attention, prompt_lens, steer
from icl_mech.errors import InputError, ModelError
from icl_mech.model import HookedModel, load_model
from icl_mech.one_prompt import (
    ComparedPrompts,
    PromptAttention,
    PromptLens,
    Steering,
)
from icl_mech.one_prompt.columns import MOST
from icl_mech.one_prompt.picture import Picture
from icl_mech.one_prompt.tokens import markup, visible

TEXT = "ab>Q\ncd>"
HOSTILE = ["<script>alert(1)</script>", "</td>", "<b>", "\u202eabc\u200f", "\n", "", "$x$", "&lt;"]


def vector(model: HookedModel, name: str = "v", **changes: object) -> TaskVector:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(model.n_layers, model.d_model, generator=generator)
    said = {"model": model.name, "weights_sha256": model.weight_hash}
    made = TaskVector(name, values, tuple(range(model.n_layers)), 1, provenance=said)
    return made.written(**changes)  # type: ignore[arg-type]


def whole(model: HookedModel, text: str) -> torch.Tensor:
    """Log probabilities after every token, by an ordinary forward."""
    with torch.inference_mode():
        logits = model.bridge(torch.tensor([model.prompt(text).tokens]))[0]
    return logits.float().log_softmax(dim=-1)


# --- the lens -------------------------------------------------------------------------------


def test_the_last_layer_says_what_the_model_says(tiny: HookedModel) -> None:
    lens = prompt_lens(tiny, TEXT, target=7, top_k=3)
    expected = whole(tiny, TEXT)
    last = lens.data.sel(layer=tiny.n_layers - 1)
    best = torch.tensor(last["top"].values)
    ours = torch.tensor(last["top_logprob"].values)
    torch.testing.assert_close(ours, expected.gather(1, best), atol=1e-4, rtol=0)
    torch.testing.assert_close(ours, expected.topk(3).values, atol=1e-4, rtol=0)
    assert last["target_logprob"].values == pytest.approx(expected[:, 7].numpy(), abs=1e-4)
    ranks = (expected > expected[:, 7:8]).sum(dim=1)
    assert last["target_rank"].values.tolist() == ranks.tolist()
    entropy = -(expected.exp() * expected).sum(dim=-1)
    assert last["entropy"].values == pytest.approx(entropy.numpy(), abs=1e-4)


def test_every_layer_is_read_through_the_last_norm(tiny_llama: HookedModel) -> None:
    lens = prompt_lens(tiny_llama, TEXT)
    with torch.inference_mode():
        tokens = torch.tensor([tiny_llama.prompt(TEXT).tokens])
        _, cache = tiny_llama.bridge.run_with_cache(tokens)
        stages = {-1: cache["blocks.0.hook_resid_pre"], 0: cache["blocks.0.hook_resid_post"]}
        for layer, stage in stages.items():
            logits = tiny_llama.bridge.unembed(tiny_llama.bridge.ln_final(stage))[0]
            top = logits.log_softmax(dim=-1).max(dim=-1).values.numpy()
            ours = lens.data["top_logprob"].sel(layer=layer).isel(k=0).values
            assert ours == pytest.approx(top, abs=1e-4)
    assert lens.texts[1:] == list(TEXT)
    assert "target_rank" not in lens.data


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_a_vector_is_written_at_the_last_token_only(tiny: HookedModel, mode: str) -> None:
    tv = vector(tiny, mode=mode, scale=0.5)
    plain, written = (prompt_lens(tiny, TEXT, vector=v, target=7) for v in (None, tv))
    before = {"layer": slice(-1, 0)}
    name = "target_logprob"
    assert (written.data[name].sel(before) == plain.data[name].sel(before)).all()
    others = {"token": slice(None, -1)}
    assert written.data[name].isel(others).values == pytest.approx(
        plain.data[name].isel(others).values, abs=1e-4
    )
    expected = plain_logprobs(tiny, tiny.prompt(TEXT), tv.edit())[7].item()
    assert written.data[name].values[-1, -1] == pytest.approx(expected, abs=1e-3)


def test_targets_are_texts_or_ids(tiny_llama: HookedModel) -> None:
    one, long = (prompt_lens(tiny_llama, TEXT, target=text) for text in ("Q", "Quebec"))
    assert one.provenance["target"] == long.provenance["target"] == "Q"
    assert (one.provenance["target_of"], long.provenance["target_of"]) == (None, "Quebec")
    assert (one.data["target_rank"] == long.data["target_rank"]).all()
    assert "the first token of Quebec" in long.plot().layout.title.subtitle.text
    for target in (-1, 10**6, True):
        with pytest.raises(InputError, match="expected a text, or a token id from 0 to"):
            prompt_lens(tiny_llama, TEXT, target=target)
    with pytest.raises(InputError, match="gives no tokens"):
        prompt_lens(tiny_llama, TEXT, target="")


def test_a_frame_has_a_row_per_cell(tiny_llama: HookedModel) -> None:
    lens = prompt_lens(tiny_llama, TEXT, target="Q")
    frame = lens.to_frame()
    assert len(frame) == len(lens.texts) * len(lens.layers)
    assert frame["probability"].between(0, 1).all()
    last = frame.iloc[-1]
    assert (last["token"], last["layer"]) == (len(lens.texts) - 1, tiny_llama.n_layers - 1)
    assert last["top"] == lens.data["top_text"].values[-1, -1, 0]


def test_the_menu_changes_all_that_the_colour_means(tiny_llama: HookedModel) -> None:
    lens = prompt_lens(tiny_llama, "abcdefgh" * 2, target="Q")
    figure = lens.plot()
    assert len(figure.data) == 2  # 17 tokens in two lines
    (menu,) = figure.layout.updatemenus
    names = [button.label.removeprefix("colour: ") for button in menu.buttons]
    assert names == [
        "probability of the top token",
        "entropy",
        "rank of Q",
        "probability of Q",
    ]
    for button, name in zip(menu.buttons, ("top", "entropy", "rank", "p"), strict=True):
        z, layout, traces = button.args
        assert list(traces) == [0, 1]
        shown = np.concatenate([np.array(part) for part in z["z"]], axis=1)
        data = lens.data
        expected = {
            "top": np.exp(data["top_logprob"].values[..., 0]),
            "entropy": data["entropy"].values,
            "rank": np.log10(data["target_rank"].values + 1),
            "p": np.exp(data["target_logprob"].values),
        }[name]
        assert shown == pytest.approx(expected)
        assert layout["coloraxis"]["cmax"] >= expected.max()


def test_a_long_prompt_shows_its_last_tokens_or_those_asked_for(tiny_llama: HookedModel) -> None:
    lens = prompt_lens(tiny_llama, "ab" * 55)
    figure = lens.plot()
    assert sum(len(trace.x) for trace in figure.data) == MOST
    assert f"{MOST} of 111 tokens are shown" in figure.layout.title.subtitle.text.replace(
        "<br>", " "
    )
    (trace,) = lens.plot(tokens=[0, 3, -1]).data
    assert len(trace.x) == 3
    for wrong in ([], [111]):
        with pytest.raises(InputError, match="expected indices of the prompt's 111 tokens"):
            lens.plot(tokens=wrong)
        with pytest.raises(InputError, match="expected indices"):
            prompt_attention(tiny_llama, "ab").plot(tokens=[*wrong, 9] if wrong else [])


# --- attention ------------------------------------------------------------------------------


def test_patterns_are_those_of_the_model(tiny: HookedModel) -> None:
    seen = prompt_attention(tiny, TEXT, [(0, 1), (-1, 0)])
    last = tiny.n_layers - 1
    assert seen.heads == [(0, 1), (last, 0)]
    with torch.inference_mode():
        _, cache = tiny.bridge.run_with_cache(torch.tensor([tiny.prompt(TEXT).tokens]))
    for i, (layer, head) in enumerate(seen.heads):
        theirs = cache[f"blocks.{layer}.attn.hook_pattern"][0, head].numpy()
        ours = seen.data["attention"].values[i]
        n = len(ours)
        assert np.isnan(ours[np.triu_indices(n, 1)]).all()
        below = np.tril_indices(n)
        assert ours[below] == pytest.approx(theirs[below], abs=1e-5)
    n = len(seen.texts)
    assert len(seen.to_frame()) == 2 * n * (n + 1) // 2


def test_by_default_the_heads_that_look_at_something(tiny_llama: HookedModel) -> None:
    seen = prompt_attention(tiny_llama, TEXT)
    (last,) = tiny_llama.heads.attention([tiny_llama.prompt(TEXT)])
    amount = last[..., 1:-1].sum(dim=-1)
    chosen = [amount[head].item() for head in seen.heads]
    assert chosen == sorted(amount.flatten().tolist(), reverse=True)[: len(chosen)]
    menu = seen.plot().layout.updatemenus[0]
    assert [b.label for b in menu.buttons] == [f"block {a}, head {b}" for a, b in seen.heads]
    assert len(prompt_attention(tiny_llama, "a").heads) == len(seen.heads)


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ([(99, 0)], "layer 99 out of range"),
        ([(0, 99)], "no head 99 in block 0; tiny-llama has heads 0 to"),
        ([(0, -1)], "no head -1"),
        ([], "no heads; expected at least one"),
    ],
)
def test_heads_that_are_not_there(tiny_llama: HookedModel, heads: list, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prompt_attention(tiny_llama, TEXT, heads)


# --- two prompts ----------------------------------------------------------------------------


def test_the_difference_is_that_of_log_probabilities(tiny_llama: HookedModel) -> None:
    other = "xy>Q\ncd>"
    both = compare_prompts(tiny_llama, TEXT, other)
    a, b = whole(tiny_llama, TEXT), whole(tiny_llama, other)
    top = a.argmax(dim=-1, keepdim=True)
    expected = (b.gather(1, top) - a.gather(1, top))[:, 0].numpy()
    last = both.data["difference"].sel(layer=tiny_llama.n_layers - 1).values
    assert last == pytest.approx(expected, abs=1e-3)
    assert both.provenance["aligned"] == "token by token"
    assert len(both.plot().data) == 3
    assert len(both.to_frame()) == both.data.sizes["layer"] * both.data.sizes["column"]


def test_prompts_of_other_lengths_are_aligned_at_their_last_tokens(
    tiny_llama: HookedModel,
) -> None:
    both = compare_prompts(tiny_llama, "abcd>", "d>", target="Q")
    assert both.data["token_a"].values.tolist() == [3, 4, 5]
    assert both.data["token_b"].values.tolist() == [0, 1, 2]
    id_q = tiny_llama.prompt("Q").tokens[-1]
    expected = whole(tiny_llama, "d>")[-1, id_q] - whole(tiny_llama, "abcd>")[-1, id_q]
    assert both.data["difference"].values[-1, -1] == pytest.approx(expected.item(), abs=1e-3)
    said = both.plot().layout.title.subtitle.text.replace("<br>", " ")
    assert "prompts of 6 and 3 tokens, aligned at their last token; the last 3" in said
    turned = compare_prompts(tiny_llama, "d>", "abcd>", target="Q").data["difference"]
    assert turned.values == pytest.approx(-both.data["difference"].values, abs=1e-5)


def test_one_prompt_without_and_with_a_vector(tiny_llama: HookedModel) -> None:
    both = compare_prompts(tiny_llama, TEXT, TEXT, vector_b=vector(tiny_llama))
    changed = np.abs(both.data["difference"].values) > 1e-4
    assert not changed[:, :-1].any()
    assert changed[-1, -1]
    said = both.plot().layout.title.subtitle.text.replace("<br>", " ")
    assert "b with the vector v (replace after block 1) at its last token" in said


# --- steering -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_steering_equals_one_hook_per_cell(tiny: HookedModel, mode: str) -> None:
    tv, prompt = vector(tiny, mode=mode), tiny.prompt(TEXT)
    found = steer(tiny, TEXT, tv, ["Q", "ab"], layers=[0, 2], scales=[0.5, -1.0])
    assert found.scales == [-1.0, 0.5]
    (q,), (a, b) = (tiny.prompt(text).tokens[1:] for text in ("Q", "ab"))
    cells: list[tuple[float, float, object]] = [
        (*found.data["unsteered"].values.tolist(), None),
        *(
            (*found.data["logprob"].sel(layer=layer, scale=scale).values.tolist(), (layer, scale))
            for layer in (0, 2)
            for scale in (0.5, -1.0)
        ),
    ]
    for one, two, place in cells:
        edit = None
        if isinstance(place, tuple):
            edit = tv.written(place[0], scale=place[1]).edit(at=len(prompt) - 1)
        first = plain_logprobs(tiny, prompt, edit)
        then = plain_logprobs(tiny, prompt_of([*prompt.tokens, a]), edit)
        assert one == pytest.approx(first[q].item(), abs=1e-3)
        assert two == pytest.approx((first[a] + then[b]).item(), abs=2e-3)
    assert len(found.to_frame()) == 8


def test_panels_lines_and_the_unsteered_value(tiny_llama: HookedModel) -> None:
    found = steer(tiny_llama, TEXT, vector(tiny_llama), ["Q", "a", "b"], scales=(1.0, 2.0))
    figure = found.plot()
    assert len(figure.data) == 3 * 3
    dashed = [trace for trace in figure.data if trace.line.dash == "dash"]
    unsteered = np.exp(found.data["unsteered"].values)
    assert [trace.y[0] for trace in dashed] == pytest.approx(unsteered)
    assert [t.name for t in figure.data if t.showlegend] == [
        "without the vector",
        "scale 1",
        "scale 2",
    ]
    one_layer = steer(tiny_llama, TEXT, vector(tiny_llama), ["Q"], [1], [0.5, 1.0, 2.0]).plot()
    assert list(one_layer.data[1].x) == [0.5, 1, 2]
    assert one_layer.layout.xaxis.title.text.startswith("scale")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answers": []}, "at least one text, each once"),
        ({"answers": ["Q", "Q"]}, "at least one text, each once"),
        ({"answers": [""]}, "gives no tokens"),
        ({"scales": []}, "expected finite numbers"),
        ({"scales": [math.nan]}, "expected finite numbers"),
        ({"scales": [math.inf]}, "expected finite numbers"),
        ({"layers": []}, "no layers"),
        ({"layers": [99]}, "layer 99 out of range"),
    ],
)
def test_what_cannot_be_steered(tiny_llama: HookedModel, changes: dict, said: str) -> None:
    arguments = {"answers": ["Q"], "scales": [1.0], "layers": None, **changes}
    with pytest.raises(InputError, match=said):
        steer(tiny_llama, TEXT, vector(tiny_llama), **arguments)


# --- what all refuse ------------------------------------------------------------------------

Made = Callable[[HookedModel, str, TaskVector | None], Picture]
PICTURES: dict[str, Made] = {
    "lens": lambda model, text, tv: prompt_lens(model, text, vector=tv, target="Q"),
    "attention": lambda model, text, tv: prompt_attention(model, text),
    "compare": lambda model, text, tv: compare_prompts(model, text, text, vector_b=tv),
    "steer": lambda model, text, tv: steer(model, text, tv or vector(model), ["Q", "ab"]),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_texts_that_cannot_be_prompts(kind: str, tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="an empty text"):
        PICTURES[kind](tiny_llama, "", None)
    with pytest.raises(InputError, match=r"reads at most \d+"):
        PICTURES[kind](tiny_llama, "a" * 600, None)


@pytest.mark.parametrize("kind", ["lens", "compare", "steer"])
def test_vectors_of_another_model_or_without_a_layer(kind: str, tiny_llama: HookedModel) -> None:
    other = vector(tiny_model("qwen2"))
    with pytest.raises(InputError, match="was read from tiny-qwen2|has layers"):
        PICTURES[kind](tiny_llama, TEXT, other)


def test_a_vector_without_a_layer(tiny_llama: HookedModel) -> None:
    mine = vector(tiny_llama)
    nowhere = TaskVector("v", mine.values, mine.layers)
    with pytest.raises(InputError, match="no chosen layer"):
        prompt_lens(tiny_llama, TEXT, vector=nowhere)
    assert steer(tiny_llama, TEXT, nowhere, ["Q"]).layers == list(range(tiny_llama.n_layers))


def test_a_model_that_returns_nan_says_so() -> None:
    bridge = tiny_bridge("llama")
    model = load_model(bridge)
    prompt_lens(model, TEXT)
    with torch.no_grad():
        bridge.unembed.W_U.fill_(torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        prompt_lens(model, TEXT)


# --- text is data ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_a_token_is_text(text: str) -> None:
    shown = visible(text)
    assert shown
    assert shown.isprintable()
    said = markup(text)
    assert not re.search(r"[<>$\n]", said)
    assert not re.search(r"&(?!amp;|lt;|gt;|#36;)", said)


def hostile_pictures(model: HookedModel) -> list[Picture]:
    """Pictures whose texts are all hostile: tokens, targets, answers, names."""
    text = "".join(HOSTILE)
    tv = vector(model, "<b>v</b>")
    lens = prompt_lens(model, text, vector=tv, target="<")
    seen = prompt_attention(model, text)
    both = compare_prompts(model, text, text, vector_b=tv)
    steered = steer(model, text, tv, [t for t in HOSTILE if t])
    for picture in (lens, both.a, both.b, seen):
        texts = picture.data["text"].values
        texts[1 : 1 + len(HOSTILE)] = HOSTILE
    for one in (lens, both.a, both.b):
        tops = one.data["top_text"].values
        tops.flat[: len(HOSTILE)] = HOSTILE
        one.provenance |= {"target": "<script>", "target_of": "<script>x"}
        one.provenance["model"] = "<i>m</i>"
    for other in (seen, both, steered):
        other.provenance["model"] = "<i>m</i>"
    both.data["target"].values[: len(HOSTILE)] = HOSTILE
    return [lens, seen, both, steered]


def texts_of(value: object) -> list[str]:
    """Every string of a figure."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for part in value.values() for text in texts_of(part)]
    return [text for part in value for text in texts_of(part)] if isinstance(value, list) else []


def test_hostile_text_is_shown_as_text_everywhere(tiny_llama: HookedModel) -> None:
    pictures = hostile_pictures(tiny_llama)
    kinds = [PromptLens, PromptAttention, ComparedPrompts, Steering]
    assert [type(picture) for picture in pictures] == kinds
    for picture in pictures:
        figure = picture.plot()
        assert isinstance(figure, go.Figure)
        for text in texts_of(json.loads(figure.to_json())):
            bare = re.sub(r"</?b>|<br>|<extra></extra>|%\{[a-z]+:?[^}]*\}", "", text)
            assert not re.search(r"[<>\n\u202e\u200f]", bare), text
            assert "$" not in bare, text
        html = picture._repr_html_()
        for tag in ("<script", "<b>", "<i>", "\u202e"):
            assert tag not in html
        assert html.count("</td>") == html.count("<td>")
        assert "\u202e" not in repr(picture)


def test_how_pictures_present_themselves(tiny_llama: HookedModel) -> None:
    for make in PICTURES.values():
        picture = make(tiny_llama, TEXT, vector(tiny_llama))
        assert repr(picture).count("\n") <= 12
        assert picture.headline() in repr(picture)
        assert picture.plot(height=700).layout.height == 700
        with pytest.raises(InputError, match="height is 10; expected pixels, at least"):
            picture.plot(height=10)
