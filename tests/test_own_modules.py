"""When the twin of a block is out of date, and when it must not run."""

import copy
from typing import Any

import pytest
import torch
from plain import random_prompts
from tiny_models import tiny_bridge, tiny_model
from torch import nn

from icl_mech.model.own_modules import Parts


def weight(block: Any) -> None:
    norm = next(m for m in block.modules() if isinstance(getattr(m, "weight", None), nn.Parameter))
    norm.weight = nn.Parameter(norm.weight + 1)


def module(block: Any) -> None:
    inner = block.mlp.original_component
    name, child = next(iter(inner.named_children()))
    setattr(inner, name, copy.deepcopy(child))


def forward(block: Any) -> None:
    inner = block.mlp.original_component
    inner.forward = inner.forward


@pytest.mark.parametrize("exchange", [weight, module, forward])
def test_parts_notice_what_was_exchanged(exchange: Any) -> None:
    block = tiny_bridge("llama").blocks[0]
    parts = Parts(block)
    assert parts.same()
    exchange(block)
    assert not parts.same()
    assert Parts(block).same()


def test_numbers_in_the_same_weight_may_change() -> None:
    block = tiny_bridge("llama").blocks[0]
    parts = Parts(block)
    with torch.no_grad():
        next(block.parameters()).add_(1)
    assert parts.same()


def test_a_hook_inside_attention_is_called_between_two_runs_that_have_none() -> None:
    model = tiny_model("gemma3")
    prompts = random_prompts(model, [6, 6])
    seen: list[torch.Size] = []

    def keep(pattern: torch.Tensor, hook: Any) -> None:
        seen.append(pattern.shape)

    before = model.capture(prompts, [-1])
    with model.bridge.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", keep)]):
        between = model.capture(prompts, [-1])
    n_seen = len(seen)
    after = model.capture(prompts, [-1])
    assert n_seen > 0
    assert len(seen) == n_seen
    assert torch.equal(before, after)
    torch.testing.assert_close(between, before, atol=1e-5, rtol=1e-5)
