"""TransformerLens's hooks in every family: each edit does what plain Transformers would do."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from family_reference import reference_logprobs, sites
from tiny_models import D_VOCAB, EVERY_FAMILY, bridged, random_model
from torch import Tensor
from transformers import PreTrainedModel

from icl_mech.model import Edit
from icl_mech.model.edits import HOOKS

TOLERANCE = 1e-4
#: TransformerLens makes no bridge of these: what it says.
UNBRIDGED = {
    # It takes a new-style Falcon to have one key and value head where `multi_query` is set (as in
    # Falcon 40B and 11B), and cuts queries, keys and values as if they were not in groups.
    "falcon_new": "split_with_sizes expects split_sizes to sum exactly",
}
#: Hooks at which an edit does something else than the site's name says.
OTHERWISE = {
    # The hook is before the block multiplies by `attention_out_multiplier`.
    ("falcon_h1", "attn_out"),
}
#: Hooks without such a place in the model.
MISPLACED = {
    # `ln2` is the norm after the MLP, so that this hook sees the stream after both.
    ("opt_350m", "resid_mid"),
}
BRIDGED = [family for family in EVERY_FAMILY if family not in UNBRIDGED]
TOKENS = torch.randint(D_VOCAB - 1, (2, 20), generator=torch.Generator().manual_seed(1))
TOKENS[:, 0] = D_VOCAB - 1  # the first is the end of text, which is the padding token too
PROMPT = TOKENS[0, :14].tolist()

Hook = tuple[str, Callable[..., Tensor | None]]


@cache
def plain(family: str) -> PreTrainedModel:
    """The family's model, never in a bridge."""
    return random_model(family)


@cache
def bridge(family: str) -> Any:
    """A bridge round the same model."""
    return bridged(random_model(family), f"tiny-{family}")


@torch.inference_mode()
def run(family: str, tokens: Tensor, hooks: list[Hook]) -> Tensor:
    """Log probabilities at every token of one full forward."""
    logits = bridge(family).run_with_hooks(tokens, fwd_hooks=hooks)
    return logits.float().log_softmax(dim=-1)


def hooks_of(edit: Edit, copy: int) -> list[Hook]:
    """An edit as hooks on one copy of the prompt in a batch.

    Between attention and MLP, no hook reaches the stream. So the MLP is given the edited one, and
    the difference is added where the block ends.
    """
    value, at, head = edit.value * edit.scale, edit.position, edit.head
    seen: dict[str, Tensor] = {}

    def write(activation: Tensor, hook: object) -> Tensor:
        activation = activation.clone()
        target = activation[copy, at] if head is None else activation[copy, at, head]
        change = value - target if edit.mode == "replace" else value
        seen["change"] = change.clone()
        target.add_(change)
        return activation

    def carry(activation: Tensor, hook: object) -> Tensor:
        activation = activation.clone()
        activation[copy, at] += seen["change"]
        return activation

    hooks = [(HOOKS[edit.site].format(edit.layer), write)]
    if edit.site == "resid_mid":
        hooks.append((HOOKS["resid_post"].format(edit.layer), carry))
    return hooks


def edits_of(family: str, layer: int) -> list[Edit]:
    """One edit of each mode at every site of a block, at a token that the last one sees."""
    c = bridge(family).cfg
    at = len(PROMPT) - (1 if layer == c.n_layers - 1 else 3)
    generator = torch.Generator().manual_seed(layer)
    edits: list[Edit] = []
    for site in sites(plain(family), layer):
        head, d = (1, c.d_head) if site == "z" else (None, c.d_model)
        for mode in ("replace", "add"):
            value = torch.randn(d, generator=generator)
            edits.append(Edit(layer, value, site, at, mode, scale=2.0, head=head))
    return edits


def middle(family: str) -> list[int]:
    """Two blocks in the middle: one of each kind where a family mixes two."""
    half = bridge(family).cfg.n_layers // 2
    return [half - 1, half]


@pytest.mark.parametrize("family", UNBRIDGED)
def test_families_without_a_bridge(family: str) -> None:
    with pytest.raises(RuntimeError, match=UNBRIDGED[family]):
        bridge(family)


@pytest.mark.parametrize("family", BRIDGED)
def test_a_bridge_computes_what_the_model_does(family: str) -> None:
    with torch.inference_mode():
        expected = plain(family)(TOKENS).logits.log_softmax(dim=-1)
    torch.testing.assert_close(run(family, TOKENS, []), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", BRIDGED)
def test_a_block_has_the_hooks_of_its_sites(family: str) -> None:
    for layer in range(bridge(family).cfg.n_layers):
        hooks = {
            site for site, name in HOOKS.items() if name.format(layer) in bridge(family).hook_dict
        }
        misplaced = {site for misplaced, site in MISPLACED if misplaced == family}
        assert hooks == set(sites(plain(family), layer)) | misplaced


@pytest.mark.parametrize("family", BRIDGED)
def test_an_edit_does_what_it_does_in_the_model(family: str) -> None:
    clean = reference_logprobs(plain(family), PROMPT)
    edits = [edit for layer in middle(family) for edit in edits_of(family, layer)]
    hooks = [hook for copy, edit in enumerate(edits) for hook in hooks_of(edit, copy)]
    got = run(family, torch.tensor([PROMPT] * len(edits)), hooks)[:, -1]
    for edit, ours in zip(edits, got, strict=True):
        expected = reference_logprobs(plain(family), PROMPT, edit)
        assert (expected - clean).abs().max() > 10 * TOLERANCE, edit
        same = bool((ours - expected).abs().max() < TOLERANCE)
        assert same == ((family, edit.site) not in OTHERWISE), edit


@pytest.mark.parametrize("family", BRIDGED)
def test_the_last_block_is_read_by_the_bridges_own_unembedding(family: str) -> None:
    ours = bridge(family)
    seen: list[Tensor] = []
    last = HOOKS["resid_post"].format(ours.cfg.n_layers - 1)
    expected = run(family, TOKENS, [(last, lambda resid, hook: seen.append(resid.clone()))])
    with torch.inference_mode():
        # OPT 350M has no norm there, but narrows the stream.
        resid = getattr(ours, "ln_final", getattr(ours, "project_out", None))(seen[0])
        logits = resid @ ours.unembed.W_U + ours.unembed.b_U
        got = ours.adapter.apply_output_logits_transform(logits).log_softmax(dim=-1)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", BRIDGED)
def test_what_pads_on_the_right_changes_nothing(family: str) -> None:
    padded, n = TOKENS.clone(), len(PROMPT)
    padded[0, n:] = PROMPT[-1]
    got = run(family, padded, [])
    alone = run(family, torch.tensor([PROMPT]), [])
    torch.testing.assert_close(got[0, :n], alone[0], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(got[1], run(family, TOKENS, [])[1], atol=TOLERANCE, rtol=0)
