"""What the README files show is there."""

import ast
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from commands import run_command
from pages import ROOT
from tiny_models import answering_model, saved

import icl_mech
from icl_mech.cli.main import COMMANDS, command
from icl_mech.model import HookedModel

#: Sizes at which a documented command is tried on a tiny model, where its settings have them.
SIZES = {"n_shots": "2", "n_prompts": "4", "n_points": "8", "k": "3", "n_mean": "4", "n_clean": "4"}
#: Options that hold for another model, or say where to write.
UNTRIED = ("--layers", "--n-shots", "--out")

PAGES = [ROOT / "README.md", ROOT / "analyses" / "README.md", *(ROOT / "icl_mech").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert all((page.parent / target).exists() for target in targets)
    assert all((ROOT / script).exists() for script in re.findall(r"analyses/\w+\.py", text))
    assert set(re.findall(r"icl_mech\.([a-z_]+)\(", text)) <= set(icl_mech.__all__)
    assert set(re.findall(r"`icl-mech ([a-z][a-z-]+)", text)) <= set(COMMANDS)
    rooms = re.findall(r"python -m icl_mech\.([a-z_]+)", text)
    assert all((ROOT / "icl_mech" / room / "__main__.py").exists() for room in rooms)


def test_the_table_of_questions_names_every_command_and_its_function() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    rows = [line.split("|")[2:4] for line in text.splitlines() if line.startswith("| ")][1:]
    functions, commands = (
        set(re.findall(r"`([^`]+)`", " ".join(c))) for c in zip(*rows, strict=True)
    )
    assert functions <= set(icl_mech.__all__)
    assert {name.removeprefix("icl-mech ") for name in commands} == set(COMMANDS)


def test_every_analysis_is_in_the_index() -> None:
    text = PAGES[1].read_text(encoding="utf-8")
    assert all(script.name in text for script in (ROOT / "analyses").glob("*.py"))


def blocks(page: Path) -> list[str]:
    """The Python code that a page shows."""
    found: list[str] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_on_a_page_is_python_with_arguments_that_exist(page: Path) -> None:
    for code in blocks(page):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("icl_mech."):
                function = getattr(icl_mech, ast.unparse(node.func).removeprefix("icl_mech."))
                known = inspect.signature(function).parameters
                assert {keyword.arg for keyword in node.keywords} <= set(known), ast.unparse(node)


@pytest.mark.slow
def test_code_on_a_page_runs(
    gemma: HookedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block after the other, as in a notebook; and what comments promise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(icl_mech, "load_model", lambda name: gemma)
    names: dict[str, Any] = {}
    for page in (ROOT / "README.md", ROOT / "icl_mech" / "README.md"):
        for code in blocks(page):
            exec(code, names)
    assert gemma.generate("Peru->", vector=names["tv"], max_new_tokens=1).text == " Lima"
    assert gemma.generate("seven->", vector=names["digits"], max_new_tokens=2).text == "7"
    assert (names["tv"].mode, names["tv"].layer) == ("replace", 9)
    assert names["scan"].best_layer("country_capital") == 9
    assert {path.name for path in tmp_path.iterdir()} == {"tv.safetensors", "run.nc"}
    assert names["heads"].top("country_capital", 1)[0][:2] == (9, 3)


@pytest.fixture(scope="module")
def roomy_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model, of whose tokens a sentence takes many, that reads long prompts."""
    model = answering_model()
    model.config.max_position_embeddings = 2048
    return str(saved(model, tmp_path_factory.mktemp("models") / "roomy"))


def documented() -> list[str]:
    """Every `icl-mech` command with options that a page shows, but the training of half an hour."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    text = re.sub(r"(`[^`\n]*)\n\s*([^`\n]*`)", r"\1 \2", text)
    found = re.findall(r"icl-mech ([a-z][a-z-]* --[^`(#\n]*)", text)
    return sorted({c.strip() for c in found if not c.startswith("train") and "--help" not in c})


@pytest.mark.slow
@pytest.mark.parametrize("line", documented())
def test_a_documented_command_runs(line: str, roomy_model: str, tmp_path: Path) -> None:
    name, *words = shlex.split(line)
    at = [i for i, word in enumerate(words) if word in UNTRIED]
    for i in reversed(at):
        end = next((j for j in range(i + 1, len(words)) if words[j].startswith("--")), len(words))
        del words[i:end]
    known = vars(command(name)().settings)
    sizes = [w for n, v in SIZES.items() if n in known for w in (f"--{n.replace('_', '-')}", v)]
    out = ["--out", str(tmp_path / "figure.html")]
    done = run_command(name, *words, *sizes, "--model", roomy_model, *out)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figure.html").exists()
    assert (tmp_path / "figure.nc").exists()
