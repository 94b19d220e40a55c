"""The table "from HookedTransformer to icl-mech": both sides of every row give the same."""

import re
from typing import Any

import pytest
import torch
from pages import ROOT
from plain import prompt_of
from test_hooked_transformer import TOKENS, hooked
from tiny_models import random_model
from transformer_lens import HookedTransformer, patching

import icl_mech
from icl_mech.tasks import Pair, Task

ANSWER, RIVAL, L, H = 65, 70, 2, 1
PAGE = (ROOT / "icl_mech" / "README.md").read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    """The first piece of code of both cells of every row."""
    table = PAGE.split("| with HookedTransformer | here |")[1].split("\n\n")[0]
    cells = [line.split(" | ") for line in table.splitlines()[2:]]
    return [[re.findall(r"`([^`]+)`", cell)[0] for cell in row] for row in cells]


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the table's code speaks of: a model that was processed, as `logit_attrs` needs it."""
    ht = hooked(random_model("gpt2"), True)
    model = icl_mech.load_model(ht)
    tokens, other = (torch.tensor([t[:9]]) for t in TOKENS)
    theta = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    task = Task("letters", "user", "", (Pair("a", ("b",)), Pair("c", ("d",))))
    places = range(tokens.shape[1])

    def write_theta(stream: torch.Tensor, hook: object) -> torch.Tensor:
        stream[:, tokens.shape[1] - 1] = theta
        return stream

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1].log_softmax(dim=-1)[ANSWER]

    return {
        "ht": ht,
        "patching": patching,
        "icl_mech": icl_mech,
        "model": model,
        "task": task,
        "encoder": model.encoder("{x}->{y}", [pair.y for pair in task.pairs]),
        "text": "a->b\nc->d\nJapan->",
        "word": "b",
        "tokens": tokens,
        "prompt": prompt_of(tokens[0].tolist()),
        "other": other,
        "theta": theta,
        "write_theta": write_theta,
        "metric": metric,
        "answer": ANSWER,
        "rival": RIVAL,
        "l": L,
        "h": H,
        "clean": model.capture([prompt_of(other[0].tolist())], list(places), "resid_pre")[0],
        "cells": [(layer, t) for layer in range(model.n_layers) for t in places],
        "hooks": [(f"blocks.{L}.hook_resid_post", write_theta)],
    }


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(
        torch.as_tensor(ours).squeeze(), torch.as_tensor(theirs).squeeze(), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_both_sides_of_every_row_give_the_same(names: dict[str, Any]) -> None:
    ht, tokens, table = names["ht"], names["tokens"], rows()
    assert len(table) == 11
    exec(table[0][1], names)
    assert names["model"].bridge is ht
    assert hasattr(HookedTransformer, "from_pretrained_no_processing")

    def left(row: int) -> Any:
        return eval(table[row][0], names)

    def right(row: int) -> Any:
        return eval(table[row][1], names)

    assert list(right(1).tokens) == left(1)[0].tolist()
    assert right(2) == left(2)
    same(right(3), left(3))
    same(right(4), left(4))
    same(right(5).logprob, left(5)[0, -1].log_softmax(dim=-1)[ANSWER])
    names["cache"] = ht.run_with_cache(names["other"])[1]
    same(right(6).logprob.view(4, -1), left(6))
    names["cache"] = ht.run_with_cache(tokens)[1]
    lens = left(7).log_softmax(dim=-1).view(ht.cfg.n_layers + 1, -1)
    same(right(7).logprob[:, 0], lens[:, ANSWER])
    same(right(8).flatten(0, 1), left(8))
    same(right(9).flatten(), left(9))
    assert re.search(r"inside `ht\.hooks\(\.\.\.\)`", PAGE)
    with ht.hooks(fwd_hooks=names["hooks"]):
        said = eval(table[10][0].replace(")", ", use_past_kv_cache=False, verbose=False)"), names)
    written = ht.tokenizer.decode(said[0, tokens.shape[1] :])
    assert right(10)
    assert right(10) == written.split("\n")[0].split("<|endoftext|>")[0]
