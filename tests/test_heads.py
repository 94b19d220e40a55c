"""Head attribution: AIE as defined, against one plain forward per head."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from plain import random_prompts
from tiny_models import answering_bridge, answering_task, tiny_bridge

from icl_mech import Edit, load_result
from icl_mech.errors import InputError, ModelError
from icl_mech.heads import HeadAttribution, function_vectors, head_attribution
from icl_mech.heads.attribution import mean_heads
from icl_mech.heads.plan import AttributionSettings, plan_heads
from icl_mech.heads.prompts import encode
from icl_mech.lens import vector_lens
from icl_mech.model import HookedModel
from icl_mech.prompts import draw_split, generator, shuffle_labels
from icl_mech.tasks import load_task

N_PROMPTS, N_SHOTS, N_CLEAN, SEED = 4, 3, 4, 1


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
    layers = (3, 14)
    with torch.inference_mode():
        for e in split.dev:
            tokens = torch.tensor([encoder.encode(e.demonstrations, e.query.x).tokens])
            _, cache = gemma.bridge.run_with_cache(tokens, names_filter=lambda n: "hook_z" in n)
            for layer in layers:
                z = cache[f"blocks.{layer}.attn.hook_z"][0, -1]
                sums[layer] = sums.get(layer, torch.zeros_like(z)) + z / N_CLEAN
        rng = generator(SEED, task.name, "shuffled")
        shuffled = [shuffle_labels(e.demonstrations, rng) for e in split.test]
        for i in (N_PROMPTS - 1,):
            e = split.test[i]
            prompt = encoder.encode(shuffled[i], e.query.x)
            answer = encoder.answer_tokens(prompt, [e.query.y])[0][0]
            tokens = torch.tensor([prompt.tokens])
            before = gemma.bridge(tokens)[0, -1].softmax(-1)[answer]
            assert abs(float(result.data["shuffled_probability"][0, i]) - float(before)) < 1e-4
            for layer in layers:
                for head in (0, gemma.n_heads - 1):

                    def write(z, hook, value=sums[layer][head], head=head):
                        z = z.clone()
                        z[0, -1, head] = value
                        return z

                    logits = gemma.bridge.run_with_hooks(
                        tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", write)]
                    )
                    after = logits[0, -1].softmax(-1)[answer]
                    ours = result.data["aie"][0, i, layer, head]
                    assert abs(float(ours) - float(after - before)) < 1e-4


def test_the_top_heads_are_the_largest_means(result: HeadAttribution) -> None:
    means = result.data["aie"].sel(task="country_capital").mean("prompt").values
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
    assert [np.array(heat.z).shape for heat in figure.data] == [(4, 18)] * 3
    scale = figure.layout.coloraxis
    assert scale.cmin == -scale.cmax
    layer, head, _ = result.top("country_capital", 1)[0]
    assert any(a.text == f"{layer}.{head}" for a in figure.layout.annotations)
    assert len(result.to_frame()) == N_PROMPTS * 72


def test_a_model_that_cannot_do_the_task(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="answers none of 2 few-shot prompts right"):
        head_attribution(tiny_llama, "to_upper", 2, 2, n_clean=2, progress=False)


def test_one_shot_has_no_labels_to_shuffle(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="n_shots is 1; expected at least 2"):
        head_attribution(tiny_llama, "to_upper", 2, 1, progress=False)


def test_every_method_is_on_the_same_prompts(result: HeadAttribution) -> None:
    assert result.methods == ["aie", "attribution", "direct"]
    of_task = result.data.sel(task="country_capital")
    parts = of_task["direct"].sum(("layer", "head")) + of_task["direct_mlp"].sum("layer")
    miss = abs(parts + of_task["direct_rest"] - of_task["logit_difference"])
    assert float(miss.max()) < 1e-3
    assert float(abs(of_task["attention"].sum("role") - 1).max()) < 1e-4
    frame = result.to_frame()
    assert {"aie", "attribution", "direct"} <= set(frame.columns)


def test_gradients_rank_heads_nearly_as_the_exact_effect(result: HeadAttribution) -> None:
    assert result.agreement("country_capital").value > 0.7
    misses = result.misses("country_capital", 3)
    gaps = (misses["attribution"] - misses["aie"]).abs().tolist()
    assert gaps == sorted(gaps, reverse=True)
    means = result.data.sel(task="country_capital").mean("prompt")
    assert gaps[0] == pytest.approx(float(abs(means["attribution"] - means["aie"]).max()))


def test_attribution_patching_is_the_gradient_towards_the_mean(
    gemma: HookedModel, result: HeadAttribution
) -> None:
    """Small steps from a head's own output to its mean change p(answer) at that rate."""
    task = load_task("country_capital")
    settings = AttributionSettings(n_prompts=N_PROMPTS, n_clean=N_CLEAN, n_shots=N_SHOTS, seed=SEED)
    (drawn,) = encode(gemma, plan_heads(task, settings))
    means = mean_heads(gemma, drawn.dev.clean)
    own = gemma.capture(drawn.test.shuffled, ["final_arrow"], "z")[:, 0]
    step = 0.02
    heads = [(9, 3), (12, 2), (15, 1)]
    edits = [
        Edit(x, own[:, x, h] + s * (means[x, h] - own[:, x, h]), "z", "final_arrow", head=h)
        for x, h in heads
        for s in (-step, step)
    ]
    p = gemma.evaluate(drawn.test.shuffled, edits, [[a] for a in drawn.test.answers])
    p = p.logprob[..., 0].exp().numpy().reshape(N_PROMPTS, len(heads), 2)
    slopes = (p[..., 1] - p[..., 0]) / (2 * step)
    for i, (layer, head) in enumerate(heads):
        ours = result.data["attribution"].sel(layer=layer, head=head).values[0]
        np.testing.assert_allclose(ours, slopes[:, i], atol=2e-3)


