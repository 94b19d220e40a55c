"""Checks of what callers pass: prompts, token ids and tensors."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

import numpy as np
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.prompts import Prompt


def check_prompts(prompts: Any, name: str = "prompts") -> Sequence[Prompt]:
    """Refuse anything but a list of prompts.

    Raises:
        InputError: where it is text, a single prompt, or a list of something else.
    """
    if isinstance(prompts, Prompt):
        raise InputError(f"{name} is a single Prompt; expected a list of prompts: [prompt]")
    several = _several(prompts, name, "prompts")
    for prompt in several:
        if not isinstance(prompt, Prompt):
            raise InputError(
                f"{name} holds {_said(prompt)}; expected prompts, as an encoder makes them: "
                "model.encoder(template, words).encode(pairs, query)"
            )
    return several


def check_list(values: Any, name: str, of: str) -> Sequence[Any]:
    """Refuse anything but a list, array or other collection of values.

    >>> check_list((1, 2), "edits", "edits")
    (1, 2)

    Raises:
        InputError: where it is text, or cannot be iterated over.
    """
    return _several(values, name, of)


def token_rows(rows: Any, name: str = "answers") -> list[list[int]]:
    """Convert rows of token ids, of any integer type (numpy, torch), to lists of `int`.

    >>> token_rows(np.array([[5, 7], [9, 2]]))
    [[5, 7], [9, 2]]

    Raises:
        InputError: where a row holds words instead of ids, or a single id stands for a row.
    """
    return [token_ids(row, name, row=True) for row in _several(rows, name, "rows of token ids")]


def token_ids(ids: Any, name: str = "answers", *, row: bool = False) -> list[int]:
    """Convert token ids to a list of `int`.

    >>> token_ids(np.array([5, 7]))
    [5, 7]

    Args:
        ids: a list, array or tensor of them.
        name: of the argument, for the message.
        row: whether `ids` is one row of several, which changes the message.

    Raises:
        InputError: where it holds anything but whole numbers.
    """
    if row and not isinstance(ids, str) and not isinstance(ids, Iterable):
        raise InputError(
            f"{name} holds {_said(ids)} where a row of token ids is meant; expected a list of ids "
            "for each prompt, as [[5], [7, 9]]"
        )
    if isinstance(ids, str):
        raise InputError(_word(ids, name))
    found = []
    for token in _several(ids, name, "token ids"):
        if isinstance(token, str):
            raise InputError(_word(token, name))
        try:
            found.append(index(token))
        except TypeError:
            raise InputError(
                f"{name} holds {_said(token)} where a token id is meant; expected a whole number"
            ) from None
    return found


def check_tensor(values: Any, name: str, shape: str, width: int) -> Tensor:
    """Refuse anything but a floating-point tensor of the expected shape.

    >>> import torch
    >>> check_tensor(torch.zeros(2, 8), "resid", "row, d_model", 8).shape
    torch.Size([2, 8])

    Args:
        values: what was given.
        name: of the argument, for the message.
        shape: the names of the expected axes, separated by commas.
        width: the size of its last axis.

    Raises:
        InputError: where it is not a floating-point tensor, or has another shape.
    """
    expected = f"expected a torch tensor [{shape}] with {width} numbers in the last axis"
    if not isinstance(values, Tensor):
        from_numpy = isinstance(values, np.ndarray) and ": torch.from_numpy(...) makes one"
        raise InputError(f"{name} is {_said(values)}; {expected}{from_numpy or ''}")
    if not values.is_floating_point():
        raise InputError(f"{name} holds {values.dtype}; expected floating-point numbers")
    if values.ndim != len(shape.split(", ")) or values.shape[-1] != width:
        raise InputError(f"{name} has the shape {list(values.shape)}; {expected}")
    return values


def _several(values: Any, name: str, of: str) -> Sequence[Any]:
    if isinstance(values, str):
        raise InputError(f"{name} is the text {values!r}; expected a list of {of}")
    if isinstance(values, np.ndarray | Tensor):
        return list(values.tolist())
    if not isinstance(values, Iterable):
        raise InputError(f"{name} is {_said(values)}; expected a list of {of}")
    return values if isinstance(values, Sequence) else list(values)


def _word(word: str, name: str) -> str:
    return (
        f"{name} holds the word {word!r} where token ids are meant; expected whole numbers, as "
        f"encoder.first_tokens(prompt, [{word!r}]) gives them"
    )


def _said(value: Any) -> str:
    """A wrong value for an error message: text and numbers in full, others by their type."""
    if isinstance(value, str | int | float | type(None)):
        return repr(value)
    kind = type(value).__name__
    return f"an {kind}" if kind[0].lower() in "aeiou" else f"a {kind}"
