"""Few-shot prompts of one task with the vector of another (Hendel et al. 2023, section 5.1)."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.conflict.drawing import (
    ConflictUndefined,
    Differ,
    Drawn,
    answers_differ,
    draw_conflict,
)
from icl_mech.conflict.pairs import Pairs, as_pairs
from icl_mech.conflict.result import CONDITIONS, ConflictingTasks
from icl_mech.errors import InputError
from icl_mech.model import Edit, HookedModel, Readout
from icl_mech.patch import accepted, score
from icl_mech.prompts import DEFAULT_TEMPLATE, Encoder, Prompt, generator
from icl_mech.tasks import Family, Pair, Task
from icl_mech.vectors import dummy_residuals, inject, random_like, theta

#: Pairs without a conflict: their tasks, and the reason.
Undefined = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Settings:
    """Everything that, with the model and the tasks, decides the numbers."""

    n_prompts: int
    n_dev: int
    n_shots: int
    n_dummies: int
    seed: int
    template: str
    leading_space: bool | None

    def draw(self, a: Task, b: Task, differ: Differ = answers_differ) -> Drawn:
        """The episodes of a pair; see `draw_conflict`."""
        s = self
        return draw_conflict(
            a, b, s.n_prompts, s.n_dev, s.n_shots, s.n_dummies, s.seed, differ=differ
        )


def conflicting_tasks(
    model: HookedModel,
    pairs_or_tasks: Pairs | Family | str | Sequence[Task | str] | None = None,
    n_prompts: int = 50,
    n_shots: int = 4,
    seed: int = 0,
    *,
    n_dev: int | None = None,
    n_dummies: int = 2,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    progress: bool = True,
) -> ConflictingTasks:
    """Inject the vector of one task into few-shot prompts of another: which one is answered?

    Hendel et al. 2023 (arXiv 2310.15916), section 5.1: the prompt shows task A and asks a query
    that A and B answer differently; the residual stream at its last token is overwritten, after
    one block, by theta of B. An answer that begins like A's follows the prompt, one that begins
    like B's the vector. The block is the one where theta of B, injected into zero-shot prompts of
    B, gives the best accuracy on dev prompts (other queries, other vectors; the earliest of
    equals). Beside it, on the same queries: no vector (*regular*), theta of A from other
    demonstrations (*own*), a random vector of the norm of B's (*random*), and theta of B in the
    zero-shot prompt (*zero_shot*). No query is ever shown.

    Args:
        model: from `load_model`.
        pairs_or_tasks: pairs (A, B) of tasks or their names; or a family or several tasks, which
            means all ordered pairs, of which those without a conflict are left out with the
            reason (see `ConflictingTasks.undefined`); or nothing: the five pairs of the paper.
        n_prompts: prompts per pair; queries return with other demonstrations where there are
            fewer (intervals are over queries).
        n_shots: demonstrations per prompt and per vector.
        seed: of every random draw.
        n_dev: dev prompts per pair; half of `n_prompts` by default.
        n_dummies: dummy queries per vector.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        progress: show a progress bar.

    Raises:
        InputError: where a task or count cannot work, or a pair that was asked for by name (or
            every pair) has no conflict: no shared input, the same answers, or too few pairs.
        ModelError: where the model returns numbers that are not finite.
    """
    n_dev = max(1, n_prompts // 2) if n_dev is None else n_dev
    settings = Settings(n_prompts, n_dev, n_shots, n_dummies, seed, template, leading_space)
    asked, matrix = as_pairs(pairs_or_tasks)
    pairs, undefined = defined(asked, matrix, settings)
    plans = []
    for a, b in pairs:
        encoder = _encoder(model, a, b, settings)
        try:
            plans.append((settings.draw(a, b, _begin_differently(encoder)), encoder))
        except ConflictUndefined as error:
            if not matrix:
                raise
            undefined[_name(a, b)] = _why(a, b, error)
    if not plans:
        raise InputError(f"no pair is left; {_first_reason(undefined)}")
    per_pair = n_dev * (n_dummies + model.n_layers) + n_prompts * (3 * n_dummies + 5)
    with tqdm(
        total=per_pair * len(plans),
        disable=not progress,
        unit=" runs",
        file=sys.stderr,
        smoothing=0.05,
        leave=False,
    ) as bar:
        parts = [_measure(model, drawn, encoder, seed, bar) for drawn, encoder in plans]
    names = [_name(drawn.prompt_task, drawn.injected_task) for drawn, _ in plans]
    data = xr.concat(parts, dim=xr.DataArray(names, dims="pair", name="pair"))
    tasks = list(dict.fromkeys(task.name for pair in asked for task in pair))
    return ConflictingTasks(data, _provenance(model, plans, undefined, matrix, tasks, settings))


def defined(
    pairs: Sequence[tuple[Task, Task]], matrix: bool, settings: Settings
) -> tuple[list[tuple[Task, Task]], Undefined]:
    """The pairs that conflict, and why the others do not; nothing is run.

    Raises:
        InputError: where a pair that was asked for by name (not as part of a matrix), or every
            pair, has no conflict.
    """
    kept: list[tuple[Task, Task]] = []
    undefined: Undefined = {}
    for a, b in pairs:
        try:
            settings.draw(a, b)
            kept.append((a, b))
        except ConflictUndefined as error:
            if not matrix:
                raise
            undefined[_name(a, b)] = _why(a, b, error)
    if not kept:
        raise InputError(f"none of {len(pairs)} pairs conflicts: {_first_reason(undefined)}")
    return kept, undefined


def _why(a: Task, b: Task, error: ConflictUndefined) -> dict[str, str]:
    return {"prompt_task": a.name, "injected_task": b.name, "reason": str(error)}


def _first_reason(undefined: Undefined) -> str:
    return next(iter(undefined.values()))["reason"]


def _name(a: Task, b: Task) -> str:
    return f"{a.name}:{b.name}"


def _encoder(model: HookedModel, a: Task, b: Task, s: Settings) -> Encoder:
    """One for both tasks: only answers may tell their prompts apart."""
    words = [pair.y for task in (a, b) for pair in task.pairs]
    return model.encoder(s.template, words, s.leading_space)


def _begin_differently(encoder: Encoder) -> Differ:
    """Whether the first tokens of two tasks' answers differ, after the input alone."""

    def differ(first: Pair, second: Pair) -> bool:
        prompt = encoder.encode((), first.x)
        ids = [{t[0] for t in encoder.answer_tokens(prompt, p.answers)} for p in (first, second)]
        return ids[0].isdisjoint(ids[1])

    return differ


