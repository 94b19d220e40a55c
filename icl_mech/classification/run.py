"""Scores tasks with a few labels: among all tokens, and among the labels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from icl_mech.classification.plan import (
    LabelPlan,
    LabelSettings,
    LabelTask,
    plan_labels,
)
from icl_mech.classification.result import LabelScores
from icl_mech.classification.words import RANDOM, REFERENCES
from icl_mech.model import AnyEdit, HookedModel, as_array, check_model
from icl_mech.progress import ProgressBar, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Prompt,
    generator,
    in_context,
    zero_shot,
)
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks
from icl_mech.vector_methods.forming import written
from icl_mech.vector_methods.material import Material
from icl_mech.vector_methods.methods import METHODS, form_step, refuse_methods
from icl_mech.vector_methods.plan import USUAL
from icl_mech.vectors import random_like


def label_scores(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 40,
    n_shots: int = 5,
    seed: int = 0,
    *,
    methods: str | Sequence[str] = USUAL,
    n_dev: int | None = None,
    n_sets: int = 10,
    n_dummies: int = N_DUMMIES,
    n_steps: int = 40,
    batch_size: int = 12,
    learning_rate: float = 0.05,
    train_layers: Sequence[int] | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> LabelScores:
    """Score a classification task class by class, among all tokens and among the labels.

    Works on any task with 2 to 12 different answers, such as a CSV file of texts and labels.
    Queries, demonstrations and the pairs that vectors are formed from are *balanced*: the numbers
    of two classes differ by at most one. There are two scores: *open* (the most probable of all
    tokens is the first of the right label), and *restricted* to the label set (the right label, as
    a whole, is the most probable of the labels). With n labels, a guess is right with probability
    1 / n by the restricted score, and almost never by the open one. The prompts are few-shot,
    zero-shot, and zero-shot with a vector (`vector_methods`) or with a random vector of the norm of
    the first method's.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt; with a multiple of the number of labels, each label is
            shown equally often.
        seed: of every random draw.
        methods: ways to get a vector, as in `compare_vectors`; may be empty.
        n_dev, n_sets, n_dummies, n_steps, batch_size, learning_rate, train_layers: as in
            `compare_vectors`.
        template, leading_space, instruction: as in `layer_scan`.
        progress: show a progress bar.

    Raises:
        InputError: if a task has only one label, too many labels, or too few pairs of a label, or a
            method or a count cannot work.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.label_scores(
        ...     model, "sentences/sentiment", 4, 2, methods=[], progress=False)
        >>> found.labels("sentences/sentiment")
        ['negative', 'positive']
    """
    check_model(model)
    settings = LabelSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        methods=tuple([methods] if isinstance(methods, str) else methods),
        n_dev=n_dev,
        n_sets=n_sets,
        n_dummies=n_dummies,
        n_steps=n_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        train_layers=None if train_layers is None else tuple(train_layers),
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_labels(model, plan_labels(tasks, settings), progress)


def measure_labels(model: HookedModel, plan: LabelPlan, progress: bool = True) -> LabelScores:
    """Run a plan of `plan_labels`: what `label_scores` does after the prompts are drawn.

    Raises:
        InputError: as `label_scores`.
        ModelError: as `label_scores`.
    """
    s = plan.settings
    refuse_methods(model, [of.task for of in plan.tasks], s.methods)
    most = max(len(of.labels) for of in plan.tasks)
    with progress_bar(len(plan.tasks) * (1 + len(s.methods)), "steps", progress) as bar:
        runs = [_Measurement(model, of, s, bar) for of in plan.tasks]
        parts = [run.measured(most) for run in runs]
    provenance = {
        "method": "label_scores",
        **model.provenance(),
        **s.recorded(),
        "papers": {name: METHODS[name].paper for name in s.methods},
        "tasks": {run.of.task.name: run.about for run in runs},
        "balance": "queries, demonstrations and training pairs take the classes in turn",
        "filters": "none: every prompt counts",
    }
    return LabelScores(over_tasks(parts, [of.task.name for of in plan.tasks]), provenance)


class _Measurement:
    """One task on one model."""

    def __init__(
        self, model: HookedModel, of: LabelTask, s: LabelSettings, bar: ProgressBar
    ) -> None:
        self.model, self.of, self.s, self.bar = model, of, s, bar
        self.encoder = model.encoder(s.template, list(of.labels), s.leading_space)
        self.about: dict[str, Any] = {
            "labels": list(of.labels),
            "n_pairs": len(of.pairs),
            "leading_space": self.encoder.template.leading_space,
            "notes": {},
        }
        prompt = self.encoder.encode((), of.test[0].query.x)
        begun = [self.encoder.first_tokens(prompt, [label])[0] for label in of.labels]
        if len(set(begun)) < len(begun):
            self.about["notes"]["open"] = (
                "two labels begin with the same token; this score counts the first of them"
            )

    def measured(self, most: int) -> xr.Dataset:
        """All conditions; the axis of labels is padded to `most` labels."""
        zero = zero_shot(self.encoder, self.of.test)
        few = in_context(self.encoder, self.of.test)
        edits, layers = self._edits()
        self.bar.set_description(f"{self.of.task.name}: scoring")
        parts = [self._scored(few, [None]), self._scored(zero, [None, *edits.values()])]
        self.bar.update()
        logprob, top = (np.concatenate(of) for of in zip(*parts, strict=True))
        missing = most - len(self.of.labels)
        padded = np.pad(logprob, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)
        return xr.Dataset(
            {
                "logprob": (("condition", "prompt", "label"), padded, {"units": "nats"}),
                "open": (("condition", "prompt"), top),
                "truth": ("prompt", [self.of.labels.index(e.query.y) for e in self.of.test]),
                "layer": ("condition", [np.nan, np.nan, *layers]),
                "query": ("prompt", [e.query.x for e in self.of.test]),
                "n_queries": ((), self.of.n_queries),
            },
            coords={"condition": [*REFERENCES, *edits], "label": np.arange(most)},
        )

    def _scored(
        self, prompts: Sequence[Prompt], edits: Sequence[AnyEdit]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log probability of every whole label, and the label whose first token is on top.

        `[edit, prompt, label]` and `[edit, prompt]`; -1 if the top token begins no label.
        """
        ids = [self.encoder.answer_tokens(prompt, self.of.labels) for prompt in prompts]
        found = self.model.sequence_logprob(prompts, ids, edits)
        firsts = [list(dict.fromkeys(tokens[0] for tokens in row)) for row in ids]
        top = self.model.evaluate(prompts, edits, firsts).top.tolist()
        said = [
            [_begun(token, row) for token in tokens] for tokens, row in zip(top, ids, strict=True)
        ]
        return as_array(found).transpose(1, 0, 2), np.array(said).T

    def _edits(self) -> tuple[dict[str, AnyEdit], list[float]]:
        """Every method's vector as edits of the test prompts, and a random one; their layers."""
        of, s, n = self.of, self.s, len(self.of.test)
        material = Material.of(of.task, self.encoder, of.pairs, of.dev, s)
        edits: dict[str, AnyEdit] = {}
        layers = []
        for name in s.methods:
            vector = form_step(self.model, name, material, s, self.bar, self.about["notes"])
            assert vector.layer is not None
            edits[name] = written(vector, vector.layer, n, METHODS[name].per_set)
            layers.append(float(vector.layer))
            if len(edits) == 1:
                rng = generator(s.seed, of.task.name, "random vector")
                random = replace(vector, values=random_like(vector.values, rng), sets=None)
                control = written(random, vector.layer, n)
        if edits:
            edits[RANDOM] = control
            layers.append(layers[0])
        return edits, layers


def _begun(token: int, labels: Sequence[Sequence[int]]) -> int:
    """The number of the first label that begins with a token; -1 if none does."""
    return next((i for i, tokens in enumerate(labels) if tokens[0] == token), -1)
