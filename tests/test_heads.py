"""Head attribution: AIE as defined, against one plain forward per head."""

from pathlib import Path

import numpy as np
import pytest
import torch

from icl_mech import load_result
from icl_mech.errors import InputError
from icl_mech.heads import HeadAttribution, head_attribution
from icl_mech.model import HookedModel
from icl_mech.prompts import draw_split, generator, shuffle_labels
from icl_mech.tasks import load_task

N_PROMPTS, N_SHOTS, N_CLEAN, SEED = 4, 4, 6, 1


@pytest.fixture(scope="module")
def result(gemma: HookedModel) -> HeadAttribution:
    return head_attribution(
        gemma, "country_capital", N_PROMPTS, N_SHOTS, SEED, n_clean=N_CLEAN, progress=False
    )


def test_effects_equal_one_forward_per_head(gemma: HookedModel, result: HeadAttribution) -> None:
    task = load_task("country_capital")
    split = draw_split(task, N_PROMPTS, N_CLEAN, N_SHOTS, 1, SEED)
    encoder = gemma.encoder("{x}->{y}", [p.y for p in task.pairs])
    sums: dict[int, torch.Tensor] = {}
    layers = (3, 9, 14)
    with torch.inference_mode():
        for e in split.dev:
            tokens = torch.tensor([encoder.encode(e.demonstrations, e.query.x).tokens])
            _, cache = gemma.bridge.run_with_cache(tokens, names_filter=lambda n: "hook_z" in n)
            for layer in layers:
                z = cache[f"blocks.{layer}.attn.hook_z"][0, -1]
                sums[layer] = sums.get(layer, torch.zeros_like(z)) + z / N_CLEAN
        rng = generator(SEED, task.name, "shuffled")
        for i, e in enumerate(split.test):
            prompt = encoder.encode(shuffle_labels(e.demonstrations, rng), e.query.x)
            answer = encoder.answer_tokens(prompt, [e.query.y])[0][0]
            tokens = torch.tensor([prompt.tokens])
            before = gemma.bridge(tokens)[0, -1].softmax(-1)[answer]
            assert abs(float(result.data["shuffled_probability"][0, i]) - float(before)) < 1e-4
            for layer in layers:
                for head in range(gemma.n_heads):

                    def write(z, hook, value=sums[layer][head], head=head):
                        z = z.clone()
                        z[0, -1, head] = value
                        return z

                    logits = gemma.bridge.run_with_hooks(
                        tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", write)]
                    )
                    after = logits[0, -1].softmax(-1)[answer]
                    ours = result.data["effect"][0, i, layer, head]
                    assert abs(float(ours) - float(after - before)) < 1e-4


def test_the_top_heads_are_the_largest_means(result: HeadAttribution) -> None:
    means = result.data["effect"].sel(task="country_capital").mean("prompt").values
    layer, head = np.unravel_index(means.argmax(), means.shape)
    first = result.top("country_capital", 1)[0]
    assert first[:2] == (layer, head)
    assert first[2].value == pytest.approx(means.max(), abs=1e-6)
    values = [aie.value for *_, aie in result.top("country_capital", 72)]
    assert values == sorted(values, reverse=True)
    summary = result.summary(3)
    assert len(summary) == 3
    assert (summary["aie_low"] <= summary["aie"]).all()


def test_saved_loaded_and_drawn(result: HeadAttribution, tmp_path: Path) -> None:
    again = load_result(result.save(tmp_path / "heads.nc"))
    assert isinstance(again, HeadAttribution)
    assert again.data.identical(result.data)
    figure = again.plot()
    (heat,) = figure.data
    assert np.array(heat.z).shape == (4, 18)
    assert heat.zmin == -heat.zmax
    layer, head, _ = result.top("country_capital", 1)[0]
    assert any(a.text == f"{layer}.{head}" for a in figure.layout.annotations)
    assert len(result.to_frame()) == N_PROMPTS * 72


def test_a_model_that_cannot_do_the_task(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="answers none of 2 few-shot prompts right"):
        head_attribution(tiny_llama, "to_upper", 2, 2, n_clean=2, progress=False)


def test_one_shot_has_no_labels_to_shuffle(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="n_shots is 1; expected at least 2"):
        head_attribution(tiny_llama, "to_upper", 2, 1, progress=False)
