"""The token that every prompt begins with.

Many attention heads attend to the first token if no other token matters to them (an attention
sink). Some tokenizers put no special token there, and injected vectors then fail. So every prompt
begins with a special token. It is BOS if the tokenizer itself puts BOS before a text, as it did in
training. Otherwise it is the end-of-text token, which stood between documents in training. A BOS
that the tokenizer does not prepend is not used, because it may have another meaning, such as the
start of a chat turn.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from icl_mech.errors import InputError, ModelError

#: How tokenizers spell the token between two documents.
END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>")


@dataclass(frozen=True)
class Sink:
    """The first token of every prompt, and why it was chosen.

    Attributes:
        token: its id.
        reason: why, in words.
        rival: another token that might be the right one; None if there is no doubt.
    """

    token: int
    reason: str
    rival: int | None = None


def prepends_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its BOS before a text by itself."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def choose_sink(
    tokenizer: Any, wanted: str | int | None = None, bos_by_itself: bool | None = None
) -> Sink:
    """The sink token of a tokenizer, or the one that the caller wants.

    >>> choose_sink(model.tokenizer, "<bos>")
    Sink(token=2, reason='chosen by the caller', rival=None)

    Args:
        tokenizer: a Transformers tokenizer.
        wanted: a token of its vocabulary, as text or id; by default it is chosen.
        bos_by_itself: whether BOS is prepended by itself; by default the tokenizer is asked.

    Raises:
        InputError: where `wanted` is no token of the vocabulary.
        ModelError: where the tokenizer has no BOS and no end-of-text token.

    Example:
        >>> sink = choose_sink(model.tokenizer)
        >>> sink.token == model.tokenizer.bos_token_id
        True
    """
    if wanted is not None:
        return Sink(_known(tokenizer.get_vocab(), wanted), "chosen by the caller")
    bos = tokenizer.bos_token_id
    if prepends_bos(tokenizer) if bos_by_itself is None else bos_by_itself:
        return Sink(int(bos), "BOS, which the tokenizer itself prepends")
    vocabulary = tokenizer.get_vocab()
    for text in END_OF_TEXT:
        if text in vocabulary:
            return _beside(int(vocabulary[text]), "end of text", tokenizer)
    if tokenizer.eos_token_id is not None:
        return _beside(int(tokenizer.eos_token_id), "end of sequence", tokenizer)
    if bos is not None:
        return Sink(int(bos), "BOS; the tokenizer prepends nothing, and has no end-of-text token")
    raise ModelError(
        "the tokenizer has no BOS and no end-of-text token; expected one to start prompts with: "
        "choose a token of its vocabulary as sink"
    )


def _beside(token: int, what: str, tokenizer: Any) -> Sink:
    """The end-of-text token as sink; if the tokenizer has a different BOS, BOS is its rival.

    TransformerLens sets BOS to end-of-sequence if a tokenizer has none.
    """
    bos = tokenizer.bos_token_id
    if bos in (None, token, tokenizer.eos_token_id):
        return Sink(token, f"{what}; the tokenizer has no BOS of its own")
    return Sink(token, f"{what}; the tokenizer names a BOS but does not prepend it", int(bos))


def _known(vocabulary: dict[str, int], wanted: str | int) -> int:
    if isinstance(wanted, str):
        if wanted in vocabulary:
            return int(vocabulary[wanted])
        marks = [t for t in vocabulary if t.startswith("<")]
        near = get_close_matches(wanted, marks, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise InputError(
            f"sink {wanted!r} is no token of this tokenizer{hint} Expected one of its "
            "vocabulary, such as its BOS or end-of-text token"
        )
    if isinstance(wanted, bool) or wanted not in vocabulary.values():
        raise InputError(
            f"sink {wanted!r} is no token of this tokenizer; expected a token's text, or its id, "
            f"0 to {max(vocabulary.values())}"
        )
    return int(wanted)
