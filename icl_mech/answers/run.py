"""Whole answers under three conditions: zero-shot, zero-shot with theta, few-shot."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from icl_mech.answers.plan import BY, AnswerPlan, AnswerSettings, LayerScore, plan_answers
from icl_mech.answers.result import CONDITIONS, AnswerScores
from icl_mech.answers.text_scores import USUAL, judge_text
from icl_mech.layers import check_layer
from icl_mech.model import Edit, Generation, HookedModel, check_model
from icl_mech.progress import Tick, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Encoder,
    Episode,
    Prompt,
    Split,
    accepted,
    few_shot,
    generator,
    zero_shot,
)
from icl_mech.results import over_tasks
from icl_mech.scores import Scored, score
from icl_mech.tasks import Task, Tasks
from icl_mech.vectors import Choice, choose_layer, overwrite, scores_by_layer, theta

#: Tokens that a generation may take beyond the longest accepted answer.
SPARE_TOKENS = 3


def answer_scores(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 50,
    n_shots: int = 5,
    seed: int = 0,
    *,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    layer: int | None = None,
    by: LayerScore | None = None,
    max_new_tokens: int | None = None,
    n_rivals: int = 7,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> AnswerScores:
    """Score whole answers, and ask whether conclusions change with the score.

    The prompts and the task vectors are those of `layer_scan` with the same settings (Hendel et
    al. 2023, sections 3 and 4, who keep only answers of one token). *Baseline* is the zero-shot
    prompt, *hypothesis* the same with theta at one layer, *regular* the few-shot prompt. Each
    prompt is continued greedily up to the template's stop text (with theta in place for
    *hypothesis*). The log probabilities of every accepted answer as a whole, and of some of the
    task's other answers, are read too.

    The layer is the best one on dev prompts by the score `by`, because the layer with the best
    first tokens can be the worst for whole answers. It is chosen among the layers where theta
    brings at least half as many right first tokens as at the best one; all of these are reported
    (`AnswerScores.by_layer`).

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts, n_shots, seed, n_dev, n_dummies, layer, by, max_new_tokens, n_rivals: see
            `AnswerSettings`.
        template, leading_space, instruction: see `AnswerSettings`.
        progress: show a progress bar.

    Raises:
        InputError: if a task, template, layer or count cannot work.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> result = icl_mech.answer_scores(
        ...     model, "to_upper", n_prompts=2, n_shots=2, layer=9, progress=False)
        >>> result.data["text"].dims
        ('task', 'condition', 'prompt')
    """
    check_model(model)
    settings = AnswerSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_dev=n_dev,
        n_dummies=n_dummies,
        layer=layer,
        by=by,
        max_new_tokens=max_new_tokens,
        n_rivals=n_rivals,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_answers(model, plan_answers(tasks, settings), progress)


def measure_answers(model: HookedModel, plan: AnswerPlan, progress: bool = True) -> AnswerScores:
    """Run a plan of `plan_answers`, as `answer_scores` does after it has drawn the prompts."""
    s = plan.settings
    if s.layer is not None:
        check_layer(s.layer, model.n_layers)
    parts = []
    total = sum(_n_runs(split, s, model.n_layers) for split in plan.splits)
    with progress_bar(total, "runs", progress) as bar:
        for task, split in zip(plan.tasks, plan.splits, strict=True):
            bar.set_description(task.name)
            parts.append(_one_task(model, task, split, s, bar.update))
    data = over_tasks(parts, [task.name for task in plan.tasks])
    return AnswerScores(data, _provenance(model, plan))


def _n_runs(split: Split, s: AnswerSettings, n_layers: int) -> int:
    """Number of model runs that one task takes."""
    n_test, n_dev = len(split.test), len(split.dev)
    reading = (n_test + n_dev) * (1 + s.n_dummies)
    choosing = 0 if s.layer is not None else n_dev * n_layers
    return reading + choosing + n_test * (2 + 3 + 3)  # first tokens, texts, probabilities


def _one_task(
    model: HookedModel, task: Task, split: Split, s: AnswerSettings, tick: Tick
) -> xr.Dataset:
    encoder = model.encoder(s.template, [pair.y for pair in task.pairs], s.leading_space)
    test, dev = split.test, split.dev
    few = few_shot(encoder, test + dev)
    resid = model.final_residuals(few, tick)
    own = theta(resid[:, 1:])
    plain, shown = zero_shot(encoder, test), [group[0] for group in few[: len(test)]]
    longest = max(
        len(ids) for pair in task.pairs for ids in encoder.answer_tokens(plain[0], pair.answers)
    )
    n_new = s.max_new_tokens or longest + SPARE_TOKENS
    stop = encoder.template.stop
    if s.layer is None:
        layers, choice = _choose(model, encoder, dev, own[len(test) :], s.chosen_by, n_new, tick)
        layer = choice.at
    else:
        layer = check_layer(s.layer, model.n_layers)
        layers, choice = [layer], None
    edits = [None, *(overwrite(at, own[: len(test), at]) for at in layers)]
    at = 1 + layers.index(layer)
    edit = edits[at]
    answers, few_answers = accepted(encoder, plain, test), accepted(encoder, shown, test)
    injected = model.evaluate(plain, edits, answers.first_tokens)
    first = [
        *(score(model, injected.column(i), answers) for i in (0, at)),
        score(model, model.read(resid[: len(test), 0, -1], few_answers.first_tokens), few_answers),
    ]
    without = model.generate(plain, edits, n_new, stop)
    said = [
        [of[0] for of in without],
        [of[at] for of in without],
        [of[0] for of in model.generate(shown, [None], n_new, stop)],
    ]
    tick(5 * len(test))  # first tokens with and without theta, and three texts
    texts = answers.texts
    by_layer = {
        "first_token": injected.right[:, 1:],
        **_judged([of[1:] for of in without], texts),
    }
    rivals = _rivals(task, texts, s)
    whole = [[*texts[p], *rivals[p]] for p in range(len(test))]
    logprob = np.stack(
        [
            *_logprobs(model, encoder, plain, whole, [None, edit], tick),
            *_logprobs(model, encoder, shown, whole, [None], tick),
        ]
    )  # condition prompt candidate
    return _arrays(first, said, texts, logprob).assign(
        n_tokens=("prompt", list(answers.n_tokens)),
        query=("prompt", [e.query.x for e in test]),
        answer=("prompt", [e.query.y for e in test]),
        layer=layer,
        rises=choice is None or choice.rises,
        dev_accuracy=np.nan if choice is None else choice.accuracy,
        by_layer=(
            ("by", "prompt", "block"),
            _spread(np.stack([by_layer[name] for name in BY]), layers, model.n_layers),
        ),
        max_new_tokens=n_new,
        n_rivals=min(map(len, rivals)),
        n_queries=split.n_test_queries,
    )


def _choose(
    model: HookedModel,
    encoder: Encoder,
    dev: Sequence[Episode],
    vectors: Float[Tensor, "prompt layer d_model"],
    by: str,
    n_new: int,
    tick: Tick,
) -> tuple[list[int], Choice]:
    """The layers at which theta works on dev prompts, and the best of them by the score `by`.

    If no layer has a right answer by that score, the layer is chosen by first tokens.
    """
    right, logprob = scores_by_layer(model, encoder, dev, vectors, tick)
    queries = np.array([e.query.x for e in dev])
    by_token = choose_layer(right, logprob, queries)
    accuracy = right.mean(axis=0)
    # Every accepted text begins with an accepted first token, so a layer where these are rare
    # cannot be the best.
    works = (accuracy >= accuracy.max() / 2) & (accuracy > 0)
    layers = [int(i) for i in np.flatnonzero(works)] or [by_token.at]
    if by == USUAL:
        return layers, by_token
    edits = [overwrite(at, vectors[:, at]) for at in layers]
    said = model.generate(zero_shot(encoder, dev), edits, n_new, encoder.template.stop)
    judged = np.zeros(right.shape)
    judged[:, layers] = _judged(said, [e.query.answers for e in dev])[by]
    choice = choose_layer(judged, logprob, queries)
    return layers, choice if choice.accuracy else choice._replace(at=by_token.at)


def _judged(
    said: Sequence[Sequence[Generation]], texts: Sequence[Sequence[str]]
) -> dict[str, Bool[np.ndarray, "prompt layer"]]:
    """The scores of generated texts (`judge_text`), one array each."""
    judged = [
        [judge_text(g.text, answers) for g in of] for of, answers in zip(said, texts, strict=True)
    ]
    names = judged[0][0]
    return {name: np.array([[j[name] for j in of] for of in judged]) for name in names}


def _spread(
    values: Shaped[np.ndarray, "by prompt layer"], layers: Sequence[int], n_layers: int
) -> Float[np.ndarray, "by prompt block"]:
    """The same values over all blocks; NaN at blocks where nothing was injected."""
    spread = np.full((*values.shape[:2], n_layers), np.nan)
    spread[..., layers] = values
    return spread


def _rivals(task: Task, texts: Sequence[Sequence[str]], s: AnswerSettings) -> list[list[str]]:
    """For each prompt, some of the answers of the task that are not accepted there."""
    rng = generator(s.seed, task.name, "rivals")
    labels = list(task.labels())
    rivals = []
    for right in texts:
        order = [labels[i] for i in rng.permutation(len(labels))]
        rivals.append([label for label in order if label not in right][: s.n_rivals])
    return rivals


def _logprobs(
    model: HookedModel,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    candidates: Sequence[Sequence[str]],
    edits: Sequence[Edit | None],
    tick: Tick,
) -> Float[np.ndarray, "edit prompt candidate"]:
    tokens = [encoder.answer_tokens(p, of) for p, of in zip(prompts, candidates, strict=True)]
    found: np.ndarray = model.sequence_logprob(prompts, tokens, edits, tick).cpu().numpy()
    return found.transpose(1, 0, 2)


def _arrays(
    first: Sequence[Scored],
    said: Sequence[Sequence[Generation]],
    texts: Sequence[Sequence[str]],
    logprob: Float[np.ndarray, "condition prompt candidate"],
) -> xr.Dataset:
    dims, nats = ("condition", "prompt"), {"units": "nats"}
    judged = [
        [judge_text(g.text, answers) for g, answers in zip(of, texts, strict=True)] for of in said
    ]
    right, rival = _best(logprob, [len(answers) for answers in texts])
    return xr.Dataset(
        {
            "two_way_prefix": (dims, np.stack([f.two_way_prefix for f in first])),
            "first_token": (dims, np.stack([f.first_token for f in first])),
            "most_probable": (dims, right > rival),
            **{
                name: (dims, np.array([[j[name] for j in of] for of in judged]))
                for name in judged[0][0]
            },
            "logprob": (dims, right, nats),
            "rival_logprob": (dims, rival, nats),
            "first_logprob": (dims, np.stack([f.logprob for f in first]), nats),
            # netCDF would end a string at a zero byte.
            "text": (dims, [[g.text.replace("\0", "\ufffd") for g in of] for of in said]),
            "cut": (dims, np.array([[g.cut for g in of] for of in said])),
        },
        coords={"condition": list(CONDITIONS), "by": list(BY)},
    )


def _best(
    logprob: Float[np.ndarray, "condition prompt candidate"], n_right: Sequence[int]
) -> tuple[Float[np.ndarray, "condition prompt"], Float[np.ndarray, "condition prompt"]]:
    """The log probability of the most probable accepted answer, and of the most probable other."""
    right: Any = np.arange(logprob.shape[2]) < np.array(n_right)[:, None]
    padded = np.isnan(logprob)
    return (
        np.where(right, logprob, -np.inf).max(axis=2),
        np.where(right | padded, -np.inf, logprob).max(axis=2),
    )


def _provenance(model: HookedModel, plan: AnswerPlan) -> dict[str, Any]:
    return {
        "method": "answer_scores: whole answers on the prompts of layer_scan (Hendel et al. 2023)",
        **model.provenance(),
        **plan.settings.recorded(),
        "tasks": {t.name: {"category": t.category, "n_pairs": len(t)} for t in plan.tasks},
        "filters": "none: every prompt counts, also those whose answer takes several tokens",
    }
