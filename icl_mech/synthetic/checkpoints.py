"""Checkpoints on disk (safetensors): written whole or not at all, and checked when read.

A folder holds `step_<n>.safetensors` (weights after n updates) and `last.safetensors`. The latter
also has the optimiser's state and the losses so far, so that training can resume from it.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from icl_mech.errors import InputError, ModelError
from icl_mech.synthetic.data import at_least
from icl_mech.synthetic.model import RegressionTransformer
from icl_mech.synthetic.settings import Settings, from_json, to_json
from icl_mech.training_runs import save_tensors, under

FORMAT = 1
LAST = "last.safetensors"
_NAME = re.compile(r"step_(\d+)\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """One file's content.

    Attributes:
        step: updates done.
        settings: of the run.
        weights: by parameter name.
        extra: the other tensors (in the last checkpoint: optimiser and losses).
    """

    step: int
    settings: Settings
    weights: dict[str, Tensor]
    extra: dict[str, Tensor]

    def model(self, device: str | torch.device = "cpu") -> RegressionTransformer:
        """The model with these weights, in evaluation mode and without gradients."""
        model = make_model(self.settings)
        model.load_state_dict(self.weights)
        return model.to(device).eval().requires_grad_(False)


def make_model(settings: Settings) -> RegressionTransformer:
    """The untrained model that a run begins with."""
    mixture = settings.mixture
    return RegressionTransformer(settings.model, mixture.dim, mixture.n_examples, settings.seed)


def checkpoint_steps(n_steps: int, n_log: int = 20, n_regular: int = 20) -> list[int]:
    """The steps at which weights are kept: evenly spaced on a logarithmic and on a linear scale.

    Args:
        n_steps: of the run; 0 and `n_steps` are always kept.
        n_log, n_regular: about how many of each kind.
    """
    at_least(0, n_log=n_log, n_regular=n_regular)
    # With more of them than there are updates, several would be the same.
    log = np.geomspace(1, n_steps, min(n_log, n_steps))
    regular = np.linspace(0, n_steps, min(n_regular, n_steps) + 1)
    return sorted({0, n_steps, *np.concatenate([log, regular]).round().astype(int).tolist()})


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> Path:
    """Write one file, whole or not at all.

    Raises:
        InputError: where it cannot be written (no permission, full disk).
    """
    header = {
        "format": FORMAT,
        "step": checkpoint.step,
        "settings": to_json(checkpoint.settings),
    }
    tensors = {f"weights/{name}": t for name, t in checkpoint.weights.items()}
    tensors |= {f"extra/{name}": t for name, t in checkpoint.extra.items()}
    return save_tensors(path, header, tensors)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read one file.

    Raises:
        InputError: where there is none, or it was not written by this version's training.
        ModelError: where it is damaged.

    Example:
        >>> import tempfile
        >>> from icl_mech.synthetic import preset, train
        >>> trained = train(preset("tiny", n_steps=2), tempfile.mkdtemp(), progress=False)
        >>> load_checkpoint(list_checkpoints(trained.folder)[-1]).step
        2
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file; expected a checkpoint (.safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("icl_mech")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: damaged ({error}); expected a checkpoint. Delete it to go on without it"
        ) from error
    step, settings = _header(path, header)
    weights, extra = under(tensors, "weights"), under(tensors, "extra")
    if len(weights) + len(extra) < len(tensors) or not _fits(weights, settings):
        raise ModelError(f"{path}: damaged (its weights are not those of its settings)")
    return Checkpoint(step, settings, weights, extra)


def _fits(weights: Mapping[str, Tensor], settings: Settings) -> bool:
    """Whether weights have the sizes that the settings give.

    Positions and the number of blocks are checked first, before a model is made.
    """
    position = weights.get("position", torch.empty(0)).shape
    n_blocks = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    sizes = (2 * settings.mixture.n_examples + 1, settings.model.d_model)
    if tuple(position) != sizes or n_blocks != settings.model.n_layers:
        return False
    expected = make_model(settings).state_dict()
    return {n: t.shape for n, t in weights.items()} == {n: t.shape for n, t in expected.items()}


def _header(path: Path, text: str | None) -> tuple[int, Settings]:
    if text is None:
        raise InputError(f"{path}: not a checkpoint of icl_mech.synthetic")
    try:
        header = json.loads(text)
        if header["format"] == FORMAT:
            settings, step = from_json(header["settings"]), header["step"]
            named = _NAME.fullmatch(path.name)
            if type(step) is not int or not 0 <= step <= settings.n_steps:
                raise ValueError(f"step is {step!r}; expected 0 to {settings.n_steps}")
            if named and int(named[1]) != step:
                raise ValueError(f"step is {step}; expected {int(named[1])}, as in the file's name")
            return step, settings
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: damaged (its header cannot be read: {error})") from error
    raise InputError(
        f"{path}: a checkpoint in format {header['format']}, written by icl-mech "
        f"{header.get('version')}; this version reads format {FORMAT}"
    )


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of a run, by step.

    Raises:
        InputError: where there are none.

    Example:
        >>> import tempfile
        >>> from icl_mech.synthetic import preset, train
        >>> trained = train(preset("tiny", n_steps=2), tempfile.mkdtemp(), progress=False)
        >>> [path.name for path in list_checkpoints(trained.folder)]
        ['step_0000000.safetensors', 'step_0000001.safetensors', 'step_0000002.safetensors']
    """
    numbered = {
        int(found[1]): path
        for path in Path(folder).glob("step_*.safetensors")
        if (found := _NAME.fullmatch(path.name))
    }
    if not numbered:
        raise InputError(
            f"{folder}: no checkpoints (step_*.safetensors); expected the folder of a training run"
        )
    return [numbered[step] for step in sorted(numbered)]


def step_path(folder: Path, step: int) -> Path:
    """The file of the weights after `step` updates."""
    return folder / f"step_{step:07d}.safetensors"
