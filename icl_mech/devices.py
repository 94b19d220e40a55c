"""Where tensors live."""

import torch

from icl_mech.errors import InputError, first_line


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; by default the first of cuda, mps and cpu that is there.

    Raises:
        InputError: where it cannot be used here.
    """
    if device is None:
        found = torch.accelerator.current_accelerator(check_available=True)
        return found if found is not None and found.type in ("cuda", "mps") else torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device {str(device)!r} is not usable here ({first_line(error)}); expected one of "
            "cuda, mps, cpu"
        ) from None
    return chosen
