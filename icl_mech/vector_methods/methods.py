"""Every method to form a task vector, by name, and the function that runs any of them."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from icl_mech.errors import InputError, choose
from icl_mech.model import HookedModel, check_model
from icl_mech.progress import ProgressBar
from icl_mech.task_vectors import TaskVector
from icl_mech.tasks import Task
from icl_mech.vector_methods import reading, training
from icl_mech.vector_methods.forming import Forming
from icl_mech.vector_methods.material import Cost, Material
from icl_mech.vector_methods.plan import NAMES, FormingSettings


@dataclass(frozen=True)
class Method:
    """A way to get a task vector.

    Attributes:
        form: the function that forms the vector.
        paper: its source.
        about: one line on what the vector is and how it is written.
        needs: what it needs beside demonstrations: a `"gradient"` (so neither a quantised nor a
            state-space model), a site such as `"z"` or `"attn_out"` in every block, or an
            `"instruction"` of the task.
        per_set: whether each prompt gets the vector of one demonstration set, in turn, instead of
            the mean over sets.
        reads_labels: whether the vector depends on the answers of the training pairs.
    """

    form: Callable[[Forming], TaskVector]
    paper: str
    about: str
    needs: tuple[str, ...] = ()
    per_set: bool = False
    reads_labels: bool = True


METHODS: dict[str, Method] = {
    "theta": Method(
        reading.theta_mean,
        "Hendel et al. 2023, arXiv 2310.15916, section 3.2",
        "residual stream at the last token, one demonstration set a prompt; replaces",
        per_set=True,
    ),
    "theta_mean": Method(
        reading.theta_mean,
        "Hendel et al. 2023, averaged over demonstration sets",
        "mean of theta over demonstration sets; replaces",
    ),
    "layer_mean": Method(
        reading.layer_mean,
        "Todd et al. 2023, arXiv 2310.15213, section 2.3",
        "mean residual stream of few-shot prompts; added",
    ),
    "instruction": Method(
        reading.instruction,
        "theta of a line that names the task, without demonstrations",
        "residual stream at the last token after the instruction; replaces",
        needs=("instruction",),
        reads_labels=False,
    ),
    "function_vector": Method(
        reading.function_vector,
        "Todd et al. 2023, arXiv 2310.15213, section 2.3",
        "summed mean outputs of the heads with the largest effect; added",
        needs=("z",),
    ),
    "state_vector": Method(
        reading.state_vector,
        "Li et al. 2024, arXiv 2404.11225",
        "attention outputs at separators, mean over shots; replaces in the first blocks",
        needs=("attn_out",),
    ),
    "state_vector_momentum": Method(
        reading.state_vector_momentum,
        "Li et al. 2024, arXiv 2404.11225",
        "the same, moved on by its changes from shot to shot",
        needs=("attn_out",),
    ),
    "icv": Method(
        reading.in_context_vector,
        "Liu et al. 2023, arXiv 2311.06668",
        "first principal direction of answer minus input; added after every block",
    ),
    "learned": Method(
        training.learned,
        "arXiv 2509.24169",
        "theta, trained by gradient descent; replaces",
        needs=("gradient",),
    ),
    "ltv": Method(
        training.learnable_heads,
        "Saglam et al. 2025, arXiv 2502.05390",
        "a weight for every head's mean output, trained; added after every block",
        needs=("gradient", "z"),
    ),
    "i2cl": Method(
        training.implicit,
        "Li et al. 2024, arXiv 2405.14660",
        "weights for mean attention and MLP outputs, trained; added after every block",
        needs=("gradient", "attn_out", "mlp_out"),
    ),
}
assert tuple(METHODS) == NAMES


def why_not(model: HookedModel, name: str, task: Any = None) -> str:
    """Why a method cannot work on a model (and a task); an empty text if it can.

    >>> why_not(model, "theta"), why_not(model, "ltv")
    ('', '')
    """
    for need in METHODS[name].needs:
        if need == "instruction":
            if task is not None and not task.instruction:
                return f"task {task.name!r} has no instruction of its own"
        elif need != "gradient":
            missing = model.why_no_site(need)  # type: ignore[arg-type]  # sites of the table
            if missing:
                return missing
        else:
            try:
                model.heads.refuse_no_gradients()
            except InputError as error:
                return str(error)
    return ""


def form_vector(
    model: HookedModel,
    name: str,
    material: Material,
    settings: FormingSettings,
    like: TaskVector | None = None,
    say: Callable[[str], Any] = lambda text: None,
) -> TaskVector:
    """Form a vector by one method, and choose where and how strongly to write it on dev prompts.

    Args:
        model: from `load_model`.
        name: one of `METHODS`.
        material: training pairs, demonstration sets and dev prompts.
        settings: counts and training settings.
        like: a vector of the same method; its layer, factor and heads are reused, and nothing is
            chosen on dev prompts.
        say: called with a description of each step.

    Returns:
        A vector whose provenance says what was chosen (`"chosen"`), what it cost (`"cost"`), and
        which inputs it may have seen (`"shown"`).

    Raises:
        InputError: if the method cannot work on the model or the task.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> from icl_mech.vector_methods.plan import CompareSettings, plan_compare
        >>> s = CompareSettings(n_prompts=2, n_shots=2, n_sets=2)
        >>> (of,) = plan_compare("to_upper", s).tasks
        >>> encoder = model.encoder(s.template, ["A", "B"])
        >>> material = Material(of.task, encoder, of.pairs, of.dev, s.n_sets, s.n_shots, 1, s.seed)
        >>> form_vector(model, "layer_mean", material, s).layer in range(model.n_layers)
        True
    """
    check_model(model)
    method = METHODS[choose(name, NAMES, "method")]
    missing = why_not(model, name, material.task)
    if missing:
        raise InputError(f"method {name!r}: {missing}; expected another method")
    cost = Cost()
    begun = time.perf_counter()
    forming = Forming(model, name, method, material, settings, cost, like, say)
    with model.weights_held():  # each vector that is tried checks whose weights these are
        found = method.form(forming)
    cost.seconds = time.perf_counter() - begun
    for line in forming.notes:
        warnings.warn(f"{material.task.name}, {name}: {line}", stacklevel=2)
    said = {
        "method": f"{name} ({method.paper})",
        **model.provenance(),
        **settings.recorded(),
        "task": material.task.name,
        "leading_space": material.encoder.template.leading_space,
        **found.provenance,
        "cost": {"forward": cost.forward, "backward": cost.backward, "seconds": cost.seconds},
        "notes": list(forming.notes),
        "shown": material.shown,
    }
    return TaskVector(**{**vars(found), "provenance": said})


def form_step(
    model: HookedModel,
    name: str,
    material: Material,
    s: FormingSettings,
    bar: ProgressBar,
    notes: dict[str, str],
    like: TaskVector | None = None,
    kind: str | None = None,
) -> TaskVector:
    """`form_vector` as one step of a progress bar.

    Args:
        model, name, material, s, like: as in `form_vector`.
        bar: shows each step, and advances by one at the end.
        notes: receives the method's notes, if any, under the key `kind`.
        kind: key in `notes`; by default the method's name.
    """

    def say(text: str) -> None:
        bar.set_description(f"{material.task.name}, {name}: {text}")

    found = form_vector(model, name, material, s, like, say)
    if found.provenance["notes"]:
        notes[kind or name] = "; ".join(found.provenance["notes"])
    bar.update()
    return found


def refuse_methods(model: HookedModel, tasks: Sequence[Task], names: Sequence[str]) -> None:
    """Refuse methods that cannot work on a model or a task, before any long run.

    Raises:
        InputError: naming the first such method, and why.
    """
    for task in tasks:
        for name in names:
            if why := why_not(model, name, task):
                raise InputError(f"method {name!r}: {why}; expected other methods")
