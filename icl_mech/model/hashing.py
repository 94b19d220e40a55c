"""A hash of a model's weights, for provenance."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.utils import align_module_device
from torch import Tensor

#: The name of the unembedding's bias in a model inside a bridge, such as
#: `lm_head._original_component.bias`.
_UNEMBEDDING_BIAS = re.compile(r"\w+\._original_component\.bias")


class WeightHash:
    """The hash of a model's weights, computed again only if they may have changed.

    Hashing a billion parameters takes seconds, and every result needs the hash. But weights may be
    edited between two results.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._marks: list[tuple[object, ...]] = []
        self._hash = ""
        self._held, self._seen = 0, False

    @property
    def value(self) -> str:
        """The hash of the current weights (`hash_weights`)."""
        if self._held and self._seen:
            return self._hash
        marks = [(name, *_mark(p)) for name, p in self._model.named_parameters()]
        if marks != self._marks:
            self._hash = hash_weights(self._model)
            self._marks = marks
        self._seen = True
        return self._hash

    @contextmanager
    def held(self) -> Iterator[None]:
        """Context in which nothing may write to the weights, so that they are checked at most once.

        Checking whether 270 million weights have changed takes 70 ms, and writing a vector needs
        the hash.
        """
        if not self._held:
            self._seen = False
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1


def hash_weights(model: torch.nn.Module) -> str:
    """sha256 over the names, shapes, types and bytes of all parameters.

    A bias of zeros at the unembedding is left out, because TransformerLens 3 adds one to a model
    that has none. So the same weights have the same hash in all versions.

    >>> hash_weights(torch.nn.Linear(2, 2)) == hash_weights(torch.nn.Linear(2, 2))  # both random
    False
    """
    digest = hashlib.sha256()
    for name, _ in sorted(model.named_parameters()):
        with align_module_device(
            model.get_submodule(name.rpartition(".")[0])
        ):  # reads a weight from disk if it is there
            tensor = model.get_parameter(name)
            if _UNEMBEDDING_BIAS.fullmatch(name) and not tensor.any():
                continue
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            flat = tensor.detach().contiguous().cpu().view(-1).view(torch.uint8)
            digest.update(flat.numpy().data)
    return digest.hexdigest()


def _mark(tensor: Tensor) -> tuple[object, ...]:
    """Values that change when a tensor does: its address, its version counter, a checksum.

    The version counter misses writes through `.data`, but the checksum detects them. It is a sum
    over the bytes (eight at a time if possible), which is many times as fast as a hash.
    """
    if tensor.device.type == "meta":  # it is on disk, where nothing writes to it
        return tuple(tensor.shape), tensor.dtype
    version = None if tensor.is_inference() else tensor._version
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    if flat.numel() % 8 == 0 and flat.storage_offset() % 8 == 0:
        flat = flat.view(torch.int64)
    return tensor.data_ptr(), version, tuple(tensor.shape), tensor.dtype, int(flat.sum())
