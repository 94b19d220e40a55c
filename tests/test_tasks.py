"""The built-in tasks and their tables."""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from string import ascii_lowercase

import forked
import numpy as np
import pandas as pd
import pytest

from icl_mech.errors import IclMechError, InputError, choose
from icl_mech.prompts import shot_counts
from icl_mech.tasks import Pair, Task, list_tasks, load_task, load_tasks

CATEGORIES = {
    "algorithmic": (
        "next_letter",
        "previous_letter",
        "list_first",
        "list_last",
        "to_upper",
        "to_lower",
    ),
    "translation": ("fr_en", "en_fr", "es_en", "en_es"),
    "linguistic": ("present_gerund", "present_past", "plural_singular", "antonyms"),
    "knowledge": (
        "country_capital",
        "person_language",
        "location_continent",
        "location_religion",
    ),
}
LETTERS = {"next_letter": 25, "previous_letter": 25, "to_upper": 26, "to_lower": 26}
ALL = [name for names in CATEGORIES.values() for name in names]
TABLES = sorted(
    path.name for path in files("icl_mech.tasks").joinpath("data").iterdir() if ".tsv" in path.name
)


def pairs(name: str) -> dict[str, str]:
    return {pair.x: pair.y for pair in load_task(name).pairs}


def accepted(name: str) -> dict[str, tuple[str, ...]]:
    return {pair.x: pair.answers for pair in load_task(name).pairs}


def test_there_are_eighteen_tasks() -> None:
    assert len(ALL) == 18
    assert list_tasks() == ALL


@pytest.mark.parametrize("category", CATEGORIES)
def test_list_tasks_of_a_category(category: str) -> None:
    names = list_tasks(category)
    assert tuple(names) == CATEGORIES[category]
    assert {load_task(name).category for name in names} == {category}


def test_unknown_category_lists_the_categories() -> None:
    with pytest.raises(
        InputError,
        match="unknown category 'linguistics'; did you mean 'linguistic'.*"
        "algorithmic, translation, linguistic, knowledge",
    ):
        list_tasks("linguistics")


@pytest.mark.parametrize("name", ALL)
def test_task_knows_its_name_and_size(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert task.description
    assert len(task) == len(task.pairs)
    assert repr(task).startswith(f"Task({name!r}, {task.category}, {len(task)} pairs")
    if name in LETTERS:
        assert len(task) == LETTERS[name]
    else:
        assert len(task) >= 100


@pytest.mark.parametrize("name", ALL)
def test_inputs_are_unique_and_nothing_is_empty(name: str) -> None:
    task = load_task(name)
    assert len({pair.x for pair in task.pairs}) == len(task)
    for pair in task.pairs:
        for text in (pair.x, *pair.answers):
            assert text, pair
            assert text == text.strip(), pair
            assert "|" not in text, pair
        assert pair.y == pair.answers[0]
        assert len(set(pair.answers)) == len(pair.answers), pair


@pytest.mark.parametrize("name", ALL)
def test_labels_count_the_answers_shown(name: str) -> None:
    task = load_task(name)
    labels = task.labels()
    assert sum(labels.values()) == len(task)
    assert labels == Counter(pair.answers[0] for pair in task.pairs)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("location_continent", 0.30),
        ("location_religion", 0.30),
        ("person_language", 0.30),
        ("list_first", 0.10),
        ("list_last", 0.10),
    ],
)
def test_no_answer_dominates(name: str, share: float) -> None:
    task = load_task(name)
    assert max(task.labels().values()) / len(task) < share


# --- tables ---------------------------------------------------------------------------------


def test_every_table_is_there() -> None:
    assert TABLES == [
        "antonyms.tsv",
        "countries.tsv",
        "instructions.tsv",
        "irregular_verbs.tsv",
        "lexicon.tsv",
        "locations.tsv",
        "nouns.tsv",
        "people.tsv",
        "religions.tsv",
        "sentences.tsv",
        "verbs.tsv",
        "words.tsv",
    ]


@pytest.mark.parametrize("table", TABLES)
def test_table_rows_are_well_formed(table: str) -> None:
    text = files("icl_mech.tasks").joinpath(f"data/{table}").read_bytes().decode("utf-8")
    assert text.endswith("\n")
    assert "\r" not in text
    assert '"' not in text
    header, *rows = (line.split("\t") for line in text.removesuffix("\n").split("\n"))
    assert len(set(header)) == len(header) >= 2
    for row in rows:
        assert len(row) == len(header), row
        for cell in row:
            alternatives = cell.split("|")
            assert len(set(alternatives)) == len(alternatives), row
            for text in alternatives:
                assert text, row
                assert text == " ".join(text.split()), row
                assert unicodedata.is_normalized("NFC", text), row
                assert text.isprintable(), row


