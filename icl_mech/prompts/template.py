"""Writes prompts as text, in spans that are labelled by their roles."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from icl_mech.errors import InputError, shown
from icl_mech.tasks.task import Pair
from icl_mech.tasks.text import check_text

DEFAULT_TEMPLATE = "{x}->{y}"


@dataclass(frozen=True)
class Span:
    """A stretch of text and its role.

    Roles are `"demo_0_x"`, `"demo_0_arrow"`, `"demo_0_y"`, `"demo_0_end"` (what separates it
    from what comes next), then `"query"` and `"final_arrow"`; text that a template puts before
    an input is `"demo_0_start"` or `"query_start"`. A line before all of these is
    `"instruction"`.
    """

    text: str
    role: str


@dataclass(frozen=True)
class Template:
    """How a pair is written; pairs are joined by `separator`.

    Attributes:
        text: holds `{x}` and, after it, `{y}`. What stands between them is the *arrow*.
        separator: between two demonstrations.
        leading_space: whether words are written with a space before them, as most tokenizers
            want them (" Paris" is one token where "Paris" may be three).

    Raises:
        InputError: where `{x}` or `{y}` is missing, repeated, or in the wrong order, or a
            character cannot be written.
    """

    text: str = DEFAULT_TEMPLATE
    separator: str = "\n"
    leading_space: bool = True

    def __post_init__(self) -> None:
        for what in ("text", "separator"):
            check_text(f"the template's {what}", getattr(self, what))
        fields = re.findall(r"\{[xy]\}", self.text)
        if fields != ["{x}", "{y}"] or re.search(r"\{x\} *\{y\}", self.text):
            raise InputError(
                f"template {shown(self.text)}: expected {{x}}, then some text, then {{y}}, "
                f"each once, as in {DEFAULT_TEMPLATE!r}"
            )

    def _parts(self) -> tuple[str, str, str]:
        start, arrow, end = self.pieces
        if not self.leading_space:
            return start, arrow, end
        # Words are written with a leading space; a second space would be a separate token.
        return start.removesuffix(" "), arrow.removesuffix(" "), end

    @property
    def pieces(self) -> tuple[str, str, str]:
        """The text before `{x}`, the arrow, and the text after `{y}`, as the template has them."""
        start, rest = self.text.split("{x}")
        arrow, end = rest.split("{y}")
        return start, arrow, end

    @property
    def stop(self) -> str:
        """What ends an answer: the text after `{y}`, or, where there is none, the separator."""
        return self._parts()[2].strip() or self.separator

    def word(self, text: str) -> str:
        """An input or answer as it is written into the prompt."""
        return f" {text}" if self.leading_space else text

    def render(
        self, demonstrations: Sequence[Pair], query: str, instruction: str = ""
    ) -> list[Span]:
        """The prompt that asks for the answer to `query`, in labelled pieces.

        An instruction stands before all of it, followed by the separator.
        """
        start, arrow, end = self._parts()
        spans = [Span(instruction + self.separator, "instruction")] if instruction else []
        for i, pair in enumerate(demonstrations):
            spans += [
                Span(start, f"demo_{i}_start"),
                Span(self.word(pair.x), f"demo_{i}_x"),
                Span(arrow, f"demo_{i}_arrow"),
                Span(self.word(pair.y), f"demo_{i}_y"),
                Span(end + self.separator, f"demo_{i}_end"),
            ]
        spans += [
            Span(start, "query_start"),
            Span(self.word(query), "query"),
            Span(arrow, "final_arrow"),
        ]
        return [span for span in spans if span.text]
