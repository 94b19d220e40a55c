"""How many times faster than the plain way, measured in one run. `make bench` runs it.

Each comparison times ours and the plain way in turn, several times, and reports the ratio of
medians; nothing is asserted about wall time. That both give the same numbers is what the test
suite checks, and is checked here once more on exactly what is timed.
"""

import statistics
from functools import partial

import pandas as pd
import pytest
import torch
from comparing import N_LAYERS, TASK, report, same_length_prompts, seconds
from transformer_lens.patching import generic_activation_patch, layer_pos_patch_setter

from icl_mech.model import Edit, HookedModel
from icl_mech.model.choosing import choose_engine
from icl_mech.patch import LayerScan, layer_scan
from icl_mech.prompts import Encoder, Prompt, draw_split
from icl_mech.tasks import load_task


@pytest.mark.parametrize("task", [TASK, "person_language", "list_last"])
def test_edits_at_the_last_token_of_eight_prompts(benchmark, model, encoder, task: str) -> None:
    """All 18 layers: TransformerLens's own patching loop against the shared engine.

    The longer the prompts, the more there is to share: three tasks, three lengths.
    """
    assert model.engine == "shared"
    edits_at_the_last_token(benchmark, model, encoder, task)


def test_the_same_edits_on_the_plain_engine(benchmark, model, encoder) -> None:
    """A full forward pass for every edit here too, but no logits except at the last token."""
    engine, _ = choose_engine(model.bridge, "plain")
    plain = HookedModel(model.bridge, model.name, engine=engine)
    edits_at_the_last_token(benchmark, plain, encoder, TASK)


def edits_at_the_last_token(benchmark, model: HookedModel, encoder: Encoder, task: str) -> None:
    """TransformerLens's own patching loop against a model's engine."""
    prompts = same_length_prompts(encoder, task, 8)
    assert len(prompts) == 8
    tokens = torch.tensor([p.tokens for p in prompts])
    last = tokens.shape[1] - 1
    answers = [[1000 + i] for i in range(8)]
    with torch.inference_mode():
        _, cache = model.bridge.run_with_cache(
            torch.roll(tokens, 1, dims=0), names_filter=lambda name: "resid_post" in name
        )
    grid = pd.DataFrame([(layer, last) for layer in range(N_LAYERS)], columns=["layer", "pos"])
    edits = [
        Edit(layer, cache[f"blocks.{layer}.hook_resid_post"][:, -1]) for layer in range(N_LAYERS)
    ]

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1].log_softmax(-1).gather(1, torch.tensor(answers)).sum()

    @torch.inference_mode()
    def plain() -> torch.Tensor:
        return generic_activation_patch(
            model.bridge,
            tokens,
            cache,
            metric,
            patch_setter=layer_pos_patch_setter,
            activation_name="resid_post",
            index_df=grid,
        )

    def ours() -> torch.Tensor:
        return model.evaluate(prompts, edits, answers).logprob[..., 0].sum(0)

    torch.testing.assert_close(ours(), plain(), atol=8e-3, rtol=0)
    print(f"\n8 prompts of {last + 1} tokens, {N_LAYERS} layers, {model.engine} engine")
    report(benchmark, ours, plain, rounds=3)


