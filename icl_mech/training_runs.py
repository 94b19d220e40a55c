"""Files to resume training from: tensors with a header."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

import icl_mech
from icl_mech.results import write_whole

#: The state that Adam keeps for every weight.
ADAM = ("step", "exp_avg", "exp_avg_sq")


def save_tensors(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write a safetensors file; a failure leaves no partial file.

    Args:
        path: the file to write.
        header: stored as JSON, with icl-mech's version.
        tensors: the tensors by name.

    Raises:
        InputError: if it cannot be written (no permission, full disk).
    """
    kept = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps({**header, "version": icl_mech.__version__})
    data = save(kept, metadata={"icl_mech": text})
    return write_whole(path, lambda temporary: temporary.write_bytes(data))


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix/`, by the rest of the name."""
    start = f"{prefix}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
