"""Reads a text as a prompt: which part of it has which role, if it follows a template."""

from icl_mech.errors import InputError, shown
from icl_mech.prompts.template import DEFAULT_TEMPLATE, Span, Template


def read_spans(text: str, template: str = DEFAULT_TEMPLATE) -> list[Span]:
    """The pieces of a few-shot prompt, as it was written, with their roles.

    Every line (up to the separator) is a pair as the template writes it; the last one ends with its
    arrow. A first line that holds no arrow is the instruction.

    >>> [(span.role, span.text) for span in read_spans("Japan->Tokyo\\nFrance->")]
    [('demo_0_x', 'Japan'), ('demo_0_arrow', '->'), ('demo_0_y', 'Tokyo'), ('demo_0_end', '\\n'), \
('query', 'France'), ('final_arrow', '->')]

    Raises:
        InputError: naming the character from which on the text does not follow the template.
    """
    made = Template(template)
    start, arrow, end = made.pieces
    *demonstrations, last = text.split(made.separator)
    spans: list[Span] = []
    at = 0
    if demonstrations and arrow not in demonstrations[0]:
        spans.append(Span(demonstrations.pop(0) + made.separator, "instruction"))
        at = len(spans[0].text)
    for i, line in enumerate(demonstrations):
        x, y = _pair(line, start, arrow, end, text, at, template)
        spans += [
            Span(start, f"demo_{i}_start"),
            Span(x, f"demo_{i}_x"),
            Span(arrow, f"demo_{i}_arrow"),
            Span(y, f"demo_{i}_y"),
            Span(end + made.separator, f"demo_{i}_end"),
        ]
        at += len(line) + len(made.separator)
    query = last.removeprefix(start).removesuffix(arrow)
    if not last.startswith(start) or not last.endswith(arrow) or not query.strip():
        raise _stops(text, at, template, f"a query and {arrow!r}")
    spans += [Span(start, "query_start"), Span(query, "query"), Span(arrow, "final_arrow")]
    return [span for span in spans if span.text]


def follows(text: str, template: str = DEFAULT_TEMPLATE) -> list[Span] | None:
    """The pieces of a text that follows a template; None for any other text.

    >>> follows("The capital of France is") is None
    True
    """
    try:
        return read_spans(text, template)
    except InputError:
        Template(template)  # a template that cannot work is still an error
        return None


def _pair(
    line: str, start: str, arrow: str, end: str, text: str, at: int, template: str
) -> tuple[str, str]:
    """Input and answer of a line, spaces included."""
    inner = line.removeprefix(start)
    x, found, y = (inner.removesuffix(end) if end else inner).partition(arrow)
    if not (line.startswith(start) and line.endswith(end) and found and x.strip() and y.strip()):
        raise _stops(text, at, template, "a pair")
    return x, y


def _stops(text: str, at: int, template: str, wanted: str) -> InputError:
    return InputError(
        f"the text stops to follow the template {shown(template)} at character {at} "
        f"({shown(text[at : at + 40])}); expected {wanted} there"
    )
