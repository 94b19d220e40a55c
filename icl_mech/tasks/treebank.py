"""Part-of-speech tasks on a treebank in CoNLL-U (needs the package conllu)."""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from icl_mech.errors import InputError
from icl_mech.tasks.family import Family
from icl_mech.tasks.pos import OTHER, Sentence, askable, pos_family
from icl_mech.tasks.text import as_path

if TYPE_CHECKING:
    from conllu import Token

#: The universal tags (UPOS) behind the six of Han et al.
UPOS = {
    "NOUN": "noun",
    "ADJ": "adjective",
    "VERB": "verb",
    "ADV": "adverb",
    "ADP": "preposition",
    "PRON": "pronoun",
}
NOT_WORDS = {"PUNCT", "SYM"}
#: Sentences shorter or longer than this, in words without punctuation, are left out.
N_WORDS = range(6, 26)
N_COLUMNS = 10

#: A sentence in a file: its lines, each with its number.
_Block = list[tuple[int, str]]


def pos_family_from_conllu(path: str | Path, seed: int = 0) -> Family:
    """The part-of-speech tasks of Han et al. 2024 on the sentences of a treebank.

    A sentence is kept if it has 6 to 25 words and all six tags, the first words of the tags differ
    (ignoring case), and all six answers are written as separate words, not as part of a multiword
    token (German "im" is "in" + "dem"). Words stay as they are written.

    Args:
        path: a CoNLL-U file; the family is named `"pos:<file without suffix>"`.
        seed: of the null task's words.

    Raises:
        InputError: where the package or the file is missing, a line is malformed (named), no
            sentence can be asked, or the seed is negative.
    """
    path = as_path("the name of a treebank", path)
    if find_spec("conllu") is None:
        raise InputError(
            f"{path}: reading a treebank needs the package conllu; "
            "install it with: pip install 'icl-mech[treebanks]'"
        )
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        raise InputError(f"{path}: no such file; expected a treebank in CoNLL-U")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read the file") from None
    blocks = list(_blocks(text))
    found = [_sentence(path, block) for block in blocks]
    sentences = askable(sentence for sentence in found if sentence is not None)
    if blocks and not any(_is_tagged(line) for block in blocks for _, line in block):
        raise InputError(
            f"{path}: no word has a tag; expected universal part-of-speech tags (UPOS) in the "
            "fourth column"
        )
    if not sentences:
        raise InputError(
            f"{path}: none of {len(found)} sentences has {N_WORDS[0]} to {N_WORDS[-1]} words and "
            f"all six tags ({', '.join(UPOS)}), each with a first word of its own; "
            "expected at least one"
        )
    return pos_family(f"pos:{path.stem}", sentences, seed)


def _blocks(text: str) -> Iterator[_Block]:
    """Sentences, which blank lines separate."""
    block: _Block = []
    # Only newlines end a line: a word may hold what `splitlines` splits at.
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []


def _is_tagged(line: str) -> bool:
    columns = line.split("\t")
    return not line.startswith("#") and len(columns) > 3 and columns[3] != "_"


def _sentence(path: Path, block: _Block) -> Sentence | None:
    """The sentence of a block; None where its answers or its length exclude it."""
    metadata: dict[str, str] = {}
    tokens: list[Token] = []
    for number, line in block:
        if line.startswith("#"):
            key, _, value = line.removeprefix("#").partition("=")
            metadata[key.strip()] = value.strip()
        else:
            tokens.append(_token(path, number, line))
    words = [(word, tags) for word, tags in _words(tokens) if not NOT_WORDS.issuperset(tags)]
    for tag in UPOS:
        first = next((tags for _, tags in words if tag in tags), None)
        if first is None or len(first) > 1:
            return None
    if len(words) not in N_WORDS:
        return None
    text = metadata.get("text") or _join(tokens)
    tagged = ((word, UPOS.get(tags[0], OTHER) if len(tags) == 1 else OTHER) for word, tags in words)
    return Sentence(text.removesuffix(".").rstrip(), tuple(tagged))


def _token(path: Path, number: int, line: str) -> "Token":
    from conllu import parse_token_and_metadata
    from conllu.exceptions import ParseException

    try:
        token = parse_token_and_metadata(line)[0]
        # The parser leaves out columns that are missing or empty, and ignores superfluous ones.
        if len(token) < N_COLUMNS or line.count("\t") + 1 > N_COLUMNS:
            raise ParseException("too few columns, too many, or an empty one")
        if token["id"] is None:
            raise ParseException("no ID")
    except ParseException as error:
        raise InputError(
            f"{path}, line {number}: {str(error).rstrip('.')}; expected {N_COLUMNS} columns "
            "separated by tabs: ID, FORM, LEMMA, UPOS, XPOS, FEATS, HEAD, DEPREL, DEPS, MISC"
        ) from None
    return token


def _words(tokens: Sequence["Token"]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Words as they are written, each with its tag, or the tags of all its parts."""
    tags = {token["id"]: token["upos"] for token in tokens}
    for token in _written(tokens):
        match token["id"]:
            case (start, "-", end):
                yield token["form"], tuple(tags.get(i, OTHER) for i in range(start, end + 1))
            case single:
                yield token["form"], (tags[single],)


def _written(tokens: Sequence["Token"]) -> Iterator["Token"]:
    """Tokens that are in the text: no empty nodes (1.1), and 1-2 instead of 1 and 2."""
    inside = 0
    for token in tokens:
        match token["id"]:
            case (_, "-", end):
                inside = end
                yield token
            case int(single) if single > inside:
                yield token


def _join(tokens: Sequence["Token"]) -> str:
    """The text of a sentence without a text comment: tokens, spaced unless SpaceAfter=No."""
    text = ""
    for token in _written(tokens):
        glued = (token["misc"] or {}).get("SpaceAfter") == "No"
        text += token["form"] + ("" if glued else " ")
    return text.strip()
