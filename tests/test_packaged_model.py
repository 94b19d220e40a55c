"""The packaged model: loading, and the identities on it."""

from functools import partial

import pandas as pd
import torch
from transformer_lens.patching import generic_activation_patch, layer_pos_patch_setter

from icl_mech.model import Edit, HookedModel, load_model
from icl_mech.patch import layer_scan
from icl_mech.prompts import Prompt, draw_split
from icl_mech.tasks import load_task


def few_shot(model: HookedModel, n: int) -> list[Prompt]:
    task = load_task("country_capital")
    encoder = model.encoder("{x}->{y}", [p.y for p in task.pairs])
    return [
        encoder.encode(e.demonstrations, e.query.x)
        for e in draw_split(task, n, 1, 5, 2, seed=3).test
    ]


def test_it_is_the_model_that_was_published(gemma: HookedModel) -> None:
    assert (gemma.n_layers, gemma.n_heads, gemma.d_model, gemma.d_head) == (18, 4, 640, 256)
    provenance = gemma.provenance()
    assert provenance["weights_sha256"].startswith("9e1c2c74779e20c1")
    assert provenance["versions"]["torch"] == torch.__version__
    assert few_shot(gemma, 1)[0].tokens[0] == gemma.tokenizer.bos_token_id


def test_edits_equal_transformerlens_patching(gemma: HookedModel) -> None:
    """TransformerLens's own loop: one full forward per layer, prompts of one length."""
    prompts = few_shot(gemma, 40)
    length = max({len(p) for p in prompts}, key=[len(p) for p in prompts].count)
    same = [p for p in prompts if len(p) == length][:3]
    assert len(same) >= 3
    tokens = torch.tensor([p.tokens for p in same])
    others = torch.roll(tokens, 1, dims=0)
    answers = [[100 + i] for i in range(len(same))]
    with torch.inference_mode():
        _, cache = gemma.bridge.run_with_cache(others, names_filter=lambda n: "resid_post" in n)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        logprobs = logits[:, -1].log_softmax(-1)
        return logprobs.gather(1, torch.tensor(answers)).sum()

    layers = (0, 9, 17)
    grid = pd.DataFrame([(layer, length - 1) for layer in layers], columns=["layer", "pos"])
    with torch.inference_mode():
        theirs = generic_activation_patch(
            gemma.bridge,
            tokens,
            cache,
            metric,
            patch_setter=layer_pos_patch_setter,
            activation_name="resid_post",
            index_df=grid,
        )
    edits = [Edit(layer, cache[f"blocks.{layer}.hook_resid_post"][:, -1]) for layer in layers]
    ours = gemma.evaluate(same, edits, answers)
    torch.testing.assert_close(ours.logprob[..., 0].sum(0), theirs, atol=4e-3, rtol=0)


def test_edits_equal_one_forward_each(gemma: HookedModel) -> None:
    prompts = few_shot(gemma, 2)
    generator = torch.Generator().manual_seed(0)
    clean = gemma.capture(prompts, ["final_arrow", "demo_2_y"], "resid_post")
    edits = [
        Edit(layer, clean[torch.randperm(2, generator=generator), r, layer], position=role)
        for layer in (9,)
        for r, role in enumerate(("final_arrow", "demo_2_y"))
    ]
    heads = gemma.capture(prompts, ["final_arrow"], "z")[:, 0].mean(0)
    edits += [Edit(8, heads[8, h], "z", "final_arrow", head=h) for h in (3,)]
    edits += [Edit(3, torch.ones(640), "attn_out", "demo_0_x", "add")]
    answers = [[500], [600]]
    ours = gemma.evaluate(prompts, edits, answers)
    for p, prompt in enumerate(prompts):
        for e, edit in enumerate(edits):
            at = prompt.position(edit.position)
            value = edit.value if edit.value.ndim == 1 else edit.value[p]
            hook = partial(write, at=at, value=value, head=edit.head, add=edit.mode == "add")
            name = "attn.hook_z" if edit.site == "z" else f"hook_{edit.site}"
            with torch.inference_mode():
                logits = gemma.bridge.run_with_hooks(
                    torch.tensor([prompt.tokens]),
                    fwd_hooks=[(f"blocks.{edit.layer}.{name}", hook)],
                )
            logprobs = logits[0, -1].log_softmax(-1)
            assert ours.top[p, e] == logprobs.argmax()
            assert abs(ours.logprob[p, e, 0] - logprobs[answers[p][0]]) < 1e-3


def write(activation, hook, *, at, value, head, add):
    activation = activation.clone()
    target = activation[0, at] if head is None else activation[0, at, head]
    target.copy_(target + value if add else value)
    return activation


def test_batched_equals_one_by_one(gemma: HookedModel) -> None:
    prompts = few_shot(gemma, 6)
    together = gemma.final_residuals([[p] for p in prompts])
    for i, prompt in enumerate(prompts):
        alone = gemma.final_residuals([[prompt]])[0]
        assert (together[i] - alone).norm() < 1e-4 * alone.norm()


def test_the_same_seed_gives_the_same_numbers(tiny_llama: HookedModel) -> None:
    first, again = (layer_scan(tiny_llama, "es_en", 3, 2, seed=7, progress=False) for _ in range(2))
    assert first.data.identical(again.data)
    other = layer_scan(tiny_llama, "es_en", 3, 2, seed=8, progress=False)
    assert not first.data["query"].equals(other.data["query"])


def test_a_bridge_is_used_as_it_is(tiny_llama: HookedModel) -> None:
    model = load_model(tiny_llama.bridge)
    assert model.bridge is tiny_llama.bridge
    scan = layer_scan(model, "country_capital", 2, 1, progress=False)
    assert scan.data.sizes["layer"] == 4
