"""The vector lens of a `TaskVector` that the caller gives: its top tokens at each layer."""

from collections.abc import Mapping, Sequence

from icl_mech.errors import InputError
from icl_mech.layers import check_layers
from icl_mech.lens.counting import Words
from icl_mech.lens.naming import naming_words
from icl_mech.lens.plan import VectorLensSettings
from icl_mech.lens.project import filters, project
from icl_mech.lens.vectors_result import VectorLens
from icl_mech.model import HookedModel
from icl_mech.prompts import generator
from icl_mech.results import over_tasks
from icl_mech.task_vectors import TaskVector
from icl_mech.tasks import Task, Tasks, load_tasks


def held_lens(
    model: HookedModel,
    vector: TaskVector,
    tasks: Tasks | None,
    layers: Sequence[int] | None,
    naming: Mapping[str, Sequence[str]] | None,
    settings: VectorLensSettings,
) -> VectorLens:
    """The vector lens of one vector: its top tokens, and counts over its demonstration sets.

    Args:
        model: the model that it was read from.
        vector: the vector to read.
        tasks: the task whose words are counted; by default the built-in task that the vector was
            read from. If there is none, counts of answers and inputs are NaN.
        layers: layers of the vector; by default all that it has.
        naming: words that name tasks, as in `vector_lens`.
        settings: only `top_k`, `only_words`, `seed`, `template` and `leading_space` are used.

    Raises:
        InputError: if the vector is of another model, it has no such layer, or there are several
            tasks.
    """
    vector.check_fits(model)
    s, task = settings, _task_of(vector, tasks)
    model.vocabulary.check_count(s.top_k)
    chosen = check_layers(vector.layers if layers is None else layers, model.n_layers)
    vector.check_layers(chosen)
    at = [vector.layers.index(layer) for layer in chosen]
    sets = vector.values[None] if vector.sets is None else vector.sets
    read = (sets[:, at] * vector.scale).to(model.device)
    known = naming_words(naming)
    name = vector.name if task is None else task.name
    words = Words.unknown(name, known)
    if task is not None:
        encoder = model.encoder(s.template, [pair.y for pair in task.pairs], s.leading_space)
        words = Words.of(model, task, encoder, known)
    allowed = model.vocabulary.words() if s.only_words else None
    rng = generator(s.seed, name, "random vectors")
    part = project(model, read, rng, words, chosen, allowed, s)
    provenance = {
        "method": "vector_lens of a vector that is held, final norm applied",
        **model.provenance(),
        **{key: getattr(s, key) for key in ("seed", "top_k", "average", "only_words")},
        "vector": "held",
        "held": vector.recorded(),
        "layers": chosen,
        "naming": {name: sorted(known.get(name, ()))},
        "filters": filters(allowed),
    }
    return VectorLens(over_tasks([part], [name]), provenance)


def _task_of(vector: TaskVector, tasks: Tasks | None) -> Task | None:
    """The task whose words are counted; None if none is known."""
    if tasks is None:
        tasks = str(vector.provenance.get("task", ""))
        try:
            return load_tasks(tasks)[0]
        except InputError:  # not a built-in task
            return None
    found = load_tasks(tasks)
    if len(found) != 1:
        raise InputError(f"{len(found)} tasks for one vector; expected the task that it is of")
    return found[0]
