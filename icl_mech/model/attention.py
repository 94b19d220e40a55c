"""Attention of branches that run side by side: each sees the prefix and itself, no other branch.

Transformers' attention modules look up a function by a name in their configuration. `attend` is
such a function. It computes the scores of the prefix and of the branches separately, so that the
number of scores grows linearly with the number of branches, not quadratically. It does not copy
the prefix's keys and values, nor repeat them for query heads that share them. Whole prompts
without a prefix go through PyTorch's fused attention, unless scores have a soft cap or sinks.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from icl_mech.errors import ModelError
from icl_mech.model.masks import Masks

#: The name under which Transformers' attention modules find `attend`.
NAME = "icl_mech"
#: Arguments that `attend` ignores: the masks hold the windows, and there is no dropout.
_IGNORED = {"dropout", "sliding_window", "is_causal", "position_ids", "use_cache", "layer_idx"}


@dataclass
class Context:
    """What the attention of one block sees besides the tokens that run.

    Attributes:
        earlier: keys and values of the prefix, `[prompt, kv_head, key, d_head]`; None if the
            prefix has no tokens.
        masks: of prefix and branches.
        attended: whether `attend` was called.
    """

    earlier: tuple[Tensor, Tensor] | None
    masks: Masks
    attended: bool = False


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of branches, as Transformers' modules call it.

    Args:
        module: an attention module whose attribute `context` is a `Context`.
        query: `[prompt, head, branch x token, d_head]`.
        key, value: of the same tokens, `[prompt, kv_head, branch x token, d_head]`.
        attention_mask: ignored, because the context has its own masks.
        scaling: of the scores; 1 / sqrt(d_head) by default.
        softcap: of the scores, as in Gemma 2.
        s_aux: a score per head that takes part in the softmax and has no value, as in GPT-OSS.
        others: those in `_IGNORED`.

    Returns:
        The heads' outputs, `[prompt, branch x token, head, d_head]`, and None in place of weights.

    Raises:
        ModelError: where the module passes an argument that is not known here.
    """
    unknown = [
        n for n, v in others.items() if n not in _IGNORED and v is not None and v is not False
    ]
    if unknown:
        raise ModelError(f"its attention takes {unknown[0]!r}")
    context: Context = module.context  # type: ignore[assignment]
    context.attended = True
    (n_prompts, n_heads, n, d_head), n_kv = query.shape, key.shape[1]
    n_tokens = context.masks.n_tokens
    shared, branches = n_heads // n_kv, n // n_tokens
    if context.earlier is None and branches == 1 and softcap is None and s_aux is None:
        causal = context.masks.causal
        out = nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if causal else context.masks.compact.to(query),
            is_causal=causal,
            scale=scaling,
            enable_gqa=shared > 1,
        )
        return out.transpose(1, 2), None
    # Rows are (branch, token, head of the group), so that branches and tokens are views of them.
    rows = query.unflatten(1, (n_kv, shared)).permute(0, 1, 3, 2, 4).flatten(2, 3)
    by_branch = (n_prompts, n_kv, branches, n_tokens * shared)
    own_keys, own_values = (x.unflatten(2, (branches, n_tokens)) for x in (key, value))
    scores = (rows.view(*by_branch, d_head) @ own_keys.transpose(3, 4)).flatten(2, 3)
    if context.earlier is not None:
        scores = torch.cat([rows @ context.earlier[0].transpose(2, 3), scores], dim=3)
    scores.mul_(d_head**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    mask = context.masks.compact[:, :, :n].to(scores.device)  # [prompt, head or 1, token, key]
    groups = (n_kv, shared) if mask.shape[1] > 1 else (1, 1)
    by_token = scores.unflatten(2, (n, shared)).add_(mask.unflatten(1, groups).transpose(2, 3))
    if s_aux is not None:
        sinks = s_aux.view(1, n_kv, 1, shared, 1).expand(*by_token.shape[:-1], 1)
        by_token = torch.cat([by_token, sinks.to(by_token)], dim=4)
    weights = by_token.softmax(dim=4, dtype=torch.float32).to(query.dtype).flatten(2, 3)
    n_earlier = scores.shape[3] - n_tokens
    own = weights[..., n_earlier : n_earlier + n_tokens]
    out = (own.view(*by_branch, n_tokens) @ own_values).flatten(2, 3)
    if context.earlier is not None:
        out = out + weights[..., :n_earlier] @ context.earlier[1]
    return out.unflatten(2, (n, shared)).permute(0, 2, 1, 3, 4).flatten(2, 3), None


AttentionInterface.register(NAME, attend)
