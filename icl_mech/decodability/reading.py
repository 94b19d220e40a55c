"""Prompts -> representations -> what is decoded from them."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.decodability.answers import accepted_tokens, answered
from icl_mech.decodability.measure import Rows, measure, probed, sensitivity
from icl_mech.decodability.plan import Plan
from icl_mech.errors import NotFiniteError
from icl_mech.model import HookedModel, as_array
from icl_mech.prompts import (
    Encoder,
    Episode,
    Prompt,
    generator,
    instruction_only,
    shuffle_labels,
    zero_shot,
)

#: Prompts between two steps of the progress bar.
STEP = 100


class Run:
    """One model on one plan: prompts run, read and measured."""

    def __init__(self, model: HookedModel, plan: Plan, layers: list[int], bar: tqdm) -> None:
        self.model, self.plan, self.layers = model, plan, layers
        words = [pair.y for task in plan.pool.tasks for pair in task.pairs]
        # One encoder for all tasks: only answers may tell their prompts apart.
        s = plan.settings
        self.encoder: Encoder = model.encoder(s.template, words, s.leading_space)
        self.bar = bar

    def few_shot(self, n_shots: int, probe: bool, controls: bool, keep: bool) -> xr.Dataset:
        """Everything that depends on the number of shots."""
        self.bar.set_description(f"{n_shots}-shot")
        episodes = [e for row in self.plan.points.episodes for e in row]
        prompts = [
            self.encoder.encode(e.demonstrations[:n_shots], e.query.x, e.instruction)
            for e in episodes
        ]
        rows, last = self.read(prompts)
        data = measure(rows, self.plan, pairs=True)
        data["sensitivity"] = sensitivity(rows, self.plan)
        data = data.merge(self._accuracy(prompts, episodes, last))
        if probe:
            data["probe_task"] = probed(rows, self.plan)
        if keep:
            dims = ("task", "point", "layer", "dim")
            shape = (*self.plan.queries.shape, *rows.shape[1:])
            data["representation"] = (dims, rows.reshape(shape))
        if controls:
            data = data.merge(self._shuffled(episodes, n_shots))
        return data

    def _accuracy(
        self, prompts: Sequence[Prompt], episodes: Sequence[Episode], last: Tensor
    ) -> xr.Dataset:
        answers = accepted_tokens(self.encoder, prompts, [e.query for e in episodes])
        scores = answered(self.model, prompts, last, answers)
        shape = self.plan.queries.shape
        dims = ("task", "point")
        data = xr.Dataset({name: (dims, v.reshape(shape)) for name, v in vars(scores).items()})
        data["logprob"].attrs["units"] = "nats"
        data["answer_tokens"] = (dims, np.reshape([len(row[0]) for row in answers], shape))
        return data

    def _shuffled(self, episodes: Sequence[Episode], n_shots: int) -> xr.Dataset:
        """The same prompts, labels shuffled in the same way for every task; NaN for one shot."""
        n_prompts, seed = self.plan.settings.n_prompts, self.plan.settings.seed
        if n_shots == 1:  # there is nothing to shuffle
            shape = (len(self.layers), *self.plan.queries.shape)
            nothing = np.full(shape, np.nan, dtype=np.float32)
            return xr.Dataset({"shuffled_credit": (("layer", "task", "point"), nothing)})
        prompts = []
        for i, e in enumerate(episodes):
            rng = generator(seed, "decodability", "shuffled", str(i % n_prompts))
            shown = shuffle_labels(e.demonstrations[:n_shots], rng)
            prompts.append(self.encoder.encode(shown, e.query.x, e.instruction))
        data = measure(self.read(prompts)[0], self.plan, "shuffled_")
        return data[["shuffled_credit"]]

    def input_only(self) -> xr.Dataset:
        """The query alone: how far its words give the task away."""
        self.bar.set_description("queries alone")
        episodes = [e for row in self.plan.points.episodes for e in row]
        prompts = zero_shot(self.encoder, episodes)
        return measure(self.read(prompts)[0], self.plan, "input_")[["input_credit"]]

    def instruction_only(self) -> xr.Dataset:
        """The query after its instruction, without demonstrations: the task stands in its words."""
        self.bar.set_description("instructions alone")
        episodes = [e for row in self.plan.points.episodes for e in row]
        prompts = instruction_only(self.encoder, episodes)
        rows, last = self.read(prompts)
        data = measure(rows, self.plan, "instruction_")[["instruction_credit"]]
        right = self._accuracy(prompts, episodes, last)
        return data.assign(instruction_exact=right["exact"])

    def read(self, prompts: Sequence[Prompt]) -> tuple[Rows, Float[Tensor, "row d_model"]]:
        """Representations at the chosen layers, and the last token's residual after all blocks.

        Prompts that are the same are run once: their representations are equal to the last bit.

        Raises:
            NotFiniteError: where the model returns NaN or infinity.
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
            ends.append(resid[:, -1, -1])
            self.bar.update(len(part))
        self.bar.update(len(prompts) - len(unique))
        number = {tokens: i for i, tokens in enumerate(first)}
        index = [number[prompt.tokens] for prompt in prompts]
        return np.concatenate(kept)[index], torch.cat(ends)[index]