def _measure(
    model: HookedModel, drawn: Drawn, encoder: Encoder, seed: int, bar: tqdm
) -> xr.Dataset:
    """One pair: choose the layer, inject, and see whose answer comes."""
    a, b = drawn.prompt_task.name, drawn.injected_task.name
    bar.set_description(f"{a} with θ of {b}")
    dev_right = _on_dev(model, drawn, encoder, bar)
    layer = int(dev_right.mean(axis=0).argmax())
    of_b = theta(dummy_residuals(model, encoder, drawn.injected, bar.update))[:, layer]
    vectors = {
        "injected": of_b,
        "own": theta(dummy_residuals(model, encoder, drawn.own, bar.update))[:, layer],
        "random": random_like(of_b, generator(seed, a, b, "random")),
    }
    few = [encoder.encode(e.demonstrations, e.query.x) for e in drawn.prompts]
    zero = [encoder.encode((), e.query.x) for e in drawn.prompts]
    tokens = _Tokens.of(encoder, few, drawn)
    alone = _Tokens.of(encoder, zero, drawn)
    plain = model.final_residuals([[prompt] for prompt in few], bar.update)[:, 0, -1]
    edits = [_write(layer, vector) for vector in vectors.values()]
    read = {
        "regular": _follow(model.read(plain, tokens.both), tokens),
        **_columns(_follow(model.evaluate(few, edits, tokens.both, bar.update), tokens), vectors),
        "zero_shot": _follow(
            model.evaluate(zero, [_write(layer, of_b)], alone.both, bar.update).reshape(len(zero)),
            alone,
        ),
    }
    stacked = {name: np.stack([read[c][name] for c in CONDITIONS]) for name in read["regular"]}
    units = {"units": "nats"}
    return xr.Dataset(
        {
            **{
                name: (("condition", "prompt"), values, units if "logprob" in name else {})
                for name, values in stacked.items()
            },
            "dev_right": (("dev_prompt", "layer"), dev_right),
            "chosen_layer": ((), layer),
            "dev_query": ("dev_prompt", [e.query.x for e in drawn.dev]),
            "query": ("prompt", [e.query.x for e in drawn.prompts]),
            "prompt_answer": ("prompt", [e.query.y for e in drawn.prompts]),
            "injected_answer": ("prompt", [e.query.y for e in drawn.injected]),
            "prompt_task": ((), a),
            "injected_task": ((), b),
        },
        coords={"condition": list(CONDITIONS), "layer": np.arange(model.n_layers)},
    )


