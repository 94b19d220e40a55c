"""The training loop: cross-entropy of the answers' tokens, on fresh prompts at every update."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from icl_mech.errors import InputError, ModelError, NotFiniteError
from icl_mech.files import check_same
from icl_mech.finetune.files import Last, read_last, write_adapter, write_last
from icl_mech.finetune.plan import Plan
from icl_mech.model import TunedModel, seeded
from icl_mech.prompts import Episode, Prompt, in_context, instructed
from icl_mech.training_runs import ADAM

#: The norm to which gradients are clipped.
CLIP = 1.0
#: The state from which a killed run resumes is written at least every so many updates.
KEEP_EVERY = 25
#: Rows are run together if none is shorter than this share of the longest.
_ALIKE = 0.8
#: Rows of held-out prompts that run at once.
_ROWS = 16

#: Token ids of a prompt and of an answer.
Row = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Asked:
    """Prompts with the token ids of every accepted answer; the first is the one trained on."""

    prompts: Sequence[Prompt]
    answers: Sequence[tuple[tuple[int, ...], ...]]

    @property
    def rows(self) -> list[Row]:
        """Every prompt with its first answer."""
        return [(p.tokens, a[0]) for p, a in zip(self.prompts, self.answers, strict=True)]


def groups(rows: Sequence[Row], most: int | None = None) -> Iterator[list[int]]:
    """Group rows of similar length, so that there is little padding; gives the rows' numbers.

    Groups, and the rows within one, are ordered by length, the longest first.

    >>> list(groups([((1, 2), (3,)), ((1,) * 9, (3,)), ((1,) * 10, (3,))]))
    [[2, 1], [0]]

    Args:
        rows: prompts with their answers.
        most: rows in a group; any number by default.
    """
    lengths = [len(prompt) + len(answer) - 1 for prompt, answer in rows]
    group: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: -lengths[i]):
        if group and (lengths[i] < _ALIKE * lengths[group[0]] or len(group) == most):
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def losses(logits: Tensor, targets: Tensor, owner: Tensor, n: int) -> Float[Tensor, "row"]:
    """Cross-entropy (nats) of every row's answer, the mean over its tokens."""
    each = cross_entropy(logits.float(), targets, reduction="none")
    sums = each.new_zeros(n).index_add(0, owner, each)
    return sums / torch.bincount(owner, minlength=n)


def most_probable(logits: Tensor, targets: Tensor, owner: Tensor, n: int) -> Bool[Tensor, "row"]:
    """Whether every token of a row's answer is the most probable; of equals, the smallest id is."""
    best = logits.max(dim=-1, keepdim=True).values
    ids = torch.arange(logits.shape[-1], device=logits.device)
    top = torch.where(logits == best, ids, logits.shape[-1]).min(dim=-1).values
    wrong = (top != targets).int()
    return wrong.new_zeros(n).index_add(0, owner, wrong) == 0