# --- algorithmic tasks, worked out again ----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("next_letter", lambda x: chr(ord(x) + 1)),
        ("previous_letter", lambda x: chr(ord(x) - 1)),
        ("to_upper", lambda x: chr(ord(x) - 32)),
        ("to_lower", lambda x: chr(ord(x) + 32)),
        ("list_first", lambda x: x[0]),
        ("list_last", lambda x: x[-1]),
    ],
)
def test_algorithmic_answers(name: str, answer: Callable[[str], str]) -> None:
    for pair in load_task(name).pairs:
        assert pair.answers == (answer(pair.x),)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("next_letter", ascii_lowercase[:-1]),
        ("previous_letter", ascii_lowercase[1:]),
        ("to_upper", ascii_lowercase),
        ("to_lower", ascii_lowercase.upper()),
    ],
)
def test_letter_tasks_ask_every_letter(name: str, inputs: str) -> None:
    assert "".join(pair.x for pair in load_task(name).pairs) == inputs


@pytest.mark.parametrize("name", ["list_first", "list_last"])
def test_lists_are_two_to_four_different_letters(name: str) -> None:
    lengths = Counter()
    for pair in load_task(name).pairs:
        letters = pair.x.split(",")
        assert len(set(letters)) == len(letters)
        assert all(len(a) == 1 and a in ascii_lowercase for a in letters)
        lengths[len(letters)] += 1
    assert set(lengths) == {2, 3, 4}
    assert min(lengths.values()) >= 100


def test_both_list_tasks_ask_the_same_lists() -> None:
    assert pairs("list_first").keys() == pairs("list_last").keys()


# --- mapping tasks --------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "back"), [("en_es", "es_en"), ("en_fr", "fr_en")])
def test_translations_are_each_other_backwards(there: str, back: str) -> None:
    """What is shown is one pair, whichever side is asked; what is accepted may be more."""
    assert {y: x for x, y in pairs(there).items()} == pairs(back)
    # Comparing directions is fair where both accept about as much.
    n = [sum(map(len, accepted(name).values())) / len(accepted(name)) for name in (there, back)]
    assert 1.3 < n[0] < 2 * n[1]
    assert 1.3 < n[1] < 2 * n[0]


@pytest.mark.parametrize("name", ALL)
def test_no_answer_is_its_own_input(name: str) -> None:
    """Copying is never right: not *force* for French *force*."""
    assert [x for x, answers in accepted(name).items() if x in answers] == []


WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
MONTHS = "January February June July December"


@pytest.mark.parametrize("name", ["fr_en", "es_en"])
def test_english_answers_are_capitalised_as_english_is(name: str) -> None:
    found = {y for answers in accepted(name).values() for y in answers if y[0].isupper()}
    assert found == {*WEEKDAYS.split(), *MONTHS.split(), "Earth"}
    there = {"fr_en": "en_fr", "es_en": "en_es"}[name]
    asked = {x for x in pairs(there) if x[0].isupper()}
    assert asked == found - {"Earth"}
    # French and Spanish write these in lower case.
    assert all(y == y.lower() for x in asked for y in accepted(there)[x])


@pytest.mark.parametrize(
    "name", ["country_capital", "person_language", "location_continent", "location_religion"]
)
def test_names_are_capitalised(name: str) -> None:
    assert [y for answers in accepted(name).values() for y in answers if not y[0].isupper()] == []


