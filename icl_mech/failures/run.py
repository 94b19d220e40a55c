"""What can one task vector not do, which errors does it make, and do several vectors repair it?"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from icl_mech.errors import InputError
from icl_mech.failures.errors import RIGHT, Classifier
from icl_mech.failures.plan import (
    AnyTask,
    Plan,
    Settings,
    check,
    guess_right,
    load_any,
    plan,
    prior_right,
)
from icl_mech.failures.repair import BLANK, REPAIRS, States, check_repairs, placeholder
from icl_mech.failures.result import CONTROLS, THETA, TaskVectorFailures
from icl_mech.model import Edit, HookedModel, Readout, as_array
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, Episode, Prompt
from icl_mech.results import over_tasks
from icl_mech.vectors import dummy_residuals, random_like, theta

#: Layers at which a repair is tried, from a third of the depth on.
N_REPAIR_LAYERS = 6


def task_vector_failures(
    model: HookedModel,
    tasks: AnyTask | str | Sequence[AnyTask | str] | None = None,
    n_prompts: int = 50,
    n_shots: int = 5,
    seed: int = 0,
    *,
    n_dev: int | None = None,
    n_dummies: int = 2,
    repairs: Sequence[str] = tuple(REPAIRS),
    repair_layers: Sequence[int] | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    progress: bool = True,
) -> TaskVectorFailures:
    """Accuracy of prompt, vector and repairs on tasks that one vector may not be able to do.

    theta is read and injected as in Hendel et al. 2023 (section 3): at the last token of a
    few-shot prompt that asks a dummy, mean over `n_dummies`; over the same place of the
    zero-shot prompt, at the layer that is best on dev prompts (of equals the one where the right
    answer is most probable: where none is ever right, errors are still named at the layer that
    comes closest). Controls on the same test prompts: theta from shuffled labels, of another task,
    and random vectors of the same norm.

    *Repairs* write several vectors of the same few-shot prompt at once (Dong et al. 2025, arXiv
    2506.09048, propose several; which, is our choice, see `REPAIRS`). Where demonstrations have
    states to write, the query stands after blank demonstrations in the same template, whose tokens
    are overwritten. The layer of a repair, too, is chosen on dev, among `repair_layers`. Each has
    two controls: the same states of another prompt of the task, and of the prompt with shuffled
    labels.

    Every wrong answer is named by its first token (`KINDS`), for every condition and prompt.

    Args:
        model: from `load_model`.
        tasks: failure tasks and ordinary ones, as objects, names or paths; by default all failure
            tasks.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt of ordinary tasks; failure tasks have their own number.
        seed: of every random draw.
        n_dev: dev prompts per task; half of `n_prompts` by default.
        n_dummies: dummy queries per demonstration set.
        repairs: some of `REPAIRS`; none is much faster.
        repair_layers: blocks after which repairs are tried; by default six, evenly spaced, from a
            third of the depth on. Near the embedding a token's state is little more than the
            token: to write it is to show the demonstrations again.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        progress: show a progress bar.

    Raises:
        InputError: where a task, template, repair, layer or count cannot work.
        ModelError: where the model returns numbers that are not finite.
    """
    several = load_any(tasks)
    settings = Settings(
        n_prompts,
        max(1, n_prompts // 2) if n_dev is None else n_dev,
        n_shots,
        n_dummies,
        seed,
        template,
        leading_space,
        check_repairs(repairs),
    )
    layers = _layers(model, repair_layers)
    check(several, settings)
    plans = [plan(model, task, settings) for task in several]
    n_dev = settings.n_dev
    per_task = n_dev * (model.n_layers + len(layers) * len(settings.repairs))
    per_task += n_prompts * (4 + 3 * len(settings.repairs))
    with progress_bar(per_task * len(plans), "runs", progress) as bar:
        parts = [_Run(model, p, layers, settings.repairs, bar).measure() for p in plans]
    data = over_tasks(parts, [task.name for task in several])
    return TaskVectorFailures(data, _provenance(model, plans, settings, layers))


def _layers(model: HookedModel, layers: Sequence[int] | None) -> list[int]:
    n = model.n_layers
    if layers is None:
        return sorted({int(i) for i in np.linspace(n // 3, n - 1, N_REPAIR_LAYERS).round()})
    for layer in layers:
        if not 0 <= layer < n:
            raise InputError(f"layer {layer} out of range: expected 0 to {n - 1}")
    if not layers or len(set(layers)) < len(layers):
        raise InputError(f"repair_layers {list(layers)}; expected at least one, each once")
    return sorted(layers)


#: Right or wrong, and the log probability of the answer, by dev prompt and layer.
OnDev = tuple[Bool[np.ndarray, "prompt layer"], Float[np.ndarray, "prompt layer"]]
Vectors = Float[Tensor, "prompt layer d_model"]


class _Run:
    """One task: choose layers on dev, measure on test, name the errors."""

    def __init__(
        self,
        model: HookedModel,
        plan: Plan,
        layers: Sequence[int],
        repairs: Sequence[str],
        bar: tqdm,
    ) -> None:
        self.model, self.plan, self.repairs, self.bar = model, plan, repairs, bar
        every = list(range(model.n_layers))
        self.layers = {THETA: every, **{repair: list(layers) for repair in repairs}}
        self.test, self.dev = plan.split.test, plan.split.dev
        self.zero = plan.zero_shot(self.test)

    def measure(self) -> xr.Dataset:
        """All conditions on the test prompts."""
        self.bar.set_description(self.plan.task.name)
        on_dev = self._on_dev()
        best = {m: layers[_best(*on_dev[m])] for m, layers in self.layers.items()}
        named = Classifier.of(self.model, self.plan, self.zero)
        readouts = self._on_test(best)
        top = np.stack([r.top.cpu().numpy() for r in readouts.values()], axis=1)
        return self._dataset(readouts, top, named.kinds(top), on_dev, best)

    def _states(self, episodes: Sequence[Episode], own: Vectors | None = None) -> States:
        return States.of(self.model, self.plan.encoder, episodes, self.repairs, own)

    def _asked(self, repair: str, episodes: Sequence[Episode]) -> list[Prompt]:
        """The prompts into which a repair is written."""
        if not REPAIRS[repair]:
            return self.plan.zero_shot(episodes)
        return [placeholder(self.plan.encoder, e) for e in episodes]

    def _on_dev(self) -> dict[str, OnDev]:
        """Right or wrong, and log probability, `[prompt, layer]`, of theta and every repair."""
        states = self._states(self.dev)
        found = {}
        for method, layers in self.layers.items():
            asked = (
                self.plan.zero_shot(self.dev) if method == THETA else self._asked(method, self.dev)
            )
            edits = [
                [Edit(layer, states.theta[:, layer], position="final_arrow")]
                if method == THETA
                else states.edits(method, layer)
                for layer in layers
            ]
            accepted = self.plan.accepted(asked, self.dev)
            readout = self.model.evaluate(asked, edits, accepted, self.bar.update)
            right = [np.isin(t, a) for t, a in zip(readout.top.tolist(), accepted, strict=True)]
            found[method] = np.array(right), _logprob(readout)
        return found

    def _on_test(self, best: dict[str, int]) -> dict[str, Readout]:
        """A readout `[prompt]` of every condition."""
        model, plan = self.model, self.plan
        few = plan.few_shot(self.test)
        resid = model.final_residuals(few)
        own = theta(resid[:, 1:])
        accepted = plan.accepted(self.zero, self.test)
        at = best[THETA]
        shuffled = theta(dummy_residuals(model, plan.encoder, plan.shuffled))
        other = theta(dummy_residuals(model, plan.other_encoder, plan.other_episodes))
        vectors = {
            THETA: own[:, at],
            "shuffled": shuffled[:, at],
            "other_task": other[:, at],
            "random": random_like(own[:, at], plan.rng),
        }
        edits = [Edit(at, value, position="final_arrow") for value in vectors.values()]
        injected = model.evaluate(self.zero, edits, accepted, self.bar.update)
        found = {
            "few_shot": model.read(
                resid[:, 0, -1], plan.accepted([group[0] for group in few], self.test)
            ),
            "zero_shot": self._plain(self.zero),
            **{name: _column(injected, i) for i, name in enumerate(vectors)},
        }
        if any(REPAIRS[repair] for repair in self.repairs):
            found["placeholder"] = self._plain([placeholder(plan.encoder, e) for e in self.test])
        return found | self._repaired(best, own, shuffled)

    def _plain(self, prompts: Sequence[Prompt]) -> Readout:
        return self.model.predict(prompts, self.plan.accepted(prompts, self.test))

    def _repaired(
        self, best: dict[str, int], own: Vectors, shuffled: Vectors
    ) -> dict[str, Readout]:
        """Every repair at its layer, and its controls."""
        if not self.repairs:
            return {}
        states = self._states(self.test, own)
        sources = {
            "": states,
            CONTROLS[0]: states.rolled(),
            CONTROLS[1]: self._states(self.plan.shuffled, shuffled),
        }
        found = {}
        for repair in self.repairs:
            asked = self._asked(repair, self.test)
            edits = [source.edits(repair, best[repair]) for source in sources.values()]
            accepted = self.plan.accepted(asked, self.test)
            readout = self.model.evaluate(asked, edits, accepted, self.bar.update)
            for i, control in enumerate(sources):
                found[repair + control] = _column(readout, i)
        return found

    def _dataset(
        self,
        readouts: dict[str, Readout],
        top: np.ndarray,
        kinds: np.ndarray,
        on_dev: dict[str, OnDev],
        best: dict[str, int],
    ) -> xr.Dataset:
        n_layers, methods = self.model.n_layers, list(self.layers)
        # NaN where a repair was not tried.
        dev = np.full((2, len(methods), len(self.dev), n_layers), np.nan)
        for m, method in enumerate(methods):
            dev[:, m, :, self.layers[method]] = np.stack(on_dev[method]).transpose(2, 0, 1)
        logprob = [_logprob(r) for r in readouts.values()]
        text = {int(t): self.model.to_string(int(t)) for t in np.unique(top)}
        split, task = self.plan.split, self.plan.task
        return xr.Dataset(
            {
                "top": (("prompt", "condition"), top),
                "said": (("prompt", "condition"), np.vectorize(text.__getitem__)(top)),
                "right": (("prompt", "condition"), kinds == RIGHT),
                "error": (("prompt", "condition"), kinds),
                "logprob": (("prompt", "condition"), np.stack(logprob, 1), {"units": "nats"}),
                "dev_right": (("method", "dev_prompt", "layer"), dev[0]),
                "dev_logprob": (("method", "dev_prompt", "layer"), dev[1], {"units": "nats"}),
                "best_layer": ("method", [best[m] for m in methods]),
                "prior_right": ("prompt", prior_right(split)),
                "guess_right": ("prompt", guess_right(split)),
                "query": ("prompt", [e.query.x for e in self.test]),
                "answer": ("prompt", [e.query.y for e in self.test]),
                "category": ((), task.category),
                "predicted": ((), self.plan.prediction.outcome),
                "prior_answer": ((), split.prior),
                "n_shown": ((), len(self.test[0].demonstrations)),
                "n_queries": ((), split.n_test_queries),
            },
            coords={
                "condition": list(readouts),
                "method": methods,
                "layer": np.arange(n_layers),
            },
        )


def _best(
    right: Bool[np.ndarray, "prompt layer"], logprob: Float[np.ndarray, "prompt layer"]
) -> int:
    """The place of the best layer: by accuracy, and of equals by the answer's log probability."""
    accuracy = right.mean(axis=0)
    return int(np.argmax(np.where(accuracy == accuracy.max(), logprob.mean(axis=0), -np.inf)))


def _logprob(readout: Readout) -> np.ndarray:
    """Of the most probable accepted first token."""
    return np.nanmax(as_array(readout.logprob), axis=-1)


def _column(readout: Readout, i: int) -> Readout:
    """One edit of a `[prompt, edit]` readout."""
    return readout.take(torch.tensor([i]), dim=1).reshape(len(readout.top))


def _provenance(
    model: HookedModel, plans: Sequence[Plan], s: Settings, layers: Sequence[int]
) -> dict:
    return {
        "method": "task_vector_failures (theta: Hendel et al. 2023, arXiv 2310.15916)",
        **model.provenance(),
        **{**vars(s), "repairs": list(s.repairs)},
        "repair_layers": list(layers),
        "blank": BLANK,
        "sink_token": model.to_string(plans[0].encoder.sink),
        "tasks": {
            p.task.name: {
                "category": p.task.category,
                "description": p.task.description,
                "predicted": p.prediction.outcome,
                "prediction": p.prediction.text,
                "other_task": p.other.name,
                "n_test_queries": p.split.n_test_queries,
                "n_dev_queries": p.split.n_dev_queries,
                "leading_space": p.encoder.template.leading_space,
            }
            for p in plans
        },
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
