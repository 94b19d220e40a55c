"""Greedy generation for both engines, and checks of its arguments and of continuations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model.engine import Engine, Tokens
from icl_mech.model.network import module_of


@dataclass(frozen=True)
class Generation:
    """What the model generated after a prompt.

    Attributes:
        tokens: the generated ids, without an end-of-text token.
        text: the generated text up to the stop. Escape it before it goes into HTML.
        cut: whether the limit of new tokens was reached before the text ended.
    """

    tokens: tuple[int, ...]
    text: str
    cut: bool


@runtime_checkable
class Continued(Protocol):
    """A batch of growing texts with edits in place; one row per (prompt, branch)."""

    @property
    def last(self) -> Float[Tensor, "row d_model"]:
        """The residual stream after the last block at each row's last token."""

    def rows(self, kept: Int[Tensor, "kept"]) -> "Continued":
        """Only these rows."""

    def step(self, tokens: Int[Tensor, "row"]) -> "Continued":
        """The same rows with one more token each."""


def check_generation(max_new_tokens: int, stop: str) -> None:
    """Refuse a limit below 1 and an empty stop.

    >>> check_generation(16, "\\n")

    Raises:
        InputError: where one is met.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}; expected at least 1")
    if not stop:
        raise InputError("stop is empty; expected text that ends an answer")


def greedy(engine: Engine, texts: Continued, max_new_tokens: int, stop: str) -> list[Generation]:
    """Append the most probable token until every row has ended; ended rows stop running."""
    tokens: list[list[int]] = [[] for _ in texts.last]
    done: dict[int, Generation] = {}
    running = list(range(len(tokens)))
    ends = _end_tokens(engine)
    for step in range(max_new_tokens):
        nothing = engine.tensor([[0]] * len(running))
        said = engine.readout(texts.last, nothing).top
        for row, token in zip(running, said.tolist(), strict=True):
            tokens[row].append(token)
            at_limit = step + 1 == max_new_tokens
            generation = _ended_text(engine, tokens[row], ends, stop, at_limit)
            if generation is not None:
                done[row] = generation
        going = [i for i, row in enumerate(running) if row not in done]
        if not going:
            break
        running = [running[i] for i in going]
        kept = engine.tensor(going)
        texts = (texts.rows(kept) if len(going) < len(said) else texts).step(said[kept])
    return [done[row] for row in range(len(tokens))]


def _ended_text(
    engine: Engine, tokens: list[int], ends: set[int], stop: str, at_limit: bool
) -> Generation | None:
    """The finished generation if it ends with these tokens, else None."""

    def text(ids: list[int]) -> str:
        return str(engine.bridge.tokenizer.decode(ids))

    if tokens[-1] in ends:
        return Generation(tuple(tokens[:-1]), text(tokens[:-1]), cut=False)
    said = text(tokens)
    if stop in said:
        return Generation(tuple(tokens), said.partition(stop)[0], cut=False)
    return Generation(tuple(tokens), said, cut=True) if at_limit else None


def _end_tokens(engine: Engine) -> set[int]:
    """Tokens that end a text according to the tokenizer or the model's generation config."""
    config = getattr(module_of(engine.bridge), "generation_config", None)
    of_model = getattr(config, "eos_token_id", None)
    several = of_model if isinstance(of_model, list) else [of_model]
    return {t for t in (engine.bridge.tokenizer.eos_token_id, *several) if t is not None}


def pad_continuations(
    prompts: Sequence[Tokens], continuations: Sequence[Sequence[Tokens]]
) -> Int[Tensor, "prompt continuation token"]:
    """Put the continuations of every prompt in one tensor, padded with -1.

    >>> pad_continuations([[1], [1]], [[[5, 6]], [[7], [8]]]).tolist()
    [[[5, 6], [-1, -1]], [[7, -1], [8, -1]]]

    Raises:
        InputError: where a prompt has none, or one is empty.
    """
    if len(continuations) != len(prompts):
        raise InputError(
            f"continuations of {len(continuations)} prompts for {len(prompts)} prompts; expected "
            "some for each"
        )
    if not all(continuations) or not all(len(c) for of in continuations for c in of):
        raise InputError("an empty continuation, or none; expected at least one token for each")
    n_most = max(map(len, continuations))
    n_longest = max(len(c) for of_prompt in continuations for c in of_prompt)
    found = torch.full((len(prompts), n_most, n_longest), -1)
    for p, of_prompt in enumerate(continuations):
        for c, tokens in enumerate(of_prompt):
            found[p, c, : len(tokens)] = torch.as_tensor(tokens)
    return found
