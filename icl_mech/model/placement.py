"""Decides on which device, or devices, a model's weights are put, and in which number format."""

import shutil
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any, Literal

import torch
from accelerate.utils import convert_file_size_to_int, get_max_memory

from icl_mech.devices import pick_device
from icl_mech.errors import InputError, ModelError, choose, first_line

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
#: The first part of the names of folders for weights that do not fit into memory.
_FOLDER = "icl-mech-offload-"
#: Maps a device to the most memory that weights may take there, as in Transformers.
MaxMemory = Mapping[int | str, int | str]


@dataclass(frozen=True)
class Placement:
    """Where weights are put, and in which number format.

    Attributes:
        device: the device; None if accelerate spreads the weights: over GPUs first, then the CPU,
            then disk.
        dtype: of weights and activations; `"auto"` for that of the files.
        max_memory: if `device` is None, the most memory of each device that weights may take.
    """

    device: torch.device | None
    dtype: torch.dtype | Literal["auto"] = torch.float32
    max_memory: dict[int | str, int | str] | None = None

    @staticmethod
    def of(
        device: str | torch.device | None,
        dtype: str | torch.dtype | None,
        max_memory: MaxMemory | None = None,
    ) -> "Placement":
        """Make a placement from the arguments of `load_model`.

        >>> Placement.of("cpu", None)
        Placement(device=device(type='cpu'), dtype=torch.float32, max_memory=None)

        Raises:
            InputError: where a device or number format does not exist, or `max_memory` does not
                fit.
        """
        number = number_format(dtype) or torch.float32
        if device != "auto":
            if max_memory is not None:
                raise InputError(
                    f"max_memory= with device={str(device)!r}; expected it with device='auto', "
                    "which spreads a model over devices"
                )
            return Placement(pick_device(device), number)
        return Placement(None, number, None if max_memory is None else _checked(max_memory))

    def read(self, from_pretrained: Callable[..., tuple[Any, Any]]) -> tuple[Any, Any]:
        """Read a model onto its devices; weights that do not fit into memory stay in a folder.

        The folder is removed when the model is.

        Args:
            from_pretrained: Transformers' function with all options but those of this placement.

        Returns:
            The model, and Transformers' loading information.
        """
        if self.device is not None:
            model, found = from_pretrained(dtype=self.dtype)
            return model.to(self.device), found
        folder = mkdtemp(prefix=_FOLDER)
        try:
            model, found = from_pretrained(
                dtype=self.dtype,
                device_map="auto",
                max_memory=self.max_memory,
                offload_folder=folder,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        return model, found

    def refuse_too_large(self, name: str, folder: Path, stored: torch.dtype | None) -> None:
        """Refuse weights that do not fit into the devices and the disk together.

        Args:
            name: of the model, for the message.
            folder: the folder with the weights.
            stored: their number format there, if it is known.

        Raises:
            ModelError: with the space that is needed and the space that is available.
        """
        if self.device is not None:
            return
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        if self.dtype != "auto" and stored is not None:
            size = size * self.dtype.itemsize // stored.itemsize
        memory = get_max_memory(self.max_memory)
        room = sum(convert_file_size_to_int(value) for value in memory.values())
        free = shutil.disk_usage(gettempdir()).free
        if size > room + free:
            raise ModelError(
                f"{name}: its weights take {size / 1e9:.2f} GB; expected that much memory and disk "
                f"together, and there are {room / 1e9:.2f} GB of memory on {len(memory)} devices "
                f"and {free / 1e9:.2f} GB of disk. Use fewer bits (dtype='bfloat16') or a smaller "
                "model"
            )


def number_format(dtype: str | torch.dtype | None) -> torch.dtype | Literal["auto"] | None:
    """The number format with this name.

    >>> number_format("bfloat16"), number_format("auto")
    (torch.bfloat16, 'auto')

    Raises:
        InputError: where there is none of that name.
    """
    if not isinstance(dtype, str):
        return dtype
    if dtype == "auto":
        return "auto"
    found: torch.dtype = DTYPES[choose(dtype, [*DTYPES, "auto"], "dtype")]
    return found


def _checked(max_memory: MaxMemory) -> dict[int | str, int | str]:
    """Check the caller's limits: every device must exist."""
    known: set[int | str] = {*range(torch.cuda.device_count()), "cpu"}
    wrong = [device for device in max_memory if device not in known]
    if wrong or not max_memory:
        named = f"names {wrong[0]!r}" if wrong else "is empty"
        raise InputError(
            f"max_memory {named}; expected limits of {', '.join(map(str, sorted(known, key=str)))}"
        )
    for value in max_memory.values():
        try:
            convert_file_size_to_int(value)
        except ValueError as error:
            raise InputError(f"max_memory: {first_line(error)}; expected such as '6GB'") from None
    return dict(max_memory)
