"""Position scans and head attribution against one full TransformerLens forward per cell."""

from functools import partial

import pandas as pd
import pytest
import torch
from comparing import N_LAYERS, TASK, report, same_length_prompts, seconds
from transformer_lens.patching import generic_activation_patch, layer_pos_patch_setter

from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import Encoder, Prompt


def log_p(logits: torch.Tensor, answers: list[list[int]]) -> torch.Tensor:
    return logits[:, -1].log_softmax(-1).gather(1, torch.tensor(answers))[:, 0]


def test_residual_stream_at_every_token_and_layer(benchmark, model, encoder) -> None:
    """What `get_act_patch_resid_pre` does, cell by cell: timed on every 16th cell, scaled up."""
    prompts = same_length_prompts(encoder, TASK, 4)
    tokens = torch.tensor([p.tokens for p in prompts])
    source = [Prompt("", tuple(row), prompts[0].roles) for row in tokens.roll(1, 0).tolist()]
    answers = [[1000 + i] for i in range(4)]
    with torch.inference_mode():
        _, cache = model.bridge.run_with_cache(
            tokens.roll(1, 0), names_filter=lambda name: "resid_pre" in name
        )
    n_tokens = tokens.shape[1]
    cells = [(layer, token) for layer in range(N_LAYERS) for token in range(n_tokens)]
    share = 16
    grid = pd.DataFrame(cells[::share], columns=["layer", "pos"])

    @torch.inference_mode()
    def plain() -> torch.Tensor:
        return generic_activation_patch(
            model.bridge,
            tokens,
            cache,
            lambda logits: log_p(logits, answers).sum(),
            patch_setter=layer_pos_patch_setter,
            activation_name="resid_pre",
            index_df=grid,
        )

    def ours() -> torch.Tensor:
        values = model.capture(source, range(n_tokens), "resid_pre")
        edits = [Edit(layer, values[:, t, layer], "resid_pre", t) for layer, t in cells]
        return model.evaluate(prompts, edits, answers).logprob[..., 0].sum(0)

    torch.testing.assert_close(ours()[::share], plain(), atol=4e-3, rtol=0)
    print(f"\n4 prompts of {n_tokens} tokens, {len(cells)} cells")
    report(benchmark, ours, plain, rounds=3, share=share)


def heads_of(model: HookedModel, prompts: list[Prompt]) -> list[Edit]:
    """Every head's mean output at the last token."""
    means = model.capture(prompts, ["final_arrow"], site="z")[:, 0].mean(0)
    return [
        Edit(layer, means[layer, head], "z", "final_arrow", head=head)
        for layer in range(N_LAYERS)
        for head in range(model.n_heads)
    ]


@torch.inference_mode()
def one_forward_per_head(
    model: HookedModel, prompts: list[Prompt], edits: list[Edit], answers: list[list[int]]
) -> torch.Tensor:
    """One full forward per head, over all prompts together."""
    tokens = torch.tensor([p.tokens for p in prompts])
    found = []
    for edit in edits:

        def write(z, hook, edit=edit):
            z[:, -1, edit.head] = edit.value
            return z

        hook = f"blocks.{edit.layer}.attn.hook_z"
        logits = model.bridge.run_with_hooks(tokens, fwd_hooks=[(hook, write)])
        found.append(log_p(logits, answers))
    return torch.stack(found, dim=1)


def test_all_heads_of_eight_ten_shot_prompts(benchmark, model, encoder) -> None:
    """AIE of 72 heads; the plain way is timed on every ninth head and scaled up."""
    prompts = same_length_prompts(encoder, TASK, 8, n_shots=10)
    answers = [[1000 + i] for i in range(8)]
    edits, share = heads_of(model, prompts), 9

    def plain() -> torch.Tensor:
        return one_forward_per_head(model, prompts, edits[::share], answers)

    def ours() -> torch.Tensor:
        return model.evaluate(prompts, edits, answers).logprob[..., 0]

    torch.testing.assert_close(ours()[:, ::share], plain(), atol=1e-3, rtol=0)
    print(f"\n{len(edits)} heads, 8 ten-shot prompts of {len(prompts[0])} tokens")
    report(benchmark, ours, plain, rounds=3, share=share)


@pytest.mark.parametrize("n_shots", [5, 10, 20, 40])
def test_cost_per_head_as_prompts_grow(
    benchmark, model: HookedModel, encoder: Encoder, n_shots: int
) -> None:
    """Milliseconds per (head, prompt); the plain way is timed on every 18th head.

    Also of each head beyond the first, which pays for the prompts' own pass.
    """
    prompts = same_length_prompts(encoder, TASK, 2, n_shots)
    answers = [[1000 + i] for i in range(len(prompts))]
    edits, share = heads_of(model, prompts), 18

    def plain() -> torch.Tensor:
        return one_forward_per_head(model, prompts, edits[::share], answers)

    def ours(n: int = len(edits)) -> torch.Tensor:
        return model.evaluate(prompts, edits[:n], answers).logprob[..., 0]

    torch.testing.assert_close(ours()[:, ::share], plain(), atol=1e-3, rtol=0)
    cells = len(edits) * len(prompts)
    first, every = (min(seconds(partial(ours, n)) for _ in range(3)) for n in (1, len(edits)))
    per_cell = {
        "plain": min(seconds(plain) for _ in range(3)) * share / cells,
        "ours": every / cells,
        "further": (every - first) / (cells - len(prompts)),
    }
    benchmark.extra_info.update(per_cell, n_shots=n_shots, n_tokens=len(prompts[0]))
    benchmark.pedantic(ours, rounds=1)
    print(
        f"\n{n_shots} shots, {len(prompts[0])} tokens: {per_cell['plain'] * 1e3:.1f} ms plain, "
        f"{per_cell['ours'] * 1e3:.2f} ms ours per (head, prompt), "
        f"{per_cell['further'] * 1e3:.2f} ms per head beyond the first"
    )