def _on_dev(
    model: HookedModel, drawn: Drawn, encoder: Encoder, bar: tqdm
) -> Bool[np.ndarray, "dev_prompt layer"]:
    """Whether zero-shot prompts of B with theta of B are answered right, at every layer."""
    zero = [encoder.encode((), e.query.x) for e in drawn.dev]
    answers = accepted(encoder, zero, drawn.dev)
    vectors = theta(dummy_residuals(model, encoder, drawn.dev, bar.update))
    readout = inject(model, zero, vectors[:, None], answers.first_tokens, bar.update)
    return score(model, readout, answers).first_token[:, 0]


def _write(layer: int, vectors: Float[Tensor, "prompt d_model"]) -> Edit:
    return Edit(layer=layer, value=vectors, site="resid_post", position="final_arrow")


@dataclass(frozen=True)
class _Tokens:
    """First tokens of the prompt's task's answers and of the injected task's, per prompt."""

    prompt: tuple[tuple[int, ...], ...]
    injected: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(encoder: Encoder, prompts: Sequence[Prompt], drawn: Drawn) -> "_Tokens":
        """As they follow `prompts`."""
        return _Tokens(
            accepted(encoder, prompts, drawn.prompts).first_tokens,
            accepted(encoder, prompts, drawn.injected).first_tokens,
        )

    @property
    def both(self) -> list[tuple[int, ...]]:
        """What is read of every prompt."""
        return [a + b for a, b in zip(self.prompt, self.injected, strict=True)]


def _follow(readout: Readout, tokens: _Tokens) -> dict[str, np.ndarray]:
    """Whose answer came, and how probable each was: arrays `[prompt, ...]`."""
    top, logprob = readout.top.cpu().numpy(), readout.logprob.float().cpu().numpy()
    pairs = list(zip(tokens.prompt, tokens.injected, strict=True))
    return {
        "top": top,
        "follows_prompt": np.array([np.isin(t, a) for t, (a, _) in zip(top, pairs, strict=True)]),
        "follows_injected": np.array([np.isin(t, b) for t, (_, b) in zip(top, pairs, strict=True)]),
        "prompt_logprob": np.array(
            [row[..., : len(a)].max(-1) for row, (a, _) in zip(logprob, pairs, strict=True)]
        ),
        "injected_logprob": np.array(
            [
                row[..., len(a) : len(a) + len(b)].max(-1)
                for row, (a, b) in zip(logprob, pairs, strict=True)
            ]
        ),
    }


def _columns(
    values: dict[str, np.ndarray], names: Iterable[str]
) -> dict[str, dict[str, np.ndarray]]:
    """`[prompt, edit]` -> per edit `[prompt]`."""
    return {name: {key: v[:, i] for key, v in values.items()} for i, name in enumerate(names)}


def _provenance(
    model: HookedModel,
    plans: Sequence[tuple[Drawn, Encoder]],
    undefined: Undefined,
    matrix: bool,
    tasks: Sequence[str],
    s: Settings,
) -> dict:
    return {
        "method": "conflicting_tasks (Hendel et al. 2023, arXiv 2310.15916, section 5.1)",
        **model.provenance(),
        **vars(s),
        "score": "first token of an accepted answer",
        "matrix": matrix,
        "tasks": list(tasks),
        "pairs": {
            _name(drawn.prompt_task, drawn.injected_task): {
                "n_queries": drawn.n_queries,
                "n_dev_queries": drawn.n_dev_queries,
                "n_shared_inputs": drawn.n_shared,
                "n_same_answer": drawn.n_agreed,
                "n_same_first_token": drawn.n_left_out,
                "leading_space": encoder.template.leading_space,
            }
            for drawn, encoder in plans
        },
        "undefined": undefined,
        "filters": (
            "inputs that both tasks answer alike are neither asked nor shown (n_same_answer); "
            "those whose answers begin with the same token are not asked (n_same_first_token)"
        ),
    }