@pytest.mark.parametrize(
    ("name", "x", "answers"),
    [
        ("es_en", "miércoles", "Wednesday"),
        ("fr_en", "février", "February"),
        ("es_en", "reloj", "clock watch"),
        ("es_en", "tierra", "earth Earth land"),
        ("fr_en", "rapide", "fast quick"),
        ("fr_en", "bois", "wood forest"),
        ("es_en", "madera", "wood timber"),
        ("en_es", "beautiful", "hermoso hermosa bella"),
        ("en_fr", "open", "ouvert ouvrir"),
        ("en_fr", "fish", "poisson poissons"),
        ("antonyms", "ancient", "modern new"),
        ("antonyms", "fall", "rise spring"),
        ("present_past", "learn", "learned learnt"),
        ("present_past", "dream", "dreamed dreamt"),
        ("plural_singular", "bases", "basis base"),
        ("plural_singular", "axes", "axis axe ax"),
        ("plural_singular", "leaves", "leaf leave"),
        ("country_capital", "Ukraine", "Kyiv Kiev"),
        ("country_capital", "Kazakhstan", "Astana Nur-Sultan"),
        ("person_language", "Rumi", "Persian Farsi"),
        ("person_language", "Plato", "Greek"),
        ("location_continent", "Sydney", "Oceania Australia"),
        ("location_religion", "Ireland", "Christianity Catholicism"),
    ],
)
def test_all_right_answers_are_accepted(name: str, x: str, answers: str) -> None:
    found = accepted(name)[x]
    assert found[0] == answers.split()[0]
    assert set(answers.split()) <= set(found)


@pytest.mark.parametrize(
    ("name", "x", "wrong"),
    [
        ("fr_en", "mercredi", "wednesday"),
        ("es_en", "madera", "forest"),
        ("fr_en", "horloge", "watch"),
        ("location_continent", "Auckland", "Australia"),
        ("location_continent", "Fiji", "Australia"),
        ("country_capital", "Australia", "Sydney"),
        ("antonyms", "light", "bright"),
    ],
)
def test_wrong_answers_are_not(name: str, x: str, wrong: str) -> None:
    assert wrong not in accepted(name)[x]


def test_sri_lanka_shows_its_capital_by_law() -> None:
    shown, *others = accepted("country_capital")["Sri Lanka"]
    assert shown == "Sri Jayawardenepura Kotte"
    assert "Colombo" in others


def test_opposites_of_words_that_are_asked_go_both_ways() -> None:
    opposites = accepted("antonyms")
    one_way = [(x, y) for x, ys in opposites.items() for y in ys if x not in opposites.get(y, (x,))]
    assert one_way == []


@pytest.mark.parametrize(
    ("name", "x", "y"),
    [
        ("fr_en", "fourmi", "ant"),
        ("en_fr", "ant", "fourmi"),
        ("es_en", "hormiga", "ant"),
        ("en_es", "ant", "hormiga"),
        ("present_gerund", "agree", "agreeing"),
        ("present_past", "agree", "agreed"),
        ("plural_singular", "analyses", "analysis"),
        ("antonyms", "above", "below"),
        ("country_capital", "Albania", "Tirana"),
        ("person_language", "Abraham Lincoln", "English"),
        ("location_continent", "Acropolis", "Europe"),
        ("location_religion", "Afghanistan", "Islam"),
    ],
)
def test_a_pair_of_every_mapping_task(name: str, x: str, y: str) -> None:
    assert pairs(name)[x] == y


def test_gerunds_end_in_ing() -> None:
    assert [y for y in pairs("present_gerund").values() if not y.endswith("ing")] == []


def test_verb_tasks_ask_the_same_verbs() -> None:
    assert pairs("present_gerund").keys() == pairs("present_past").keys()


def test_no_word_is_its_own_opposite() -> None:
    assert [x for x, y in pairs("antonyms").items() if x == y] == []


def test_continents_are_the_seven() -> None:
    assert set(pairs("location_continent").values()) == {
        "Africa",
        "Antarctica",
        "Asia",
        "Europe",
        "North America",
        "Oceania",
        "South America",
    }


def test_alternatives_of_an_answer_are_kept_in_order() -> None:
    answers = {pair.x: pair.answers for pair in load_task("plural_singular").pairs}
    assert answers["appendices"] == ("appendix",)  # only the first alternative is asked
    assert "appendixes" not in answers
    text = files("icl_mech.tasks").joinpath("data/words.tsv").read_text(encoding="utf-8")
    header, *rows = (line.split("\t") for line in text.splitlines())
    for name, asked, answered in (
        ("en_fr", "english", "french"),
        ("fr_en", "french", "from_french"),
        ("en_es", "english", "spanish"),
        ("es_en", "spanish", "from_spanish"),
    ):
        i, j = header.index(asked), header.index(answered)
        written = {row[i].split("|")[0]: row[j] for row in rows}
        assert {x: "|".join(ys) for x, ys in accepted(name).items()} == written


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("prev_letter", "previous_letter"),
        ("to_uppercase", "to_upper"),
        ("to_lowercase", "to_lower"),
        ("present_simple_gerund", "present_gerund"),
        ("present_simple_past_simple", "present_past"),
        ("present_past_simple", "present_past"),
        ("country-capital", "country_capital"),
        ("Country_Capital", "country_capital"),
        ("EN-FR", "en_fr"),
        ("Prev-Letter", "previous_letter"),
        (Path("antonyms"), "antonyms"),
    ],
)
def test_aliases_dashes_and_upper_case(alias: str | Path, name: str) -> None:
    assert load_task(alias) == load_task(name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("antonym", "antonyms"),
        ("country_capitol", "country_capital"),
        ("NEXT-LETER", "next_letter"),
    ],
)
def test_unknown_task_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{nearest}'") as caught:
        load_task(name)
    assert all(task in str(caught.value) for task in ALL)
    assert "or a path to a .json/.jsonl/.csv/.tsv file" in str(caught.value)


