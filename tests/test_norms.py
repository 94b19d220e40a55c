"""Norms that compute their output once, or in fewer passes, give the same numbers; hooks act."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from plain import random_prompts
from tiny_models import random_model, tiny_model
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from icl_mech.model import Edit, HookedModel
from icl_mech.model.norms import computed_once, norms_in, quicker

LENGTHS = (9, 12, 5)


def answers(model: HookedModel) -> torch.Tensor:
    prompts = random_prompts(model, LENGTHS)
    one = torch.ones(model.d_model)
    edits = [Edit(layer, one, position=p) for layer in range(model.n_layers) for p in (-1, -3)]
    return model.evaluate(prompts, edits, [[1]] * len(prompts)).logprob


def inside(model: HookedModel) -> list[str]:
    ends = (".hook_scale", ".hook_normalized")
    return [n for n in model.bridge.hook_dict if n.startswith("blocks.") and n.endswith(ends)]


@pytest.mark.parametrize("engine", ["shared", "plain"])
def test_watched_norms_give_the_same_numbers(tiny: HookedModel, engine: Any) -> None:
    """To the last bit on the plain engine; the shared one runs unwatched blocks another way."""
    model = tiny.with_engine(engine)
    seen: list[str] = []

    def watch(value: torch.Tensor, hook: Any) -> None:
        seen.append(hook.name)

    alone = answers(model)
    assert not seen
    with model.bridge.hooks(fwd_hooks=[(name, watch) for name in inside(model)]):
        watched = answers(model)
    assert set(seen) == set(inside(model))
    tolerance = 0 if engine == "plain" else 1e-5
    torch.testing.assert_close(alone, watched, atol=tolerance, rtol=0)


@pytest.mark.filterwarnings("ignore:A forward hook edited")  # TransformerLens says so
def test_an_edit_inside_a_norm_acts(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, LENGTHS)

    def nothing(value: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.zeros_like(value)

    before = tiny.predict(prompts, [[1]] * len(prompts)).logprob
    with tiny.bridge.hooks(fwd_hooks=[("blocks.0.ln2.hook_normalized", nothing)]):
        after = tiny.predict(prompts, [[1]] * len(prompts)).logprob
    assert not torch.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_norms_are_as_they_were_afterwards(family: str) -> None:
    norms: Sequence[Any] = norms_in(tiny_model(family).bridge.blocks)
    before = [dict(vars(norm)) for norm in norms]

    def fails() -> None:
        with computed_once(norms):
            assert all(len(vars(n)) > len(old) for n, old in zip(norms, before, strict=True))
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert [dict(vars(norm)) for norm in norms] == before


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gemma3"])
def test_rms_norms_in_fewer_passes_give_the_same_numbers(family: str) -> None:
    """As Transformers' own norms, which are differentiated; hooks of the module are called."""
    norms = [n for n in random_model(family).modules() if type(n).__name__.endswith("RMSNorm")]
    assert norms
    for norm in norms:
        twin = quicker(norm)
        assert twin is not norm
        assert twin.weight is norm.weight
        with torch.no_grad():
            norm.weight.add_(0.5)  # seen by both
        x = torch.randn(3, 2, len(norm.weight)) * torch.tensor([1e-4, 1.0, 1e3])[:, None, None]
        found = []
        for each in (norm, twin):
            leaf = x.clone().requires_grad_()
            out = each(leaf)
            (gradient,) = torch.autograd.grad(out.square().sum(), leaf)
            found.append((out.detach(), gradient))
        for ours, theirs in zip(found[1], found[0], strict=True):
            assert torch.equal(ours, theirs)
        with torch.no_grad():
            torch.testing.assert_close(twin(x), norm(x), rtol=1e-5, atol=1e-6)
            seen: list[object] = []
            handle = norm.register_forward_hook(lambda *_, seen=seen: seen.append(1))
            twin(x)
            handle.remove()
        assert seen


def test_other_modules_stay_as_they_are() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(4)), 1e-6

        def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
            return x * gate

    half = LlamaRMSNorm(4).half()
    for module in (nn.LayerNorm(4), nn.Linear(4, 4), Gated(), half):
        assert quicker(module) is module