def test_induction_heads_are_told_apart_from_the_others(result: HeadAttribution) -> None:
    """Head 5.1 continues repeated tokens; head 9.3, the first by AIE on this model, does not."""
    induction = result.data["induction"]
    assert float(induction.sel(layer=5, head=1)) > 0.5
    assert float(induction.sel(layer=9, head=3)) < 0.2


def test_universal_heads_are_the_largest_mean_over_tasks(result: HeadAttribution) -> None:
    assert result.universal(3) == [h[:2] for h in result.top("country_capital", 3)]
    with pytest.raises(InputError, match="unknown task 'capital'.*country_capital"):
        result.universal(3, ["capital"])
    with pytest.raises(InputError, match="k is 100; expected 1 to 72"):
        result.universal(100)


def test_the_map_names_the_largest_absolute_effects() -> None:
    """One task, 2 layers x 3 heads; the largest effect by size works against the answer."""
    means = np.array([[0.01, -0.25, 0.1], [0.05, 0.002, -0.03]])
    data = xr.Dataset(
        {
            "aie": (("task", "prompt", "layer", "head"), np.stack([[means, means * 1.1]])),
            "attention": (("task", "prompt", "layer", "head", "role"), np.ones((1, 2, 2, 3, 1))),
            "induction": (("layer", "head"), np.zeros((2, 3))),
            "query": (("task", "prompt"), [["a", "b"]]),
        },
        coords={"task": ["t"], "layer": [0, 1], "head": [0, 1, 2], "role": ["sink"]},
    )
    result = HeadAttribution(data, {"model": "m", "n_shots": 2, "seed": 0})
    assert [head[:2] for head in result.top("t", 2)] == [(0, 2), (1, 0)]
    assert [h[:2] for h in result.top("t", 3, absolute=True)] == [(0, 1), (0, 2), (1, 0)]
    figure = result.plot()
    named = [a.text for a in figure.layout.annotations if re.fullmatch(r"\d\.\d", a.text)]
    assert named == ["0.1", "0.2", "1.0", "1.2", "0.0"]  # 1.1 is the smallest of six
    assert "5 largest by absolute value are named" in figure.layout.title.subtitle.text


def test_methods_can_be_left_out(tiny_llama: HookedModel) -> None:
    model, task = HookedModel(answering_bridge(), "answers"), answering_task()
    only = head_attribution(model, task, 2, 2, n_clean=2, methods=["attribution"], progress=False)
    assert only.methods == ["attribution"]
    assert "attribution" in only.summary()
    with pytest.raises(InputError, match="no methods"):
        head_attribution(tiny_llama, "to_upper", 2, 2, methods=[], progress=False)
    with pytest.raises(InputError, match=r"unknown method 'gradient'.*attribution"):
        head_attribution(tiny_llama, "to_upper", 2, 2, methods=["gradient"], progress=False)


class EightBit(torch.nn.Module):
    """A linear map by 8-bit integers and a scale."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.scale = float(linear.weight.detach().abs().max() / 127)
        whole = (linear.weight.detach() / self.scale).round().to(torch.int8)
        self.weight = torch.nn.Parameter(whole, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight.to(x) * self.scale).T


def eight_bit() -> HookedModel:
    """A model that says "Q", whose heads are projected by 8-bit integers."""
    bridge = answering_bridge()
    for block in bridge.blocks:
        block.attn.o.set_original_component(EightBit(block.attn.o.original_component))
    return HookedModel(bridge, "8 bits")


def test_gradients_of_quantised_weights_are_refused_by_name_before_the_work() -> None:
    model = eight_bit()
    left = r"\['aie', 'direct'\]"
    with pytest.raises(InputError, match=f"'attribution'.*weights are quantised.*methods={left}"):
        head_attribution(model, "to_upper", 2, 2, n_clean=2, progress=False)
    assert model.provenance()["readouts"]["n"] == 0


def test_what_heads_of_quantised_weights_write() -> None:
    """Read off what the projection makes of each unit of its input."""
    model, task = eight_bit(), answering_task()
    exact = head_attribution(model, task, 2, 2, n_clean=2, methods="aie", progress=False)
    assert float(abs(exact.data["aie"]).max()) > 0
    prompts = random_prompts(model, (9, 5))
    assert model.heads.direct_effects(prompts, [1, 2], [[3], [4]]).heads.abs().max() > 0
    heads, rest = model.heads.mean_outputs(prompts, -1)
    written = model.capture(prompts, [-1], "attn_out")[:, 0].mean(dim=0)
    torch.testing.assert_close(heads.sum(dim=1) + rest, written, atol=1e-4, rtol=1e-4)
    function_vectors(model, task, n_prompts=2, n_shots=2, progress=False)
    vector_lens(model, task, 2, 2, vector="function", progress=False)


def test_granite_is_refused_before_the_exact_effect_and_told_what_works() -> None:
    model = HookedModel(tiny_bridge("granite"), "tiny-granite")
    with pytest.raises(
        ModelError, match=r"'direct'.*unscaled; leave out .*methods=\['aie', 'attribution'\]"
    ):
        head_attribution(model, "to_upper", 2, 2, n_clean=2, progress=False)
    assert model.provenance()["readouts"]["n"] == 0
