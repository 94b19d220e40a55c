"""Vectors of every method on the same prompts: accuracy, distance to few-shot, cost, controls."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from icl_mech.answers.text_scores import judge_text
from icl_mech.errors import InputError
from icl_mech.model import Edit, Generation, HookedModel, as_array, check_model
from icl_mech.progress import ProgressBar, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Answers,
    Encoder,
    Episode,
    Prompt,
    accepted,
    generator,
    in_context,
    zero_shot,
)
from icl_mech.results import over_tasks
from icl_mech.task_vectors import TaskVector
from icl_mech.tasks import Task, Tasks
from icl_mech.vector_methods.forming import written
from icl_mech.vector_methods.material import Material
from icl_mech.vector_methods.methods import METHODS, form_step, why_not
from icl_mech.vector_methods.plan import (
    NAMES,
    ComparePlan,
    CompareSettings,
    CompareTask,
    plan_compare,
    training_pairs,
)
from icl_mech.vector_methods.result import CONTROLS, REFERENCES, SETTINGS, VectorComparison
from icl_mech.vectors import random_like

#: Tokens that a generation may take beyond the longest accepted answer.
SPARE_TOKENS = 2


def compare_vectors(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 30,
    n_shots: int = 5,
    seed: int = 0,
    *,
    methods: str | Sequence[str] | None = None,
    n_dev: int | None = None,
    n_sets: int = 10,
    n_dummies: int = N_DUMMIES,
    n_steps: int = 40,
    batch_size: int = 12,
    learning_rate: float = 0.05,
    train_layers: Sequence[int] | None = None,
    other_task: Task | str | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> VectorComparison:
    """Form task vectors by every published method, and compare them on the same prompts.

    Each method forms its vector from the same training pairs, none of which is asked. Its layer,
    factor and heads are chosen on dev prompts. Then every vector is written into the same zero-shot
    prompts, and into few-shot prompts with shuffled labels. Their test queries were seen neither in
    training nor in dev prompts. The scores are first tokens and whole answers, and the distance of
    the next-token distribution from that of the few-shot prompt (d_NTP, arXiv 2605.20730):
    KL(few-shot || with vector) in nats, and total variation; both are also given for the zero-shot
    prompt without a vector. Each vector has three controls: a random vector of the same norm, the
    vector of another task by the same method, and a vector formed from pairs with shuffled answers.

    Methods (`vector_methods.METHODS` says where each comes from): `theta`, `theta_mean` (the mean
    of several demonstration sets), `layer_mean`, `instruction`, `function_vector`, `state_vector`,
    `state_vector_momentum`, `icv`, `learned`, `ltv`, `i2cl`.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt and per demonstration set.
        seed: of every random draw.
        methods: one or several; by default all that the model and the task allow.
        n_dev, n_sets, n_dummies, n_steps, batch_size, learning_rate, train_layers: see
            `CompareSettings`.
        other_task: the task whose vectors are a control; by default one of another kind.
        template, leading_space, instruction: as in `layer_scan`.
        progress: show a progress bar.

    Raises:
        InputError: if a task, a method, a layer or a count cannot work, or there are too few
            training pairs.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.compare_vectors(
        ...     model, "to_upper", 2, 2, methods=["theta", "layer_mean"], n_sets=2, progress=False)
        >>> found.methods
        ['theta', 'layer_mean']
    """
    check_model(model)
    settings = CompareSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        methods=None
        if methods is None
        else tuple([methods] if isinstance(methods, str) else methods),
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
    return measure_compare(model, plan_compare(tasks, settings, other_task), progress)


def measure_compare(
    model: HookedModel,
    plan: ComparePlan,
    progress: bool = True,
    *,
    kept: dict[Hashable, Any] | None = None,
) -> VectorComparison:
    """Run a plan of `plan_compare`: what `compare_vectors` does after it has drawn the prompts.

    Args:
        model, plan, progress: as in `compare_vectors`.
        kept: vectors of control tasks that earlier comparisons of this model formed; new ones are
            added.

    Raises:
        InputError: as `compare_vectors`.
        ModelError: as `compare_vectors`.
    """
    s = plan.settings
    # Refuse methods that cannot work before any long run.
    allowed = {of.task.name: _allowed(model, of.task, s) for of in plan.tasks}
    formed, controls = {} if kept is None else kept, {of.other.name for of in plan.tasks}
    parts: list[VectorComparison] = []
    n_vectors = len(plan.tasks) * 3 * len(s.methods or NAMES)
    with progress_bar(n_vectors, "vectors", progress) as bar:
        for of in plan.tasks:
            allow = allowed[of.task.name]
            parts.append(_Comparison(model, of, s, allow, formed, controls, bar).measured())
    return join_comparisons(parts)


def join_comparisons(parts: Sequence[VectorComparison]) -> VectorComparison:
    """Join comparisons of single tasks, such as the cells of a sweep, into one.

    Args:
        parts: comparisons with the same model and settings, each of different tasks.

    Raises:
        InputError: if there are none, or two hold the same task.

    Example:
        >>> join_comparisons([])
        Traceback (most recent call last):
            ...
        icl_mech.errors.InputError: comparisons of no task; expected each task once
    """
    names = [task for part in parts for task in part.tasks]
    if not names or len(set(names)) < len(names):
        raise InputError(f"comparisons of {', '.join(names) or 'no task'}; expected each task once")
    blank = {"text": ""}  # for a method that another task allows and this one does not
    data = xr.concat([part.data for part in parts], dim="task", join="outer", fill_value=blank)
    # An outer join sorts names that differ.
    for axis in ("method", "other_method", "effect", "other_effect"):
        there = set(data[axis].values.tolist())
        data = data.reindex({axis: [n for n in (*NAMES, "few_shot") if n in there]})
    provenance = {
        **parts[-1].provenance,
        "tasks": {name: of for part in parts for name, of in part.provenance["tasks"].items()},
    }
    return VectorComparison(data, provenance)


def _allowed(model: HookedModel, task: Task, s: CompareSettings) -> dict[str, str]:
    """Every method of the comparison, with the reason why it is left out (empty if it is not).

    Raises:
        InputError: if a method that was named cannot work.
    """
    found = {name: why_not(model, name, task) for name in s.methods or NAMES}
    for name, why in found.items():
        if why and s.methods is not None:
            raise InputError(f"method {name!r}: {why}; expected other methods")
    return found


@dataclass
class _Comparison:
    """One task of a comparison.

    Attributes:
        model, of, s: the model, the task and the settings.
        allowed: every method with the reason why it is left out; empty if it is not.
        formed: controls that were already formed, by settings, task and method.
        controls: the names of the tasks whose vectors are controls.
        bar: counts vectors.
    """

    model: HookedModel
    of: CompareTask
    s: CompareSettings
    allowed: Mapping[str, str]
    formed: dict[Hashable, TaskVector]
    controls: Collection[str]
    bar: ProgressBar
    vectors: dict[str, TaskVector] = field(default_factory=dict)

    def measured(self) -> VectorComparison:
        """Form all vectors, then ask the test prompts."""
        names = [name for name, why in self.allowed.items() if not why]
        self.vectors = {name: self._own(name, self.material) for name in names}
        for vector in self.vectors.values():
            refuse_seen(vector, self.of.test)
        arrays = [self._prompts(), self._curves(), self._controls(), self._facts()]
        data = over_tasks([xr.merge(arrays)], [self.of.task.name])
        return VectorComparison(data, self._provenance())

    # --- forming ---------------------------------------------------------------------------------

    def _material(self, task: Task, dev: Sequence[Episode], pairs: Sequence[Any]) -> Material:
        s = self.s
        encoder = self._encoder(task)
        return Material.of(task, encoder, pairs, dev, s)

    def _encoder(self, task: Task) -> Encoder:
        words = [pair.y for pair in task.pairs]
        return self.model.encoder(self.s.template, words, self.s.leading_space)

    @property
    def material(self) -> Material:
        """What the task's own vectors are formed from."""
        return self._material(self.of.task, self.of.dev, self.of.pairs)

    def _own(self, name: str, material: Material) -> TaskVector:
        """A task's vector at its own best place; a control is formed once, then looked up."""
        key = replace(self.s, methods=None), material.task.name, name
        if key in self.formed:
            self.bar.update()
            return self.formed[key]
        found = self._form(name, material)
        if material.task.name in self.controls:
            self.formed[key] = found
        return found

    def _form(self, name: str, material: Material, like: TaskVector | None = None) -> TaskVector:
        return form_step(self.model, name, material, self.s, self.bar, {}, like)

    def _other(self, name: str) -> TaskVector | None:
        """The other task's vector by the same method; None if that task does not allow it."""
        task = self.of.other
        if why_not(self.model, name, task):
            return None
        split = self.s.split(task)
        pairs = training_pairs(task, (*split.dev, *split.test), self.s.needed)
        return self._own(name, self._material(task, split.dev, pairs))

    # --- asking ----------------------------------------------------------------------------------

    @property
    def encoder(self) -> Encoder:
        """The encoder of the task's prompts."""
        return self.material.encoder

    def _asked(self) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
        """Zero-shot prompts, few-shot prompts with shuffled labels, and few-shot prompts."""
        encoder = self.encoder
        return (
            zero_shot(encoder, self.of.test),
            in_context(encoder, self.of.shuffled),
            in_context(encoder, self.of.test),
        )

    def _written(self, name: str, vector: TaskVector | None = None) -> list[Edit]:
        """A method's vector (or another in its place), as edits of the test prompts."""
        vector = vector or self.vectors[name]
        assert vector.layer is not None
        return written(vector, vector.layer, len(self.of.test), METHODS[name].per_set)

    def _prompts(self) -> xr.Dataset:
        """Scores and distances of test prompts: without a vector, few-shot, with each vector."""
        self.bar.set_description(f"{self.of.task.name}: asking")
        names, asked = list(self.vectors), self._asked()
        answers = accepted(self.encoder, asked[0], self.of.test)
        edits: list[list[Edit] | None] = [None, *(self._written(name) for name in names)]
        given: list[tuple[list[Prompt], list[list[Edit] | None]]] = [
            (asked[0], edits),
            (asked[1], edits),
            (asked[2], [None]),
        ]
        streams = [self.model.last_streams(prompts, which) for prompts, which in given]
        found = [self._answered(of, answers) for of in streams]
        texts = [self._texts(prompts, which, answers) for prompts, which in given]
        few = streams[2][:, 0]
        others = torch.cat([streams[0], streams[1][:, :1]], dim=1)
        apart = [as_array(of) for of in self.model.vocabulary.distances(few, others)]
        zero = streams[0][:, :1].float()
        moved = torch.cat([streams[0][:, 1:], few[:, None]], dim=1).float() - zero
        per = ("method", "setting", "prompt")

        def of_methods(parts: Sequence[np.ndarray]) -> np.ndarray:
            return np.stack([part[:, 1:].T for part in parts[:2]], axis=1)

        def of_references(parts: Sequence[np.ndarray]) -> np.ndarray:
            return np.stack([part[:, 0] for part in parts])

        said: dict[str, Any] = {}
        for score, parts in {
            "first_token": [of[0] for of in found],
            "logprob": [of[1] for of in found],
            "accepted": [of[0] for of in texts],
            "text": [of[1] for of in texts],
        }.items():
            units = {"units": "nats"} if score == "logprob" else {}
            said[score] = (per, of_methods(parts), units)
            said[f"reference_{score}"] = (("reference", "prompt"), of_references(parts), units)
        for measure, values in zip(("kl", "total_variation"), apart, strict=True):
            units = {"units": "nats"} if measure == "kl" else {}
            said[measure] = (("method", "prompt"), values[:, 1:-1].T, units)
            nothing = np.zeros_like(values[:, 0])
            reference = np.stack([values[:, 0], values[:, -1], nothing])
            said[f"reference_{measure}"] = (("reference", "prompt"), reference, units)
        ends = [*names, "few_shot"]
        return xr.Dataset(
            {
                **said,
                "effect_cosine": (("effect", "other_effect"), _cosines(moved)),
                "query": ("prompt", [e.query.x for e in self.of.test]),
                "answer": ("prompt", [e.query.y for e in self.of.test]),
                "n_tokens": ("prompt", list(answers.n_tokens)),
                "n_queries": ((), self.of.n_queries),
            },
            coords={
                "method": names,
                "setting": list(SETTINGS),
                "reference": list(REFERENCES),
                "effect": ends,
                "other_effect": ends,
            },
        )

    def _answered(
        self, streams: Float[Tensor, "prompt edit d_model"], answers: Answers
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether first tokens are right, and the best answer's logprob: `[prompt, edit]` both."""
        n_prompts, n_edits, _ = streams.shape
        targets = [list(row) for row in answers.first_tokens for _ in range(n_edits)]
        read = self.model.read(streams.flatten(0, 1), targets)
        logprob = np.nanmax(as_array(read.logprob), axis=-1)
        return (
            read.right.reshape(n_prompts, n_edits).astype(np.float32),
            logprob.reshape(n_prompts, n_edits),
        )

    def _texts(
        self, prompts: Sequence[Prompt], edits: Sequence[Any], answers: Answers
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether generated texts are accepted answers, and the texts: `[prompt, edit]` both."""
        ids = [
            tokens
            for prompt, of in zip(prompts, answers.texts, strict=True)
            for tokens in self.encoder.answer_tokens(prompt, of)
        ]
        n_new = max(map(len, ids)) + SPARE_TOKENS
        said = self.model.generate(prompts, edits, n_new, self.encoder.template.stop)

        def judged(g: Generation, of: Sequence[str]) -> bool:
            return judge_text(g.text, of)["accepted"]

        right = [[judged(g, of) for g in row] for row, of in zip(said, answers.texts, strict=True)]
        # netCDF would end a string at a zero byte.
        texts = [[g.text.replace("\0", "\ufffd") for g in row] for row in said]
        return np.array(right, dtype=np.float32), np.array(texts, dtype=object)

    def _curves(self) -> xr.Dataset:
        """First tokens of zero-shot prompts, with each vector at each of its candidate layers."""
        prompts, n_layers = self._asked()[0], self.model.n_layers
        answers = accepted(self.encoder, prompts, self.of.test).first_tokens
        cells = [
            (row, layer, name)
            for row, name in enumerate(self.vectors)
            for layer in self._layers(name)
        ]
        edits = [
            written(self.vectors[name], layer, len(prompts), METHODS[name].per_set)
            for _, layer, name in cells
        ]
        right = np.full((len(self.vectors), n_layers, len(prompts)), np.nan, dtype=np.float32)
        if edits:
            found = self.model.evaluate(prompts, edits, answers).right
            for (row, layer, _), column in zip(cells, found.T, strict=True):
                right[row, layer] = column
        dims = ("method", "layer", "prompt")
        return xr.Dataset(
            {"by_layer": (dims, right)},
            coords={"method": list(self.vectors), "layer": np.arange(n_layers)},
        )

    def _layers(self, name: str) -> Sequence[int]:
        """The layers among which a vector's layer was chosen."""
        vector = self.vectors[name]
        assert vector.layer is not None
        fixed = vector.through and vector.site == "resid_post"
        return [vector.layer] if fixed else vector.layers

    def _controls(self) -> xr.Dataset:
        """First tokens of zero-shot prompts with the controls of every vector in its place."""
        prompts = self._asked()[0]
        answers = accepted(self.encoder, prompts, self.of.test).first_tokens
        rng = generator(self.s.seed, self.of.task.name, "random vectors")
        shape = (len(CONTROLS), len(self.vectors), len(prompts))
        right = np.full(shape, np.nan, dtype=np.float32)
        for row, (name, vector) in enumerate(self.vectors.items()):
            made: dict[str, TaskVector | None] = {
                "random": _random(vector, rng),
                "other_task": self._other(name),
                "shuffled_labels": self._shuffled(name),
            }
            there = [(i, made[c]) for i, c in enumerate(CONTROLS) if made[c] is not None]
            edits = [self._written(name, control) for _, control in there]
            found = self.model.evaluate(prompts, edits, answers).right
            for (i, _), column in zip(there, found.T, strict=True):
                right[i, row] = column
        return xr.Dataset(
            {"control": (("control_vector", "method", "prompt"), right)},
            coords={"control_vector": list(CONTROLS), "method": list(self.vectors)},
        )

    def _shuffled(self, name: str) -> TaskVector | None:
        """The vector formed from pairs with shuffled answers, written like the method's own."""
        if not METHODS[name].reads_labels:
            self.bar.update()
            return None
        vector = self.vectors[name]
        return self._form(name, self.material.shuffled(), vector)

    # --- facts about the vectors -----------------------------------------------------------------

    def _facts(self) -> xr.Dataset:
        """Each vector's place, its norm and the stream's, its cost, and cosines between vectors."""
        names, vectors = list(self.vectors), list(self.vectors.values())
        stream = self.model.capture(self._asked()[0], [-1])[:, 0].float().norm(dim=-1).mean(dim=0)
        rows = [self._fact(vector, stream) for vector in vectors]
        return xr.Dataset(
            {
                **{key: ("method", [row[key] for row in rows]) for key in rows[0]},
                "cosine": (("method", "other_method"), _vector_cosines(vectors)),
            },
            coords={"method": names, "other_method": names},
        )

    def _fact(self, vector: TaskVector, stream: Float[Tensor, "layer"]) -> dict[str, Any]:
        edits = vector.edits()
        norms = torch.stack([edit.value.norm() * abs(edit.scale) for edit in edits])
        said, cost = vector.provenance, vector.provenance["cost"]
        return {
            "chosen_layer": float(vector.layer or 0),
            "through": float(vector.through),
            "replaces": float(vector.mode == "replace"),
            "rises": float(said.get("rises", True)),
            "dev_accuracy": float(said.get("dev_accuracy", np.nan)),
            "scale": vector.scale,
            "norm": float(norms.mean()),
            "stream_norm": float(stream[[edit.layer for edit in edits]].mean()),
            **{name: float(value) for name, value in cost.items()},
        }

    def _provenance(self) -> dict[str, Any]:
        of = self.of
        about = {
            "other_task": of.other.name,
            "n_pairs": len(of.pairs),
            "n_dev_queries": len({e.query.x for e in of.dev}),
            "leading_space": self.encoder.template.leading_space,
            "left_out": {name: why for name, why in self.allowed.items() if why},
            "notes": {
                n: v.provenance["notes"] for n, v in self.vectors.items() if v.provenance["notes"]
            },
            "chosen": {n: v.provenance["chosen"] for n, v in self.vectors.items()},
        }
        return {
            "method": "compare_vectors",
            **self.model.provenance(),
            **self.s.recorded(),
            "papers": {name: METHODS[name].paper for name in self.allowed},
            "tasks": {of.task.name: about},
            "filters": "none: every prompt counts, also those whose answer takes several tokens",
        }


def refuse_seen(vector: TaskVector, test: Sequence[Episode]) -> None:
    """Refuse to score a vector on queries that it was formed from.

    Raises:
        InputError: naming one such query.
    """
    seen = sorted({e.query.x for e in test} & vector.shown)
    if seen:
        raise InputError(
            f"vector {vector.name!r} was formed from {seen[0]!r}, which is asked; expected test "
            "queries that no vector was shown"
        )


def _random(vector: TaskVector, rng: np.random.Generator) -> TaskVector:
    """Random vectors with the same norms, at the same place."""
    sets = None if vector.sets is None else random_like(vector.sets, rng)
    return replace(vector, values=random_like(vector.values, rng), sets=sets)


def _cosines(
    moved: Float[Tensor, "prompt effect d_model"],
) -> Float[np.ndarray, "effect other_effect"]:
    """Cosine between the changes of the residual stream by two vectors, mean over prompts."""
    unit = torch.nn.functional.normalize(moved, dim=-1)
    return as_array(torch.einsum("ped,pfd->ef", unit, unit) / len(moved))


def _vector_cosines(vectors: Sequence[TaskVector]) -> Float[np.ndarray, "method other_method"]:
    """Cosines of vectors at the layer of the first; NaN if the other has no vector there.

    Vectors of different sites, or of which one is added and the other replaces, have no cosine.
    """
    found = np.full((len(vectors), len(vectors)), np.nan)
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors):
            alike = (one.site, one.mode) == (other.site, other.mode)
            if alike and one.layer in other.layers:
                ours, theirs = (v.vector(one.layer) for v in (one, other))
                found[i, j] = float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0))
    return found
