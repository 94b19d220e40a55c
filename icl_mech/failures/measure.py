"""Measures one task: chooses layers on dev prompts, runs every condition on test prompts."""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.failures.error_kinds import Classifier, Encoders
from icl_mech.failures.plan import REPAIRS, FailureTask, guess_right
from icl_mech.failures.repair import States, placeholder
from icl_mech.failures.result import CONTROLS, RIGHT, THETA
from icl_mech.model import Edit, HookedModel, Readout
from icl_mech.prompts import Episode, Prompt, accepted, few_shot, zero_shot
from icl_mech.vectors import (
    answer_logprob,
    choose_layer,
    dummy_residuals,
    overwrite,
    random_like,
    scores_by_layer,
    theta,
)

#: Whether the answer to each dev prompt is right, and its log probability (nats), at each layer.
OnDev = tuple[Bool[np.ndarray, "prompt layer"], Float[np.ndarray, "prompt layer"]]
Vectors = Float[Tensor, "prompt layer d_model"]


class Measurement:
    """One task on one model."""

    def __init__(
        self,
        model: HookedModel,
        plan: FailureTask,
        encoders: Encoders,
        layers: Sequence[int],
        repairs: Sequence[str],
        bar: tqdm,
    ) -> None:
        self.model, self.plan, self.repairs, self.bar = model, plan, repairs, bar
        self.layers = {THETA: list(range(model.n_layers)), **{r: list(layers) for r in repairs}}
        self.test, self.dev = plan.split.test, plan.split.dev
        self.encoders, self.encoder = encoders, encoders.own
        self.zero = zero_shot(self.encoder, self.test)

    def measure(self) -> xr.Dataset:
        """Measure all conditions on test prompts, with vectors at the layers chosen on dev."""
        self.bar.set_description(self.plan.task.name)
        on_dev = self._on_dev()
        asked = np.array([e.query.x for e in self.dev])
        choices = {m: choose_layer(*on_dev[m], asked) for m in self.layers}
        best = {m: layers[choices[m].at] for m, layers in self.layers.items()}
        named = Classifier.of(self.model, self.plan, self.encoders, self.zero)
        readouts = self._on_test(best)
        top = np.stack([r.top.cpu().numpy() for r in readouts.values()], axis=1)
        found = self._dataset(readouts, top, named.kinds(top), on_dev, best)
        rises = ("injected", [c.rises for c in choices.values()])
        return found.assign(named_by_chance=((), named.by_chance()), rises=rises)

    def _on_dev(self) -> dict[str, OnDev]:
        model, dev = self.model, self.dev
        states = self._states(dev)
        own = scores_by_layer(model, self.encoder, dev, states.theta, self.bar.update)
        found = {THETA: own}
        for repair in self.repairs:
            edits = [states.edits(repair, layer) for layer in self.layers[repair]]
            readout = self._edited(self._asked(repair, dev), dev, edits)
            found[repair] = readout.right, answer_logprob(readout)
        return found

    def _on_test(self, best: dict[str, int]) -> dict[str, Readout]:
        """A readout `[prompt]` of every condition."""
        model, test, at = self.model, self.test, best[THETA]
        few = few_shot(self.encoder, test)
        resid = model.final_residuals(few)
        own = theta(resid[:, 1:])
        shuffled = theta(dummy_residuals(model, self.encoder, self.plan.shuffled))
        other = theta(dummy_residuals(model, self.encoders.other, self.plan.other_episodes))
        vectors = {
            THETA: own[:, at],
            "shuffled": shuffled[:, at],
            "other_task": other[:, at],
            "random": random_like(own[:, at], deepcopy(self.plan.rng)),
        }
        injected = self._edited(self.zero, test, [overwrite(at, v) for v in vectors.values()])
        shown = [group[0] for group in few]
        found = {
            "few_shot": model.read(resid[:, 0, -1], self._answers(shown, test)),
            "zero_shot": model.predict(self.zero, self._answers(self.zero, test)),
            **{name: injected.column(i) for i, name in enumerate(vectors)},
        }
        if any(REPAIRS[repair] for repair in self.repairs):
            blank = [placeholder(self.encoder, e) for e in test]
            found["placeholder"] = model.predict(blank, self._answers(blank, test))
        return found | self._repaired(best, own, shuffled)

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
            edits = [source.edits(repair, best[repair]) for source in sources.values()]
            readout = self._edited(self._asked(repair, self.test), self.test, edits)
            for i, control in enumerate(sources):
                found[repair + control] = readout.column(i)
        return found

    def _states(self, episodes: Sequence[Episode], own: Vectors | None = None) -> States:
        return States.of(self.model, self.encoder, episodes, self.repairs, own)

    def _asked(self, repair: str, episodes: Sequence[Episode]) -> list[Prompt]:
        """The prompts into which a repair is written; only some repairs need demonstrations."""
        if not REPAIRS[repair]:
            return zero_shot(self.encoder, episodes)
        return [placeholder(self.encoder, e) for e in episodes]

    def _edited(
        self,
        prompts: Sequence[Prompt],
        episodes: Sequence[Episode],
        edits: Sequence[Edit | list[Edit]],
    ) -> Readout:
        answers = self._answers(prompts, episodes)
        return self.model.evaluate(prompts, edits, answers, self.bar.update)

    def _answers(
        self, prompts: Sequence[Prompt], episodes: Sequence[Episode]
    ) -> tuple[tuple[int, ...], ...]:
        return accepted(self.encoder, prompts, episodes).first_tokens

    def _dataset(
        self,
        readouts: dict[str, Readout],
        top: np.ndarray,
        kinds: np.ndarray,
        on_dev: dict[str, OnDev],
        best: dict[str, int],
    ) -> xr.Dataset:
        n_layers, methods = self.model.n_layers, list(self.layers)
        # NaN at layers where a repair was not tried.
        dev = np.full((2, len(methods), len(self.dev), n_layers), np.nan)
        for m, method in enumerate(methods):
            dev[:, m, :, self.layers[method]] = np.stack(on_dev[method]).transpose(2, 0, 1)
        logprob = [answer_logprob(r) for r in readouts.values()]
        text = {int(t): self.model.to_string(int(t)) for t in np.unique(top)}
        split, task = self.plan.split, self.plan.task
        return xr.Dataset(
            {
                "top": (("prompt", "condition"), top),
                "said": (("prompt", "condition"), np.vectorize(text.__getitem__)(top)),
                "right": (("prompt", "condition"), kinds == RIGHT),
                "error": (("prompt", "condition"), kinds),
                "logprob": (("prompt", "condition"), np.stack(logprob, 1), {"units": "nats"}),
                "dev_right": (("injected", "dev_prompt", "layer"), dev[0]),
                "dev_logprob": (("injected", "dev_prompt", "layer"), dev[1], {"units": "nats"}),
                "best_layer": ("injected", [best[m] for m in methods]),
                "prior_right": ("prompt", [split.prior in e.query.answers for e in self.test]),
                "guess_right": ("prompt", [guess_right(e) for e in self.test]),
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
                "injected": methods,
                "layer": np.arange(n_layers),
            },
        )
