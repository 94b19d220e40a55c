"""The command line as a user meets it: figures, JSON, and one line for every mistake."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
from commands import Done, assert_refused, run_room

from icl_mech.cli.main import COMMANDS, ROOMS, command, main
from icl_mech.cli.patch import ScanCommand
from icl_mech.patch.scan_plan import ScanSettings
from icl_mech.results import load_result


def run(*options: str) -> Done:
    return run_room("patch", "--layer-scan", *options)


def test_json_is_one_object_on_stdout_and_nothing_else(
    tmp_path: Path, small_model: list[str]
) -> None:
    out = tmp_path / "new folder" / "scan.html"
    pairs = tmp_path / "<b>shapes.csv"
    rows = [f"w{i},{'yes|ja' if i % 2 else 'no'}" for i in range(20)]
    pairs.write_text("\n".join(["input,output", *rows]))
    done = run(
        *small_model, "--task", "es_en", str(pairs), "--n-prompts", "2", "--n-shots", "2", "--json",
        "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [row["task"] for row in printed["summary"]] == ["es_en", "<b>shapes"]
    assert 0 <= printed["summary"][0]["hypothesis_low"] <= printed["summary"][0]["hypothesis"] <= 1
    assert printed["provenance"]["seed"] == 0
    assert printed["caveats"] == load_result(printed["data"]).caveats() != []
    assert Path(printed["figure"]) == out
    assert Path(printed["data"]) == out.with_suffix(".nc")
    html = out.read_text()
    assert "What to keep in mind</b><ul><li>" in html
    # Opens offline, and a file's name is text, not markup.
    assert 'src="http' not in html
    assert "<b>shapes" not in html
    assert r"\u003cb\u003eshapes" not in html  # as plotly writes it
    assert sorted(p.name for p in out.parent.iterdir()) == ["scan.html", "scan.nc"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "country_captal"], "unknown task 'country_captal'; did you mean 'country_capi"),
        (["--task", "missing.csv"], "missing.csv: no such file"),
        (["--model", "no such model!"], "unknown model 'no such model!'; expected 'gemma-3-270m'"),
        (["--model", "gemma-3-270"], "unknown model 'gemma-3-270'; did you mean 'gemma-3-270m'?"),
        (["--model", "./nothere"], "./nothere: no such folder or file; expected a model"),
        (["--model", "nothing.gguf"], "nothing.gguf: no such file"),
        (["--template", "{x} is"], "template '{x} is': expected {x}, then some text, then {y}"),
        (["--n-prompts", "0"], "n_prompts is 0; expected at least 1"),
        (["--n-shots", "30", "--task", "to_upper"], "has 26 pairs, too few: expected at least 34"),
        (["--out", "figure.gif"], "unknown kind of figure '.gif'"),
        (["--out", "/proc/none/figure.html"], "cannot write /proc/none"),
        (["--device", "cuda:77"], "device 'cuda:77' is not usable here"),
        (["--task", "es_en", "es_en"], "task 'es_en' is named twice; expected each once"),
        (["--dtype", "float31"], "float31"),
        (["--layers", "3"], "Unrecognized"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(options: list[str], message: str) -> None:
    done = run(*options)
    assert done.returncode == 2
    said = " ".join(done.stderr.replace("│", " ").split())
    assert message in said
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_nothing_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "icl_mech.patch"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "expected --layer-scan" in done.stderr


def test_help_does_not_wait_for_torch_or_scipy() -> None:
    program = (
        "import sys; from icl_mech.patch.__main__ import main\n"
        "try: main(['--layer-scan', '--help'])\n"
        "except SystemExit as e: print(e.code, 'torch' in sys.modules or 'scipy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("0 False\n")
    for option in ("--task", "--model", "--n-prompts", "--json", "--no-progress"):
        assert option in done.stdout


def test_help_of_all_commands_does_not_wait_for_torch_or_scipy() -> None:
    program = (
        "import sys; from icl_mech.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: print(e.code, 'torch' in sys.modules or 'scipy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("0 False\n")


@pytest.mark.slow
def test_a_first_picture_waits_for_no_library_that_it_does_not_use() -> None:
    program = (
        "import sys; from icl_mech import load_model, prompt_lens\n"
        "print([m for m in ('scipy.stats', 'sklearn', 'peft', 'kaleido') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n")


def test_a_hub_name_without_network_names_the_offline_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = run("--model", "org/name@main")
    assert done.returncode == 2
    assert "model 'org/name@main' cannot be loaded" in done.stderr
    assert "Without network use 'gemma-3-270m'" in done.stderr


def heads(*options: str) -> Done:
    return run_room("heads", *options)


def test_heads_of_a_task_that_the_model_never_answers_right(tmp_path: Path) -> None:
    pairs = tmp_path / "noise.csv"
    letters = "qxzvjkwp"
    rows = [f"{letters[i % 8]}{i * 7919 % 100},{letters[i * 5 % 7]}{i}~" for i in range(30)]
    pairs.write_text("\n".join(["input,output", *rows]))
    out = tmp_path / "heads.html"
    done = heads(
        "--task", str(pairs), "--n-prompts", "3", "--n-shots", "2", "--n-clean", "3",
        "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 2
    assert "answers none of 3 few-shot prompts right, so there is nothing to attri" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ablation", "--function-vectors"], "at once; expected one of them"),
        (["--n-shots", "0"], "n_shots is 0; expected at least 1"),
        (["--task", "antonym"], "did you mean 'antonyms'"),
        (["--ablation", "--off", "mean"], "mean"),
        (["--n-heads", "2"], "Unrecognized options: --n-heads"),
        (["--ablation", "--scale", "3"], "Unrecognized options: --scale"),
        (["--function-vectors", "--off", "zero"], "Unrecognized options: --off"),
        (["--ablation", "--methods", "aie"], "Unrecognized options: --methods"),
        (["--methods"], "no methods; expected at least one of aie"),
        (["--output-bias"], "Unrecognized options: --output-bias"),
        (["--function-vectors", "--scale", "1", "nan"], "scale is nan; expected a finite number"),
        (["--function-vectors", "--scale"], "no scale; expected at least one number"),
    ],
)
def test_heads_command_refuses(options: list[str], message: str) -> None:
    done = heads(*options)
    assert done.returncode == 2
    assert "loading" not in done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_heads_command_switches_heads_off(small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "ablation.html"
    done = heads(
        "--ablation", "--off", "shuffled_labels", "--n-prompts", "3", "--n-shots", "4",
        "--n-dev", "3", "--json", "--out", str(out), *small,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [row["k"] for row in printed["summary"]] == [1, 2, 5, 10]  # of 16 heads
    assert printed["provenance"]["off"] == "shuffled_labels"
    assert out.exists()
    assert out.with_suffix(".nc").exists()


def failures(*options: str) -> Done:
    return run_room("failures", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "lokup"], "or a failure task: lookup, lookup_once"),
        (["--task", "failures", "lookup"], "each once"),
        (["--repairs", "arrow"], "unknown repair 'arrow'; did you mean 'arrows'"),
        (["--n-dev", "0"], "n_dev is 0; expected at least 1"),
        (["--out", "failures.gif"], "unknown kind of figure '.gif'"),
    ],
)
def test_failures_command_refuses(options: list[str], message: str) -> None:
    done = failures(*options)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_failures_command(small_model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "failures.html"
    done = failures(
        "--task", "lookup_once", "country_capital", "--n-prompts", "3", "--n-dev", "2",
        "--no-repairs", "--json", "--out", str(out), *small_model,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [row["task"] for row in printed["summary"]] == ["lookup_once", "country_capital"]
    assert printed["summary"][0]["label_prior"] == 0.25
    assert printed["provenance"]["repairs"] == []
    assert out.exists()
    assert out.with_suffix(".nc").exists()


# --- refused before a model is loaded -------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "options", "message"),
    [
        ("patch", ["--layer-scan", "--corruption", "query"], "Unrecognized options: --corruption"),
        ("patch", ["--layer-scan", "--sites", "z"], "Unrecognized options: --sites"),
        ("patch", ["--position-scan", "--n-dev", "7"], "Unrecognized options: --n-dev"),
        ("patch", ["--component-scan", "--n-dev", "0"], "Unrecognized options: --n-dev"),
        (
            "failures",
            ["--no-repairs", "--repairs", "layers"],
            "--repairs does not go with --no-rep",
        ),
        ("answers", ["--n-rivals", "0"], "n_rivals is 0; expected at least 1"),
        ("answers", ["--max-new-tokens", "0"], "max_new_tokens is 0; expected at least 1"),
        ("localize", ["--n-prompts", "200"], "n_points is 100; expected more than k = 10"),
        ("localize", ["--also", "gemma-3-270m"], "model 'gemma-3-270m' is named twice"),
        ("table", ["--task", "es_en", "--folder", "/proc/none"], "cannot write /proc/none"),
    ],
)
def test_a_mistake_is_refused_before_a_model_is_loaded(
    room: str, options: list[str], message: str
) -> None:
    done = run_room(room, *options)
    assert_refused(done, message)
    assert "loading" not in done.stderr


@pytest.mark.parametrize("room", ["answers", "variability"])
def test_a_layer_that_the_model_does_not_have(room: str, tmp_path: Path) -> None:
    """Read from the configuration: there are no weights that could be loaded."""
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 4}')
    done = run_room(room, "--layer", "4", "--model", str(tmp_path), "--out", f"{tmp_path}/a.html")
    assert_refused(done, "layer 4 out of range: expected 0 to 3")
    assert "loading" not in done.stderr


# --- the machine ----------------------------------------------------------------------------

SMALL = ["--n-prompts", "2", "--n-shots", "2"]


def shell(command: str, **environment: str) -> Done:
    """A command as the shell runs it, in a process of its own."""
    return subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_a_terminal_without_greek_letters(tmp_path: Path) -> None:
    program = (
        "import icl_mech.cli.main; import sys; main = sys.modules['icl_mech.cli.main']\n"
        "class C:\n  def run(self): print('θ of', '\\ud800')\n"
        "main._run([], C)"
    )
    for encoding in ("ascii", "cp1252", "utf-8"):
        done = shell(f'{sys.executable} -c "{program}"', PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
        assert done.stdout.replace("θ", "\\u03b8") == "\\u03b8 of \\ud800\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_on_a_full_disk(small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "scan.html"
    program = (
        "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
        "from icl_mech.patch.__main__ import main; main()"
    )
    scan = ["--layer-scan", "--no-progress", *small, *SMALL, "--out", str(out)]
    for options in (["--layer-scan", "--help"], scan):
        done = forked.run(program, *options)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == (
            "error: cannot write to standard output (No space left on device); expected room for it"
        )
        assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.html", "scan.nc"]


@pytest.mark.parametrize("module", ["tyro", "icl_mech.tasks.builtin", "torch"])
def test_an_interrupt_while_libraries_are_imported(module: str, tmp_path: Path) -> None:
    """Sent as the module is looked for; even one that catches everything cannot swallow it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    options = ["--layer-scan", "--out", f"{tmp_path}/out/a.html"]
    done = subprocess.run(
        [sys.executable, "-m", "icl_mech.patch", *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in done.stderr


def test_a_figure_that_fails_costs_no_result(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for the figure, which a folder in its place stands for."""
    out = tmp_path / "scan.html"
    monkeypatch.setattr("icl_mech.plotting.check_target", lambda path: path.mkdir())
    done = run(*small, *SMALL, "--out", str(out))
    assert done.returncode == 2
    assert "LayerScan on small" in done.stdout
    assert f"data: {out.with_suffix('.nc')}" in done.stdout
    assert "figure:" not in done.stdout
    assert f"error: cannot write {out}" in done.stderr


#: Options with which every command draws, each with the count that is named.
DRAWING = [
    ("patch", ["--layer-scan"], "n_prompts"),
    ("patch", ["--layer-scan"], "n_dev"),
    ("patch", ["--position-scan"], "n_prompts"),
    ("answers", [], "n_prompts"),
    ("answers", [], "n_dev"),
    ("conflict", [], "n_prompts"),
    ("conflict", [], "n_dev"),
    ("decodability", [], "n_prompts"),
    ("decodability", [], "n_shots"),
    ("decodability", ["--mean-patching"], "n_mean"),
    ("failures", [], "n_prompts"),
    ("failures", [], "n_dev"),
    ("heads", [], "n_prompts"),
    ("heads", [], "n_clean"),
    ("heads", ["--ablation"], "n_dev"),
    ("heads", ["--function-vectors"], "n_dev"),
    ("lens", [], "n_prompts"),
    ("lens", ["--vectors"], "n_prompts"),
    ("localize", [], "n_prompts"),
    ("localize", [], "n_points"),
    ("localize", [], "n_shots"),
    ("table", [], "n_prompts"),
    ("table", [], "n_dev"),
    ("variability", [], "n_prompts"),
    ("variability", [], "n_dev"),
]


@pytest.mark.parametrize(("room", "options", "name"), DRAWING)
@pytest.mark.parametrize(
    ("value", "said"),
    [("1000000000", "is 1000000000; expected at most 10,000"), ("0", "is 0; expected at least 1")],
)
def test_counts_that_cannot_be(
    room: str, options: list[str], name: str, value: str, said: str
) -> None:
    """Refused before anything is drawn, under the name that was typed."""
    start = time.perf_counter()
    done = run_room(room, *options, f"--{name.replace('_', '-')}", value)
    assert_refused(done, f"{name} {said}")
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "anto\0nyms"], r"error: option 'anto\x00nyms' holds a control character"),
        (["--out", "a\0b.html"], r"error: option 'a\x00b.html' holds a control character"),
        (["--model", "a\0b"], r"error: option 'a\x00b' holds a control character"),
        (["--template", "{x}\0{y}"], "holds a control character"),
        (["--task", "caf\udce9.csv"], r"error: option 'caf\udce9.csv' holds half of a character"),
        (["--template", "{x}\udce9{y}"], "not UTF-8"),
        (["--task", "a" * 300], "error: unknown task 'aaa"),
        (["--task", f"{'a' * 300}.csv"], "names the task, and has 300 bytes; expected at most 100"),
        (["--task", f"pos:{'a' * 300}"], "no such file; expected a treebank"),
        (["--out", f"{'a' * 300}.html"], "error: cannot write aaa"),
        (
            ["--model", f"./{'a' * 300}", "--out", "a.html"],
            "no such folder or file; expected a model",
        ),
        (
            ["--model", f"{'a' * 300}.gguf", "--out", "a.html"],
            "no such file; expected a .gguf file",
        ),
        (["--model", "é" * 300, "--out", "a.html"], "error: unknown model"),
        (["--n-prompts", "9" * 5000], "n-prompts"),
        (["--seed", "9" * 30], "expected at most 9223372036854775807"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_no_file_or_prompt_can_hold(options: list[str], message: str) -> None:
    assert_refused(run(*options), message)


def test_a_line_break_in_a_template_is_read_as_it_is_typed() -> None:
    r"""A shell hands on \n as two characters."""
    typed = ScanCommand(settings=ScanSettings(template=r"Q: {x}\nA: {y}"))
    assert typed.settings.template == "Q: {x}\nA: {y}"
    assert ScanCommand().settings.template == "{x}->{y}"


# --- the command `icl-mech` -----------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_says_what_one_learns_and_gives_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    first = command(name).__doc__.strip().splitlines()[0].strip()
    assert said.index(first) < said.index(f"Example: icl-mech {name}") < said.index("options")


def test_the_help_of_the_whole_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


def test_every_command_belongs_to_a_room() -> None:
    assert {name for flags in ROOMS.values() for name in flags.values()} == set(COMMANDS)


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["scam"])
    assert end.value.code == 2
    assert "unknown command 'scam'; did you mean 'scan'?" in capsys.readouterr().err


def test_no_command_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    assert "scan" in capsys.readouterr().err


def test_two_flags_at_once() -> None:
    done = run_room("patch", "--layer-scan", "--position-scan")
    assert_refused(done, "error: --layer-scan and --position-scan at once; expected one of them")
