"""Check that a training run fits into memory, before anything is allocated."""

import psutil
import torch

from icl_mech.errors import InputError
from icl_mech.synthetic.settings import Settings

#: Memory while a checkpoint is written, as a multiple of the size of all weights: weights,
#: gradients and Adam's two averages (4), copies of all but the gradients (3), the file's bytes (3).
_COPIES = 10
#: Numbers in memory per token and unit of `d_model`. Each block keeps 16.5 for the backward pass
#: (inputs of both norms and of both linear maps of attention and MLP, queries, keys and values).
#: The backward pass needs 4 more for one block. Both are multiplied by 1.37, because the process
#: takes that much more from the system. Attention on a CPU or a GPU keeps no patterns.
_PER_BLOCK, _AT_ONCE = 22.5, 5.5
#: Copies of a batch's inputs and outputs, drawn in float64.
_DATA = 5


def training_bytes(settings: Settings) -> tuple[int, int]:
    """About how many bytes training needs: a fixed number, and a number per sequence of a batch.

    Both are fitted to the peak memory of processes that train on a CPU; a test checks that they are
    within 15 %. A GPU needs less.

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
    """Refuse a run that would not fit.

    Raises:
        InputError: with what is needed, what is free, and the largest batch that fits.
    """
    fixed, each = training_bytes(settings)
    needed = fixed + settings.batch_size * each
    # Apple's GPUs use the machine's memory.
    free = psutil.virtual_memory().available
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    if needed <= free:
        return
    fits = (free - fixed) // each
    smaller = f"a batch_size of at most {fits}" if fits > 0 else "fewer steps or a smaller model"
    raise InputError(
        f"training with batch_size {settings.batch_size} and n_steps {settings.n_steps} needs "
        f"about {needed / 2**30:,.0f} GiB of memory; {device} has {free / 2**30:,.0f} GiB free. "
        f"Expected {smaller}"
    )
