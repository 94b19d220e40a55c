"""Task vectors read through the unembedding: do their top tokens name the task?"""

from collections.abc import Mapping, Sequence

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.heads import head_attribution
from icl_mech.layers import check_layers
from icl_mech.lens.counting import Words
from icl_mech.lens.held import held_lens
from icl_mech.lens.plan import (
    N_HEADS,
    Average,
    Vector,
    VectorLensPlan,
    VectorLensSettings,
    plan_vectors,
)
from icl_mech.lens.project import filters, project
from icl_mech.lens.vectors_result import VectorLens
from icl_mech.model import HookedModel, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES, Encoder, Split, generator, in_context
from icl_mech.results import over_tasks
from icl_mech.task_vectors import TaskVector
from icl_mech.tasks import Task, Tasks
from icl_mech.vectors import check_heads, dummy_residuals, function_vector, theta

#: The layer number of function vectors, which belong to no layer.
NO_LAYER = -1


def vector_lens(
    model: HookedModel,
    tasks: Tasks | TaskVector | None = None,
    n_prompts: int = 25,
    n_shots: int = 5,
    seed: int = 0,
    *,
    vector: Vector | TaskVector = "theta",
    layers: Sequence[int] | None = None,
    heads: Sequence[tuple[int, int]] | None = None,
    n_heads: int | None = None,
    output_bias: bool = False,
    top_k: int = 20,
    average: Average = "log_probability",
    only_words: bool = False,
    naming: Mapping[str, Sequence[str]] | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> VectorLens:
    """Read task vectors through the final norm and the unembedding, and count kinds of top tokens.

    Hendel et al. 2023 (arXiv 2310.15916, appendix on the vocabulary) show that the top tokens of
    theta name the task. This function counts, among the top 10 and 20 tokens, words that name the
    task (`NAMING`, listed by hand), first tokens of its answers, and first tokens of its inputs.
    There are two controls: words that name *other* tasks in the same lists (mean over these tasks),
    and the same counts for random vectors of the same norm. The final norm is always applied, and
    no token is left out unless `only_words` is set; the result records both.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these; or a `TaskVector`,
            as for `vector`.
        n_prompts: vectors per task, each from other demonstrations.
        n_shots: demonstrations per vector.
        seed: of every random draw.
        vector: `"theta"` (Hendel et al., one per demonstration set, at every layer) or
            `"function"` (Todd et al. 2023, the sum of the outputs of chosen heads, here one per
            prompt; it belongs to no layer, and its layer is given as -1). A `TaskVector` is read
            at its own layers. Counts are then over its demonstration sets, with the words of
            `tasks` (by default the built-in task that it was read from), and settings of prompts
            and heads are not used.
        layers: of theta, as block numbers from 0; all by default.
        heads: (layer, head)s of function vectors; by default the `n_heads` with the largest AIE on
            each task, ranked on prompts that are drawn and written in the same way.
        n_heads: how many heads a function vector sums; 10 by default.
        output_bias: whether function vectors hold attention's output bias too, once per head, as
            in the paper's published code (see `function_vector`).
        top_k: number of most probable tokens that are kept.
        average: what is averaged over a task's vectors: the `"log_probability"` of every token, or
            the `"vector"` itself, which is then read once.
        only_words: leave out tokens that are not letters only (but for a space before them).
            Probabilities remain among all tokens.
        naming: words that name tasks, in addition to `NAMING` (needed for tasks of your own).
        n_dummies: dummy queries per demonstration set, over which theta is averaged.
        template: how a pair is written.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task, count, layer, head or name cannot work, an argument belongs to the
            other kind of vector, or, for function vectors without `heads`, the model answers none
            of a task's few-shot prompts right.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> lens = icl_mech.vector_lens(
        ...     model, "country_capital", n_prompts=4, n_shots=2, layers=[9, -1], progress=False
        ... )
        >>> lens.layers, len(lens.top("country_capital", 9))
        ([9, 17], 10)
        >>> tv = icl_mech.task_vector(model, "country_capital", 4, 2, layer=9, progress=False)
        >>> icl_mech.vector_lens(model, tv, layers=[9]).top("country_capital", 9)[0] in lens.top(
        ...     "country_capital", 9
        ... )
        True
    """
    check_model(model)
    if isinstance(tasks, TaskVector):
        vector, tasks = tasks, None
    held = vector if isinstance(vector, TaskVector) else None
    settings = VectorLensSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        vector="theta" if isinstance(vector, TaskVector) else vector,
        layers=None if layers is None else tuple(check_layers(layers, model.n_layers)),
        n_heads=n_heads,
        output_bias=output_bias,
        top_k=top_k,
        average=average if held is None else "vector",
        only_words=only_words,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    if held is not None:
        return held_lens(model, held, tasks, layers, naming, settings)
    if tasks is None:
        raise InputError("no task and no vector; expected a task, or a TaskVector")
    return measure_vectors(model, plan_vectors(tasks, settings, heads, naming), progress)


def measure_vectors(model: HookedModel, plan: VectorLensPlan, progress: bool = True) -> VectorLens:
    """Run a plan of `plan_vectors`: what `vector_lens` does after the prompts are drawn.

    Raises:
        InputError: as `vector_lens`.
        ModelError: as `vector_lens`.
    """
    s = plan.settings
    model.vocabulary.check_count(s.top_k)
    if s.vector == "function":
        model.check_site("z")
    heads = _heads(model, plan)
    layers = [NO_LAYER] if s.vector == "function" else check_layers(s.layers, model.n_layers)
    allowed = model.vocabulary.words() if s.only_words else None
    parts: list[xr.Dataset] = []
    used: dict[str, list[tuple[int, int]]] = {}
    with progress_bar(len(plan.tasks), "tasks", progress) as bar:
        for task, split in plan.tasks:
            bar.set_description(task.name)
            words = [pair.y for pair in task.pairs]
            encoder = model.encoder(s.template, words, s.leading_space)
            if s.vector == "theta":
                vectors = theta(dummy_residuals(model, encoder, split.test))[:, layers]
            else:
                # Models that do not allow function vectors fail here, before the ranking.
                model.heads.mean_outputs(in_context(encoder, split.test[:1]))
                used[task.name] = heads or _ranked(model, task, s)
                vectors = _function_vectors(model, encoder, split, used[task.name], s.output_bias)
            rng = generator(s.seed, task.name, "random vectors")
            known = Words.of(model, task, encoder, plan.naming)
            part = project(model, vectors, rng, known, layers, allowed, s)
            parts.append(part.assign(n_queries=split.n_test_queries))
            bar.update()
    names = [task.name for task, _ in plan.tasks]
    provenance = {
        "method": "vector_lens (Hendel et al. 2023, arXiv 2310.15916), final norm applied",
        **model.provenance(),
        **s.recorded(),
        "layers": layers,
        "n_heads": len(next(iter(used.values()))) if used else None,
        "heads": {name: [list(head) for head in of] for name, of in used.items()} or None,
        "output_bias": ("once per head" if s.output_bias else "left out") if used else None,
        "naming": {name: sorted(plan.naming.get(name, ())) for name in names},
        "filters": filters(allowed),
    }
    return VectorLens(over_tasks(parts, names), provenance)


def _heads(model: HookedModel, plan: VectorLensPlan) -> list[tuple[int, int]]:
    """The heads of function vectors that the caller gave; empty if they will be ranked."""
    if plan.heads is not None:
        heads = check_heads(plan.heads, model.n_layers, model.n_heads)
        if plan.settings.vector == "theta":
            raise InputError("heads are for function vectors; expected vector='function'")
        return heads
    most = model.n_layers * model.n_heads
    if plan.settings.vector == "function" and (plan.settings.n_heads or N_HEADS) > most:
        raise InputError(
            f"n_heads is {plan.settings.n_heads or N_HEADS}; expected 1 to {most}, the model's "
            "heads"
        )
    return []


def _ranked(model: HookedModel, task: Task, s: VectorLensSettings) -> list[tuple[int, int]]:
    """The heads with the largest AIE on a task."""
    found = head_attribution(
        model,
        task,
        s.n_prompts,
        s.n_shots,
        s.seed,
        n_clean=s.n_prompts,
        methods=("aie",),
        template=s.template,
        instruction=s.instruction,
        leading_space=s.leading_space,
        progress=False,
    )
    return [(layer, head) for layer, head, _ in found.top(task.name, s.n_heads or N_HEADS)]


def _function_vectors(
    model: HookedModel,
    encoder: Encoder,
    split: Split,
    heads: Sequence[tuple[int, int]],
    output_bias: bool,
) -> Float[Tensor, "prompt layer d_model"]:
    """One function vector per prompt, so that counts vary over prompts."""
    vectors = []
    for prompt in in_context(encoder, split.test):
        outputs, bias = model.heads.mean_outputs([prompt])
        vectors.append(function_vector(outputs, heads, bias if output_bias else None))
    return torch.stack(vectors)[:, None]
