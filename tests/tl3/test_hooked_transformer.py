"""Models of TransformerLens 3's HookedTransformer, as the caller made them: `make test-tl3`.

Weight processing (`from_pretrained` has it, `from_pretrained_no_processing` has not) leaves every
probability as it is, and moves numbers inside the model:
- A family with LayerNorm (GPT-2, GPT-NeoX): the stream, and what is added to it, lose their mean
  over dimensions. One with RMSNorm (Llama, Gemma): nothing moves.
- A family whose values have a bias (also: whose norms have one, which is folded into it): every
  head's `z` lacks that bias, which is in attention's output bias instead.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import xarray as xr
from family_reference import reference_logprobs, sites
from plain import prompt_of
from tiny_models import D_VOCAB, N_LAYERS, bridged, byte_tokenizer, random_model
from torch import Tensor
from transformer_lens import HookedTransformer, loading_from_pretrained
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from icl_mech.errors import InputError, ModelError
from icl_mech.lens import logit_lens
from icl_mech.model import SITES, Edit, HookedModel, load_model
from icl_mech.model.gguf import packaged_folder
from icl_mech.patch import layer_scan
from icl_mech.tasks import load_task

FAMILIES = ("gpt2", "llama", "gpt_neox")
#: Whose norms are LayerNorms, with biases: processing centres their stream.
CENTRED = ("gpt2", "gpt_neox")
TOLERANCE = 1e-4
GENERATOR = torch.Generator().manual_seed(1)
TOKENS = [[D_VOCAB - 1, *torch.randint(256, (n,), generator=GENERATOR).tolist()] for n in (13, 9)]
PROMPTS = [prompt_of(tokens) for tokens in TOKENS]
ANSWERS = [[1, 200], [3, 4]]


def hooked(
    model: PreTrainedModel, processing: bool, tokenizer: Any = None, name: str = "gpt2"
) -> HookedTransformer:
    """A HookedTransformer of a model in memory; nothing is asked from the hub.

    The sizes of "gpt2" are read from the configuration, and here from the model's own.
    """
    config = model.config
    if not hasattr(config, "n_ctx") and hasattr(config, "n_positions"):
        config.n_ctx = config.n_positions
    tokenizer = byte_tokenizer() if tokenizer is None else tokenizer
    # One that says that it prepends BOS is not read again from the hub.
    kept = dict(tokenizer.init_kwargs)
    tokenizer.init_kwargs["add_bos_token"] = True
    read = SimpleNamespace(from_pretrained=lambda *_, **__: config)
    plain = HookedTransformer.from_pretrained_no_processing
    make = HookedTransformer.from_pretrained if processing else plain
    try:
        with mock.patch.object(loading_from_pretrained, "AutoConfig", read):
            return make(name, hf_model=model, tokenizer=tokenizer, device="cpu")
    finally:
        tokenizer.init_kwargs = kept


@cache
def plain(family: str) -> PreTrainedModel:
    """The family's model, in nothing."""
    return random_model(family)


@cache
def ours(family: str, processing: bool) -> HookedModel:
    """The same model as a HookedTransformer."""
    return load_model(hooked(random_model(family), processing))


@cache
def through_bridge(family: str) -> HookedModel:
    """The same model in a bridge."""
    return load_model(bridged(random_model(family), f"tiny-{family}"))


def edits_of(family: str, layer: int) -> list[Edit]:
    """One edit of each mode at every site of a block."""
    generator = torch.Generator().manual_seed(layer)
    c = ours(family, False)
    found = []
    for site in sites(plain(family), layer):
        head, d = (1, c.d_head) if site == "z" else (None, c.d_model)
        for mode in ("replace", "add"):
            value = torch.randn(d, generator=generator)
            found.append(Edit(layer, value, site, -2, mode, scale=2.0, head=head))
    return found


EDITS = {f: [e for layer in (1, 2) for e in edits_of(f, layer)] for f in FAMILIES}
both = pytest.mark.parametrize("processing", [False, True], ids=["plain", "processed"])
every_family = pytest.mark.parametrize("family", FAMILIES)