def test_a_name_near_nothing_has_no_guess() -> None:
    with pytest.raises(InputError, match="unknown task 'zqj'") as caught:
        load_task("zqj")
    assert "did you mean" not in str(caught.value)


def test_a_name_too_long_for_a_file_is_an_unknown_task() -> None:
    with pytest.raises(InputError, match="unknown task 'xxx"):
        load_task("x" * 300)


@pytest.mark.parametrize("task", [[], ()])
def test_no_task(task: list) -> None:
    with pytest.raises(InputError, match="^no task is named; expected at least one"):
        load_tasks(task)


def test_a_task_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="^task 'antonyms' is named twice; expected each once$"):
        load_tasks(["en_fr", "antonyms", "es_en", "Antonyms"])
    with pytest.raises(InputError, match="^task 'verbs/gerund' is named twice"):
        load_tasks(["verbs", "verbs/gerund"])


def test_files_with_the_name_of_another_task(tmp_path: Path) -> None:
    for folder, answer in (("a", "1"), ("b", "2")):
        (tmp_path / folder).mkdir()
        for name in ("antonyms", "mine"):
            (tmp_path / folder / f"{name}.csv").write_text(f"input,output\nx,{answer}\n")
    built_in = "has the name of the built-in task 'antonyms'; rename the file"
    with pytest.raises(InputError, match=f"^a file of pairs {built_in}"):
        load_tasks(["antonyms", tmp_path / "a/antonyms.csv"])
    with pytest.raises(InputError, match="^two different tasks have the name 'mine'; rename one"):
        load_tasks([tmp_path / "a/mine.csv", tmp_path / "b/mine.csv"])
    assert len(load_tasks(tmp_path / "a/antonyms.csv")[0]) == 1


#: Pairs in Python objects that are no tasks, each with what is said of it.
NO_TASKS = {
    "load_tasks({'dog': 'puppy'})": "task is {'dog': 'puppy'} (dict); expected",
    "load_tasks(frame)": "(DataFrame); expected a name",
    "load_tasks(frame['input'])": "(Series); expected a name",
    "load_tasks([('dog', 'puppy'), ('cat', 'kitten')])": "task is ('dog', 'puppy') (tuple)",
    "load_task({'dog': 'puppy'})": "task is {'dog': 'puppy'} (dict)",
    "load_tasks(b'antonyms')": "task is b'antonyms' (bytes)",
    "load_other(load_task('antonyms'), {'dog': 'puppy'})": "task is {'dog': 'puppy'} (dict)",
    "load_any({'dog': 'puppy'})": "task is {'dog': 'puppy'} (dict)",
    "load_any([{'dog': 'puppy'}])": "task is {'dog': 'puppy'} (dict)",
    "as_pairs(5)": "task is 5 (int); expected a name, a path, a Task, or a list of these",
    "load_tasks(None)": "task is None (NoneType); expected a name",
    "load_tasks(2.5)": "task is 2.5 (float); expected a name",
    "as_pairs({'dog': 'puppy'})": "task is {'dog': 'puppy'} (dict)",
}


