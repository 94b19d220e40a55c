"""Inputs of questions about one prompt: its tokens, a target token, and a vector."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model import HookedModel, check_model
from icl_mech.prompts import DEFAULT_TEMPLATE, Prompt
from icl_mech.task_vectors import TaskVector

#: A text as it is written, the messages of a chat, or a prompt that an encoder made.
Asked = str | Prompt | Sequence[Mapping[str, str]]


def as_prompt(model: HookedModel, asked: Asked) -> Prompt:
    """A text, messages or a prompt as a `Prompt`.

    Raises:
        InputError: if `model` is no model, or the text is empty or too long.
    """
    check_model(model)
    return asked if isinstance(asked, Prompt) else model.prompt(asked)


def texts(model: HookedModel, tokens: Sequence[int]) -> list[str]:
    """Every token as text."""
    return [model.to_string(int(token)) for token in tokens]


def about(model: HookedModel, prompt: Prompt) -> dict[str, Any]:
    """The provenance of a picture: its model and prompt."""
    return {
        "model": model.name,
        "engine": model.engine,
        "dtype": str(model.dtype).removeprefix("torch."),
        **model.precision.recorded(),
        "prompt": prompt.text,
        "tokens": list(prompt.tokens),
    }


@dataclass(frozen=True)
class Target:
    """A token to look for.

    Attributes:
        token: its id.
        text: its text.
        whole: the text that was asked for, if the token is only its first one; else None.
    """

    token: int
    text: str
    whole: str | None = None

    @staticmethod
    def of(model: HookedModel, prompt: Prompt, asked: str | int) -> "Target":
        """The first token of a text, as it follows the prompt; or the token of an id.

        Raises:
            InputError: if there is no such token, or the text gives none.
        """
        if isinstance(asked, str):
            (tokens,) = continuations(model, prompt, [asked])
            whole = asked if len(tokens) > 1 else None
            return Target(tokens[0], model.to_string(tokens[0]), whole)
        n = len(model.vocabulary)
        if isinstance(asked, bool) or not 0 <= asked < n:
            raise InputError(f"target is {asked}; expected a text, or a token id from 0 to {n - 1}")
        return Target(int(asked), model.to_string(int(asked)))


def continuations(
    model: HookedModel, prompt: Prompt, answers: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    """Token ids of texts as they follow the prompt.

    Raises:
        InputError: if one gives no tokens.
    """
    return model.encoder(DEFAULT_TEMPLATE, [], False).answer_tokens(prompt, answers)


def stream(
    model: HookedModel, prompt: Prompt, vector: TaskVector | None = None
) -> Float[Tensor, "token stage d_model"]:
    """The residual stream at every token, with the vector written at the last one.

    Raises:
        InputError: if the prompt is too long, or the vector is of another model.
        ModelError: if the model cannot be read.
    """
    if vector is not None:
        vector.check_fits(model)
        # The engine checks itself against a plain forward here, before anything is written.
        model.final_residuals([[prompt]])
    with nullcontext() if vector is None else vector.apply(model):
        return model.residual_stream([prompt], list(range(len(prompt))))[0]
