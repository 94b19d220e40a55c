"""A text in place of a task, a ranking in place of heads, and token ids as words."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import answering_bridge, answering_task

from icl_mech import (
    PromptLens,
    TaskVector,
    conflicting_tasks,
    head_attribution,
    layer_scan,
    load_model,
    logit_lens,
    patch_positions,
    prompt_attention,
    prompt_lens,
    task_table,
    vector_lens,
)
from icl_mech.errors import InputError
from icl_mech.lens.text import is_text
from icl_mech.model import HookedModel
from icl_mech.patch import LayerScan
from icl_mech.results import Result
from icl_mech.tasks import Pair, Task

TASK = answering_task()
HOSTILE = ("<script>alert(1)</script>", "</td>", "<b>", "\u202eabc\u200f", "a\nb", "&lt;")


@pytest.fixture(scope="module")
def answering() -> HookedModel:
    return load_model(answering_bridge())


# --- a text in place of a task ---------------------------------------------------------------


@pytest.mark.parametrize("text", ["ab cd", "ab->", "a\nb", "The capital of France is"])
def test_a_text_gives_the_lens_of_this_prompt(text: str, tiny_llama: HookedModel) -> None:
    found = logit_lens(tiny_llama, text, top_k=3)
    assert isinstance(found, PromptLens)
    assert found.data.equals(prompt_lens(tiny_llama, text, top_k=3).data)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("antonym", "antonyms"), ("country capital", "country_capital"), ("To uper", "to_upper")],
)
def test_a_misspelt_task_is_no_text(name: str, meant: str, tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match=f"unknown task .*; did you mean '{meant}'"):
        logit_lens(tiny_llama, name)


def test_files_and_templates_decide_too(tiny_llama: HookedModel) -> None:
    assert not is_text("no such pairs.csv", "{x}->{y}")
    assert not is_text("pos:my treebank/noun", "{x}->{y}")
    assert is_text("Q: a A:", "Q: {x} A: {y}")
    with pytest.raises(InputError, match="no such file; expected a file of pairs"):
        logit_lens(tiny_llama, "no such pairs.csv")
    with pytest.raises(InputError, match="reads at most 256"):
        logit_lens(tiny_llama, "a b" * 200)
    with pytest.raises(InputError, match="a translator with a text; expected a task"):
        logit_lens(tiny_llama, "a b", translator=lambda layer, rows: rows)


def test_all_roles(answering: HookedModel) -> None:
    every = ["sink", "demo_0_x", "demo_0_arrow", "demo_0_y", "demo_0_end", "demo_1_x"]
    every += ["demo_1_arrow", "demo_1_y", "demo_1_end", "query", "final_arrow"]
    lens = logit_lens(answering, TASK, 2, 2, roles="all", progress=False)
    assert not isinstance(lens, PromptLens)
    assert lens.roles == every
    one = logit_lens(answering, TASK, 2, 2, roles="demo_1_y", progress=False)
    both = [part.data["logprob"].sel(role="demo_1_y").values for part in (lens, one)]
    np.testing.assert_allclose(*both, atol=1e-4)
    few = {"direction": "denoise", "progress": False}
    found = patch_positions(answering, "to_upper", 1, 2, roles="all", **few)
    assert found.data["role"].values.tolist() == every


# --- a ranking in place of heads -------------------------------------------------------------


def test_a_ranking_chooses_the_heads_of_a_picture(answering: HookedModel) -> None:
    few = {"methods": ("direct",), "progress": False}
    # Mostly what this model says, and another label to compare it with.
    labels = tuple(Pair(p.x, ("Q" if i % 4 else "R",)) for i, p in enumerate(TASK.pairs))
    q, r = Task("q", "user", "", labels), Task("r", "user", "", labels)
    found = head_attribution(answering, [q, r], 2, 3, **few)
    ranked = found.top("r", 3, "direct")
    seen = prompt_attention(answering, "a->Qa\nb->", ranked)
    assert seen.heads == [(layer, head) for layer, head, _ in ranked]
    with pytest.raises(InputError, match=r"on 2 tasks; expected the heads of one, as found.top"):
        prompt_attention(answering, "a->Qa\nb->", found)
    one = head_attribution(answering, q, 2, 3, **few)
    eight = prompt_attention(answering, "a->Qa\nb->", one).heads
    assert eight == [(layer, head) for layer, head, _ in one.top("q", 8, "direct")]


# --- token ids as words ----------------------------------------------------------------------


def frames(model: HookedModel) -> dict[str, Result]:
    few = {"n_dev": 1, "progress": False}
    q = TASK
    r = Task("r", "user", "", tuple(Pair(p.x, ("R" + p.x,)) for p in q.pairs))
    return {
        "scan": layer_scan(model, q, 2, 2, control_layers="chosen", **few),
        "table": task_table(model, [q, r], 2, 2, **few),
        "conflict": conflicting_tasks(model, [(q, r)], 2, 2, **few),
    }


def test_frames_that_hold_token_ids_hold_their_texts(answering: HookedModel) -> None:
    for name, result in frames(answering).items():
        frame = result.to_frame()
        columns = list(frame.columns)
        assert columns[columns.index("top") + 1] == "top_text", name
        expected = [repr(answering.to_string(token))[1:-1] for token in frame["top"]]
        assert frame["top_text"].tolist() == expected, name
        json.dumps(result.provenance)
    scan = layer_scan(answering, TASK, 2, 2, n_dev=1, progress=False)
    older = LayerScan(scan.data, {k: v for k, v in scan.provenance.items() if k != "token_texts"})
    assert older.to_frame()["top_text"].isna().all()


def test_no_frame_has_ids_alone(answering: HookedModel) -> None:
    """Whole numbers up to the size of the vocabulary, in a column that is named after a token."""
    lens = prompt_lens(answering, "ab>", target="Q")
    assert {"top", "top_token"} <= set(lens.to_frame().columns)
    assert pd.api.types.is_string_dtype(lens.to_frame()["top"])
    seen = prompt_attention(answering, "ab>").to_frame()
    assert {"query_token", "key_token"} <= set(seen.columns)
    task = logit_lens(answering, TASK, 2, 2, progress=False).to_frame()
    assert pd.api.types.is_string_dtype(task["top"])


# --- text is data ----------------------------------------------------------------------------


def shown(result: Result) -> list[str]:
    """Every text of a result's figure and table, without the markup that is ours."""
    texts = re.findall(r'"((?:[^"\\]|\\.)*)"', result.plot().to_json())
    ours = r"</?b>|<br>|</?i>|<extra></extra>"
    return [re.sub(ours, "", json.loads(f'"{text}"')) for text in texts]


