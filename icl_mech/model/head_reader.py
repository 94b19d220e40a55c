"""`HookedModel.heads`: attention patterns, outputs and gradients of attention heads."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model.arguments import check_prompts, token_ids, token_rows
from icl_mech.model.branches import Branch
from icl_mech.model.direct_logit_attribution import DirectEffects, DirectLogitAttribution
from icl_mech.model.edits import Role
from icl_mech.model.engine import Engine
from icl_mech.model.gradients import NO_GRADIENTS, head_gradients, refuse_quantised
from icl_mech.model.placing import AnyEdit, positions_of
from icl_mech.progress import Tick, silent
from icl_mech.prompts import Prompt

_PATTERN = "blocks.{}.attn.hook_pattern"
PerHead = Float[Tensor, "prompt layer head d_head"]


class HeadReader:
    """Reads a model's attention heads."""

    def __init__(
        self, engine: Engine, watched: Callable[[AnyEdit, Sequence[Prompt]], Branch | None]
    ) -> None:
        self._engine, self._watched = engine, watched

    def __repr__(self) -> str:
        c = self._engine.bridge.cfg
        return (
            f"HeadReader({c.n_layers} layers of {c.n_heads} heads: attention, attention_between, "
            "mean_outputs, direct_effects, gradients)"
        )

    def attention(
        self, prompts: Sequence[Prompt], edit: AnyEdit = None
    ) -> list[Float[Tensor, "layer head token"]]:
        """Every head's attention from each prompt's last token to all tokens (`hook_pattern`).

        Args:
            prompts: what to run.
            edit: edits that are in place meanwhile, as in `HookedModel.capture`.
        """
        prompts = check_prompts(prompts)
        longest = max(map(len, prompts), default=0)

        def last_row(pattern: Tensor, rows: list[int]) -> Tensor:
            ends = torch.tensor([len(prompts[r]) - 1 for r in rows], device=pattern.device)
            last = pattern[torch.arange(len(rows)), :, ends]
            return torch.nn.functional.pad(last, (0, longest - last.shape[-1]))

        branch = self._watched(edit, prompts)
        (found,) = self._engine.observe([p.tokens for p in prompts], [(_PATTERN, last_row)], branch)
        return [row[..., : len(p)] for row, p in zip(found, prompts, strict=True)]

    def patterns(
        self, prompts: Sequence[Prompt], heads: Sequence[int]
    ) -> list[Float[Tensor, "layer head query key"]]:
        """Attention between all tokens, of the heads with these indices in every block."""
        prompts = check_prompts(prompts)
        longest = max(map(len, prompts), default=0)

        def whole(pattern: Tensor, rows: list[int]) -> Tensor:
            missing = longest - pattern.shape[-1]
            return torch.nn.functional.pad(pattern[:, list(heads)], (0, missing, 0, missing))

        (found,) = self._engine.observe([p.tokens for p in prompts], [(_PATTERN, whole)])
        return [row[..., : len(p), : len(p)] for row, p in zip(found, prompts, strict=True)]

    def attention_between(
        self, prompts: Sequence[Prompt], queries: Int[Tensor, "pair"], keys: Int[Tensor, "pair"]
    ) -> Float[Tensor, "prompt layer head"]:
        """Attention from query tokens to key tokens, averaged over the pairs."""

        prompts = check_prompts(prompts)

        def mean(pattern: Tensor, rows: list[int]) -> Tensor:
            return pattern[:, :, queries, keys].mean(dim=-1)

        return self._engine.observe([p.tokens for p in prompts], [(_PATTERN, mean)])[0]

    def mean_outputs(
        self, prompts: Sequence[Prompt], role: Role = "final_arrow"
    ) -> tuple[Float[Tensor, "layer head d_model"], Float[Tensor, "layer d_model"]]:
        """The mean over prompts of what every head adds to the residual stream at a role's token.

        It is the role's last token. A head's output goes through its rows of W_O. If a norm stands
        between attention and the residual stream (Gemma), it also goes through that norm, with the
        scale of each prompt's own run.

        Returns:
            The heads, and what attention adds besides them (its output bias). Their sum is the
            mean of `hook_attn_out`.

        Raises:
            ModelError: where heads and bias do not add up to the attention output.
        """
        return self._attribution(prompts, role).mean_heads()

    def direct_effects(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[int],
        rivals: Sequence[Sequence[int]],
    ) -> DirectEffects:
        """Direct logit attribution of every head at the last token of each prompt.

        The metric is the logit of the answer minus the mean logit of its rivals. Once the scales of
        the norms are fixed at those of this run (the cached scale), it is a sum of dot products
        with what heads, MLPs and biases add to the residual stream.

        Raises:
            InputError: where the numbers of answers, sets of rivals and prompts differ.
            ModelError: where the parts do not add up to the logit difference.
        """
        ids, others = self._ids(answers), self._rivals(rivals)
        return self._attribution(prompts, -1).direct(torch.tensor(ids), others)

    def gradients(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[int],
        rivals: Sequence[Sequence[int]] | None = None,
        tick: Tick = silent,
    ) -> tuple[PerHead, PerHead]:
        """Every head's output (`hook_z`) at the last token, and a gradient with respect to it.

        The gradient is that of p(answer) or, with rivals, of the answer's logit minus the rivals'
        mean logit. It takes one forward pass per prompt, and one backward pass.

        Raises:
            InputError: where the weights are quantised, the model is in training mode, or the
                numbers of answers, sets of rivals and prompts differ.
            ModelError: where not even one prompt fits into memory.
            NotFiniteError: where an output or a gradient is not finite.
        """
        tokens = [p.tokens for p in check_prompts(prompts)]
        others = None if rivals is None else self._rivals(rivals)
        return head_gradients(self._engine, tokens, self._ids(answers), others, tick)

    def refuse_no_gradients(self) -> None:
        """Raise `InputError` now if `gradients` would raise it for any prompt."""
        refuse_quantised(self._engine.bridge, *NO_GRADIENTS)

    def _ids(self, ids: Sequence[int], name: str = "answers") -> list[int]:
        """Token ids as plain numbers; ids outside the vocabulary are refused."""
        found, n = token_ids(ids, name), int(self._engine.bridge.unembed.W_U.shape[1])
        wrong = [token for token in found if not 0 <= token < n]
        if wrong:
            raise InputError(
                f"{name} holds token {wrong[0]}; expected 0 to {n - 1}, the vocabulary"
            )
        return found

    def _rivals(self, rivals: Sequence[Sequence[int]]) -> list[list[int]]:
        rows = [self._ids(row, "rivals") for row in token_rows(rivals, "rivals")]
        if not all(rows):
            raise InputError(
                "a set of rivals is empty; expected one of each per prompt, and a rival in each"
            )
        return rows

    def _attribution(self, prompts: Sequence[Prompt], role: Role) -> DirectLogitAttribution:
        prompts = check_prompts(prompts)
        positions = [at for (at,) in positions_of(prompts, [role])]
        return DirectLogitAttribution(self._engine, [p.tokens for p in prompts], positions)
