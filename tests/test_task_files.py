"""Users' files of pairs: every format, and every way to get one wrong."""

import json
from pathlib import Path

import pytest

from icl_mech.errors import InputError
from icl_mech.tasks import Pair, load_task

GOOD = {
    "object.json": '{"a": "b", "c d": "é"}',
    "list.json": '[{"input": "a", "output": "b"}, {"input": "c d", "output": "é"}]',
    "lines.jsonl": '{"input": "a", "output": "b"}\n\n{"output": "é", "input": "c d"}\n',
    "comma.csv": "input,output\na,b\nc d,é\n",
    "columns.csv": "note,output,input\n1,b,a\n2,é,c d\n",
    "spaces.csv": " input , output\n a , b\nc d,é \n",
    "quotes.csv": 'input,output\n"a","b"\n"c d",é\n',
    "windows.csv": "input,output\r\na,b\r\nc d,é\r\n",
    "UPPER.CSV": "INPUT, Output\na,b\nc d,é\n",
    "Upper.Json": '[{"Input": "a", "OUTPUT": "b"}, {"input": "c d", "output": "é"}]',
    "twice.csv": "note,note,input,output\n1,2,a,b\n3,4,c d,é\n",
    "tab.tsv": "input\toutput\na\tb\nc d\té\n",
    "blank.tsv": "input\toutput\n\na\tb\n\nc d\té",
    "same.csv": "input,output\na,b\nc d,é\na,b\n",
    "same.json": '{"a": "b", "c d": "é", "a": "b"}',
    "same.jsonl": (
        '{"input": "a", "output": "b"}\n{"input": "a ", "output": "b"}\n'
        '{"input": "c d", "output": "é"}'
    ),
}
SEVERAL = {
    "object.json": '{"a": ["b", "c"]}',
    "list.json": '[{"input": "a", "output": ["b", "c"]}]',
    "lines.jsonl": '{"input": "a", "output": ["b", "c"]}',
    "comma.csv": "input,output\na,b|c\n",
    "tab.tsv": "input\toutput\na\tb | c\n",
}


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("name", GOOD)
def test_reads_pairs(tmp_path: Path, name: str, bom: bytes) -> None:
    task = load_task(written(tmp_path, name, bom + GOOD[name].encode()))
    assert task.pairs == (Pair("a", ("b",)), Pair("c d", ("é",)))


@pytest.mark.parametrize("name", SEVERAL)
def test_reads_several_accepted_answers(tmp_path: Path, name: str) -> None:
    task = load_task(written(tmp_path, name, SEVERAL[name]))
    assert task.pairs == (Pair("a", ("b", "c")),)


def test_task_is_named_after_its_file(tmp_path: Path) -> None:
    task = load_task(str(written(tmp_path, "my pairs.csv", "input,output\na,b\n")))
    assert (task.name, task.category) == ("my pairs", "user")
    assert "my pairs.csv" in task.description


def test_bars_separate_answers_in_tables_only(tmp_path: Path) -> None:
    path = written(tmp_path, "bar.json", '{"a": "b|c"}')
    assert load_task(path).pairs == (Pair("a", ("b|c",)),)


def test_quoted_cells_hold_commas_and_quotes(tmp_path: Path) -> None:
    path = written(tmp_path, "q.csv", 'input,output\n"a,b","c\n"\n"say ""x""",e\n')
    assert load_task(path).pairs == (Pair("a,b", ("c",)), Pair('say "x"', ("e",)))


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85"], ids=["LS", "PS", "NEL"])
def test_json_lines_end_only_at_newlines(tmp_path: Path, character: str) -> None:
    text = f"a{character}b"
    row = json.dumps({"input": text, "output": "c"}, ensure_ascii=False)
    assert load_task(written(tmp_path, "x.jsonl", row)).pairs == (Pair(text, ("c",)),)


