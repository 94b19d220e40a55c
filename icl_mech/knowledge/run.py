"""Asks queries after demonstrations that contradict the model's knowledge, and with vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError, ModelError
from icl_mech.knowledge.plan import (
    CONDITIONS,
    Asked,
    KnowledgePlan,
    KnowledgeSettings,
    KnowledgeTask,
    plan_knowledge,
)
from icl_mech.knowledge.result import HEADS_IN, INTO, SOURCES, KnowledgeConflict
from icl_mech.model import AnyEdit, HookedModel, as_array, check_model
from icl_mech.progress import ProgressBar, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Episode,
    Prompt,
    generator,
    in_context,
    zero_shot,
)
from icl_mech.results import over_tasks
from icl_mech.task_vectors import TaskVector
from icl_mech.tasks import Tasks
from icl_mech.vector_methods.forming import written
from icl_mech.vector_methods.material import Material
from icl_mech.vector_methods.methods import METHODS, form_step, refuse_methods
from icl_mech.vector_methods.plan import USUAL
from icl_mech.vectors import dummy_residuals, overwrite, random_like, theta


def knowledge_conflict(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 30,
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
) -> KnowledgeConflict:
    """Contradict in the prompt what the model knows ("France -> Berlin"): which answer wins?

    The measure is logit(the answer shown) - logit(the answer known), as in associative-memory
    studies of *knowledge hijacking* (arXiv 2412.11459). Every query is asked in five prompts:
    `zero_shot`; `right`, after right demonstrations of other inputs, one of which has the answer w;
    `exchanged`, the same with shuffled answers; `lookup`, in which the demonstration with w shows
    the query itself as its input; and `insisted`, in which all demonstrations show the query with
    w. `right` and `lookup` differ in one input, so their difference is the effect of the
    contradiction. The known answer is in none of the prompts.

    Layers are read in two ways: by the logit lens at the last token, and by writing the last
    token's residual stream of `lookup` into `right`, after each block in turn. Heads are read by
    direct logit attribution of the measure in both prompts. Vectors of several methods are written
    into zero-shot prompts and into `lookup`. They are formed from right pairs and from pairs with
    exchanged answers; theta is also read from the contradicting prompt itself (with dummy queries).
    Random vectors of the same norms are the control.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: queries per task.
        n_shots: demonstrations per prompt; at least 2.
        seed: of every random draw.
        methods: ways to get a vector, as in `compare_vectors`.
        n_dev, n_sets, n_dummies, n_steps, batch_size, learning_rate, train_layers: as in
            `compare_vectors`.
        template, leading_space, instruction: as in `layer_scan`.
        progress: show a progress bar.

    Raises:
        InputError: if a task, a method, a layer or a count cannot work.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.knowledge_conflict(
        ...     model, "country_capital", 2, 2, methods="theta", n_sets=2, progress=False)
        >>> found.conditions
        ['zero_shot', 'right', 'exchanged', 'lookup', 'insisted']
    """
    check_model(model)
    settings = KnowledgeSettings(
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
    return measure_knowledge(model, plan_knowledge(tasks, settings), progress)


def measure_knowledge(
    model: HookedModel, plan: KnowledgePlan, progress: bool = True
) -> KnowledgeConflict:
    """Run a plan of `plan_knowledge`: what `knowledge_conflict` does after prompts are drawn.

    Raises:
        InputError: as `knowledge_conflict`.
        ModelError: as `knowledge_conflict`.
    """
    s = plan.settings
    refuse_methods(model, [of.task for of in plan.tasks], s.methods)
    n_steps = len(plan.tasks) * (3 + 2 * len(s.methods))
    with progress_bar(n_steps, "steps", progress) as bar:
        found = [_Measurement(model, of, s, bar) for of in plan.tasks]
        parts = [each.measured() for each in found]
    names = [of.task.name for of in plan.tasks]
    provenance = {
        "method": "knowledge_conflict",
        **model.provenance(),
        **s.recorded(),
        "papers": {name: METHODS[name].paper for name in s.methods},
        "tasks": {each.of.task.name: each.about for each in found},
        "score": "logit of the answer shown minus logit of the answer known, first tokens",
        "filters": (
            "queries with no demonstration whose answer begins differently are left out "
            "(n_left_out); numbers are of queries that the model answers right after other right "
            "demonstrations (known), or of all where it answers none"
        ),
    }
    return KnowledgeConflict(over_tasks(parts, names), provenance)


@dataclass(frozen=True)
class _Prompts:
    """One condition's prompts, and the tokens that are compared.

    Attributes:
        prompts: one per query.
        shown: the first token of the answer that the context shows.
        known: first tokens of all right answers, in their order.
    """

    prompts: list[Prompt]
    shown: list[int]
    known: list[tuple[int, ...]]

    @property
    def answers(self) -> list[list[int]]:
        """For every prompt, the shown token and then the known ones."""
        return [[w, *of] for w, of in zip(self.shown, self.known, strict=True)]


class _Measurement:
    """One task on one model."""

    def __init__(
        self, model: HookedModel, of: KnowledgeTask, s: KnowledgeSettings, bar: ProgressBar
    ) -> None:
        self.model, self.of, self.s, self.bar = model, of, s, bar
        self.encoder = model.encoder(s.template, [p.y for p in of.task.pairs], s.leading_space)
        self.test, self.slots = self._contradicted()
        self.about: dict[str, Any] = {
            "n_pairs": len(of.pairs),
            "n_left_out": len(of.test) - len(self.test),
            "leading_space": self.encoder.template.leading_space,
            "notes": {},
        }
        self.episodes = self._episodes()
        self.asked = {name: self._prompts(name) for name in CONDITIONS}
        #: The last token's stream after every block, `[prompt, layer, d_model]`, by condition.
        self.streams: dict[str, Tensor] = {}

    def _contradicted(self) -> tuple[list[Asked], list[int]]:
        """The queries that a demonstration can contradict, and the index of that demonstration.

        Raises:
            InputError: if there is no such query.
        """
        test, slots = [], []
        for asked in self.of.test:
            prompt = self.encoder.encode((), asked.right.query.x)
            right = set(self.encoder.first_tokens(prompt, asked.right.query.answers))
            shown = asked.right.demonstrations
            may = [
                i
                for i in asked.order
                if self.encoder.first_tokens(prompt, [shown[i].y])[0] not in right
            ]
            if may:
                test.append(asked)
                slots.append(may[0])
        if not test:
            raise InputError(
                f"task {self.of.task.name!r}: all answers begin with the same token; expected "
                "answers that first tokens tell apart"
            )
        return test, slots

    def _episodes(self) -> dict[str, list[Episode]]:
        rng = generator(self.s.seed, self.of.task.name, "exchanged answers")
        return {
            "right": [asked.right for asked in self.test],
            "exchanged": [asked.exchanged(rng) for asked in self.test],
            "lookup": [a.lookup(at) for a, at in zip(self.test, self.slots, strict=True)],
            "insisted": [a.insisted(at) for a, at in zip(self.test, self.slots, strict=True)],
        }

    def _prompts(self, condition: str) -> _Prompts:
        if condition == "zero_shot":
            prompts = zero_shot(self.encoder, self.episodes["right"])
        else:
            prompts = in_context(self.encoder, self.episodes[condition])
        shown, known = [], []
        for prompt, asked, at in zip(prompts, self.test, self.slots, strict=True):
            word = asked.right.demonstrations[at].y
            shown.append(self.encoder.first_tokens(prompt, [word])[0])
            known.append(self.encoder.first_tokens(prompt, asked.right.query.answers))
        return _Prompts(prompts, shown, known)

    # --- measuring -------------------------------------------------------------------------------

    def measured(self) -> xr.Dataset:
        """All measurements of the task, padded along `prompt` to `n_prompts`."""
        name = self.of.task.name
        self.bar.set_description(f"{name}: prompts")
        arrays = [self._answered()]
        self.bar.update()
        self.bar.set_description(f"{name}: heads")
        arrays.append(self._heads())
        self.bar.update()
        arrays.append(self._vectors())
        self.bar.set_description(f"{name}: states")
        arrays.append(self._states())
        self.bar.update()
        said = xr.Dataset(
            {
                "query": ("prompt", [asked.right.query.x for asked in self.test]),
                "known_answer": ("prompt", [asked.right.query.y for asked in self.test]),
                "shown_answer": (
                    "prompt",
                    [
                        asked.right.demonstrations[at].y
                        for asked, at in zip(self.test, self.slots, strict=True)
                    ],
                ),
                "known": ("prompt", self._known()),
            }
        )
        found = xr.merge([*arrays, said])
        return _filled(found, self.s.n_prompts).assign(
            n_queries=len({asked.right.query.x for asked in self.test}), n_asked=len(self.test)
        )

    def _known(self) -> np.ndarray:
        """Whether each answer is right after other right demonstrations."""
        others = [asked.others for asked in self.test]
        prompts = in_context(self.encoder, others)
        answers = [
            self.encoder.first_tokens(p, e.query.answers)
            for p, e in zip(prompts, others, strict=True)
        ]
        return self.model.predict(prompts, answers).right.astype(float)

    def _answered(self) -> xr.Dataset:
        """The measure of the output and by the lens, and which answer is on top."""
        lens, final, follows = [], [], []
        for name, of in self.asked.items():
            streams = self.model.capture(of.prompts, ["final_arrow"])[:, 0]
            self.streams[name] = streams
            lens.append(self._lens(streams, of))
            read = self.model.read(streams[:, -1], of.answers)
            final.append(_difference(as_array(read.logprob)))
            follows.append(_follows(read.top.tolist(), of))
        per = ("condition", "prompt")
        return xr.Dataset(
            {
                "difference": (per, np.stack(final), {"units": "logits"}),
                "follows": (per, np.stack(follows)),
                "lens": (("condition", "layer", "prompt"), np.stack(lens), {"units": "logits"}),
            },
            coords={"condition": list(CONDITIONS), "layer": np.arange(self.model.n_layers)},
        )

    def _lens(self, streams: Float[Tensor, "prompt layer d_model"], of: _Prompts) -> np.ndarray:
        """The measure read from the stream after every block, `[layer, prompt]`."""
        n_layers = streams.shape[1]
        two = torch.tensor([[w, known[0]] for w, known in zip(of.shown, of.known, strict=True)])
        rows = two.repeat_interleave(n_layers, dim=0)
        logits = as_array(self.model.vocabulary.logits(streams.flatten(0, 1), rows))
        found: np.ndarray = (logits[:, 0] - logits[:, 1]).reshape(-1, n_layers).T
        return found

    def _edited(self, condition: str, edits: Sequence[AnyEdit]) -> tuple[np.ndarray, np.ndarray]:
        """The measure, and which answer is on top, with each edit: `[edit, prompt]`."""
        of = self.asked[condition]
        read = self.model.evaluate(of.prompts, edits, of.answers)
        follows = [_follows(column.tolist(), of) for column in read.top.T]
        return _difference(as_array(read.logprob)).T, np.stack(follows)

    def _states(self) -> xr.Dataset:
        """`right` with the last token's stream of `lookup` written in, after each block in turn."""
        streams = self.streams["lookup"]
        layers = range(self.model.n_layers)
        found, _ = self._edited("right", [overwrite(n, streams[:, n]) for n in layers])
        return xr.Dataset({"state": (("layer", "prompt"), found, {"units": "logits"})})

    def _heads(self) -> xr.Dataset:
        """Direct effects on the measure, and attention to the label that contradicts."""
        n, layers, heads = len(self.test), self.model.n_layers, self.model.n_heads
        effect = np.full((len(HEADS_IN), n, layers, heads), np.nan, dtype=np.float32)
        attention, mlps = effect.copy(), effect[..., 0].copy()
        for i, condition in enumerate(HEADS_IN):
            of = self.asked[condition]
            try:
                self.model.check_site("z")
                found = self.model.heads.direct_effects(
                    of.prompts, of.shown, [[known[0]] for known in of.known]
                )
            except (InputError, ModelError) as error:
                self.about["notes"]["heads"] = str(error)
                break
            effect[i], mlps[i] = as_array(found.heads), as_array(found.mlps)
            patterns = self.model.heads.attention(of.prompts)
            for row, (pattern, prompt, at) in enumerate(
                zip(patterns, of.prompts, self.slots, strict=True)
            ):
                label = [j for j, role in enumerate(prompt.roles) if role == f"demo_{at}_y"]
                attention[i, row] = as_array(pattern[..., label].sum(dim=-1))
        dims = ("head_condition", "prompt", "layer", "head")
        return xr.Dataset(
            {
                "head_effect": (dims, effect, {"units": "logits"}),
                "head_attention": (dims, attention),
                "mlp_effect": (dims[:-1], mlps, {"units": "logits"}),
            },
            coords={"head_condition": list(HEADS_IN), "head": np.arange(heads)},
        )

    def _vectors(self) -> xr.Dataset:
        """Every vector in zero-shot prompts and in the contradicting ones."""
        of, s, n = self.of, self.s, len(self.test)
        material = Material.of(of.task, self.encoder, of.pairs, of.dev, s)
        shape = (len(s.methods), len(SOURCES), len(INTO), n)
        difference = np.full(shape, np.nan, dtype=np.float32)
        follows = np.full(shape, -1)
        by_layer = np.full((*shape[:1], *shape[2:3], self.model.n_layers, n), np.nan, np.float32)
        chosen, notes = [], self.about["notes"]
        for m, name in enumerate(s.methods):
            form = partial(form_step, self.model, name, s=s, bar=self.bar)
            right = form(material, notes=notes)
            exchanged = form(
                material.shuffled(), notes=notes, like=right, kind=f"{name}, exchanged answers"
            )
            chosen.append(float(right.layer or 0))
            for k, into in enumerate(INTO):
                edits = self._vector_edits(name, right, exchanged)
                found = self._edited(into, list(edits.values()))
                for j, source in enumerate(edits):
                    at = m, SOURCES.index(source), k
                    difference[at], follows[at] = found[0][j], found[1][j]
                layers = _layers(right)
                several = [written(right, n_, n, METHODS[name].per_set) for n_ in layers]
                by_layer[m, k, layers] = self._edited(into, several)[0]
        dims = ("vector", "source", "into", "prompt")
        return xr.Dataset(
            {
                "vector_difference": (dims, difference, {"units": "logits"}),
                "vector_follows": (dims, follows),
                "vector_by_layer": (("vector", "into", "layer", "prompt"), by_layer),
                "vector_layer": ("vector", chosen),
            },
            coords={"vector": list(s.methods), "source": list(SOURCES), "into": list(INTO)},
        )

    def _vector_edits(
        self, name: str, right: TaskVector, exchanged: TaskVector
    ) -> Mapping[str, AnyEdit]:
        """A method's vectors by source, as edits of the test prompts."""
        n, per_set, layer = len(self.test), METHODS[name].per_set, right.layer
        assert layer is not None
        rng = generator(self.s.seed, self.of.task.name, name, "random")
        sets = None if right.sets is None else random_like(right.sets, rng)
        random = replace(right, values=random_like(right.values, rng), sets=sets)
        found: dict[str, AnyEdit] = {
            source: written(vector, layer, n, per_set)
            for source, vector in (
                ("right", right),
                ("exchanged", exchanged),
                ("random", random),
            )
        }
        if name == "theta":
            own = theta(dummy_residuals(self.model, self.encoder, self.episodes["lookup"]))
            found["lookup"] = overwrite(layer, own[:, layer])
        return found