#: What is given as pairs, each with what is said of it.
NO_PAIRS = {
    "Task.from_pairs('dog', 'mine')": "expected a dict from inputs to answers",
    "Task.from_pairs(['dog'], 'mine')": "pairs holds 'dog'; expected (input, answer), or a Pair",
    "Task.from_pairs([('dog', 'a', 'b')])": "expected (input, answer), or a Pair",
    "Task.from_pairs({'dog': 1}, 'm')": "the answers to 'dog' are (1,); expected a tuple of texts",
    "Task.from_pairs({'dog': {'a': 'b'}}, 'mine')": "the answers to 'dog' are ({'a': 'b'},)",
    "Task.from_pairs({1: 'puppy'}, 'mine')": "an input is 1; expected text",
    "Task.from_pairs({'dog': 'puppy'}, '')": "a task is named ''; expected text",
    "Task.from_pairs({'dog': 'puppy'}, 'a\\0')": "name 'a\\x00' holds a control character",
    "Pair('dog', 'puppy')": "the answers to 'dog' are 'puppy'; expected a tuple of texts",
    "Pair('dog', ['puppy'])": "the answers to 'dog' are ['puppy']; expected a tuple of texts",
    "Task('mine', 'user', '', {'dog': 'puppy'})": "has 'dog' among its pairs; expected a Pair",
}


def test_what_is_given_in_place_of_a_task_or_of_pairs() -> None:
    """In a process of its own: here arguments are checked to be of the type that is asked for."""
    calls = {**NO_TASKS, **NO_PAIRS, "load_tasks([load_failure('lookup')])": "only task_vector_"}
    code = (
        "import json\n"
        "from pandas import DataFrame\n"
        "from icl_mech.conflict.plan import as_pairs\n"
        "from icl_mech.errors import InputError\n"
        "from icl_mech.failures.plan import load_any\n"
        "from icl_mech.tasks import *\n"
        "frame = DataFrame({'input': ['dog'], 'output': ['puppy']})\n"
        "said = {}\n"
        f"for call in {list(calls)!r}:\n"
        "    try:\n        eval(call)\n"
        "    except InputError as error:\n        said[call] = str(error)\n"
        "print(json.dumps(said))\n"
    )
    done = forked.run(code)
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert {call for call, expected in calls.items() if expected not in said.get(call, "")} == set()
    assert all("Task.from_pairs({'dog': 'puppy', ...})" in said[call] for call in NO_TASKS)


def test_a_task_of_ones_own_from_a_dict() -> None:
    task = Task.from_pairs({"dog": "puppy", "cat": ["kitten", "kitty"]}, "young", "animal -> young")
    pairs = (Pair("dog", ("puppy",)), Pair("cat", ("kitten", "kitty")))
    assert task == Task("young", "user", "animal -> young", pairs)
    assert load_tasks([task]) == [task]


def test_pairs_from_a_list_and_from_a_frame() -> None:
    expected = Task.from_pairs({"dog": "puppy", "cat": "kitten"}).pairs
    assert Task.from_pairs([("dog", "puppy"), Pair("cat", ("kitten",))]).pairs == expected
    frame = pd.DataFrame({"output": ["puppy", "kitten"], "input": ["dog", "cat"], "n": [1, 2]})
    assert Task.from_pairs(frame).pairs == expected
    assert (
        Task.from_pairs(frame[["input", "output"]].set_axis(["a", "b"], axis=1)).pairs == expected
    )
    with pytest.raises(InputError, match="a frame with the columns output, n, m; expected input"):
        Task.from_pairs(frame[["output", "n"]].assign(m=1))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("captial", "country_capital"),
        ("capitals", "country_capital"),
        ("antonym", "antonyms"),
        ("Country_Capitol", "country_capital"),
        ("gerund", "present_gerund"),
        ("upper", "to_upper"),
        ("nope", None),
        ("banana", None),
        ("dog", None),
        ("xyz", None),
        ("reviews", None),
        ("translate", None),
    ],
)
def test_only_what_is_near_is_suggested(typed: str, meant: str | None) -> None:
    with pytest.raises(InputError, match=f"unknown task '{typed.lower()}'") as caught:
        load_task(typed)
    hint = f"did you mean {meant!r}?"
    assert hint in str(caught.value) if meant else "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("zero\u200bwidth", "zerowidth"),
        ("soft\u00adhyphen", "softhyphen"),
        ("mark\ufeff", "mark"),
        ("a\u00a0b", "a b"),
        ("e\u034f\u0301", "\u00e9"),
        ("\u2764\ufe0f", "\u2764"),
    ],
)
def test_words_that_look_the_same_are_one_input(one: str, other: str) -> None:
    with pytest.raises(InputError, match=r"appears twice \(.*look the same\).*one row per input"):
        Task("mine", "user", "", (Pair(one, ("a",)), Pair(other, ("a",))))