@pytest.mark.parametrize("kind", ["lens", "prompt", "vectors", "positions"])
def test_hostile_tokens_are_text_in_every_picture(
    kind: str, tiny_llama: HookedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama
    monkeypatch.setattr(model, "to_string", lambda token: HOSTILE[token % len(HOSTILE)])
    few = {"n_prompts": 2, "n_shots": 2, "progress": False}
    if kind in ("lens", "prompt"):
        result: Result = logit_lens(model, "to_upper", roles="all", **few)  # type: ignore[assignment]
        if kind == "prompt":
            monkeypatch.setattr(result, "plot", lambda: result.plot_prompt(0))  # type: ignore[attr-defined]
    elif kind == "vectors":
        result = vector_lens(model, "to_upper", **few)
    else:
        result = patch_positions(
            model, "to_upper", 1, 2, direction="denoise", roles="tokens", progress=False
        )
    for text in [*shown(result)]:
        assert not re.search("[<>\n\u202e\u200f]", text.replace("->", "")), text
    html = result._repr_html_()
    for tag in ("<script", "<b>", "\u202e"):
        assert tag not in html
    assert html.count("</td>") == html.count("<td>")


def test_roles_that_a_text_does_not_have(answering: HookedModel) -> None:
    values = torch.ones(answering.n_layers, answering.d_model)
    tv = TaskVector("v", values, tuple(range(answering.n_layers)), 1)
    with pytest.raises(InputError, match="no role 'query'. It has: sink; tokens of a text"):
        answering.evaluate([answering.prompt("Once upon")], [tv.edit(at="query")], [[1]])
    with pytest.raises(InputError, match="no role 'querry'; did you mean 'query'\\? It has"):
        answering.evaluate([answering.prompt("a->Qa\nb->")], [tv.edit(at="querry")], [[1]])