def _layers(vector: TaskVector) -> list[int]:
    """The layers of a vector; only its chosen one if it is written after all blocks at once."""
    assert vector.layer is not None
    return [vector.layer] if vector.through and vector.site == "resid_post" else [*vector.layers]


def _difference(logprob: np.ndarray) -> np.ndarray:
    """Shown minus known (the first right answer) of log probabilities `[..., token]`."""
    found: np.ndarray = logprob[..., 0] - logprob[..., 1]
    return found


def _follows(top: Sequence[int], of: _Prompts) -> np.ndarray:
    """1 if the top token begins the shown answer, 2 if the known one, 0 if neither."""
    return np.array(
        [
            1 if token == w else 2 if token in known else 0
            for token, w, known in zip(top, of.shown, of.known, strict=True)
        ]
    )


def _filled(data: xr.Dataset, n_prompts: int) -> xr.Dataset:
    """Pad `data` to `n_prompts` prompts, with NaN, -1 and empty texts."""
    fill: dict[Any, Any] = {}
    for name, array in data.variables.items():
        fill[name] = np.nan if array.dtype.kind == "f" else -1 if array.dtype.kind == "i" else ""
    missing = n_prompts - data.sizes["prompt"]
    return data.pad(prompt=(0, missing), constant_values=fill) if missing else data
