"""Settings of a training run (data, model, optimiser), presets, and how two runs differ."""

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from icl_mech.errors import InputError, choose
from icl_mech.synthetic.data import Mixture, at_least, check_seed, make_mixture, variant
from icl_mech.synthetic.functions import FunctionMixture
from icl_mech.synthetic.model import ModelConfig

#: The losses of every update stay in memory and are written with each checkpoint.
MOST_STEPS = 10_000_000
Schedule = Literal["constant", "cosine"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings that a run's numbers depend on.

    Attributes:
        mixture: distribution that sequences are drawn from.
        model: sizes.
        n_steps: updates, at most `MOST_STEPS`.
        batch_size: fresh sequences per update.
        learning_rate, betas: of Adam.
        warmup_steps: number of updates over which the learning rate rises from 0.
        schedule: of the learning rate: `"constant"`, or `"cosine"`, which falls to 0 at the end.
        curriculum_steps: number of updates over which the mean of the weights on a basis falls from
            1 to 0 (`weight_mean` of `draw_batch`); 0 for none. A model can then tell bases apart
            before it can regress, which shortens the plateau.
        seed: of weights and data.
        precision: `"float32"`, or `"bfloat16"`: the forward pass under autocast.

    Raises:
        InputError: where a number is out of range.
    """

    mixture: Mixture | FunctionMixture
    model: ModelConfig
    n_steps: int
    batch_size: int
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 0
    schedule: Schedule = "constant"
    curriculum_steps: int = 0
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        at_least(1, n_steps=self.n_steps, batch_size=self.batch_size)
        at_least(0, warmup_steps=self.warmup_steps, curriculum_steps=self.curriculum_steps)
        check_seed(self.seed)
        if self.n_steps > MOST_STEPS:
            raise InputError(
                f"n_steps is {self.n_steps}; expected at most {MOST_STEPS:,}: the losses of all "
                "updates stay in memory and are written with each checkpoint"
            )
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; expected above 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas are {self.betas}; expected two numbers from 0 to below 1")
        choose(self.schedule, get_args(Schedule), "schedule")
        choose(self.precision, get_args(Precision), "precision")

    def rate(self, step: int) -> float:
        """The learning rate of an update; the first update is step 0."""
        rate = self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "cosine":
            rate *= (1 + math.cos(math.pi * step / self.n_steps)) / 2
        return rate

    def weight_mean(self, step: int) -> float:
        """The mean of the weights in the data of an update; 0 after the curriculum."""
        return max(0.0, 1 - step / self.curriculum_steps) if self.curriculum_steps else 0.0


def to_json(settings: Settings) -> dict[str, Any]:
    """As plain dictionaries, lists, texts and numbers."""
    return json.loads(json.dumps(asdict(settings)))


def from_json(stored: dict[str, Any]) -> Settings:
    """Settings from the result of `to_json`.

    Raises:
        KeyError, TypeError: where fields are missing or unknown.
    """
    parts = {
        "mixture": _mixture(dict(stored["mixture"])),
        "model": ModelConfig(**stored["model"]),
        "betas": tuple(stored["betas"]),
    }
    return Settings(**{**stored, **parts})


def _mixture(stored: dict[str, Any]) -> Mixture | FunctionMixture:
    if "functions" in stored:
        return FunctionMixture(**{**stored, "functions": tuple(stored["functions"])})
    return Mixture(**{**stored, "bases": tuple(tuple(basis) for basis in stored["bases"])})


#: Runs by name. `paper` is the run of Han et al.; `tiny` takes seconds, and learns nothing. `small`
#: is for two CPU cores. It has two bases that share no coordinate; few examples, so that knowing
#: the basis matters (after the last example the error of ridge regression is about three times that
#: of the Bayes mixture); and ten times the paper's noise, so that a short run nears the optimum.
#: `families` has four families of functions in place of bases, at the same sizes.
PRESETS = {
    "paper": Settings(
        mixture=variant("orthogonal4"),
        model=ModelConfig(12, 8, 256),
        n_steps=80_000,
        batch_size=128,
        learning_rate=1e-4,
        betas=(0.9, 0.9999),
    ),
    "small": Settings(
        mixture=make_mixture(8, 4, 2, n_examples=10, noise_variance=0.1),
        model=ModelConfig(6, 4, 64, init_std=0.1),
        n_steps=28_000,
        batch_size=64,
        learning_rate=1e-3,
        warmup_steps=200,
        schedule="cosine",
        curriculum_steps=6000,
    ),
    "families": Settings(
        mixture=FunctionMixture(4, n_examples=12, noise_variance=0.05),
        model=ModelConfig(6, 4, 64, init_std=0.1),
        n_steps=28_000,
        batch_size=64,
        learning_rate=1e-3,
        warmup_steps=200,
        schedule="cosine",
    ),
    "tiny": Settings(
        mixture=make_mixture(4, 2, 2, n_examples=3, noise_variance=0.05),
        model=ModelConfig(2, 2, 16, init_std=0.1),
        n_steps=40,
        batch_size=16,
        learning_rate=3e-3,
    ),
}


def preset(name: str, **changes: Any) -> Settings:
    """A preset, with some of its settings changed.

    Args:
        name: paper, small, families or tiny.
        changes: fields of `Settings` to replace.

    Raises:
        InputError: where there is no such preset, or a changed setting is out of range.

    Example:
        >>> preset("tiny", seed=3).seed
        3
    """
    return replace(PRESETS[choose(name, PRESETS, "preset")], **changes)
