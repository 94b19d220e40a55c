"""Forms vectors under every format and at several tokens, and writes them under the others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from icl_mech.decodability.neighbours import credit, distances, vote_shares
from icl_mech.errors import InputError
from icl_mech.model import Edit, HookedModel, as_array, check_model
from icl_mech.progress import ProgressBar, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Encoder,
    Episode,
    Prompt,
    accepted,
    generator,
    in_context,
    instruction_only,
)
from icl_mech.results import over_tasks
from icl_mech.tasks import Task, Tasks
from icl_mech.transfer.plan import (
    FORMED_AT,
    WRITTEN_AT,
    TransferPlan,
    TransferSettings,
    plan_transfer,
)
from icl_mech.transfer.result import CONTROLS, VectorTransfer
from icl_mech.vectors import Choice, answer_logprob, choose_layer, random_like

#: One vector per episode and layer.
Vectors = Float[Tensor, "prompt layer d_model"]


def vector_transfer(
    model: HookedModel,
    tasks: Tasks = "countries",
    n_prompts: int = 20,
    n_shots: int = 5,
    seed: int = 0,
    *,
    formats: Sequence[str] | None = None,
    k: int = 5,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> VectorTransfer:
    """Write vectors that were formed under one template, or at one token, under another.

    Theta (Hendel et al. 2023, section 3.2) of the same demonstrations is read under every format
    (an arrow, `Q:`/`A:`, a sentence, Spanish words round the pair, with and without a line that
    names the task), and written into zero-shot prompts of every format. Vectors of one task under
    two templates have been reported to be nearly orthogonal, and a vector that steers need not be
    decodable (arXiv 2602.22424, 2604.02608). So the same vectors are also compared by their cosine,
    and by their nearest neighbours: how often are those of a vector, among the vectors of all tasks
    under the other format, of its own task? Under the first format, vectors are also formed at
    other tokens than the last (the query, the last demonstration's label and arrow), and written
    over the query too.

    For every pair of formats, and of tokens, the layer is the best on dev prompts (other queries
    and demonstrations). A vector is read and written after the same block. Controls are random
    vectors of the same norms, and vectors of the next task in the list.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these. Decodability needs
            two or more, and is meaningful for tasks that share their inputs.
        n_prompts: test prompts per task, each with a vector of its own demonstrations.
        n_shots: demonstrations per vector.
        seed: of every random draw.
        formats, k, template, instruction: see `TransferSettings`.
        n_dev, n_dummies, leading_space: as in `layer_scan`.
        progress: show a progress bar.

    Raises:
        InputError: if a task, a format or a count cannot work.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.vector_transfer(
        ...     model, "to_upper", 2, 2, formats=["arrow", "qa"], progress=False)
        >>> found.formats
        ['arrow', 'qa']
    """
    check_model(model)
    settings = TransferSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        formats=None if formats is None else tuple(formats),
        k=k,
        n_dev=n_dev,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_transfer(model, plan_transfer(tasks, settings), progress)


def measure_transfer(
    model: HookedModel, plan: TransferPlan, progress: bool = True
) -> VectorTransfer:
    """Run a plan of `plan_transfer`: what `vector_transfer` does after the prompts are drawn.

    Raises:
        InputError: as `vector_transfer`.
        ModelError: as `vector_transfer`.
    """
    s, n = plan.settings, len(plan.formats)
    if len(plan.tasks) > 1 and s.k > s.n_prompts - 1:
        raise InputError(
            f"k is {s.k}; expected at most {s.n_prompts - 1}, the other vectors of a task"
        )
    cells = len(plan.tasks) * (n + 1 + n * n + len(FORMED_AT) * len(WRITTEN_AT))
    with progress_bar(cells, "cells", progress) as bar:
        formed = [_Formed.of(model, task, split, plan, bar) for task, split in plan.tasks]
        parts = [
            _measured(model, of, formed[(i + 1) % len(formed)], plan, bar)
            for i, of in enumerate(formed)
        ]
    names = [task.name for task, _ in plan.tasks]
    data = over_tasks(parts, names)
    provenance = {
        "method": "vector_transfer (theta of Hendel et al. 2023, arXiv 2310.15916, section 3.2)",
        **model.provenance(),
        **s.recorded(),
        "formats": [of.name for of in plan.formats],
        "templates": {of.name: of.template for of in plan.formats},
        "instructions": dict(plan.lines),
        "leading_space": {of.task.name: of.spaces for of in formed},
        "neighbours": "cosine distance; standardised over the vectors of each format",
        "filters": "none: every prompt counts; right is the first token of an accepted answer",
    }
    return VectorTransfer(xr.merge([data, _compared(formed, plan)]), provenance)


@dataclass(frozen=True)
class _Asked:
    """Zero-shot prompts of some episodes under one format.

    Attributes:
        prompts: one per episode, after the instruction if the format has one.
        answers: first tokens of the accepted answers.
        queries: the query of each prompt.
    """

    prompts: list[Prompt]
    answers: tuple[tuple[int, ...], ...]
    queries: np.ndarray


@dataclass(frozen=True)
class _Formed:
    """One task's vectors under every format and at every token, dev and test.

    Attributes:
        task, n_queries: of the episodes.
        dev, test: for every format, the zero-shot prompts.
        few: test prompts with demonstrations, for every format.
        on_dev, on_test: for every format, the vectors.
        at_dev, at_test: under the first format, the vectors at every token.
        spaces: for every format, whether words are written with a space before them.
    """

    task: Task
    n_queries: int
    dev: list[_Asked]
    test: list[_Asked]
    few: list[_Asked]
    on_dev: list[Vectors]
    on_test: list[Vectors]
    at_dev: list[Vectors]
    at_test: list[Vectors]
    spaces: dict[str, bool]

    @staticmethod
    def of(
        model: HookedModel, task: Task, split: Any, plan: TransferPlan, bar: ProgressBar
    ) -> "_Formed":
        """Read all vectors of a task."""
        s, sides = plan.settings, (split.dev, split.test)
        words = [pair.y for pair in task.pairs]
        found = _Formed(task, split.n_test_queries, [], [], [], [], [], [], [], {})
        for i, of in enumerate(plan.formats):
            bar.set_description(f"{task.name}: reading, {of.name}")
            encoder = model.encoder(of.template, words, s.leading_space)
            found.spaces[of.name] = encoder.template.leading_space
            line = plan.lines[task.name] if of.instructed else ""
            dev, test = (tuple(replace(e, instruction=line) for e in side) for side in sides)
            found.dev.append(_asked(encoder, dev))
            found.test.append(_asked(encoder, test))
            found.few.append(_asked(encoder, test, shown=True))
            # Tokens other than the last are read under the first format only.
            roles = _roles(s.n_shots)[: None if i == 0 else 1]
            for episodes, by_format, by_token in (
                (dev, found.on_dev, found.at_dev),
                (test, found.on_test, found.at_test),
            ):
                vectors = _thetas(model, encoder, episodes, roles)
                by_format.append(vectors[0])
                if i == 0:
                    by_token.extend(vectors)
            bar.update()
        return found


def _roles(n_shots: int) -> list[str]:
    """The roles at which vectors are formed; the last token comes first."""
    return [role.replace("{last}", str(n_shots - 1)) for role in FORMED_AT.values()]


def _asked(encoder: Encoder, episodes: Sequence[Episode], shown: bool = False) -> _Asked:
    prompts = in_context(encoder, episodes) if shown else instruction_only(encoder, episodes)
    answers = accepted(encoder, prompts, episodes).first_tokens
    return _Asked(prompts, answers, np.array([e.query.x for e in episodes]))


def _thetas(
    model: HookedModel, encoder: Encoder, episodes: Sequence[Episode], roles: Sequence[str]
) -> list[Vectors]:
    """For every role, the stream after every block, averaged over each episode's dummy queries."""
    n = len(episodes[0].dummies)
    prompts = [
        encoder.encode(e.demonstrations, dummy.x, e.instruction)
        for e in episodes
        for dummy in e.dummies
    ]
    found = model.capture(prompts, roles).float()
    return [of.unflatten(0, (-1, n)).mean(dim=1) for of in found.unbind(dim=1)]


def _measured(
    model: HookedModel, of: _Formed, other: _Formed, plan: TransferPlan, bar: ProgressBar
) -> xr.Dataset:
    """One task: vectors of every format in prompts of every format, and likewise for tokens."""
    n, n_prompts = len(plan.formats), len(of.test[0].prompts)
    right = np.zeros((n, n, n_prompts), dtype=np.float32)
    layer, rises = np.zeros((n, n), dtype=int), np.zeros((n, n), dtype=bool)
    control = np.full((len(CONTROLS), n, n, n_prompts), np.nan, dtype=np.float32)
    rng = generator(plan.settings.seed, of.task.name, "transfer")
    for i, source in enumerate(plan.formats):
        for j, target in enumerate(plan.formats):
            bar.set_description(f"{of.task.name}: {source.name} under {target.name}")
            choice = _best(model, of.dev[j], of.on_dev[i], "final_arrow")
            layer[i, j], rises[i, j] = choice.at, choice.rises
            at = of.on_test[i][:, choice.at]
            vectors = [at, random_like(at, rng)]
            if other is not of:
                vectors.append(other.on_test[i][:, choice.at])
            own, *controls = _right(model, of.test[j], vectors, "final_arrow", choice.at)
            right[i, j], control[: len(controls), i, j] = own, controls
            bar.update()
    bar.set_description(f"{of.task.name}: without a vector")
    zero = [_plain(model, asked) for asked in of.test]
    few = [_plain(model, asked) for asked in of.few]
    bar.update()
    places, place_layer = _tokens(model, of, bar)
    names = [each.name for each in plan.formats]
    cell = ("formed", "written")
    return xr.Dataset(
        {
            "right": ((*cell, "prompt"), right),
            "chosen_layer": (cell, layer),
            "rises": (cell, rises),
            "control": (("control_vector", *cell, "prompt"), control),
            "zero_shot": (("written", "prompt"), np.stack(zero)),
            "few_shot": (("written", "prompt"), np.stack(few)),
            "at_token": (("formed_at", "written_at", "prompt"), places),
            "token_layer": (("formed_at", "written_at"), place_layer),
            "query": ("prompt", of.test[0].queries),
            "n_queries": ((), of.n_queries),
        },
        coords={
            "formed": names,
            "written": names,
            "layer": np.arange(model.n_layers),
            "control_vector": list(CONTROLS),
            "formed_at": list(FORMED_AT),
            "written_at": list(WRITTEN_AT),
        },
    )


def _best(model: HookedModel, dev: _Asked, vectors: Vectors, role: str) -> Choice:
    """The choice of the layer at which vectors answer most dev prompts right."""
    edits = [Edit(n, v, position=role) for n, v in enumerate(vectors.unbind(1))]
    read = model.evaluate(dev.prompts, edits, dev.answers)
    return choose_layer(read.right, answer_logprob(read), dev.queries)


def _right(
    model: HookedModel,
    asked: _Asked,
    vectors: Sequence[Float[Tensor, "prompt d_model"]],
    role: str,
    layer: int,
) -> np.ndarray:
    """Whether each prompt is right with each vector after a block, `[vector, prompt]`."""
    edits = [Edit(layer, v, position=role) for v in vectors]
    found: np.ndarray = model.evaluate(asked.prompts, edits, asked.answers).right.T
    return found.astype(np.float32)


def _plain(model: HookedModel, asked: _Asked) -> np.ndarray:
    return model.predict(asked.prompts, asked.answers).right.astype(np.float32)


def _tokens(model: HookedModel, of: _Formed, bar: ProgressBar) -> tuple[np.ndarray, np.ndarray]:
    """Under the first format, vectors of every token written over every token."""
    shape = (len(FORMED_AT), len(WRITTEN_AT))
    right = np.zeros((*shape, len(of.test[0].prompts)), dtype=np.float32)
    layer = np.zeros(shape, dtype=int)
    for i, source in enumerate(FORMED_AT):
        for j, (target, role) in enumerate(WRITTEN_AT.items()):
            bar.set_description(f"{of.task.name}: {source} over {target}")
            at = layer[i, j] = _best(model, of.dev[0], of.at_dev[i], role).at
            vector = of.at_test[i][:, at]
            right[i, j] = _right(model, of.test[0], [vector], role, at)[0]
            bar.update()
    return right, layer


def _compared(formed: Sequence[_Formed], plan: TransferPlan) -> xr.Dataset:
    """Compare the vectors of two formats by nearest neighbours and by cosines of their means."""
    streams = [torch.stack([of.on_test[i] for of in formed]) for i in range(len(plan.formats))]
    n_formats, (n_tasks, n_prompts, n_layers, _) = len(streams), streams[0].shape
    found = np.full((n_tasks, n_formats, n_formats, n_layers, n_prompts), np.nan, np.float32)
    if n_tasks > 1:
        for layer in range(n_layers):
            points = [as_array(s[:, :, layer].flatten(0, 1)) for s in streams]
            for i, source in enumerate(points):
                for j, target in enumerate(points):
                    won = _decoded(source, target, n_tasks, plan.settings.k)
                    found[:, i, j, layer] = won.reshape(n_tasks, n_prompts)
    means = [s.mean(dim=1) for s in streams]
    centred = [m - m.mean(dim=0) for m in means]
    nothing = np.full((n_tasks, n_formats, n_formats, n_layers), np.nan, np.float32)
    cell = ("task", "formed", "written", "layer")
    return xr.Dataset(
        {
            "decoded": ((*cell, "prompt"), found),
            "cosine": (cell, _cosines(means)),
            "centred_cosine": (cell, _cosines(centred) if n_tasks > 1 else nothing),
        }
    )


def _decoded(
    source: Float[np.ndarray, "point d"], target: Float[np.ndarray, "point d"], n_tasks: int, k: int
) -> Float[np.ndarray, "point"]:
    """Whether the neighbours of each target point, among source points, are of its task.

    A point with the same demonstration set is never a neighbour. Each format is standardised by
    itself, which removes what its template adds to all vectors.
    """
    n = len(source)
    between = distances(np.concatenate([_standard(source), _standard(target)]), "cosine", "none")
    sets = np.arange(n)
    groups = np.concatenate([sets, sets])
    between[:, n:] = np.inf  # neighbours are source points
    labels = np.repeat(np.arange(n_tasks), n // n_tasks)
    both = np.concatenate([labels, labels])
    (shares,) = vote_shares(between, both, groups, [k])
    found: np.ndarray = credit(shares[n:], labels)
    return found


def _standard(points: Float[np.ndarray, "point d"]) -> Float[np.ndarray, "point d"]:
    points = points.astype(np.float64)
    spread = points.std(axis=0)
    return (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _cosines(
    means: Sequence[Float[Tensor, "task layer d_model"]],
) -> Float[np.ndarray, "task formed written layer"]:
    rows = [
        torch.stack([torch.nn.functional.cosine_similarity(a, b, dim=-1) for b in means])
        for a in means
    ]
    return as_array(torch.stack(rows).permute(2, 0, 1, 3))