@cache
def references(family: str) -> Tensor:
    """Log probabilities of the answers by plain Transformers, `[prompt, edit, answer]`."""
    found = []
    for tokens, of in zip(TOKENS, ANSWERS, strict=True):
        placed = [None, *(replace(e, position=len(tokens) - 2) for e in EDITS[family])]
        found.append([reference_logprobs(plain(family), tokens, e)[of] for e in placed])
    return torch.stack([torch.stack(of_prompt) for of_prompt in found])


def close(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance, equal_nan=True)


def far(a: Tensor, b: Tensor) -> None:
    """No tolerance would do."""
    assert (a - b).abs().max() > 100 * TOLERANCE


# --- tiny models: edits ---------------------------------------------------------------------------


@every_family
@both
def test_the_plain_engine_runs_it(
    family: str, processing: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    made = hooked(random_model(family), processing)
    model = load_model(made)
    assert model.bridge is made
    assert (model.name, model.engine, model.n_layers) == ("gpt2", "plain", N_LAYERS)
    assert model.engine_reason == "it is a HookedTransformer, whose blocks make their own masks"
    assert model.engine_reason in capsys.readouterr().err
    assert made.training  # always, and it has no dropout
    assert model.provenance()["foreign_hooks"] == []
    assert len(model.provenance()["weights_sha256"]) == 64


@every_family
def test_edits_equal_plain_transformers(family: str) -> None:
    """Every site, replaced and added to, in two blocks, of two prompts in one batch."""
    found = ours(family, False).evaluate(PROMPTS, [None, *EDITS[family]], ANSWERS).logprob
    close(found, references(family))
    moved = (references(family)[:, 1:] - references(family)[:, :1]).abs().amax(dim=(0, 2))
    assert (moved > TOLERANCE).all()


@every_family
def test_edits_of_a_processed_model(family: str) -> None:
    """They equal plain Transformers too, unless they replace a `z` from which a bias was taken."""
    found = ours(family, True).evaluate(PROMPTS, [None, *EDITS[family]], ANSWERS).logprob
    replaces_z = [False, *(e.site == "z" and e.mode == "replace" for e in EDITS[family])]
    differs = torch.tensor(replaces_z) & (family in CENTRED)
    close(found[:, ~differs], references(family)[:, ~differs])
    misses = (found - references(family)).abs().amax(dim=(0, 2))
    assert (misses[differs] > TOLERANCE).all()


@every_family
@both
def test_theta_of_a_model_injected_into_the_same_model(family: str, processing: bool) -> None:
    """Read at one prompt's last token, written at another's, at every layer and site of it."""
    said = []
    for model in (ours(family, processing), through_bridge(family)):
        edits = []
        for site in sites(plain(family), 0):
            values = model.capture(PROMPTS[:1], [-1], site)[0, 0]
            for layer, value in enumerate(values):
                head = 2 if site == "z" else None
                value = value if head is None else value[head]
                edits.append(Edit(layer, value, site, -1, head=head))
        said.append(model.evaluate(PROMPTS[1:], edits, ANSWERS[1:]).logprob)
    close(*said)


# --- tiny models: values --------------------------------------------------------------------------


@every_family
@both
def test_values_inside_a_model(family: str, processing: bool) -> None:
    """What processing moves, and by how much."""
    moved = processing and family in CENTRED
    for site in sites(plain(family), 0):
        got, bridge = (
            m.capture(PROMPTS, [-1, 2], site)
            for m in (ours(family, processing), through_bridge(family))
        )
        if not moved:
            close(got, bridge)
            continue
        far(got, bridge)
        if site == "z":  # the same vector at every token of every prompt: the bias
            bias = (bridge - got)[:1, :1]
            close(bridge, got + bias)
        else:
            close(got, bridge - bridge.mean(dim=-1, keepdim=True))


@every_family
@both
def test_what_a_model_writes_and_scores(family: str, processing: bool) -> None:
    model, bridge = ours(family, processing), through_bridge(family)
    edits = [None, EDITS[family][0]]
    texts, expected = (m.generate(PROMPTS, edits, 4, stop="no such text") for m in (model, bridge))
    assert texts == expected
    rows = [[[5, 6, 7], [8]], [[9, 10]]]
    close(*(m.sequence_logprob(PROMPTS, rows, edits) for m in (model, bridge)))


@every_family
@both
def test_gradients(family: str, processing: bool) -> None:
    """They are the bridge's, also where `z` itself lacks the bias."""
    model, bridge = (ours(family, processing), through_bridge(family))
    for rivals in (None, [[2, 3], [4]]):
        z, gradients = model.heads.gradients(PROMPTS, [1, 3], rivals)
        theirs, expected = bridge.heads.gradients(PROMPTS, [1, 3], rivals)
        torch.testing.assert_close(gradients, expected, atol=1e-6, rtol=1e-3)
        (far if processing and family in CENTRED else close)(z, theirs)


@every_family
@both
def test_mean_outputs(family: str, processing: bool) -> None:
    """A head's share of the bias is moved from the head to the rest of attention."""
    heads, rest = ours(family, processing).heads.mean_outputs(PROMPTS, -1)
    theirs, others = through_bridge(family).heads.mean_outputs(PROMPTS, -1)
    whole, expected = heads.sum(dim=1) + rest, theirs.sum(dim=1) + others
    if processing and family in CENTRED:
        close(whole, expected - expected.mean(dim=-1, keepdim=True))
        far(heads, theirs)
    else:
        close(whole, expected)
        close(heads, theirs)
    close(whole, ours(family, processing).capture(PROMPTS, [-1], "attn_out")[:, 0].mean(dim=0))


@every_family
@both
def test_direct_effects(family: str, processing: bool) -> None:
    """MLPs and the sum of everything are the bridge's; heads too, where they have their bias."""
    rivals = [[2, 3], [4]]
    got, bridge = (
        m.heads.direct_effects(PROMPTS, [1, 3], rivals)
        for m in (ours(family, processing), through_bridge(family))
    )
    close(got.total, bridge.total)
    if processing and family in CENTRED:
        far(got.heads, bridge.heads)
        # An MLP's output bias and the stream's embedding are centred, which no logit shows.
        close(got.mlps, bridge.mlps)
        whole = [e.heads.sum(dim=(1, 2)) + e.rest for e in (got, bridge)]
        close(*whole)
    else:
        for name in ("heads", "mlps", "rest"):
            close(getattr(got, name), getattr(bridge, name))


@every_family
@both
def test_attention_and_the_lens(family: str, processing: bool) -> None:
    model, bridge = ours(family, processing), through_bridge(family)
    for a, b in zip(*(m.heads.attention(PROMPTS) for m in (model, bridge)), strict=True):
        close(a, b)
    streams = [m.residual_stream(PROMPTS, [-1])[:, 0] for m in (model, bridge)]
    read = [
        m.read(s[0], [[1, 2]] * (N_LAYERS + 1))
        for m, s in zip((model, bridge), streams, strict=True)
    ]
    close(read[0].logprob, read[1].logprob)
    assert torch.equal(read[0].top, read[1].top)


# --- what is refused ------------------------------------------------------------------------------


def test_sites_that_it_has_not() -> None:
    with pytest.raises(InputError, match="site 'resid_mid'"):
        ours("gpt_neox", False).capture(PROMPTS, [-1], "resid_mid")
    assert set(sites(plain("gpt2"), 0)) == set(SITES)


def test_without_a_tokenizer() -> None:
    made = hooked(random_model("gpt2"), False)
    made.tokenizer = None
    with pytest.raises(InputError, match="HookedTransformer has no tokenizer; expected one"):
        load_model(made)


def test_with_a_tokenizer_beside_its_own() -> None:
    made = hooked(random_model("gpt2"), False)
    with pytest.raises(InputError, match="tokenizer= beside a HookedTransformer.*its own"):
        load_model(made, tokenizer=byte_tokenizer())


def test_another_format_than_its_own() -> None:
    made = hooked(random_model("gpt2"), False)
    with pytest.raises(InputError, match=r"HookedTransformer is torch\.float32 on cpu.*as it is"):
        load_model(made, dtype="float16")


def test_its_own_format_and_device() -> None:
    made = hooked(random_model("gpt2"), False)
    assert load_model(made, dtype="float32", device="cpu").dtype == torch.float32


def test_an_adapter_beside_it() -> None:
    made = hooked(random_model("gpt2"), False)
    with pytest.raises(InputError, match="adapter= beside a HookedTransformer"):
        load_model(made, adapter="folder")


def test_weights_that_are_nowhere() -> None:
    made = hooked(random_model("gpt2"), False)
    with pytest.raises(
        InputError, match="weights of the HookedTransformer.*'meta'.*hold no numbers"
    ):
        load_model(made.to("meta"))


def test_the_shared_engine_cannot_run_it() -> None:
    made = hooked(random_model("gpt2"), False)
    with pytest.raises(ModelError, match="is a HookedTransformer.*engine='plain' runs it"):
        load_model(made, engine="shared")


# --- the packaged model ---------------------------------------------------------------------------


@contextmanager
def made(kind: str) -> Iterator[HookedModel]:
    """The packaged model as one kind of object; gone afterwards, as it takes 1 to 2 GB."""
    folder = packaged_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if kind == "Transformers":
        yield load_model(bare, tokenizer=tokenizer)
    else:
        yield load_model(hooked(bare, kind == "processed", tokenizer, "gemma-3-270m"))
    gc.collect()


@dataclass(frozen=True)
class Measured:
    """What is compared of the packaged model.

    Attributes:
        scan, lens: data of a layer scan and of a logit lens.
        heads: AIE of some heads; outputs and gradients, and direct effects, of all.
    """

    scan: xr.Dataset
    lens: xr.Dataset
    heads: dict[str, Tensor]

    @staticmethod
    def of(model: HookedModel) -> "Measured":
        task = "country_capital"
        small = {"n_prompts": 2, "n_shots": 2, "seed": 0, "progress": False}
        scan = layer_scan(model, task, n_dev=1, control_layers="chosen", **small)
        return Measured(scan.data, logit_lens(model, task, **small).data, effects_of_heads(model))


def effects_of_heads(model: HookedModel) -> dict[str, Tensor]:
    """Of heads on one prompt, into which some of their outputs on two others are written."""
    pairs = load_task("country_capital").pairs
    encoder = model.encoder("{x}->{y}", [pair.y for pair in pairs])
    *others, prompt = (encoder.encode(pairs[i : i + 3], pairs[i + 3].x) for i in (0, 4, 8))
    ids = [encoder.answer_tokens(prompt, [pairs[i].y])[0][0] for i in (11, 8)]
    mean = model.capture(others, ["final_arrow"], "z")[:, 0].mean(dim=0)
    edits = [Edit(8, mean[8, head], "z", "final_arrow", head=head) for head in range(4)]
    said = model.evaluate([prompt], [None, *edits], [ids]).logprob[0].exp()
    z, gradients = model.heads.gradients([prompt], ids[:1])
    direct = model.heads.direct_effects([prompt], ids[:1], [ids[1:]])
    heads, rest = model.heads.mean_outputs([prompt])
    return {
        "aie": said[1:] - said[0],
        "attribution": ((mean - z) * gradients).sum(dim=-1),
        "direct": direct.heads,
        "direct_mlp": direct.mlps,
        "written": heads,
        "written_besides": rest,
    }


@pytest.fixture(scope="module")
def expected(gemma: HookedModel) -> Measured:
    """Through the bridge."""
    return Measured.of(gemma)


@pytest.mark.parametrize("kind", ["Transformers", "plain", "processed"])
def test_the_packaged_model(kind: str, expected: Measured) -> None:
    """The same top tokens and accuracies; log probabilities within 1e-3, with processing too."""
    with made(kind) as model:
        assert model.engine == ("shared" if kind == "Transformers" else "plain")
        found = Measured.of(model)
    assert_alike(found.scan, expected.scan)
    assert_alike(found.lens, expected.lens)
    for name, values in found.heads.items():
        torch.testing.assert_close(
            values, expected.heads[name], atol=1e-3, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def assert_alike(ours: xr.Dataset, theirs: xr.Dataset) -> None:
    """Ranks beyond the first, of 262,144 tokens, are as close as their log probabilities."""
    assert set(ours) == set(theirs)
    for name in set(ours) - {"rank", "top_text"}:
        got, wanted = ours[name], theirs[name]
        if name == "top" and "k" in got.dims:
            got, wanted = got[..., 0], wanted[..., 0]
        if got.dtype.kind == "f":
            np.testing.assert_allclose(got, wanted, atol=1e-3, rtol=1e-4, err_msg=name)
        else:
            assert got.equals(wanted), name
