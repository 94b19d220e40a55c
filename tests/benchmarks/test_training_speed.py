"""Steps of training a vector, and texts after many edits, against whole prompts, in one run.

The plain ways are as good as they get without shared prefixes: weights are frozen, prompts of one
length share a batch, and logits are computed at the last token only.
"""

import pytest
import torch
from comparing import N_LAYERS, TASK, report, same_length_prompts
from torch import Tensor

from icl_mech import Edit, HookedModel
from icl_mech.model.gradients import frozen
from icl_mech.prompts import Encoder

STEPS = 10
N_PROMPTS = 16


@pytest.mark.parametrize("layer", [2, 9])
def test_training_a_vector(benchmark, model: HookedModel, encoder: Encoder, layer: int) -> None:
    """Ten steps of Adam for one vector at the last token of sixteen prompts, prefixes included."""
    prompts = same_length_prompts(encoder, TASK, N_PROMPTS)
    answers = [1000 + i for i in range(N_PROMPTS)]
    tokens = torch.tensor([p.tokens for p in prompts])
    start = model.capture(prompts, [-1])[:, 0, layer].mean(dim=0)
    rows = torch.arange(N_PROMPTS)

    def trained(gradient_of) -> Tensor:
        theta = start.clone().requires_grad_()
        adam = torch.optim.Adam([theta], lr=0.1)
        for _ in range(STEPS):
            theta.grad = gradient_of(theta)
            adam.step()
        return theta.detach()

    def ours() -> Tensor:
        ready = model.answer_gradients(prompts, [Edit(layer, start)], answers)
        return trained(lambda theta: -ready.at([theta]).gradients[0].mean(dim=0))

    def whole(theta: Tensor) -> Tensor:
        def write(stream: Tensor, hook: object) -> Tensor:
            stream = stream.clone()
            stream[:, -1] = theta
            return stream

        hooks = [(f"blocks.{layer}.hook_resid_post", write)]
        with model.bridge.hooks(fwd_hooks=hooks):
            logits = model.bridge(tokens, logits_to_keep=1)[:, -1]
        loss = -logits.log_softmax(dim=-1)[rows, answers].mean()
        (gradient,) = torch.autograd.grad(loss, theta)
        return gradient

    def plain() -> Tensor:
        with frozen(model.bridge):
            return trained(whole)

    torch.testing.assert_close(ours(), plain(), atol=0.02, rtol=0)  # Adam divides by gradients
    print(f"\n{STEPS} steps at block {layer}, {N_PROMPTS} prompts of {tokens.shape[1]} tokens")
    report(benchmark, ours, plain, rounds=2)


def test_texts_after_every_layer(benchmark, model: HookedModel, encoder: Encoder) -> None:
    """Six tokens after eight prompts, with a vector at each layer: Transformers' own `generate`.

    The plain way is timed on every third layer and scaled up.
    """
    prompts = same_length_prompts(encoder, TASK, 8)
    values = model.capture(prompts[:1], [-1])[0, 0]
    edits = [Edit(layer, values[layer]) for layer in range(N_LAYERS)]
    tokens = torch.tensor([p.tokens for p in prompts])
    network = model.bridge.original_model
    share = 3

    def ours() -> list:
        return model.generate(prompts, edits, 6, stop="no such text")

    def after(layer: int) -> list[list[int]]:
        def write(stream: Tensor, hook: object) -> Tensor:
            if stream.shape[1] == 1:  # a new token
                return stream
            stream = stream.clone()
            stream[:, -1] = values[layer]
            return stream

        with model.bridge.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", write)]):
            said = network.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=6,
                do_sample=False,
            )
        return said[:, tokens.shape[1] :].tolist()

    def plain(layers: range = range(0, N_LAYERS, share)) -> list:
        return [after(layer) for layer in layers]

    texts, theirs = ours(), plain(range(N_LAYERS))
    ends = {model.tokenizer.eos_token_id, model.tokenizer.pad_token_id}
    for p in range(len(prompts)):
        for layer in range(N_LAYERS):
            said = theirs[layer][p]
            said = said[: next((i for i, t in enumerate(said) if t in ends), len(said))]
            assert texts[p][layer].tokens == tuple(said)
    print(f"\n8 prompts of {tokens.shape[1]} tokens, {N_LAYERS} layers, 6 new tokens")
    report(benchmark, ours, plain, rounds=2, share=share)
