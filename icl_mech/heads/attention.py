"""Attention of heads: the roles that the last token attends to, and prefix matching."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from icl_mech.model import AnyEdit, HookedModel
from icl_mech.prompts import Prompt, generator

#: Roles of a prompt's tokens, all demonstrations together.
ROLES = ("sink", "demo x", "demo arrow", "demo y", "separator", "query", "final arrow")
_KINDS = {"x": "demo x", "arrow": "demo arrow", "y": "demo y"}

REPEATED_LENGTH = 50
N_REPEATED = 8


def kind(role: str) -> str:
    """A token's role among `ROLES`.

    >>> kind("demo_3_y"), kind("final_arrow"), kind("query_start")
    ('demo y', 'final arrow', 'separator')
    """
    if role.startswith("demo_"):
        return _KINDS.get(role.rsplit("_", 1)[1], "separator")
    return {"query_start": "separator", "final_arrow": "final arrow"}.get(role, role)


def attention_by_role(
    model: HookedModel, prompts: Sequence[Prompt], edit: AnyEdit = None
) -> Float[np.ndarray, "prompt layer head role"]:
    """The share of every head's attention from the last token to each of `ROLES`.

    If `edit` is given, attention is measured with it in place.
    """
    rows = []
    for prompt, pattern in zip(prompts, model.heads.attention(prompts, edit), strict=True):
        kinds = [kind(role) for role in prompt.roles]
        belongs = torch.tensor([[k == role for role in ROLES] for k in kinds]).to(pattern)
        rows.append((pattern @ belongs).float().cpu().numpy())
    return np.stack(rows)


def induction_scores(model: HookedModel, seed: int = 0) -> Float[np.ndarray, "layer head"]:
    """Prefix-matching score of every head (Olsson et al. 2022, arXiv 2209.11895).

    The prompts are random tokens followed by a copy of them. The score is the mean attention that
    each token of the copy pays to the token that followed its first occurrence: 1 for a perfect
    induction head, about one over the number of tokens for a head with uniform attention.
    (TransformerLens's `detect_head` takes text, in which random tokens do not stay the same, and
    also counts the first copy's attention.)
    """
    rng = generator(seed, "induction")
    sink = model.sink.token
    cfg = model.bridge.cfg
    n = min(REPEATED_LENGTH, cfg.d_vocab // 2, ((getattr(cfg, "n_ctx", None) or 1024) - 1) // 2)
    prompts = []
    for _ in range(N_REPEATED):
        tokens = rng.choice(cfg.d_vocab, size=n, replace=False).tolist()
        prompts.append(Prompt("", (sink, *tokens, *tokens), ("sink",) + ("random",) * (2 * n)))
    second = torch.arange(n + 1, 2 * n + 1)
    scores = model.heads.attention_between(prompts, second, second - n + 1)
    return scores.mean(dim=0).float().cpu().numpy()