def test_a_whole_scan(benchmark, model: HookedModel, encoder: Encoder) -> None:
    """50 prompts: one full forward per prompt and (vector, layer) against `layer_scan`.

    The plain way is timed on every tenth prompt and scaled up: it does the same to each.
    """
    share = 10
    scan = partial(layer_scan, model, TASK, 50, progress=False)
    split = draw_split(load_task(TASK), 50, 25, 5, 2, seed=0)

    def forward(prompt: Prompt, hooks: list | None = None) -> torch.Tensor:
        return model.bridge.run_with_hooks(torch.tensor([prompt.tokens]), fwd_hooks=hooks or [])

    @torch.inference_mode()
    def plain() -> torch.Tensor:
        """What `layer_scan` does, prompt by prompt: vectors, references, injections."""
        right = torch.zeros(N_LAYERS)
        for i, episode in enumerate([*split.test, *split.dev][::share]):
            tested = i < len(split.test) // share
            zero = encoder.encode((), episode.query.x)
            answer = encoder.answer_tokens(zero, episode.query.answers)[0][0]
            kinds = 4 if tested else 1
            for kind in range(kinds):
                theta = torch.zeros(N_LAYERS, model.d_model)
                if kind < 3:  # the random vectors need no forward
                    for dummy in episode.dummies:
                        prompt = encoder.encode(episode.demonstrations, dummy.x)
                        _, cache = model.bridge.run_with_cache(
                            torch.tensor([prompt.tokens]),
                            names_filter=lambda name: "resid_post" in name,
                        )
                        for layer in range(N_LAYERS):
                            theta[layer] += cache[f"blocks.{layer}.hook_resid_post"][0, -1] / 2
                for layer in range(N_LAYERS):

                    def write(resid, hook, value=theta[layer]):
                        resid[0, -1] = value
                        return resid

                    logits = forward(zero, [(f"blocks.{layer}.hook_resid_post", write)])[0, -1]
                    logprobs = logits.log_softmax(-1)
                    rank = (logprobs > logprobs[answer]).sum()
                    right[layer] += bool(rank == 0) and kind == 0 and tested
            forward(encoder.encode(episode.demonstrations, episode.query.x))
            forward(zero)
        return right

    ours: LayerScan = scan()
    chosen = ours.data["first_token"].sel(task=TASK, vector="theta")
    by_layer = chosen.isel(prompt=slice(None, None, share)).sum("prompt").values
    assert plain().tolist() == by_layer.tolist()
    times = [(seconds(plain) * share, seconds(scan)) for _ in range(2)]
    plain_time, our_time = (statistics.median(side) for side in zip(*times, strict=True))
    benchmark.extra_info.update(plain_s=plain_time, ours_s=our_time, ratio=plain_time / our_time)
    benchmark.pedantic(scan, rounds=1)
    rate = scan_flops(model, encoder) / our_time
    peak = matmul_rate()
    print(
        f"\nplain {plain_time:.0f} s (scaled up from 1 prompt in {share}), ours {our_time:.1f} s: "
        f"{plain_time / our_time:.1f} times faster\n"
        f"floor: {rate * our_time / 1e12:.2f} TFLOP the scan must do, at {rate / 1e9:.0f} GFLOP/s; "
        f"a 2048 x 2048 matrix product runs at {peak / 1e9:.0f}: {rate / peak:.0%} of it"
    )


def scan_flops(model: HookedModel, encoder: Encoder) -> float:
    """Floating-point operations of the matrix products that a 50-prompt scan cannot avoid.

    Two per weight and token that passes it, counted on the prompts themselves. Attention scores
    and everything elementwise are left out (a few per cent).
    """
    blocks = sum(
        p.numel()
        for name, p in model.bridge.original_model.named_parameters()
        if p.ndim == 2 and "layers." in name and "lm_head" not in name
    )
    per_token = 2 * blocks
    per_read = 2 * model.d_model * model.bridge.cfg.d_vocab
    split = draw_split(load_task(TASK), 50, 25, 5, 2, seed=0)
    tokens = 0
    for episodes, kinds in ((split.test, 3), (split.dev, 1)):
        for e in episodes:
            demonstrations = len(encoder.encode(e.demonstrations, e.query.x)) - len(
                encoder.encode((), e.query.x)
            )
            queries = [len(encoder.encode((), q.x)) - 1 for q in (e.query, *e.dummies)]
            # The demonstrations once per kind of theta; then every query that follows them.
            tokens += kinds * (demonstrations + 1) + sum(queries) + (kinds - 1) * sum(queries[1:])
            tokens += queries[0] + 1  # the zero-shot prompt
    injections = 50 * 4 + 25
    suffixes = injections * sum(range(N_LAYERS)) / N_LAYERS  # from its own block on
    reads = injections * N_LAYERS + 2 * 50
    return per_token * (tokens + suffixes) + per_read * reads


def matmul_rate() -> float:
    """The rate of a large matrix product here and now, in operations per second."""
    a = torch.randn(2048, 2048)
    a @ a
    best = min(seconds(lambda: a @ a) for _ in range(10))
    return 2 * 2048**3 / best
