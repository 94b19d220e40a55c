"""Effects of later components: path patching in two runs, linear models, planted models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain import random_prompts
from test_every_family import BRIDGED, model as family_model
from tiny_models import answering_task
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from icl_mech import Decoder, InputError, Plant, find_decoder, load_model, localize, planted_model
from icl_mech.decoder.effects import Component, Written
from icl_mech.decoder.plan import DecoderSettings
from icl_mech.model import Edit, HookedModel, Knockout

LENGTHS = (6, 9)


def written(model: HookedModel, layer: int = 0) -> Written:
    prompts = random_prompts(model, LENGTHS)
    vector = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(3))
    return Written(model, prompts, layer, vector, [1, 2])


class Hooked:
    """One unbatched forward of TransformerLens with hooks at the last token."""

    def __init__(self, of: Written, prompt: int) -> None:
        self.of, self.prompt, self.hooks = of, prompt, []
        self.seen: dict[Component, Tensor] = {}

    def write(self, name: str, value: Tensor, head: int | None = None) -> None:
        def hook(activation: Tensor, hook: Any) -> Tensor:
            activation = activation.clone()
            if head is None:
                activation[:, -1] = value
            else:
                activation[:, -1, head] = value
            return activation

        self.hooks.append((name, hook))

    def set(self, c: Component, value: Tensor) -> None:
        site = "hook_mlp_out" if c.head is None else "attn.hook_z"
        self.write(f"blocks.{c.layer}.{site}", value, c.head)

    def run(self) -> Tensor:
        """The answer's log probability; every component's output is kept."""

        def keep(c: Component) -> Any:
            def hook(activation: Tensor, hook: Any) -> None:
                last = activation[0, -1]
                self.seen[c] = (last if c.head is None else last[c.head]).clone()

            return hook

        sites = {None: "hook_mlp_out"}
        watch = [
            (f"blocks.{c.layer}.{sites.get(c.head, 'attn.hook_z')}", keep(c))
            for c in self.of.components
        ]
        tokens = torch.tensor([self.of.prompts[self.prompt].tokens])
        with torch.no_grad():
            logits = self.of.model.bridge.run_with_hooks(tokens, fwd_hooks=[*self.hooks, *watch])
        return logits[0, -1].log_softmax(dim=-1)[self.of.answers[self.prompt]]


#: Families whose every block has heads and an MLP, that TransformerLens computes as Transformers.
QUICK = ("llama", "gemma3", "gpt_neox")
OTHERS = ("mamba", "mamba2", "jamba", "qwen3_next", "falcon_h1", "opt_350m")
FAMILIES = [
    pytest.param(family, marks=[pytest.mark.slow] * (family not in QUICK))
    for family in BRIDGED
    if family not in OTHERS
]


@pytest.mark.parametrize("family", FAMILIES)
def test_effects_equal_their_definitions_in_plain_runs(family: str) -> None:
    """Path patching as it is defined: one run to get the receiver's output, one to patch it."""
    model = family_model(family)
    of = written(model)
    some = [c for c in of.components if c.layer in (1, 3)]
    edits = [edit for c in some for edit in (of.reset([c]), of.path(c), of.direct(c))]
    found = of.logprob(edits).reshape(2, len(some), 3)
    stream = f"blocks.{of.layer}.hook_resid_post"
    for p in range(2):
        clean, vector = Hooked(of, p), Hooked(of, p)
        clean.run()
        vector.write(stream, of.vector[p])
        vector.run()
        for i, c in enumerate(some):
            necessity = Hooked(of, p)
            necessity.write(stream, of.vector[p])
            necessity.set(c, clean.seen[c])
            torch.testing.assert_close(found[p, i, 0], necessity.run(), atol=1e-4, rtol=0)
            frozen = Hooked(of, p)
            frozen.write(stream, of.vector[p])
            for other in of.components:
                beside = other.layer == c.layer and c.head is None and other.head is not None
                if other.layer < c.layer or beside:
                    frozen.set(other, clean.seen[other])
            frozen.run()
            patched = Hooked(of, p)
            patched.set(c, frozen.seen[c])
            torch.testing.assert_close(found[p, i, 1], patched.run(), atol=1e-4, rtol=0)
            direct = Hooked(of, p)
            direct.set(c, vector.seen[c])
            for other in of.components:
                later = other.layer > c.layer or (other.layer == c.layer and other.head is None)
                if later and other != c:
                    direct.set(other, clean.seen[other])
            torch.testing.assert_close(found[p, i, 2], direct.run(), atol=1e-4, rtol=0)


def linear_model() -> HookedModel:
    """A GPT-2 that is linear: even attention, MLPs without a nonlinearity, norms that only centre.

    LayerNorm divides by the root of the variance and epsilon: with a large one this is a constant.
    """
    config = GPT2Config(
        vocab_size=50, n_embd=24, n_layer=4, n_head=3, n_positions=32, layer_norm_epsilon=1e8,
        activation_function="linear", bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    network = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".ln_" in name:
                parameter.fill_(1e4 if name.endswith("weight") else 0)
            elif "c_attn.weight" in name:
                parameter[:, :48] = 0
                parameter[:, 48:] *= 10
            elif parameter.ndim == 2:
                parameter *= 10
    return load_model(network, tokenizer=_words(50))


def _words(n: int) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(n)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"bos_token": "w0", "eos_token": "w0", "pad_token": "w0", "name_or_path": "words"}
    return PreTrainedTokenizerFast(tokenizer_object=made, add_bos_token=True, **names)


