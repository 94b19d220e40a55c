"""Norms that compute their output once give the same numbers, and hooks inside them still act."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from plain import random_prompts
from tiny_models import tiny_model

from icl_mech.model import Edit, HookedModel
from icl_mech.model.norms import computed_once, norms_in

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
