"""Run prompts on a model, read their representations, and decode the task from these."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.decodability.answers import accepted_tokens, answered
from icl_mech.decodability.measure import Rows, knn_credit, measure, probed, sensitivity
from icl_mech.decodability.plan import Plan
from icl_mech.errors import NotFiniteError
from icl_mech.model import HookedModel, as_array
from icl_mech.prompts import (
    Encoder,
    Prompt,
    generator,
    instruction_only,
    shuffle_labels,
    zero_shot,
)

#: Prompts between two steps of the progress bar.
STEP = 100


class Run:
    """One plan on one model."""

    def __init__(self, model: HookedModel, plan: Plan, layers: list[int], bar: tqdm) -> None:
        self.model, self.plan, self.layers = model, plan, layers
        self.bar = bar
        self.episodes = [episode for row in plan.points.episodes for episode in row]
        # All tasks have the same encoder, so that prompts of two tasks differ in answers only.
        words = [pair.y for task in plan.pool.tasks for pair in task.pairs]
        s = plan.settings
        self.encoder: Encoder = model.encoder(s.template, words, s.leading_space)

    def few_shot(self, n_shots: int, probe: bool, controls: bool, keep: bool) -> xr.Dataset:
        """Measure everything that depends on the number of shots."""
        self.bar.set_description(f"{n_shots}-shot")
        prompts = [
            self.encoder.encode(e.demonstrations[:n_shots], e.query.x, e.instruction)
            for e in self.episodes
        ]
        rows, last = self.read(prompts)
        data = measure(rows, self.plan, pairs=True)
        data["sensitivity"] = sensitivity(rows, self.plan)
        data = data.merge(self._accuracy(prompts, last))
        if probe:
            data["probe_task"] = probed(rows, self.plan)
        if keep:
            dims = ("task", "point", "layer", "dim")
            shape = (*self.plan.queries.shape, *rows.shape[1:])
            data["representation"] = (dims, rows.reshape(shape))
        if controls:
            data["shuffled_credit"] = self._shuffled(n_shots)
        return data

    def _accuracy(self, prompts: Sequence[Prompt], last: Tensor) -> xr.Dataset:
        answers = accepted_tokens(self.encoder, prompts, [e.query for e in self.episodes])
        scores = answered(self.model, prompts, last, answers)
        shape = self.plan.queries.shape
        dims = ("task", "point")
        data = xr.Dataset({name: (dims, v.reshape(shape)) for name, v in vars(scores).items()})
        data["logprob"].attrs["units"] = "nats"
        data["answer_tokens"] = (dims, np.reshape([len(row[0]) for row in answers], shape))
        return data

    def _shuffled(self, n_shots: int) -> xr.DataArray:
        """Credit of the same prompts with shuffled labels, in the same order for every task.

        NaN for one shot, which has no labels to shuffle.
        """
        n_prompts, seed = self.plan.settings.n_prompts, self.plan.settings.seed
        if n_shots == 1:
            return self._by_task(np.full((len(self.episodes), len(self.layers)), np.nan))
        prompts = []
        for i, e in enumerate(self.episodes):
            rng = generator(seed, "decodability", "shuffled", str(i % n_prompts))
            shown = shuffle_labels(e.demonstrations[:n_shots], rng)
            prompts.append(self.encoder.encode(shown, e.query.x, e.instruction))
        return self._credit(prompts)

    def input_only(self) -> xr.DataArray:
        """Credit of the query alone: how well its words tell the task."""
        self.bar.set_description("queries alone")
        return self._credit(zero_shot(self.encoder, self.episodes))

    def _credit(self, prompts: Sequence[Prompt]) -> xr.DataArray:
        return self._credit_of(self.read(prompts)[0])

    def _credit_of(self, rows: Rows) -> xr.DataArray:
        p, s = self.plan, self.plan.settings
        return self._by_task(knn_credit(rows, p.labels, p.groups, s.k, s.metric, s.normalise))

    def _by_task(self, values: Float[np.ndarray, "row layer"]) -> xr.DataArray:
        shape = (*self.plan.queries.shape, -1)
        return xr.DataArray(
            values.astype(np.float32).reshape(shape), dims=("task", "point", "layer")
        )

    def instruction_only(self) -> xr.Dataset:
        """Credit and accuracy of the query after its instruction, without demonstrations."""
        self.bar.set_description("instructions alone")
        prompts = instruction_only(self.encoder, self.episodes)
        rows, last = self.read(prompts)
        return xr.Dataset(
            {
                "instruction_credit": self._credit_of(rows),
                "instruction_exact": self._accuracy(prompts, last)["exact"],
            }
        )

    def read(self, prompts: Sequence[Prompt]) -> tuple[Rows, Float[Tensor, "row d_model"]]:
        """Representations at the chosen layers, and the last token's residual after all blocks.

        Equal prompts run once, so that their representations are equal to the last bit.

        Raises:
            NotFiniteError: if the model returns NaN or infinity.
        """
        first: dict[tuple[int, ...], Prompt] = {}
        for prompt in prompts:
            first.setdefault(prompt.tokens, prompt)
        unique = list(first.values())
        roles = list(dict.fromkeys([self.plan.settings.role, "final_arrow"]))
        kept: list[np.ndarray] = []
        ends: list[Tensor] = []
        for start in range(0, len(unique), STEP):
            part = unique[start : start + STEP]
            resid = self.model.capture(part, roles)
            if not resid.isfinite().all():
                raise NotFiniteError(
                    f"{self.model.name}: activations that are not finite (dtype "
                    f"{self.model.dtype}); expected numbers. Try dtype='float32'"
                )
            kept.append(as_array(resid[:, 0, self.layers]))
            ends.append(resid[:, -1, -1].clone())  # a view would keep all of it
            self.bar.update(len(part))
        self.bar.update(len(prompts) - len(unique))
        number = {tokens: i for i, tokens in enumerate(first)}
        index = [number[prompt.tokens] for prompt in prompts]
        return np.concatenate(kept)[index], torch.cat(ends)[index]
