"""Forming a vector: the model, the material, and the choice of a layer on dev prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.layers import Mode, Site
from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import accepted, zero_shot
from icl_mech.task_vectors import TaskVector
from icl_mech.vector_methods.material import Cost, Material
from icl_mech.vector_methods.plan import FormingSettings
from icl_mech.vectors import Choice, answer_logprob, choose_layer

if TYPE_CHECKING:
    from icl_mech.vector_methods.methods import Method

#: With fewer layers than this, `rises` is always true.
_FEWEST = 4


def written(vector: TaskVector, layer: int, n_prompts: int, per_set: bool = False) -> list[Edit]:
    """The edits that write a vector at the final arrow of every prompt.

    Args:
        vector: the vector to write.
        layer: as in `TaskVector.edits`.
        n_prompts: number of prompts.
        per_set: give each prompt the vector of one demonstration set, in turn.
    """
    edits = vector.edits(layer, "final_arrow")
    if not per_set or vector.sets is None:
        return edits
    turn = torch.arange(n_prompts) % len(vector.sets)
    rows = {edit.layer: vector.sets[turn, vector.layers.index(edit.layer)] for edit in edits}
    return [
        Edit(e.layer, rows[e.layer], e.site, e.position, e.mode, e.scale, vector=vector)
        for e in edits
    ]


@dataclass
class Forming:
    """All that a method needs to form a vector.

    Attributes:
        model, name, method, material, settings, cost: of the vector.
        like: see `form_vector`.
        say: called with a description of each step.
        notes: warnings for the reader, such as training that diverged.
    """

    model: HookedModel
    name: str
    method: "Method"
    material: Material
    settings: FormingSettings
    cost: Cost
    like: TaskVector | None = None
    say: Callable[[str], Any] = lambda text: None
    notes: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> dict[str, Any]:
        """What was chosen for the vector `like`; empty without one."""
        return {} if self.like is None else dict(self.like.provenance["chosen"])

    def vector(
        self,
        values: Float[Tensor, "layer d_model"],
        mode: Mode = "replace",
        *,
        layers: Sequence[int] | None = None,
        layer: int | None = None,
        site: Site = "resid_post",
        through: bool = False,
        scale: float = 1.0,
        sets: Float[Tensor, "set layer d_model"] | None = None,
        **chosen: Any,
    ) -> TaskVector:
        """A vector of the task; `chosen` records other choices, such as its heads."""
        return TaskVector(
            self.material.task.name,
            values.detach().float().cpu(),
            tuple(range(len(values)) if layers is None else layers),
            layer,
            mode,
            scale,
            None if sets is None else sets.detach().float().cpu(),
            {"chosen": chosen},
            site=site,
            through=through,
        )

    def best(self, candidates: Sequence[TaskVector], coarse: bool = False) -> TaskVector:
        """The candidate, at its best layer, that answers most zero-shot dev prompts right.

        A candidate whose layer is already set is tried at that layer only. Ties go to the
        candidate whose answers have the higher mean log probability.

        Args:
            candidates: vectors of the same task.
            coarse: choose the candidate on every second layer, then its layer among all.
        """
        if self.like is not None:
            (only,) = candidates
            return only if only.layer is not None else only.written(self.like.layer)
        self.say("choosing")
        if coarse and len(candidates) > 1:
            scored = [self._on_dev(c, self._layers(c)[::2]) for c in candidates]
            candidates = [candidates[_first_best(scored)]]
        scored = [self._on_dev(c, self._layers(c)) for c in candidates]
        at = _first_best(scored)
        layers, choice, _ = scored[at]
        found = candidates[at].written(layers[choice.at])
        said = {
            **found.provenance,
            "dev_accuracy": choice.accuracy,
            # Too few layers to compare accuracies across them.
            "rises": choice.rises or len(layers) < _FEWEST,
        }
        return replace(found, provenance=said)

    def _layers(self, vector: TaskVector) -> list[int]:
        return list(vector.layers) if vector.layer is None else [vector.layer]

    def _on_dev(
        self, vector: TaskVector, layers: Sequence[int]
    ) -> tuple[Sequence[int], Choice, float]:
        """The best of the layers, and the mean log probability of the answers there."""
        dev, encoder = self.material.dev, self.material.encoder
        prompts = zero_shot(encoder, dev)
        answers = accepted(encoder, prompts, dev).first_tokens
        edits = [written(vector, n, len(dev), self.method.per_set) for n in layers]
        read = self.model.evaluate(prompts, edits, answers, self.cost.ran)
        logprob = answer_logprob(read)
        queries = np.array([episode.query.x for episode in dev])
        choice = choose_layer(read.right, logprob, queries)
        return layers, choice, float(logprob[:, choice.at].mean())


def _first_best(scored: Sequence[tuple[Sequence[int], Choice, float]]) -> int:
    """The index of the best candidate by accuracy, then by the probability of its answers."""
    return max(range(len(scored)), key=lambda i: (scored[i][1].accuracy, scored[i][2], -i))
