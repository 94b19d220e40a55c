"""Context masking and the decoder's effects against one full forward pass per cell.

The plain way: TransformerLens's bridge, a prompt and a change at a time, with hooks. It is timed
on a part of the cells and scaled up.
"""

from typing import Any

import torch
from comparing import TASK, report

from icl_mech.decoder.effects import Written
from icl_mech.masking.plan import MASKS, MaskingSettings, plan
from icl_mech.masking.run import knockouts
from icl_mech.model import HookedModel
from icl_mech.prompts import accepted, few_shot, in_context, zero_shot
from icl_mech.vectors import theta

N_PROMPTS, N_SHOTS = 25, 5


def encoded(model: HookedModel) -> tuple[Any, Any]:
    settings = MaskingSettings(n_prompts=N_PROMPTS, n_shots=N_SHOTS)
    ((task, split),) = plan(TASK, settings).tasks
    return model.encoder("{x}->{y}", [pair.y for pair in task.pairs]), split


def test_masking_at_all_layers(benchmark, model: HookedModel) -> None:
    """Demonstrations hidden from every block on, of 25 prompts."""
    encoder, split = encoded(model)
    prompts = in_context(encoder, split.test)
    answers = [row[:1] for row in accepted(encoder, prompts, split.test).first_tokens]
    edits = knockouts(model.n_layers, MASKS["demonstrations"])[: model.n_layers]
    share = 25

    def ours() -> torch.Tensor:
        return model.evaluate(prompts, edits, answers).logprob[..., 0]

    def plain() -> torch.Tensor:
        found = []
        prompt, mask = prompts[0], MASKS["demonstrations"]
        hidden = torch.tensor(prompt.positions(mask.hidden))
        at = torch.tensor(sorted({p for role in mask.at for p in prompt.positions(role)}))

        def hide(block: Any, args: tuple, kwargs: dict[str, Any]) -> tuple:
            seen = kwargs["attention_mask"].clone()
            seen[:, :, at[:, None], hidden] = torch.finfo(seen.dtype).min
            return args, {**kwargs, "attention_mask": seen}

        for edit in edits:
            handles = [
                model.bridge.blocks[layer].register_forward_pre_hook(hide, with_kwargs=True)
                for layer in edit.layers
            ]
            with torch.inference_mode():
                logits = model.bridge(torch.tensor([prompt.tokens]))
            for handle in handles:
                handle.remove()
            found.append(logits[0, -1].log_softmax(-1)[answers[0][0]])
        return torch.stack(found)

    torch.testing.assert_close(ours()[0], plain(), atol=1e-3, rtol=0)
    print(f"\nmasking, {len(edits)} layers, {N_PROMPTS} prompts of {len(prompts[0])} tokens or so")
    report(benchmark, ours, plain, rounds=3, share=share)


def test_effects_of_all_later_components(benchmark, model: HookedModel) -> None:
    """Necessity and sufficiency of every head and MLP after theta's block, of 25 prompts."""
    encoder, split = encoded(model)
    few = model.final_residuals(few_shot(encoder, split.test))
    prompts = zero_shot(encoder, split.test)
    answers = [row[0] for row in accepted(encoder, prompts, split.test).first_tokens]
    of = Written(model, prompts, 9, theta(few[:, 1:])[:, 9], answers)
    edits = [*(of.reset([c]) for c in of.components), *(of.path(c) for c in of.components)]
    share = 25

    def ours() -> torch.Tensor:
        return of.logprob(edits)

    def plain() -> torch.Tensor:
        """Of one prompt: a forward pass with the hooks of each change."""
        one = [p.tokens for p in prompts[:1]]
        found = []
        for edit in edits:
            hooks = [plain_hook(each) for each in edit]
            with torch.inference_mode():
                logits = model.bridge.run_with_hooks(torch.tensor(one), fwd_hooks=hooks)
            found.append(logits[0, -1].log_softmax(-1)[answers[0]])
        return torch.stack(found)

    whole = model.with_engine("plain").evaluate(
        prompts[:1], [[e.of_prompts([0]) for e in edit] for edit in edits], [answers[:1]]
    )
    torch.testing.assert_close(ours()[0], whole.logprob[0, :, 0], atol=1e-3, rtol=0)
    print(f"\n{len(edits)} changes of {len(of.components)} components, {N_PROMPTS} prompts")
    report(benchmark, ours, plain, rounds=3, share=share)


def plain_hook(edit: Any) -> tuple[str, Any]:
    """One edit of the first prompt as a hook of TransformerLens (its difference at `resid_mid`)."""
    site = "attn.hook_z" if edit.site == "z" else f"hook_{edit.site}"
    value = edit.value[0] * edit.scale

    def write(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        activation = activation.clone()
        row = activation[0, -1] if edit.head is None else activation[0, -1, edit.head]
        row.copy_(value if edit.mode == "replace" else row + value)
        return activation

    return f"blocks.{edit.layer}.{site}", write