def test_paths_of_a_linear_model_add_up_to_the_whole_effect() -> None:
    model = linear_model()
    of = written(model)
    edits = [None, of.edit, of.bypass(), *(of.path(c) for c in of.components)]
    streams = model.last_streams(of.prompts, edits)
    changes = streams - streams[:, :1]
    torch.testing.assert_close(changes[:, 2:].sum(dim=1), changes[:, 1], atol=1e-3, rtol=1e-4)
    shares = changes[:, 3:].norm(dim=-1) / changes[:, 1:2].norm(dim=-1)
    assert (shares > 1e-3).all()  # no path does nothing


def test_first_order_effects_are_exact_where_little_changes() -> None:
    model = family_model("llama")
    prompts = random_prompts(model, LENGTHS)
    own = model.capture(prompts, [-1])[:, 0, 0]
    nudge = torch.randn(own.shape, generator=torch.Generator().manual_seed(1)) * 1e-2
    of = Written(model, prompts, 0, own + nudge, [1, 2])
    ends = of.logprob([None, of.edit])
    exact = [ends[:, 1:] - of.logprob([of.reset([c]) for c in of.components])]
    exact.append(of.logprob([of.path(c) for c in of.components]) - ends[:, :1])
    for ours, theirs in zip(of.first_order(), exact, strict=True):
        scale = float(theirs.abs().max())
        assert scale > 1e-5
        assert float((ours - theirs).abs().max()) < 0.05 * scale


def test_a_planted_decoder_is_found() -> None:
    planted = planted_model(Plant(n_layers=8, formed=3, decoded=5, n_writers=2))
    task = planted.family.tasks[0]
    found = find_decoder(planted.model, task, 12, 4, n_draws=4, progress=False)
    assert found.theta_layer(task.name) in (3, 4)
    for setting in ("zero_shot", "few_shot"):
        assert found.chosen(task.name, setting) == ["MLP 5"]
        assert found.removed(task.name, 1, setting).value == pytest.approx(1, abs=0.01)
        assert found.kept(task.name, 1, setting).value == pytest.approx(1, abs=0.01)
        table = found.components(task.name, setting)
        assert table["share"].iloc[0] == pytest.approx(1, abs=0.01)
        assert (table["share"].iloc[1:].abs() < 0.01).all()
        reads = table["sufficiency"] / found.effect(task.name, setting).value
        assert reads["MLP 5"] == pytest.approx(1, abs=0.01)
    assert found.finding().startswith("θ is decoded by MLP 5: without it (1 of ")
    aie = found.of(task.name)["aie"].mean("prompt").values
    writers = {tuple(map(int, at)) for at in np.argwhere(aie > 0.1)}
    assert writers <= set(planted.truth.write)
    looks = found.attention(task.name, f"L5H{planted.truth.query[1]}")
    assert looks["with"]["query"] == pytest.approx(1, abs=0.01)
    with pytest.raises(InputError, match="head 'L99H0'"):
        found.attention(task.name, "L99H0")
    assert len(found.to_frame()) == 2 * 12 * len(table)
    assert isinstance(found, Decoder)


# --- bad input ------------------------------------------------------------------------------------


def test_what_cannot_be_decoded_is_refused(tiny_llama: HookedModel) -> None:
    few: dict[str, Any] = {"n_prompts": 4, "n_shots": 2, "progress": False}
    with pytest.raises(InputError, match="layer 3 is the last: no head or MLP comes after"):
        find_decoder(tiny_llama, answering_task(), layer=-1, **few)
    with pytest.raises(InputError, match="theta after block 1 is not shown to help.*nothing to"):
        find_decoder(tiny_llama, answering_task(), layer=1, **few)
    with pytest.raises(InputError, match="found on half of the prompts and tested on the others"):
        DecoderSettings(n_prompts=2)
    with pytest.raises(InputError, match="expected at least 2: labels are shuffled"):
        DecoderSettings(n_shots=1)
    with pytest.raises(InputError, match="opt_350m norms the whole residual stream"):
        find_decoder(family_model("opt_350m"), answering_task(), layer=1, **few)
    with pytest.raises(InputError, match="has no site 'z'"):
        find_decoder(family_model("mamba"), answering_task(), layer=1, **few)


def test_activations_with_an_edit_in_place(tiny_llama: HookedModel) -> None:
    of = written(tiny_llama)
    for p in range(2):
        run = Hooked(of, p)
        run.write(f"blocks.{of.layer}.hook_resid_post", of.vector[p])
        run.run()
        for c in of.components:
            torch.testing.assert_close(of.with_vector.at(c)[p], run.seen[c], atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="not with knockouts"):
        tiny_llama.capture(of.prompts, [-1], "z", Knockout(1, (1,)))
    pattern = tiny_llama.heads.attention(of.prompts, Edit(0, of.vector))
    assert not torch.allclose(pattern[0], tiny_llama.heads.attention(of.prompts)[0])


def test_the_picture_heads_the_page_of_the_map(tmp_path: Path) -> None:
    planted = planted_model(Plant(n_layers=6, formed=2, decoded=4))
    tasks = planted.family.tasks[:2]
    found = find_decoder(planted.model, tasks, 8, 3, n_draws=2, gradients=False, progress=False)
    mapped = localize(planted.model, tasks, 4, 3, n_points=12, k=3, progress=False)
    page = mapped.report(tmp_path / "map.html", decoder=found).read_text(encoding="utf-8")
    assert page.index("From the demonstrations to the answer") < page.index(
        "Do the read-outs agree"
    )
    assert page.count("MLP 4") > 2
    figure = found.plot(task=tasks[0].name)
    (slider,) = figure.layout.sliders
    for step in slider.steps:
        assert len(step.args[1]) == len(figure.data)
    hidden = [sum(not shown for shown in step.args[1]) for step in slider.steps]
    assert hidden == sorted(hidden)
