"""Encodes labelled text as token ids, each with its role, by the tokenizer's offsets."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

from icl_mech.errors import InputError, ModelError, nearest
from icl_mech.prompts.reading import follows
from icl_mech.prompts.sink import choose_sink
from icl_mech.prompts.template import Span, Template
from icl_mech.tasks.task import Pair
from icl_mech.tasks.text import check_text

SINK = "sink"
#: The number of tokens of a prompt above which a run takes long, and a warning says so.
LONG = 1_000
LONG_PROMPT = (
    f"prompts of more than {LONG:,} tokens: a run takes time and memory that grow faster than "
    "their length (shorter inputs and answers, or fewer shots, make it faster)"
)
#: Endings of roles whose text may merge with its neighbours: text between demonstrations.
OPTIONAL = ("_start", "_end")


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt.

    Attributes:
        text: what was tokenised (without the sink token).
        tokens: ids; the first is the sink token.
        roles: the role of every token, `"sink"` first (see `Span`).
    """

    text: str
    tokens: tuple[int, ...]
    roles: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def position(self, role: str | int) -> int:
        """Index of the last token of a role; an integer counts tokens, from the end if negative.

        Raises:
            InputError: where the prompt has no such role or token.
        """
        return self.positions(role)[-1]

    def positions(self, role: str | int) -> tuple[int, ...]:
        """Indices of all tokens of a role, in order; an integer stands for one token.

        A `*` stands for any text: `"demo_*_y"` are the answers of all demonstrations.

        Raises:
            InputError: where the prompt has no such role or token.
        """
        if isinstance(role, int):
            if not -len(self) <= role < len(self):
                raise InputError(f"token {role} out of range for a prompt of {len(self)} tokens")
            return (role % len(self),)
        found = tuple(i for i, name in enumerate(self.roles) if fnmatchcase(name, role))
        if found:
            return found
        known = [name for name in dict.fromkeys(self.roles) if name]
        near = nearest(role, known)
        hint = f"; did you mean {near!r}?" if near else "."
        free = "; tokens of a text that follows no template are named by index, as -1"
        raise InputError(
            f"the prompt has no role {role!r}{hint} It has: {', '.join(known)}"
            + free * ("" in self.roles)
        )


class Encoder:
    """Turns demonstrations and queries into prompts for one tokenizer and template.

    Args:
        tokenizer: a fast Transformers tokenizer (offsets are needed).
        template: how pairs are written.
        sink: id of the token that every prompt begins with; by default as `choose_sink` chooses it.
        n_tokens: how many tokens the model has embeddings for; by default those of the tokenizer.

    Raises:
        ModelError: where the tokenizer cannot report offsets or has no token to begin with.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        sink: int | None = None,
        n_tokens: int | None = None,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"{type(tokenizer).__name__} does not report the offsets of its tokens; "
                "expected a fast tokenizer (one with a tokenizer.json)"
            )
        self.tokenizer = tokenizer
        self.template = template
        self.sink = choose_sink(tokenizer).token if sink is None else sink
        self._n_tokens = len(tokenizer) if n_tokens is None else n_tokens
        # Some tokenizers themselves put a space before the first word of a text.
        first = tokenizer.convert_ids_to_tokens(self._ids("a")[:1])
        self._adds_space = bool(first) and first[0].startswith(("▁", "Ġ"))

    def _ids(self, text: str) -> list[int]:
        return self._within(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _within(self, ids: list[int]) -> list[int]:
        """Refuse tokens that the model has no embedding for."""
        beyond = [token for token in ids if token >= self._n_tokens]
        if beyond:
            raise InputError(
                f"the text {self.tokenizer.decode(beyond[:1])!r} is token {beyond[0]}, and the "
                f"model has embeddings for {self._n_tokens} tokens; expected text without it"
            )
        return ids

    def encode(self, demonstrations: Sequence[Pair], query: str, instruction: str = "") -> Prompt:
        """The prompt that shows `demonstrations` and asks for the answer to `query`.

        Args:
            demonstrations: in order; none for a zero-shot prompt.
            query: the input that is asked.
            instruction: a line before the demonstrations.

        Raises:
            InputError: where the tokenizer merges two parts of the prompt, or the model has no
                embedding for a token.
        """
        spans = self.template.render(demonstrations, query, instruction)
        if self._adds_space and spans[0].text.startswith(" "):
            spans[0] = Span(spans[0].text[1:], spans[0].role)
        return self.encode_spans(spans)

    def encode_text(self, text: str) -> Prompt:
        """A text as it is; its tokens have roles where it follows the template, else none ("").

        Raises:
            InputError: where there is no text, or the model has no embedding for a token.
        """
        if not text:
            raise InputError("an empty text; expected a prompt")
        check_text("the prompt", text)
        spans = follows(text, self.template.text)
        return self.encode_spans([Span(text, "")] if spans is None else spans)

    def encode_spans(self, spans: Sequence[Span]) -> Prompt:
        """A prompt of labelled pieces.

        Raises:
            InputError: as `encode`.
        """
        text = "".join(span.text for span in spans)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = list(accumulate(len(span.text) for span in spans))
        roles = []
        for _, end in encoded["offset_mapping"]:
            # A token gets the role of its last character, whatever span it begins in.
            last = max(end - 1, 0)
            roles.append(spans[next(i for i, e in enumerate(ends) if last < e)].role)
        lost = [s.text for s in spans if s.role not in roles and not s.role.endswith(OPTIONAL)]
        if lost:
            raise InputError(
                f"template {self.template.text!r}: this tokenizer merges {lost[0]!r} with the "
                "text beside it; expected an arrow that keeps tokens of its own, as '->' does"
            )
        if len(roles) > LONG:
            warnings.warn(LONG_PROMPT, stacklevel=2)
        return Prompt(text, (self.sink, *self._within(encoded["input_ids"])), (SINK, *roles))

    def answer_tokens(self, prompt: Prompt, answers: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Token ids of every accepted answer as they follow `prompt`."""
        return tuple(self._continuation(prompt, self.template.word(answer)) for answer in answers)

    def first_tokens(self, prompt: Prompt, answers: Iterable[str]) -> tuple[int, ...]:
        """The ids with which the accepted answers begin as they follow `prompt`, each once."""
        return tuple(dict.fromkeys(ids[0] for ids in self.answer_tokens(prompt, answers)))

    def rivals(
        self, prompt: Prompt, answers: Iterable[str], labels: Iterable[str]
    ) -> tuple[int, ...]:
        """First tokens of labels, each once, with which no right answer begins."""
        right = self.first_tokens(prompt, answers)
        return tuple(t for t in self.first_tokens(prompt, labels) if t not in right)

    def _continuation(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        before = prompt.tokens[1:]
        whole = self._ids(prompt.text + text)
        if tuple(whole[: len(before)]) == before and len(whole) > len(before):
            return tuple(whole[len(before) :])
        # The answer would merge with the arrow. Tokenised on its own, the model can produce it.
        alone = self._ids(text.strip() if self._adds_space else text)
        if not alone:
            raise InputError(
                f"{text!r} gives no tokens; expected a word that this tokenizer can write"
            )
        return tuple(alone)


def wants_leading_space(tokenizer: Any, words: Sequence[str]) -> bool:
    """Whether words take no more tokens in the middle of a text when a space comes before them.

    >>> wants_leading_space(model.tokenizer, ["Paris", "London"])
    True
    """

    def cost(space: str) -> int:
        texts = [f"\n{space}{word}" for word in words]
        return sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))

    return cost(" ") <= cost("")
