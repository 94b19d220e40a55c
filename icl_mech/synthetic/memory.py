"""Does a training run fit into memory? Asked before anything is allocated."""

import psutil
import torch

from icl_mech.errors import InputError
from icl_mech.synthetic.settings import Settings

#: Of the size of all weights, while a checkpoint is written: weights, gradients and Adam's two
#: averages (4), copies of all but the gradients (3), and the bytes that go into the file (3).
_COPIES = 10
#: Numbers per token for each unit of `d_model`. What a block keeps for the backward pass (16.5 by
#: count: inputs of both norms, of both linear maps of attention and MLP, queries, keys and values),
#: and what the backward pass needs for the block at hand (4), times 1.37, which is what the
#: process takes of the system for it. Attention on a CPU or a GPU keeps no patterns.
_PER_BLOCK, _AT_ONCE = 22.5, 5.5
#: Copies of a batch's inputs and outputs, drawn in float64.
_DATA = 5


def training_bytes(settings: Settings) -> tuple[int, int]:
    """About how much memory training needs: in any case, and for each sequence of a batch.

    Fitted to the peak of processes that train on a CPU, and within 15 % of it by test; a GPU needs
    less.

    >>> from icl_mech.synthetic import preset
    >>> fixed, each = training_bytes(preset("paper"))
    >>> round((fixed + 128 * each) / 2**30, 1)  # GiB
    1.7
    """
    model, mixture = settings.model, settings.mixture
    weights = 12 * model.n_layers * model.d_model**2
    losses = settings.n_steps * (1 + mixture.n_bases)
    n_tokens = 2 * mixture.n_examples + 1
    per_token = model.d_model * (_PER_BLOCK * model.n_layers + _AT_ONCE)
    per_token += _DATA * (mixture.dim + 1)
    return 4 * (_COPIES * weights + 3 * losses), int(4 * n_tokens * per_token)


def check_memory(settings: Settings, device: torch.device) -> None:
    """Refuse a run that would not fit, before anything is allocated.

    Raises:
        InputError: with what is needed, what is free, and the largest batch that fits.
    """
    fixed, each = training_bytes(settings)
    needed, free = fixed + settings.batch_size * each, free_bytes(device)
    if needed <= free:
        return
    fits = (free - fixed) // each
    smaller = f"a batch_size of at most {fits}" if fits > 0 else "fewer steps or a smaller model"
    raise InputError(
        f"training with batch_size {settings.batch_size} and n_steps {settings.n_steps} needs "
        f"about {needed / 2**30:,.0f} GiB of memory; {device} has {free / 2**30:,.0f} GiB free. "
        f"Expected {smaller}"
    )


def free_bytes(device: torch.device) -> int:
    """Memory that can still be allocated; on Apple's GPUs, which share it, the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)
