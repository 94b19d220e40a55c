"""Gradients of an answer's log probability with respect to the values that edits write.

An edit's value changes nothing before its token and nothing below its block. So the prompts run
once without gradients, and everything that the edits cannot change is kept: the keys and values of
earlier tokens are constants. Each call then runs the edited tokens forward and backward, from the
first edited block on, with the values that the caller passes. Vectors are trained in this way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import InputError, NotFiniteError
from icl_mech.model.branches import Branch, Tails, reads_top, run_branches
from icl_mech.model.edits import PlacedEdit
from icl_mech.model.engine import Engine, Tokens, join_each
from icl_mech.model.gradients import frozen, refuse_quantised
from icl_mech.model.network import Unembedding
from icl_mech.model.plain_engine import PlainEngine, Rows
from icl_mech.model.prefix_cache import Prefill
from icl_mech.model.shared_engine import SharedEngine

#: Bytes of logits that are differentiated at once.
_LOGITS = {"cpu": 64 * 2**20}
_LOGITS_ACCELERATOR = 2**30


@dataclass(frozen=True)
class Found:
    """Log probabilities of answers, and their gradients.

    Attributes:
        logprob: log probability (nats) of each prompt's answer with each edit in place.
        gradients: of `logprob` with respect to each value, in the order of the edits, with one row
            per prompt. If all prompts share a value, its gradient is the sum of the rows.
    """

    logprob: Float[Tensor, "prompt edit"]
    gradients: tuple[Float[Tensor, "prompt _"], ...]


class AnswerGradients:
    """Prepared prompts that can be edited many times (`HookedModel.answer_gradients`).

    Attributes:
        values: the values that the edits write by default, in the order of the edits.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        answers: Sequence[int],
    ) -> None:
        refuse_quantised(
            engine.bridge,
            "edits' gradients need weights that are numbers with fractions",
            "`evaluate` needs no gradients",
        )
        self._engine, self._prompts, self._branches = engine, prompts, list(branches)
        self._answers = engine.tensor(list(answers))
        self.values = [placed.edit.value for branch in branches for placed in branch.edits]
        engine.prepare(max(map(len, prompts)))
        self._starts = self._prefilled(engine) if isinstance(engine, SharedEngine) else []

    def __repr__(self) -> str:
        return (
            f"AnswerGradients({len(self._prompts)} prompts, {len(self._branches)} edits with "
            f"{len(self.values)} values; {self._engine.name} engine)"
        )

    def at(self, values: Sequence[Tensor] | None = None) -> Found:
        """Log probabilities and gradients while the edits write these values.

        Args:
            values: one tensor per edit, `[d]` or `[prompt, d]`, in the order of the edits; by
                default the edits' own values.

        Raises:
            InputError: where the number of values is wrong, or one has a shape that the edit
                cannot write.
            NotFiniteError: where a log probability or a gradient is not a number.
            ModelError: where not even one prompt fits into memory.
        """
        given = self.values if values is None else list(values)
        self._check(given)
        engine = self._engine
        with torch.inference_mode(False), frozen(engine.bridge):
            if isinstance(engine, SharedEngine):
                logprob, *gradients = self._shared(engine, given)
            else:
                assert isinstance(engine, PlainEngine)
                logprob, *gradients = self._plain(engine, given)
        if not all(bool(torch.isfinite(t).all()) for t in (logprob, *gradients)):
            raise NotFiniteError(
                "log probabilities or their gradients are not finite numbers (NaN or infinity); "
                "expected finite ones. Try dtype='float32', or smaller values"
            )
        return Found(logprob, tuple(gradients))

    def _check(self, values: Sequence[Tensor]) -> None:
        if len(values) != len(self.values):
            raise InputError(
                f"{len(values)} values for {len(self.values)} edits; expected one each"
            )
        for value, own in zip(values, self.values, strict=True):
            d = own.shape[-1]
            if tuple(value.shape) not in ((d,), (len(self._prompts), d)):
                raise InputError(
                    f"a value of the shape {list(value.shape)}; expected [{d}], or "
                    f"[{len(self._prompts)}, {d}] for one per prompt"
                )

    # --- the shared engine ------------------------------------------------------------------------

    @torch.no_grad()
    def _prefilled(self, engine: SharedEngine) -> list[tuple[list[int], Prefill]]:
        """Run every prompt once; for each batch, the prompts' indices and their `Prefill`."""
        first = min(min(branch.positions) for branch in self._branches)
        keys_only = not reads_top(self._branches, [len(t) for t in self._prompts])

        def run(rows: list[int]) -> list[tuple[list[int], Prefill]]:
            ours = [self._prompts[r] for r in rows]
            return [(rows, engine.prefill(ours, start=first, keys_only=keys_only))]

        sizes = [len(tokens) for tokens in self._prompts]
        return engine.in_batches(sizes, run, lambda parts, _: [one for of in parts for one in of])

    def _shared(self, engine: SharedEngine, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Log probabilities, then one gradient per value, in batches of prompts and edits."""

        def one(rows: list[int], start: Prefill) -> tuple[Tensor, ...]:
            def run(chosen: list[int]) -> tuple[Tensor, ...]:
                # The order differs from that of `start` if a long prompt has a short tail.
                whole = chosen == list(range(len(rows)))
                ours = start if whole else _rows_of(start, chosen)
                return self._chunks(engine, [rows[i] for i in chosen], ours, values)

            tails = [
                max(len(self._prompts[r]) - branch.positions[r] for branch in self._branches)
                for r in rows
            ]
            return engine.in_batches(tails, run, join_each)

        parts = [one(rows, start) for rows, start in self._starts]
        order = torch.tensor([row for rows, _ in self._starts for row in rows]).argsort()
        return join_each(parts, order.to(engine.device))

    def _chunks(
        self, engine: SharedEngine, rows: list[int], start: Prefill, values: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """As `_shared`, for one batch of prompts; many edits run at once."""
        prompts = engine.tensor(rows)
        logprob: dict[int, Tensor] = {}
        gradients: dict[int, list[Tensor]] = {}
        for chunk in engine._chunks(self._prompts, rows, self._branches):
            with torch.enable_grad():
                written = [self._written(i, values) for i in chunk]
                tails = Tails.of([b for b, _ in written], prompts, start.lengths)
                last = run_branches(engine.blocks, start, [b for b, _ in written], tails)
                leaves = [leaf for _, of in written for leaf in of]
                found, *back = self._back(
                    last.flatten(0, 1), self._answers[prompts].repeat_interleave(len(chunk)), leaves
                )
            for column, i in enumerate(chunk):
                n = len(self._branches[i].edits)
                logprob[i] = found.view(len(rows), -1)[:, column]
                gradients[i], back = [g[rows] for g in back[:n]], back[n:]
        each = range(len(self._branches))
        return torch.stack([logprob[i] for i in each], dim=1), *(
            g for i in each for g in gradients[i]
        )

    # --- the plain engine -------------------------------------------------------------------------

    def _plain(self, engine: PlainEngine, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """As `_shared`, but with whole prompts and one edit at a time."""
        logprob: list[Tensor] = []
        gradients: list[Tensor] = []
        for i in range(len(self._branches)):

            def run(rows: list[int], i: int = i) -> tuple[Tensor, ...]:
                with torch.enable_grad():
                    branch, leaves = self._written(i, values)
                    tokens = [self._prompts[r] for r in rows]
                    last = engine.run(Rows(tokens, rows, [branch] * len(rows))).last
                    found, *back = self._back(last, self._answers[rows], leaves)
                return found, *(g[rows] for g in back)

            found, *back = engine.in_batches([len(t) for t in self._prompts], run, join_each)
            logprob.append(found)
            gradients += back
        return torch.stack(logprob, dim=1), *gradients

    # --- both -------------------------------------------------------------------------------------

    def _written(self, i: int, values: Sequence[Tensor]) -> tuple[Branch, list[Tensor]]:
        """Branch `i` with these values, and each value as a leaf tensor with a row per prompt."""
        before = sum(len(branch.edits) for branch in self._branches[:i])
        made: list[PlacedEdit] = []
        leaves: list[Tensor] = []
        for placed, value in zip(self._branches[i].edits, values[before:], strict=False):
            each = value.detach().expand(len(self._prompts), -1)
            leaves.append(each.to(self._engine.device, copy=True).requires_grad_())
            made.append(replace(placed, edit=replace(placed.edit, value=leaves[-1])))
        return replace(self._branches[i], edits=tuple(made)), leaves

    def _back(
        self,
        last: Float[Tensor, "row d_model"],
        answers: Int[Tensor, "row"],
        leaves: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """Each row's log probability, then the gradient of their sum at each leaf.

        Logits are differentiated a few rows at a time, because one row may take a megabyte.
        """
        unembedding = Unembedding.of(self._engine.bridge)
        at_once = _LOGITS.get(last.device.type, _LOGITS_ACCELERATOR) * self._engine.budget.share
        step = max(1, int(at_once) // (4 * unembedding.w_u.shape[1]))
        logprobs: list[Tensor] = []
        into: list[Tensor] = []
        for rows, wanted in zip(last.detach().split(step), answers.split(step), strict=True):
            resid = rows.clone().requires_grad_()
            logits = unembedding.logits(resid)
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            loss = torch.nn.functional.cross_entropy(wide, wanted.to(wide.device), reduction="none")
            (gradient,) = torch.autograd.grad(-loss.sum(), resid)
            logprobs.append(-loss.detach().to(last.device))
            into.append(gradient)
        found = torch.autograd.grad(last, leaves, torch.cat(into), materialize_grads=True)
        return torch.cat(logprobs), *found


def _rows_of(start: Prefill, rows: list[int]) -> Prefill:
    """The part of a `Prefill` that belongs to these prompts."""
    kept = torch.tensor(rows, device=start.lengths.device)
    stream = [resid[kept] for resid in start.resid_pre]
    return replace(
        start, prefix=start.prefix.rows(kept), resid_pre=stream, lengths=start.lengths[kept]
    )
