"""The precision of float32 matrix products, and its measured effect on a model's answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, get_args

import torch

from icl_mech.errors import InputError, choose
from icl_mech.model.network import context_length, device_of, final_stream, some_tokens
from icl_mech.model.readout import read

#: As in `torch.set_float32_matmul_precision`.
MatmulPrecision = Literal["highest", "high", "medium"]
#: Torch's settings for products on a CPU and on a GPU.
_SETTINGS = {"highest": ("ieee", "ieee"), "high": ("tf32", "tf32"), "medium": ("bf16", "tf32")}
#: Tokens of the prompt on which precisions are compared, and the number of best next tokens that
#: are compared at each.
_COMPARED, _BEST = 64, 5


@dataclass(frozen=True)
class Precision:
    """A precision of matrix products, and its error as measured on the model that uses it.

    Attributes:
        name: as in `torch.set_float32_matmul_precision`.
        error, mean_error: the largest and the mean difference from full precision in the log
            probability (nats) of the five best next tokens; None for full precision.
        same_top: the share of positions with the same top token.
        n_tokens: the number of positions that were compared.
    """

    name: MatmulPrecision = "highest"
    error: float | None = None
    mean_error: float | None = None
    same_top: float | None = None
    n_tokens: int = 0

    def recorded(self) -> dict[str, Any]:
        """The entries about the precision for the provenance."""
        found: dict[str, Any] = {"matmul_precision": self.name}
        if self.error is not None:
            found["matmul_error"] = {
                "logprob": self.error,
                "logprob_mean": self.mean_error,
                "same_top": self.same_top,
                "n_tokens": self.n_tokens,
                "note": self.note,
            }
        return found

    @property
    def note(self) -> str:
        """The error in one sentence; empty for full precision."""
        if self.error is None or self.mean_error is None or self.same_top is None:
            return ""
        asked = f"matmul_precision {self.name!r}"
        where = f"at {self.n_tokens} tokens of a prompt of arbitrary tokens"
        if not self.error:
            return f"{asked} changes no number on this device ({where})"
        return (
            f"{asked}: products are rounded; log probabilities of the {_BEST} best next tokens are "
            f"off by {self.mean_error:.2g} nats on average and {self.error:.2g} at most, and "
            f"{self.same_top:.0%} of the top tokens are those of full precision ({where})"
        )


def check_precision(name: Any, dtype: Any = None) -> None:
    """Refuse an unknown precision, or a reduced one for numbers other than float32.

    >>> check_precision("hihg")
    Traceback (most recent call last):
        ...
    icl_mech.errors.InputError: unknown matmul_precision 'hihg'; did you mean 'high'? Choose ...

    Args:
        name: of the precision.
        dtype: of the model's weights, where it is known.

    Raises:
        InputError: where there is no such precision, or a reduced one is asked of other numbers
            than float32.
    """
    choose(name, get_args(MatmulPrecision), "matmul_precision")
    if name != "highest" and isinstance(dtype, torch.dtype) and dtype != torch.float32:
        raise InputError(
            f"matmul_precision={name!r} beside weights in {dtype}; expected float32, of whose "
            "products it is the precision"
        )


@contextmanager
def multiplied(name: MatmulPrecision) -> Iterator[None]:
    """Context in which float32 matrices are multiplied in a precision; torch's setting is restored.

    Torch has one setting for the whole process, so it applies to other threads too.

    >>> with multiplied("medium"):
    ...     torch.get_float32_matmul_precision()
    'medium'
    >>> torch.get_float32_matmul_precision()
    'highest'
    """
    mkldnn = getattr(torch.backends.mkldnn, "matmul", None)  # from torch 2.9 on
    backends = [] if mkldnn is None else [mkldnn, torch.backends.cuda.matmul]
    before = [backend.fp32_precision for backend in backends]
    try:
        one = torch.get_float32_matmul_precision()
    except RuntimeError:  # the caller set CPU and GPU differently, for which torch has no name
        one = None
    try:
        if one is None:
            _set(backends, _SETTINGS[name])
        elif one != name:
            torch.set_float32_matmul_precision(name)
        yield
    finally:
        if one is not None and one != name:
            torch.set_float32_matmul_precision(one)
        _set(backends, before)


def _set(backends: Any, settings: Any) -> None:
    for backend, setting in zip(backends, settings, strict=True):
        if backend.fp32_precision != setting:
            backend.fp32_precision = setting


def in_its_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of an engine multiply in the engine's precision (`precision`)."""

    @wraps(method)
    def multiplying(self: Any, *args: Any, **kwargs: Any) -> Any:
        with multiplied(self.precision.name):
            return method(self, *args, **kwargs)

    return multiplying


def in_full_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method multiply in full precision, such as the check of an engine."""

    @wraps(method)
    def multiplying(*args: Any, **kwargs: Any) -> Any:
        with multiplied("highest"):
            return method(*args, **kwargs)

    return multiplying


@torch.no_grad()
def measured(bridge: Any, name: MatmulPrecision) -> Precision:
    """Measure the error of a precision on a model, at every token of an arbitrary prompt."""
    if name == "highest":
        return Precision()
    n = min(_COMPARED, context_length(bridge) or _COMPARED)
    d_vocab = int(bridge.unembed.W_U.shape[1])
    tokens = torch.tensor([some_tokens(d_vocab, n)], device=device_of(bridge))
    with multiplied("highest"):
        stream = final_stream(bridge, tokens)[0]
        best = read(bridge, stream, torch.full((n, 1), -1), min(_BEST, d_vocab)).best
        assert best is not None
        full = read(bridge, stream, best)
    with multiplied(name):
        rounded = read(bridge, final_stream(bridge, tokens)[0], best)
    off = (full.logprob - rounded.logprob).abs()
    same = float((full.top == rounded.top).float().mean())
    return Precision(name, float(off.max()), float(off.mean()), same, n)
