"""Gradients with respect to what edits write; every family is in `test_every_family.py`."""

from dataclasses import replace

import pytest
import torch
from plain import hooks_of, prompt_of, random_prompts
from tiny_models import FAMILIES, tiny_bridge, tiny_model
from torch import Tensor

from icl_mech.errors import InputError, NotFiniteError
from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import Prompt

ANSWERS = [3, 4, 5]


def prompts_of(model: HookedModel) -> list[Prompt]:
    return random_prompts(model, (12, 9, 14))


def groups(model: HookedModel) -> list[Edit | list[Edit]]:
    """Edits alone and together, at several tokens, below others, after the last block."""
    draw = torch.Generator().manual_seed(0)

    def vector(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    d, head = model.d_model, model.d_head
    late = Edit(2, vector(d))
    return [
        late,
        [Edit(1, vector(3, d), position=-4, mode="add"), Edit(2, vector(head), "z", -2, head=1)],
        Edit(3, vector(d), mode="add"),  # after the last block
        [Edit(1, vector(d)), replace(late, scale=0.5)],  # the second overwrites the first
    ]


def whole(
    model: HookedModel, prompt: Prompt, row: int, group: list[Edit], answer: int
) -> tuple[Tensor, ...]:
    """The log probability and a gradient per edit, by autograd through the whole model."""
    leaves = [
        (e.value if e.value.ndim == 1 else e.value[row]).clone().requires_grad_() for e in group
    ]
    hooks = [
        hook
        for e, leaf in zip(group, leaves, strict=True)
        for hook in hooks_of(model, prompt, replace(e, value=leaf), row, 0)
    ]
    logits = model.bridge.run_with_hooks(torch.tensor([prompt.tokens]), fwd_hooks=hooks)
    logprob = logits[0, -1].log_softmax(dim=-1)[answer]
    return logprob, *torch.autograd.grad(logprob, leaves, materialize_grads=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_of_edits_in_small_and_large_batches(family: str) -> None:
    """The same numbers as autograd through whole prompts, also where few tokens run at once."""
    model = tiny_model(family)
    prompts, asked = prompts_of(model), groups(model)
    each = [[g] if isinstance(g, Edit) else g for g in asked]
    for batch_tokens in (512, 20):
        on = model.with_engine("shared", batch_tokens)
        found = on.answer_gradients(prompts, asked, ANSWERS).at()
        for p, prompt in enumerate(prompts):
            gradients = iter(found.gradients)
            for g, group in enumerate(each):
                logprob, *expected = whole(model, prompt, p, group, ANSWERS[p])
                torch.testing.assert_close(found.logprob[p, g], logprob, atol=1e-5, rtol=1e-5)
                for theirs in expected:
                    torch.testing.assert_close(next(gradients)[p], theirs, atol=1e-5, rtol=1e-3)
    assert not found.gradients[-2].any()  # nothing is left of what another overwrites
    assert found.gradients[-1].any()
    assert all(p.requires_grad for p in model.bridge.parameters())  # frozen meanwhile only


def test_a_vector_is_trained() -> None:
    """One value at one block for all prompts, by Adam: what `at` is for."""
    model = tiny_model("llama")
    ready = model.answer_gradients(prompts_of(model), [Edit(1, torch.zeros(32))], ANSWERS)
    theta = ready.values[0].clone().requires_grad_()
    adam = torch.optim.Adam([theta], lr=0.05)
    losses = []
    for _ in range(60):
        found = ready.at([theta])
        theta.grad = -found.gradients[0].mean(dim=0)
        adam.step()
        losses.append(-float(found.logprob.mean()))
    assert losses[-1] < losses[0] - 0.5
    readout = model.evaluate(prompts_of(model), [Edit(1, theta.detach())], [[a] for a in ANSWERS])
    assert -float(readout.logprob.mean()) < losses[0] - 0.5


def test_what_is_refused() -> None:
    model = tiny_model("llama")
    prompts, edit = prompts_of(model), Edit(1, torch.zeros(32))
    with pytest.raises(InputError, match="holds None, which writes nothing"):
        model.answer_gradients(prompts, [None], ANSWERS)
    with pytest.raises(InputError, match=r"2 rows of answers for 3 prompts"):
        model.answer_gradients(prompts, [edit], ANSWERS[:2])
    ready = model.answer_gradients(prompts, [edit], ANSWERS)
    with pytest.raises(InputError, match="2 values for 1 edits; expected one each"):
        ready.at([edit.value] * 2)
    with pytest.raises(InputError, match=r"shape \[2, 32\]; expected \[32\], or \[3, 32\]"):
        ready.at([torch.zeros(2, 32)])
    with pytest.raises(NotFiniteError, match="gradients are not finite"):
        ready.at([torch.full((32,), torch.nan)])
    quantised = HookedModel(tiny_bridge("llama"), "quantised")
    quantised.bridge.original_model.is_quantized = True
    with pytest.raises(InputError, match="this model's weights are quantised"):
        quantised.answer_gradients([prompt_of([1, 2])], [edit], [3])