@pytest.mark.parametrize("name", ["pairs.json", "pairs.jsonl", "pairs.csv", "pairs.tsv"])
def test_a_thousand_pairs_come_back_in_order(tmp_path: Path, name: str) -> None:
    pairs = {f"in {i} é": f"out {i}" for i in range(1000)}
    rows = [{"input": x, "output": y} for x, y in pairs.items()]
    between = "\t" if name.endswith("tsv") else ","
    content = {
        "pairs.json": json.dumps(pairs),
        "pairs.jsonl": "\n".join(map(json.dumps, rows)),
    }.get(name, "\n".join(between.join(p) for p in [("input", "output"), *pairs.items()]))
    assert {p.x: p.y for p in load_task(written(tmp_path, name, content)).pairs} == pairs


# --- errors: each names the file and the row ------------------------------------------------

BAD = [
    # A table without the columns.
    ("p.csv", "input,answer\na,b\n", r"line 1: missing column 'output'.*got 'input', 'answer'"),
    ("p.csv", "a,b\nc,d\n", "line 1: missing column 'input' and 'output'"),
    ("p.tsv", "input,output\na,b\n", "line 1: missing column 'input' and 'output'"),
    ("p.csv", "", "line 1: missing column 'input' and 'output'.*got none"),
    ("p.jsonl", '{"input": "a", "output": "b"}\n{"input": "c"}', "line 2: no 'output'; expected"),
    ("p.json", '[{"input": "a", "output": "b"}, {}]', "row 2: no 'input' and no 'output'"),
    ("p.json", '["a"]', "row 1: no 'input' and no 'output'"),
    ("p.jsonl", '"a"', "line 1: no 'input' and no 'output'"),
    # Too few cells, or too many.
    ("p.csv", "input,output\na,b\nc\n", "line 3: too few columns; expected 2"),
    ("p.csv", "input,output\na,b\nUSA,Washington, D.C.\n", "line 3: too many columns; expected 2"),
    ("p.tsv", "input\toutput\na\tb\tc\n", "line 2: too many columns; expected 2"),
    # Quotes that never close would swallow the rows after them.
    ("p.csv", 'input,output\na,"b\nc,d\ne,f\n', "line [2-5]: "),
    pytest.param(
        "p.csv", 'input,output\na,"' + "b,c\n" * 40_000, "line [0-9]+: ", id="open-quote-long"
    ),
    # One input, two answers.
    ("p.csv", "input,output\na,b\nc,d\na,e\n", "line 4: input 'a' appears again with answer 'e'"),
    ("p.tsv", "input\toutput\na\tb\n a\tc\n", "line 3: input 'a' appears again"),
    ("p.json", '{"a": "b", "c": "d", "a": "e"}', "entry 3: input 'a' appears again.*before.*'b'"),
    ("p.json", '{"a": ["b", "c"], "a": ["b", "d"]}', "entry 2: input 'a' appears again"),
    (
        "p.json",
        '[{"input": "a", "output": "b"}, {"input": "a", "output": "c"}]',
        "row 2: input 'a' appears again with answer 'c', before it had 'b'",
    ),
    (
        "p.jsonl",
        '{"input": "a", "output": "b"}\n\n{"input": "a", "output": "c"}',
        "line 3: input 'a' appears again",
    ),
    # Nothing where text should be.
    ("p.csv", "input,output\na,b\nc,\n", "line 3: an empty answer for input 'c'"),
    ("p.csv", "input,output\na,b|\n", "line 2: an empty answer for input 'a'"),
    ("p.csv", "input,output\na,b\n ,c\n", "line 3: an empty input"),
    ("p.json", '{"a": "b", "c": ""}', "entry 2: an empty answer for input 'c'"),
    ("p.json", '{"a": []}', "entry 1: an empty answer for input 'a'"),
    ("p.json", '{"a": ["b", " "]}', "entry 1: an empty answer for input 'a'"),
    ("p.json", '{"": "b"}', "entry 1: an empty input"),
    ("p.jsonl", '{"input": "  ", "output": "b"}', "line 1: an empty input"),
    # Lines within a cell, which a prompt would show as demonstrations.
    ("p.csv", 'input,output\na,b\nc,"d\ne"\n', r"line 4: a line break in output 'd\\ne'; expected"),
    ("p.csv", 'input,output\nc,"d|e\r\nf"\n', r"line 3: a line break in output 'e\\r\\nf'"),
    ("p.tsv", 'input\toutput\n"c\nd"\te\n', r"line 3: a line break in input 'c\\nd'"),
    ("p.json", '{"a": "b", "c": ["d", "e\\nf"]}', r"entry 2: a line break in output 'e\\nf'"),
    ("p.json", '[{"input": "a\\rb", "output": "c"}]', r"row 1: a line break in input 'a\\rb'"),
    ("p.jsonl", '{"input": "a", "output": "b\\nc"}', r"line 1: a line break in output"),
    # Something that is not text.
    ("p.json", '{"a": 1}', "entry 1: input and output must be text, got 'a' -> 1"),
    ("p.json", '{"a": null}', "entry 1: input and output must be text, got 'a' -> None"),
    ("p.json", '{"a": ["b", 2]}', "entry 1: input and output must be text"),
    ("p.json", '{"a": {"b": "c"}}', "entry 1: input and output must be text"),
    ("p.json", '[{"input": 3, "output": "b"}]', "row 1: input and output must be text, got 3"),
    ("p.jsonl", '{"input": "a", "output": true}', "line 1: input and output must be text"),
    # Not what the name says.
    ("p.json", '{"a": "b",\n "c": }', r"line 2: not JSON \("),
    ("p.json", "", r"line 1: not JSON \("),
    ("p.jsonl", '{"input": "a", "output": "b"}\n{"input"\n', r"line 2: not JSON \("),
    ("p.json", '"a"', ": expected a JSON object or a list, got str"),
    ("p.json", "5", ": expected a JSON object or a list, got int"),
    ("p.csv", "input,output\na,\xe9\n".encode("latin-1"), r": not UTF-8 text \(.* at byte 15\)"),
    ("p.tsv", "input\toutput\na\tb\n".encode("utf-16"), ": not UTF-8 text"),
    ("p.json", b'{"a": "\xff"}', ": not UTF-8 text"),
    ("p.jsonl", b'{"a": "\xff"}', ": not UTF-8 text"),
    # No pairs.
    ("p.json", "{}", ": no pairs; expected at least one"),
    ("p.json", "[]", ": no pairs"),
    ("p.jsonl", "", ": no pairs"),
    ("p.jsonl", "\n\n", ": no pairs"),
    ("p.csv", "input,output\n", ": no pairs"),
    ("p.tsv", "input\toutput\n\n", ": no pairs"),
    # A column, or a key, that is there twice: one of the two would be lost.
    ("p.csv", "input,output,input\na,b,c\n", "line 1: two columns 'input'; expected each once"),
    ("p.csv", "input,Output,output\na,b,c\n", "line 1: two columns 'output'"),
    ("p.jsonl", '{"input": "a", "output": "b", "input": "c"}', "line 1: two keys 'input'"),
    ("p.json", '[{"input": "a", "output": "b", "OUTPUT": "c"}]', "row 1: two keys 'output'"),
    # Characters that no prompt can hold.
    ("p.csv", "input,output\na\0b,c\n", r"line 2: input 'a\\x00b' holds a control character"),
    ("p.csv", "input,output\na,b\x1b[1m\n", r"line 2: answer 'b\\x1b\[1m' holds a control"),
    ("p.tsv", "input\toutput\na\tb\n".encode("utf-16-le"), "line 1: missing column"),
    ("p.json", '{"a": "\\ud800"}', r"entry 1: answer '\\ud800' holds half of a character"),
    ("p.jsonl", '{"input": "a\\udfff", "output": "b"}', "line 1: input .* holds half of a char"),
    # Nothing that could be seen.
    ("p.csv", "input,output\n\u200b,b\n", r"line 2: an empty input \('\\u200b': nothing of it"),
    ("p.csv", "input,output\na,\u2060\u200d\n", "line 2: an empty answer for input 'a' .*nothing"),
    ("p.json", '{"\u3164": "b"}', r"entry 1: an empty input \('\\u3164'"),
    ("p.json", '{"a": ["b", "\u00ad"]}', "entry 1: an empty answer for input 'a'"),
    # One word, written in two ways.
    (
        "p.csv",
        "input,output\ncaf\u00e9,b\ncafe\u0301,c\n",
        r"line 3: input 'cafe.*' appears again \('caf\\xe9' and 'cafe\\u0301' look the same\)",
    ),
    ("p.json", '{"dog": "a", "do\u200bg": "b"}', "entry 2: input .* appears again .*look the same"),
    # A bar without an answer on one side.
    ("p.csv", "input,output\n1,|x|\n", r"line 2: an empty answer .* '\|x\|' has nothing on one"),
    # More than Python, or a prompt, takes.
    pytest.param(
        "p.csv",
        "input,output\na,b\nc," + "d" * 131_073,
        "line 3: a cell of more than 131,072 characters; expected a word",
        id="long-cell",
    ),
    pytest.param("p.json", "[" * 100_000, ": nested too deeply", id="deep"),
    pytest.param("p.jsonl", '{"a":' * 100_000, "line 1: nested too deeply", id="deep-line"),
    pytest.param(
        "p.json",
        '{"a": ' + "[" * 300 + '"b"' + "]" * 300 + "}",
        "entry 1: input and output must be text",
        id="nested",
    ),
    pytest.param("p.json", '{"a": %s}' % ("9" * 5_000), "more than 4,300 digits", id="digits"),
    pytest.param(
        "p.jsonl",
        '\n{"input": "a", "output": %s}' % ("9" * 5_000),
        "line 2: a number of more than 4,300 digits",
        id="digits-line",
    ),
    pytest.param(
        "p.json",
        '{"a": "%s"}' % ("b" * 301),
        "an answer of 301 characters; expected at most 300",
        id="long-answer",
    ),
    pytest.param(
        "p.json", '{"%s": "b"}' % ("a" * 10_001), "an input of 10,001 characters", id="long-input"
    ),
    # Another kind of file.
    ("p.txt", "a b", ": unknown kind of file; expected one of .json, .jsonl, .csv, .tsv"),
    ("p", "a b", ": unknown kind of file"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_malformed_file(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        load_task(path)
    assert str(caught.value).startswith(str(path))


def test_two_lists_of_answers_say_how_they_differ(tmp_path: Path) -> None:
    path = written(tmp_path, "p.csv", "input,output\na,b|c\na,b|d\n")
    with pytest.raises(InputError, match="line 3: input 'a' appears again.*'d'.*'c'"):
        load_task(path)


@pytest.mark.parametrize("name", ["none.csv", "none.json", "no/folder.tsv", "none.jsonl"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: no such file"):
        load_task(tmp_path / name)


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv: no such file"):
        load_task(tmp_path / "folder.csv")


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "tsv"])
def test_a_name_that_names_no_task(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match="has 300 bytes; expected at most 100: rename the file"):
        load_task(tmp_path / f"{'a' * 300}.{kind}")
    with pytest.raises(InputError, match=r"holds half of a character .*not UTF-8"):
        load_task(tmp_path / f"caf\udce9.{kind}")


def test_a_folder_with_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_task(tmp_path / ("a" * 300) / "pairs.csv")
    with pytest.raises(InputError, match="no such file"):
        load_task(f"pos:{tmp_path}/{'a' * 300}.conllu")


def test_a_word_in_two_encodings_is_kept_once(tmp_path: Path) -> None:
    content = "input,output\ncaf\u00e9,b\ncafe\u0301,b\n"
    assert load_task(written(tmp_path, "p.csv", content)).pairs == (Pair("caf\u00e9", ("b",)),)


def test_no_message_is_longer_than_a_few_lines(tmp_path: Path) -> None:
    long = "x" * 100_000
    for name, content in {
        "p.json": f'{{"a": ["{long}", 1]}}',
        "p.csv": f"input,output\n{long}\n",
        "q.csv": f"{long},output\n",
        "r.json": f'["{long}"]',
    }.items():
        with pytest.raises(InputError) as caught:
            load_task(written(tmp_path, name, content))
        assert len(str(caught.value)) < 1_000
