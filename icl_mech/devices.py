"""Choice of the device for tensors."""

import torch

from icl_mech.errors import InputError, first_line

KNOWN = ("cuda", "mps", "cpu")


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; by default the first of cuda, mps and cpu that is available.

    Raises:
        InputError: if it cannot be used here, or is not of one of these kinds.
    """
    if device is None:
        found = torch.accelerator.current_accelerator(check_available=True)
        return found if found is not None and found.type in ("cuda", "mps") else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise _unusable(device, first_line(error)) from None
    if chosen.type not in KNOWN:
        raise _unusable(device, "no such kind")
    # PyTorch accepts any index for the CPU, although there is only one.
    if chosen.type != "cuda" and chosen.index not in (None, 0):
        raise _unusable(device, f"there is one {chosen.type}")
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise _unusable(device, first_line(error)) from None
    return chosen


def _unusable(device: str | torch.device, why: str) -> InputError:
    return InputError(
        f"device {str(device)!r} is not usable here ({why}); expected one of {', '.join(KNOWN)}"
    )
