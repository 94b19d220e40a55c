"""Does a training run fit into memory? Asked before anything is allocated."""

import psutil
import torch

from icl_mech.errors import InputError
from icl_mech.synthetic.settings import Settings


def training_bytes(settings: Settings) -> tuple[int, int]:
    """About how much memory training needs: in any case, and for each sequence of a batch.

    Weights, gradients and Adam's two averages; losses. For a sequence what every block keeps for
    the backward pass: about 20 numbers per token and width, and two attention patterns per head.
    """
    model, mixture = settings.model, settings.mixture
    weights = 12 * model.n_layers * model.d_model**2
    losses = settings.n_steps * (1 + mixture.n_bases)
    n_tokens = 2 * mixture.n_examples + 1
    per_token = model.n_layers * (20 * model.d_model + 2 * model.n_heads * n_tokens)
    return 4 * (4 * weights + losses), 4 * n_tokens * (per_token + mixture.dim + 1)


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
