"""Families: tasks that share their inputs, and what their answers are."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase

import pytest

from icl_mech.errors import InputError
from icl_mech.tasks import (
    Family,
    Pair,
    Task,
    list_families,
    list_tasks,
    load_family,
    load_task,
    treebank,
)
from icl_mech.tasks.bitwise import bitwise_family
from icl_mech.tasks.grammar import PATTERNS, lexicon

TAGS = ["noun", "adjective", "verb", "adverb", "preposition", "pronoun"]
SIZES = {
    "verbs": (73, {"gerund", "past", "participle", "third_person"}),
    "english_words": (229, {"spanish", "french", "italian", "german", "upper"}),
    "countries": (178, {"capital", "continent", "language", "currency"}),
    "letters": (24, {"next", "previous", "upper"}),
    "sentences": (200, {"sentiment", "topic"}),
    "pos": (1200, {*TAGS, "null"}),
    "bitwise": (1024, {"and", "nand", "or", "nor", "xor", "xnor", "null"}),
}


def answers(name: str) -> dict[str, str]:
    return {pair.x: pair.y for pair in load_task(name).pairs}


# --- every family ---------------------------------------------------------------------------


def test_the_families() -> None:
    assert list_families() == list(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_all_tasks_of_a_family_ask_the_same(name: str) -> None:
    family = load_family(name)
    n, outputs = SIZES[name]
    assert [task.name for task in family.tasks] == [f"{name}/{o}" for o in _in_order(family)]
    assert set(_in_order(family)) == outputs
    for task in family.tasks:
        assert tuple(pair.x for pair in task.pairs) == family.inputs
    assert len(family.inputs) == len(set(family.inputs)) == n
    assert repr(family).startswith(f"Family('{name}', {n} inputs: ")


def _in_order(family: Family) -> list[str]:
    return [task.name.split("/")[1] for task in family.tasks]


@pytest.mark.parametrize("name", SIZES)
def test_texts_fit_a_line_of_a_prompt(name: str) -> None:
    for task in load_family(name).tasks:
        for pair in task.pairs:
            for text in (pair.x, *pair.answers):
                assert text == " ".join(text.split()), pair
                assert "->" not in text, pair


@pytest.mark.parametrize("name", SIZES)
def test_only_drawn_answers_have_a_null_task(name: str) -> None:
    drawn = {"pos", "bitwise"}
    assert load_family(name).null == (f"{name}/null" if name in drawn else None)


@pytest.mark.parametrize("name", ["verbs", "english_words", "countries", "letters", "pos"])
def test_answers_tell_the_tasks_apart_for_every_input(name: str) -> None:
    family = load_family(name)
    for i, x in enumerate(family.inputs):
        words = [x]
        for task in family.tasks:
            if task.name != family.null:
                words += task.pairs[i].answers
        assert len(words) == len(set(words)), words
    assert family.distinct == 1
    assert family.only_distinct() == family


def test_member_categories() -> None:
    found = {(t.name.split("/")[0], t.category) for n in SIZES for t in load_family(n).tasks}
    assert found == {
        ("verbs", "linguistic"),
        ("english_words", "translation"),
        ("english_words", "algorithmic"),
        ("countries", "knowledge"),
        ("letters", "algorithmic"),
        ("sentences", "classification"),
        ("pos", "pos"),
        ("bitwise", "bitwise"),
    }


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("verbs/gerund", "swim", "swimming"),
        ("verbs/past", "overtake", "overtook"),
        ("verbs/participle", "withdraw", "withdrawn"),
        ("verbs/participle", "go", "gone"),
        ("verbs/third_person", "undo", "undoes"),
        ("english_words/spanish", "butterfly", "mariposa"),
        ("english_words/french", "squirrel", "écureuil"),
        ("english_words/italian", "spoon", "cucchiaio"),
        ("english_words/german", "knee", "Knie"),
        ("english_words/upper", "ant", "ANT"),
        ("countries/capital", "Kazakhstan", "Astana"),
        ("countries/continent", "Suriname", "South America"),
        ("countries/language", "Brazil", "Portuguese"),
        ("countries/currency", "Japan", "yen"),
        ("countries/currency", "Denmark", "krone"),
        ("countries/currency", "Croatia", "euro"),
        ("letters/next", "m", "n"),
        ("letters/previous", "m", "l"),
        ("letters/upper", "m", "M"),
        ("bitwise/and", "01101 10101", "00101"),
        ("bitwise/nand", "01101 10101", "11010"),
        ("bitwise/or", "01101 10101", "11101"),
        ("bitwise/nor", "01101 10101", "00010"),
        ("bitwise/xor", "01101 10101", "11000"),
        ("bitwise/xnor", "01101 10101", "00111"),
    ],
)
def test_a_fact_of_every_task(name: str, x: str, y: str) -> None:
    assert answers(name)[x] == y


def test_answers_are_the_same_in_another_process() -> None:
    code = "import json; from icl_mech.tasks import *; print(json.dumps([[p.x, p.y] for n in "
    code += "('pos', 'bitwise') for t in load_family(n).tasks for p in t.pairs]))"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment
    )
    here = [
        [p.x, p.y] for n in ("pos", "bitwise") for task in load_family(n).tasks for p in task.pairs
    ]
    assert json.loads(run.stdout) == here


# --- tables and letters ---------------------------------------------------------------------


def test_verbs_are_those_whose_past_is_not_their_participle() -> None:
    verbs = set(load_family("verbs").inputs)
    assert {"eat", "write", "be", "undergo"} < verbs
    assert not verbs & {"walk", "bring", "come", "run", "forget", "show"}
    for verb in verbs & answers("present_past").keys():
        assert answers("present_past")[verb] == answers("verbs/past")[verb]


def test_verb_forms_end_as_they_must() -> None:
    assert all(y.endswith("ing") for y in answers("verbs/gerund").values())
    assert all(y.endswith("s") for y in answers("verbs/third_person").values())
    assert all(
        y.endswith(("n", "ne", "g", "m", "nk")) for y in answers("verbs/participle").values()
    )


def test_words_that_two_languages_share_are_left_out() -> None:
    words = set(load_family("english_words").inputs)
    assert not words & {"book", "moon", "thousand", "with", "sad"}


def test_letters_are_worked_out() -> None:
    assert "".join(load_family("letters").inputs) == ascii_lowercase[1:-1]
    for x in ascii_lowercase[1:-1]:
        assert answers("letters/next")[x] == chr(ord(x) + 1)
        assert answers("letters/previous")[x] == chr(ord(x) - 1)
        assert answers("letters/upper")[x] == chr(ord(x) - 32)


# --- bitwise --------------------------------------------------------------------------------

TRUTH = {"and": "0001", "nand": "1110", "or": "0111", "nor": "1000", "xor": "0110", "xnor": "1001"}


@pytest.mark.parametrize("name", TRUTH)
def test_operations_digit_by_digit(name: str) -> None:
    for x, y in answers(f"bitwise/{name}").items():
        a, b = x.split(" ")
        assert len(a) == len(b) == len(y) == 5
        assert y == "".join(TRUTH[name][int(i + j, 2)] for i, j in zip(a, b, strict=True))


def test_pairs_for_which_two_operations_agree() -> None:
    family = load_family("bitwise")
    # All six differ where some digit is 1 in both, some 0 in both, and some in one only.
    differ = [
        x
        for x in family.inputs
        if {int(i) + int(j) for i, j in zip(*x.split(), strict=True)} == {0, 1, 2}
    ]
    assert len(differ) == 540
    assert family.only_distinct().inputs == tuple(differ)
    assert family.distinct == 540 / 1024
    assert family.only_distinct().distinct == 1
    assert family.only_distinct().null == "bitwise/null"


def test_null_digits_are_random() -> None:
    labels = load_task("bitwise/null").labels()
    assert set(labels) == {format(i, "05b") for i in range(32)}
    # 32 on average, with a standard deviation of 5.6.
    assert max(labels.values()) < 55
    for operation in TRUTH:
        same = [a == b for a, b in _both(load_family("bitwise"), operation)]
        assert sum(same) / len(same) < 0.06


def _both(family: Family, output: str) -> list[tuple[str, str]]:
    null = family.task("null").pairs
    return [(a.y, b.y) for a, b in zip(family.task(output).pairs, null, strict=True)]


@pytest.mark.parametrize("name", ["pos", "bitwise"])
def test_the_seed_draws_the_null_answers_and_nothing_else(name: str) -> None:
    first, second = load_family(name), load_family(name, seed=1)
    for a, b in zip(first.tasks[:-1], second.tasks[:-1], strict=True):
        assert a == b
    same = [a.y == b.y for a, b in zip(first.tasks[-1].pairs, second.tasks[-1].pairs, strict=True)]
    assert sum(same) / len(same) < 0.2
    assert "seed 1" in second.tasks[-1].description


def test_numbers_can_be_written_otherwise() -> None:
    family = bitwise_family("{b} and {a} =")
    assert family.inputs[1] == "00001 and 00000 ="
    assert family.task("or").pairs[1].y == "00001"


@pytest.mark.parametrize("written", ["{a}", "{a} {a} {b}", "", "{a}\n{b}"])
def test_numbers_that_cannot_be_read(written: str) -> None:
    with pytest.raises(InputError, match=r"expected one line with \{a\} and \{b\}, each once"):
        bitwise_family(written)


@pytest.mark.parametrize("name", ["pos", "bitwise"])
def test_a_seed_below_zero(name: str) -> None:
    with pytest.raises(InputError, match="seed is -1; expected 0 or more"):
        load_family(name, seed=-1)


# --- sentences of our own -------------------------------------------------------------------

#: Every word of the lexicon with its tag, and the words that patterns write as they stand.
WORDS = {word.lower(): tag for tag, words in lexicon().values() for word in words}
OTHERS = {"the", "a", "an", "and", "while", "although", "because"}


def tagged(sentence: str) -> list[tuple[str, str]]:
    """Words with tags, found without the grammar: in the lexicon no word has two."""
    words = [word.strip(",") for word in sentence.split()]
    return [(word, WORDS.get(word.lower(), "other")) for word in words]


def test_no_word_has_two_tags() -> None:
    tags: dict[str, set[str]] = {}
    for tag, words in lexicon().values():
        for word in words:
            tags.setdefault(word.lower(), set()).add(tag)
    assert [word for word, its_tags in tags.items() if len(its_tags) > 1] == []
    assert set(WORDS.values()) == set(TAGS)
    assert {slot for slot in lexicon() if not any(f"{{{slot}}}" in p for p in PATTERNS)} == set()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_has_all_tags(pattern: str) -> None:
    words = [word.rstrip(",") for word in pattern.split()]
    slots = {word[1:-1] for word in words if word.startswith("{")}
    assert {lexicon()[slot][0] for slot in slots} == set(TAGS)
    assert {word for word in words if not word.startswith("{")} <= OTHERS
    assert not OTHERS & WORDS.keys()


def test_closed_classes_are_what_they_are() -> None:
    closed = {tag: {w for w, t in WORDS.items() if t == tag} for tag in ("preposition", "pronoun")}
    prepositions = (
        "near behind beside inside outside in into through toward around from with without for "
        "during after before despite"
    )
    pronouns = (
        "he she they we i everyone someone somebody everybody me him her us them you it "
        "everything something"
    )
    assert closed == {"preposition": set(prepositions.split()), "pronoun": set(pronouns.split())}


@pytest.mark.parametrize("tag", TAGS)
def test_answers_are_the_first_words_with_the_tag(tag: str) -> None:
    for x, y in answers(f"pos/{tag}").items():
        assert y == next(word for word, its_tag in tagged(x) if its_tag == tag), x


def test_sentences_by_hand() -> None:
    family = load_family("pos")
    expected = {
        "Although I felt lonely, the hungry shepherd wandered nervously from the factory": (
            "shepherd lonely felt nervously from I"
        ),
        "Because the conference became strange, we finally slept near the new warehouse": (
            "conference strange became finally near we"
        ),
        "Wash the dusty wardrobe immediately and leave it inside the barn": (
            "wardrobe dusty Wash immediately inside it"
        ),
    }
    found = {
        x: " ".join(task.pairs[i].y for task in family.tasks[:-1])
        for i, x in enumerate(family.inputs)
    }
    # The first three: the sentences stay what they are, so that numbers stay comparable.
    assert dict(list(found.items())[:3]) == expected


def test_sentences_read_as_sentences() -> None:
    for sentence in load_family("pos").inputs:
        words = [word for word, _ in tagged(sentence)]
        assert sentence[0].isupper()
        assert sentence[-1].isalpha()
        assert 8 <= len(words) <= 16
        for word, following in pairwise(words):
            if word.lower() in ("a", "an"):
                assert (word.lower() == "an") == (following[0] in "aeiou"), sentence
        content = [word.lower() for word, tag in tagged(sentence) if tag != "other"]
        assert len(set(content)) == len(content), sentence
        assert {word.lower() for word, tag in tagged(sentence) if tag == "other"} <= OTHERS


@pytest.mark.parametrize("tag", TAGS)
def test_no_place_in_the_sentence_gives_a_tag_away(tag: str) -> None:
    places = Counter(
        [word for word, _ in tagged(x)].index(y) for x, y in answers(f"pos/{tag}").items()
    )
    assert len(places) >= 7
    assert max(places.values()) / 1200 < 0.35


@pytest.mark.parametrize("tag", TAGS)
def test_often_the_tag_comes_again(tag: str) -> None:
    counts = [sum(t == tag for _, t in tagged(x)) for x in load_family("pos").inputs]
    assert sum(count > 1 for count in counts) / len(counts) > 0.1


@pytest.mark.parametrize("tag", TAGS)
def test_no_answer_is_frequent(tag: str) -> None:
    labels = load_task(f"pos/{tag}").labels()
    assert len(labels) >= 20
    assert max(labels.values()) / 1200 < 0.15


def test_null_is_any_word() -> None:
    null = answers("pos/null")
    places = []
    for x, y in null.items():
        words = [word for word, _ in tagged(x)]
        assert y in words
        places.append(words.index(y) / len(words))
    assert 0.35 < sum(places) / len(places) < 0.5  # a repeated word counts where it is first
    for tag in TAGS:
        same = [a == b for a, b in _both(load_family("pos"), tag)]
        assert sum(same) / len(same) < 0.15


# --- treebanks ------------------------------------------------------------------------------


def conllu(words: str, comments: str = "") -> str:
    """A sentence: each word is "form/UPOS", "form/UPOS/misc" or "id/form/UPOS/misc"."""
    rows = []
    number = 0
    for word in words.split():
        parts = word.split("/")
        if len(parts) < 4:
            number += 1
            parts = [str(number), *parts, *["_"] * (3 - len(parts))]
        row_id, form, upos, misc = parts
        rows.append(f"{row_id}\t{form}\t{form}\t{upos}\t_\t_\t_\t_\t_\t{misc}\n")
    return comments + "".join(rows) + "\n"


PLAIN = "She/PRON quietly/ADV put/VERB the/DET old/ADJ lamp/NOUN on/ADP it/PRON ./PUNCT"
ANSWERS = ["lamp", "old", "put", "quietly", "on", "She"]
JOINED = (
    "1-2/Don't/_/_ 1/Do/AUX/_ 2/n't/PART/_ 3/they/PRON/_ 3.1/seen/VERB/_ 4/sit/VERB/_ "
    "5/here/ADV/_ 6/in/ADP/_ 7/old/ADJ/_ 8/chairs/NOUN/SpaceAfter=No 9/?/PUNCT/_"
)


def written(folder: Path, content: str | bytes, name: str = "bank.conllu") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def family_of(path: Path) -> Family:
    return load_family(f"pos:{path}")


def test_a_treebank(tmp_path: Path) -> None:
    comments = "# newdoc id = x\n# sent_id = 1\n# text = She quietly put the old lamp on it.\n"
    family = family_of(written(tmp_path, conllu(PLAIN, comments=comments)))
    assert family.name == "pos:bank"
    assert family.inputs == ("She quietly put the old lamp on it",)
    assert [task.pairs[0].y for task in family.tasks[:-1]] == ANSWERS
    assert [task.name for task in family.tasks] == [f"pos:bank/{tag}" for tag in [*TAGS, "null"]]
    assert family.null == "pos:bank/null"


@pytest.mark.parametrize("kind", ["crlf", "bom", "no blank line at the end", "blank lines"])
def test_a_treebank_as_other_systems_write_it(tmp_path: Path, kind: str) -> None:
    content = conllu(PLAIN)
    content = {
        "crlf": content.replace("\n", "\r\n"),
        "bom": "\ufeff" + content,
        "no blank line at the end": content.rstrip("\n"),
        "blank lines": "\n\n" + content + " \n\n",
    }[kind]
    family = family_of(written(tmp_path, content))
    assert [task.pairs[0].y for task in family.tasks[:-1]] == ANSWERS


def test_text_without_the_comment(tmp_path: Path) -> None:
    words = "Oh/INTJ/SpaceAfter=No ,/PUNCT she/PRON quietly/ADV put/VERB old/ADJ lamps/NOUN in/ADP "
    words += "boxes/NOUN/Gloss=x|SpaceAfter=No !/PUNCT"
    inputs = family_of(written(tmp_path, conllu(words))).inputs
    assert inputs == ("Oh, she quietly put old lamps in boxes!",)


def test_multiword_tokens_and_empty_nodes(tmp_path: Path) -> None:
    family = family_of(written(tmp_path, conllu(JOINED)))
    assert family.inputs == ("Don't they sit here in old chairs?",)
    found = [task.pairs[0].y for task in family.tasks[:-1]]
    assert found == ["chairs", "old", "sit", "here", "in", "they"]


def test_null_of_a_treebank_draws_written_words(tmp_path: Path) -> None:
    path = written(tmp_path, conllu(JOINED))
    drawn = {load_family(f"pos:{path}", seed).task("null").pairs[0].y for seed in range(80)}
    assert drawn == {"Don't", "they", "sit", "here", "in", "old", "chairs"}


DROPPED = {
    "no adverb": "She/PRON put/VERB the/DET old/ADJ lamp/NOUN on/ADP it/PRON",
    "five words": "She/PRON quietly/ADV sold/VERB old/ADJ lamps/NOUN ./PUNCT",
    "26 words": PLAIN + " and/CCONJ" * 18,
    "one word, two tags": "Work/NOUN in/ADP old/ADJ barns/NOUN they/PRON always/ADV work/VERB",
    "part of a multiword token": (
        "1/She/PRON/_ 2/quietly/ADV/_ 3/sat/VERB/_ 4-5/im/_/_ 4/in/ADP/_ 5/dem/DET/_ 6/old/ADJ/_ "
        "7/barn/NOUN/_ 8/on/ADP/_ 9/straw/NOUN/_"
    ),
    "an arrow": PLAIN + " ->/SYM",
    "a symbol alone": (
        "1/She/PRON/_ 2/quietly/ADV/_ 3/sat/VERB/_ 4-5/$in/_/_ 4/$/SYM/_ 5/in/ADP/_ 6/old/ADJ/_ "
        "7/barn/NOUN/_ 8/on/ADP/_ 9/straw/NOUN/_"
    ),
}


@pytest.mark.parametrize("why", DROPPED)
def test_sentences_that_cannot_be_asked(tmp_path: Path, why: str) -> None:
    bad = conllu(DROPPED[why])
    assert len(family_of(written(tmp_path, conllu(PLAIN) + bad)).inputs) == 1
    with pytest.raises(InputError, match="none of 1 sentences has 6 to 25 words and all six tags"):
        family_of(written(tmp_path, bad))


def test_25_words_are_kept_and_repeated_sentences_once(tmp_path: Path) -> None:
    long = conllu(PLAIN + " and/CCONJ" * 17)
    assert len(family_of(written(tmp_path, long + conllu(PLAIN) + long)).inputs) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\tShe\tshe\tPRON", "too few columns"),
        ("1\tShe\tshe\tPRON\t_\t_\t_\t_\t_\t_\t_", "too few columns, too many"),
        ("She quietly", "Invalid line format, line must contain either tabs or two spaces"),
        ("x\tShe\tshe\tPRON\t_\t_\t_\t_\t_\t_", "Failed parsing field 'id': 'x' is not a valid ID"),
        ("_\tShe\tshe\tPRON\t_\t_\t_\t_\t_\t_", "no ID"),
        ("2-1\tShe\tshe\tPRON\t_\t_\t_\t_\t_\t_", "is not a valid ID"),
        ("1\tShe\tshe\tPRON\t_\t_\tone\t_\t_\t_", "Failed parsing field 'head'"),
        ("1\tShe\tshe\tPRON\t_\t_\t0\t_\t_\t", "or an empty one"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, conllu(PLAIN) + "# text = x\n" + line + "\n")
    with pytest.raises(InputError, match=rf"bank\.conllu, line 12: .*{message}.*; expected 10"):
        family_of(path)


@pytest.mark.parametrize("content", ["", "\n\n", "# only a comment\n"])
def test_a_treebank_without_sentences(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"bank\.conllu: (none of 0 sentences|no word has a tag)"):
        family_of(written(tmp_path, content))


def test_a_treebank_without_tags(tmp_path: Path) -> None:
    bare = " ".join(f"{word.rpartition('/')[0]}/_" for word in PLAIN.split())
    with pytest.raises(InputError, match=r"bank\.conllu: no word has a tag; expected universal"):
        family_of(written(tmp_path, conllu(bare, comments="# text = x\n")))


def test_treebanks_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"none\.conllu: no such file; expected a treebank"):
        load_family(f"pos:{tmp_path}/none.conllu")
    with pytest.raises(InputError, match="no such file"):
        load_family(f"pos:{tmp_path}")
    with pytest.raises(InputError, match=r"not UTF-8 text \(.* at byte 2\)"):
        family_of(written(tmp_path, b"1\t\xff"))
    monkeypatch.setattr(treebank, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"package conllu; .* pip install 'icl-mech\[treebanks\]'"):
        family_of(written(tmp_path, conllu(PLAIN)))


# --- names ----------------------------------------------------------------------------------


def test_every_member_is_a_task_by_its_name() -> None:
    for name in list_families():
        for task in load_family(name).tasks:
            assert load_task(task.name) == task
            assert task.name not in list_tasks()
    assert len(list_tasks()) == 18
    assert load_task("English-Words/German") == load_task("english_words/german")
    assert load_family("English-Words") == load_family("english_words")


def test_a_member_of_a_treebank(tmp_path: Path) -> None:
    path = written(tmp_path, conllu(PLAIN))
    assert load_task(f"pos:{path}/verb") == family_of(path).task("verb")
    with pytest.raises(InputError, match="unknown part-of-speech task 'vreb'; did you mean 'verb'"):
        load_task(f"pos:{path}/vreb")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("verbs/particple", "verbs/participle"),
        ("participle", "verbs/participle"),
        ("country/currency", "countries/currency"),
        ("antonym", "antonyms"),
    ],
)
def test_an_unknown_task_names_the_nearest_of_all(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"unknown task '{name}'; did you mean '{nearest}'"):
        load_task(name)


def test_unknown_families_and_outputs_name_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown family 'verb'; did you mean 'verbs'"):
        load_family("verb")
    with pytest.raises(InputError, match="'verbs': 'gerunds'; did you mean 'gerund'"):
        load_family("verbs").task("gerunds")


# --- Family ---------------------------------------------------------------------------------


def task(name: str, **pairs: str) -> Task:
    return Task(name, "user", "", tuple(Pair(x, tuple(y.split("|"))) for x, y in pairs.items()))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((), "expected two or more"),
        ((task("f/a", x="1"),), "expected two or more"),
        ((task("f/a", x="1"), task("f/a", x="2")), "each once"),
        ((task("f/a", x="1"), task("f/b", z="2")), "'f/a' and 'f/b' have different inputs"),
        ((task("f/a", x="1", z="2"), task("f/b", z="3", x="4")), "in the same order"),
    ],
)
def test_tasks_that_are_no_family(tasks: tuple[Task, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Family("f", tasks)


def test_null_must_be_a_member() -> None:
    with pytest.raises(InputError, match="unknown null task 'f/c'"):
        Family("f", (task("f/a", x="1"), task("f/b", x="2")), "f/c")


def test_distinct_looks_at_every_accepted_answer_but_not_at_null() -> None:
    a, b = task("f/a", x="1", y="2|3", z="4"), task("f/b", x="5", y="6|3", z="4")
    null = task("f/null", x="1", y="0", z="0")
    family = Family("f", (a, b, null), "f/null")
    assert family.distinct == pytest.approx(1 / 3)
    assert family.only_distinct().inputs == ("x",)
    assert family.only_distinct().task("b").pairs == (Pair("x", ("5",)),)
    assert Family("f", (a, b, null)).distinct == 0
    with pytest.raises(InputError, match="two tasks share an answer for every input"):
        Family("f", (a, b, null)).only_distinct()
