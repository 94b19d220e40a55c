"""Token texts for display: every character visible, markup escaped."""

from html import escape

_MARKS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"}
#: The most characters of a token, or of a prompt, in a hover text or a subtitle.
LONG = 60


def visible(text: str) -> str:
    """A token with marks for spaces and line breaks, and codes for unprintable characters.

    >>> visible(" a\\n"), visible("\\u200fb"), visible("")
    ('·a⏎', '\\\\u200fb', '∅')
    """
    if not text:
        return "∅"
    return "".join(_MARKS.get(c, c if c.isprintable() else _code(c)) for c in text)


def markup(text: str, length: int = LONG, spaces: bool = True) -> str:
    """A token for plotly: visible, cut to `length` characters, and escaped.

    Args:
        text: the token's text; or another text, such as a name.
        length: number of characters that are kept.
        spaces: whether spaces get marks.

    >>> markup("<b> & $x$"), markup("abcdef", 4)
    ('&lt;b&gt;·&amp;·&#36;x&#36;', 'abc…')
    """
    shown = visible(text) if spaces else " ".join(map(visible, text.split(" ")))
    if len(shown) > length:
        shown = f"{shown[: length - 1]}…"
    # Plotly does not know &quot;. On pages with MathJax it sets text between dollars as formulas.
    return escape(shown, quote=False).replace("$", "&#36;")


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