class Trainer:
    """A training run: adapters, optimiser, losses and learning curve, one update at a time."""

    def __init__(self, plan: Plan, tuned: TunedModel, folder: Path) -> None:
        self.plan, self.settings, self.tuned, self.folder = plan, plan.settings, tuned, folder
        s = self.settings
        words = [pair.y for task in plan.pool.tasks for pair in task.pairs]
        self.encoder = tuned.encoder(s.template, words, s.leading_space)
        self.optimiser = torch.optim.AdamW(
            tuned.weights.values(), lr=s.learning_rate, weight_decay=0.0
        )
        self.step, self.seconds = 0, 0.0
        self.loss: list[float] = []
        self.curve = Curve()
        self.test = [self.ask(row) for row in plan.cut.test]
        self._check_longest()
        self.run = plan.identity() | {
            "model": tuned.name,
            "base_hash": tuned.base_hash,
            "trained_blocks": list(tuned.layers),
            "trained_maps": list(tuned.targets),
        }

    # --- prompts ----------------------------------------------------------------------------

    def ask(self, episodes: Sequence[Episode]) -> Asked:
        """Prompts with the tokens of their answers.

        Raises:
            InputError: where one is longer than the model's context.
        """
        prompts = in_context(self.encoder, episodes)
        answers = [
            tuple(dict.fromkeys(self.encoder.answer_tokens(p, e.query.answers)))
            for p, e in zip(prompts, episodes, strict=True)
        ]
        most = self.tuned.outline.context
        for prompt, row in zip(prompts, answers, strict=True):
            length = len(prompt) + max(map(len, row)) - 1
            if most is not None and length > most:
                raise InputError(
                    f"a prompt with its answer has {length} tokens, and {self.tuned.name} takes "
                    f"{most}; expected fewer shots (n_shots is {self.settings.n_shots}), or "
                    "shorter inputs and answers"
                )
        return Asked(prompts, answers)

    def _check_longest(self) -> None:
        """Refuse tasks whose longest prompt is too long, before training starts.

        Raises:
            InputError: as `ask`.
        """
        n_shots = self.settings.n_shots
        for task, pairs in zip(self.plan.pool.tasks, self.plan.cut.train, strict=True):
            longest = sorted(pairs, key=lambda p: -len(p.x) - len(p.y))
            episode = Episode(tuple(longest[:n_shots]), longest[n_shots], ())
            self.ask(instructed([episode], task, self.settings.instruction))

    # --- training ---------------------------------------------------------------------------

    def update(self) -> None:
        """One batch, one step of AdamW.

        Raises:
            NotFiniteError: where the loss or the gradient is not finite.
        """
        began, s = time.perf_counter(), self.settings
        drawn = self.plan.cut.batch(s.batch_size, s.n_shots, s.seed, self.step)
        tasks = self.plan.pool.tasks
        asked = [instructed([episode], tasks[i], s.instruction)[0] for i, episode in drawn]
        rows = self.ask(asked).rows
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        self.tuned.train(True)
        with seeded(s.dropout_seed(self.step), self.tuned.device):
            for group in groups(rows):
                read = self.tuned.answer_logits(*zip(*(rows[i] for i in group), strict=True))
                loss = losses(*read, len(group)).sum() / len(rows)
                loss.backward()
                total += float(loss.detach())
        weights = list(self.tuned.weights.values())
        norm = float(torch.nn.utils.clip_grad_norm_(weights, CLIP))
        if not (math.isfinite(total) and math.isfinite(norm)):
            self._diverged()
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = s.rate(self.step)
        self.optimiser.step()
        self.loss.append(total)
        self.step += 1
        self.seconds += time.perf_counter() - began

    def _diverged(self) -> None:
        good = max(self.curve.steps, default=0)
        raise NotFiniteError(
            f"training diverged: the loss is not finite at step {self.step} (learning rate "
            f"{self.settings.rate(self.step):.3g}); expected numbers. The last good checkpoint, "
            f"step {good}, is kept in {self.folder}. Try a smaller learning rate or more warm-up, "
            "in another folder"
        )

    # --- held-out prompts -------------------------------------------------------------------

    @torch.no_grad()
    def measure(self) -> tuple[Float[np.ndarray, "task prompt"], Bool[np.ndarray, "task prompt"]]:
        """Loss of the first answer, and whether an accepted answer is right, by held-out prompt.

        An answer is right if greedy decoding would begin with it: every token of it is the most
        probable one after the tokens before it.
        """
        self.tuned.train(False)
        found = [self._measure(asked) for asked in self.test]
        loss, right = (np.stack(parts) for parts in zip(*found, strict=True))
        return loss, right

    def _measure(
        self, asked: Asked
    ) -> tuple[Float[np.ndarray, "prompt"], Bool[np.ndarray, "prompt"]]:
        loss, right = self._read(asked.rows)
        others = [
            (i, answer)
            for i, answers in enumerate(asked.answers)
            for answer in answers[1:]
            if not right[i]
        ]
        if others:
            _, more = self._read([(asked.prompts[i].tokens, answer) for i, answer in others])
            for (i, _), whole in zip(others, more, strict=True):
                right[i] |= whole
        return loss, right

    def _read(self, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
        loss, right = np.empty(len(rows), np.float32), np.empty(len(rows), bool)
        for group in groups(rows, _ROWS):
            read = self.tuned.answer_logits(*zip(*(rows[i] for i in group), strict=True))
            loss[group] = losses(*read, len(group)).cpu().numpy()
            right[group] = most_probable(*read, len(group)).cpu().numpy()
        return loss, right

    # --- files ------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Measure held-out prompts, and write the adapter and the file for resuming.

        Raises:
            NotFiniteError: where a weight or a loss is not finite.
        """
        if not all(w.isfinite().all() for w in self.tuned.weights.values()):
            self._diverged()
        loss, right = self.measure()
        if not np.isfinite(loss).all():
            self._diverged()
        write_adapter(self.folder, self.step, self.tuned)
        self.curve.add(self.step, loss, right)
        self.keep()

    def keep(self) -> None:
        """Write the file from which the run can be resumed."""
        tensors: dict[str, Tensor] = {"loss": torch.tensor(self.loss, dtype=torch.float64)}
        for name, weight in self.tuned.weights.items():
            state = self.optimiser.state.get(weight, {})
            tensors[f"weights/{name}"] = weight
            tensors |= {f"{key}/{name}": state[key] for key in ADAM if key in state}
        write_last(
            self.folder, Last(self.step, self.run, self.seconds, tensors | self.curve.tensors())
        )

    def begin(self) -> None:
        """Load adapters, optimiser and losses of the folder's run, if it has one.

        Raises:
            InputError: where the folder's run has other settings or another model.
            ModelError: where its file is damaged.
        """
        last = read_last(self.folder)
        if last is None:
            return
        check_same(self.folder, last.run, self.run)
        weights = last.part("weights")
        state: dict[str, dict[str, Any]] = {key: last.part(key) for key in ADAM}
        needed = [weights, *(state.values() if last.step else [])]
        if any(
            name not in part or (part is not state["step"] and part[name].shape != weight.shape)
            for name, weight in self.tuned.weights.items()
            for part in needed
        ) or last.tensors["loss"].shape != (last.step,):
            raise ModelError(
                f"{self.folder}: damaged (adapters, losses or the optimiser's state are missing or "
                "have another shape); expected what a run left there. Choose another folder"
            )
        with torch.no_grad():
            for name, weight in self.tuned.weights.items():
                weight.copy_(weights[name])
                if last.step:
                    at = {key: state[key][name].clone() for key in ADAM}
                    for key in ADAM[1:]:
                        at[key] = at[key].to(weight.device)
                    self.optimiser.state[weight] = at
        self.step, self.seconds = last.step, last.seconds
        self.loss = last.tensors["loss"].tolist()
        self.curve = Curve.of(last)


@dataclass
class Curve:
    """The learning curve so far.

    Attributes:
        steps: updates done at each checkpoint.
        loss, right: of each, `[task, prompt]`.
    """

    steps: list[int] = field(default_factory=list)
    loss: list[np.ndarray] = field(default_factory=list)
    right: list[np.ndarray] = field(default_factory=list)

    def add(self, step: int, loss: np.ndarray, right: np.ndarray) -> None:
        """One more checkpoint."""
        self.steps.append(step)
        self.loss.append(loss)
        self.right.append(right)

    def tensors(self) -> dict[str, Tensor]:
        """The curve as tensors of a file."""
        if not self.steps:
            return {}
        return {
            "curve/step": torch.tensor(self.steps),
            "curve/loss": torch.from_numpy(np.stack(self.loss)),
            "curve/right": torch.from_numpy(np.stack(self.right)),
        }

    @classmethod
    def of(cls, last: Last) -> "Curve":
        """The curve in a file; empty if it has none."""
        found = last.part("curve")
        if not found:
            return cls()
        return cls(
            found["step"].tolist(), list(found["loss"].numpy()), list(found["right"].numpy())
        )