@pytest.mark.parametrize(("one", "other"), [("cafe", "café"), ("a b", "a  b"), ("Dog", "dog")])
def test_words_that_look_different_are_two_inputs(one: str, other: str) -> None:
    assert len(Task("mine", "user", "", (Pair(one, ("a",)), Pair(other, ("a",))))) == 2


@pytest.mark.parametrize("output", ["", "/verb", "/null"])
@pytest.mark.parametrize("folder", ["", "folder/"])
def test_a_treebank_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    path = f"{folder}none.conllu"
    for load in (load_task, load_tasks):
        with pytest.raises(InputError, match=f"^{path}: no such file; expected a treebank"):
            load(f"pos:{path}{output}")


# --- errors.choose, Pair, Task --------------------------------------------------------------


def test_choose_returns_what_is_known() -> None:
    assert choose("b", iter(["a", "b"]), "letter") == "b"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gren", "unknown colour 'gren'; did you mean 'green'? Choose from: red, green"),
        ("xyz", "unknown colour 'xyz'. Choose from: red, green"),
    ],
)
def test_choose_writes_whole_sentences(value: str, message: str) -> None:
    with pytest.raises(InputError, match="unknown colour") as caught:
        choose(value, ["red", "green"], "colour")
    assert str(caught.value) == message


def test_input_error_is_a_value_error_and_ours() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(InputError, IclMechError)


@pytest.mark.parametrize("x", ["", " ", "\t\n"])
def test_pair_without_input(x: str) -> None:
    with pytest.raises(InputError, match="an empty input"):
        Pair(x, ("a",))


@pytest.mark.parametrize("answers", [(), ("",), (" ",), ("a", "")])
def test_pair_without_answer(answers: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="an empty answer for input 'x'"):
        Pair("x", answers)


def test_task_with_an_input_twice() -> None:
    with pytest.raises(InputError, match="'t': input 'a' appears twice, with answers 'b' and 'c'"):
        Task("t", "user", "", (Pair("a", ("b",)), Pair("a", ("c",))))


# --- wrong types, long names ----------------------------------------------------------------


#: Calls with something of another type, and what the refusal says.
WRONG_TYPES = {
    "load_family('pos', seed=np.array([3]))": "expected a whole number",
    "load_family(5)": "family is 5 (int); expected text",
    "Template(5)": "the template's text is 5 (int); expected text",
    "Template(separator=None)": "the template's separator is None",
    "Task('a', 'user', 'd', None)": "pairs of task 'a' are None; expected a tuple",
    "Task('a', 'user', 'd', 'xy')": "pairs of task 'a' are 'xy'; expected a tuple",
    "Task('a', 5, 'd', ())": "the task's category is 5",
    "load_tasks(b'x')": "task is b'x' (bytes); expected a name",
    "load_tasks(np.array('x'))": "(ndarray); expected a name",
    "shot_counts(b'12')": "n_shots is b'12'; expected a whole number",
}


def test_wrong_types_name_what_was_meant() -> None:
    """In a process of its own: here arguments are checked to be of the type that is asked for."""
    code = (
        "import json, numpy as np\n"
        "from icl_mech.errors import InputError\n"
        "from icl_mech.prompts import Template, shot_counts\n"
        "from icl_mech.tasks import Pair, Task, load_family, load_tasks\n"
        "said = {}\n"
        f"for call in {list(WRONG_TYPES)!r}:\n"
        "    try:\n        eval(call)\n"
        "    except InputError as error:\n        said[call] = str(error)\n"
        "pairs = [Pair('dog', ('puppy',))]\n"
        "same = Task('a', 'user', 'd', pairs) == Task('a', 'user', 'd', tuple(pairs))\n"
        "print(json.dumps([said, same]))\n"
    )
    done = forked.run(code)
    assert done.returncode == 0, done.stderr
    said, a_list_of_pairs_is_as_good = json.loads(done.stdout)
    wrong = {call for call, expected in WRONG_TYPES.items() if expected not in said.get(call, "")}
    assert wrong == set()
    assert a_list_of_pairs_is_as_good


def test_arrays_without_axes_are_numbers() -> None:
    assert shot_counts(np.array(3)) == (3,)


@pytest.mark.parametrize("name", ["pos:" + "a" * 5000, "a/" * 3000 + "x.csv", "b" * 4000])
def test_long_names_are_cut_in_messages(name: str) -> None:
    with pytest.raises(InputError, match=r"characters\)") as told:
        load_tasks(name)
    assert len(str(told.value)) < 1000
