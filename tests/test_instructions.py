"""A line before the demonstrations: which it is, where it stands, and who reads it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from commands import assert_refused, run_room
from tiny_models import tiny_model

import icl_mech
from icl_mech.cli.main import COMMANDS, command
from icl_mech.errors import InputError
from icl_mech.patch.positions_plan import PromptPair
from icl_mech.prompts import (
    Episode,
    PromptSettings,
    header,
    in_context,
    instruction_only,
    with_dummies,
    zero_shot,
)
from icl_mech.tasks import Task, list_families, list_tasks, load_family, load_task

LINE = "Do what the examples do."
#: Commands that draw no prompts of a language model.
OTHERS = {"sweep", "train"}


def everything(value: Any) -> Iterator[Any]:
    """A plan's parts, and theirs."""
    yield value
    if is_dataclass(value) and not isinstance(value, type | Episode | PromptPair | Task):
        for field in fields(value):
            yield from everything(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from everything(part)


def test_every_task_has_a_line_of_its_own() -> None:
    for name in list_tasks():
        assert load_task(name).instruction.endswith("."), name
    for name in list_families():
        lines = Counter(task.instruction for task in load_family(name).tasks)
        assert "" not in lines, name
        assert max(lines.values()) == 1, lines


@pytest.mark.parametrize("name", ["bitwise/xnor", "pos/noun", "country_capital"])
def test_conditions(name: str) -> None:
    task = load_task(name)
    assert header(task, "none") == ""
    assert header(task, "true") == task.instruction
    assert header(task, LINE) == LINE
    other, irrelevant = header(task, "other"), header(task, "irrelevant")
    assert len({task.instruction, other, irrelevant}) == 3
    if "/" in name:  # of the same family, and not the null task
        family = load_family(name.split("/")[0])
        assert other in {t.instruction for t in family.proper}


def test_a_task_without_a_line_is_named() -> None:
    task = Task.from_pairs({"dog": "puppy"}, "young")
    with pytest.raises(InputError, match="'young' has no instruction of its own"):
        header(task, "true")
    own = Task.from_pairs({"dog": "puppy"}, "young", instruction="Write the young of the animal.")
    assert header(own, "true") == "Write the young of the animal."


@pytest.mark.parametrize(
    ("instruction", "message"),
    [("ture", "did you mean 'true'"), (" ", "is empty"), ("a\x07 b", "control character")],
)
def test_what_is_no_instruction(instruction: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PromptSettings(instruction=instruction)


def test_where_the_line_stands() -> None:
    model = tiny_model("gpt2")
    task = load_task("antonyms")
    episode = Episode(task.pairs[:2], task.pairs[2], task.pairs[3:5], instruction=LINE)
    encoder = model.encoder("{x}->{y}", ["hot"])
    (prompt,) = in_context(encoder, [episode])
    (plain,) = in_context(encoder, [Episode(*(task.pairs[:2], task.pairs[2], task.pairs[3:5]))])
    assert prompt.text == f"{LINE}\n{plain.text}"
    own = prompt.roles.count("instruction")
    assert prompt.roles == ("sink", *["instruction"] * own, *plain.roles[1:])
    assert prompt.tokens[-len(plain) + 1 :] == plain.tokens[1:]
    (dummies,) = with_dummies(encoder, [episode])
    assert all(p.text.startswith(f"{LINE}\n") for p in dummies)
    (alone,) = instruction_only(encoder, [episode])
    (bare,) = zero_shot(encoder, [episode])
    assert alone.text == f"{LINE}\n{bare.text}"


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - OTHERS))
def test_every_question_asks_with_it(name: str) -> None:
    made = command(name)()
    made = type(made)(settings=type(made.settings)(instruction=LINE, n_prompts=12))
    drawn = [p for p in everything(made.plan()) if isinstance(p, Episode | PromptPair)]
    if name == "conflict":  # draws its prompts when it knows the tokenizer
        pairs = [load_task("to_upper"), load_task("next_letter")]
        between = made.settings.between(*pairs)
        drawn = [p for p in everything(between) if isinstance(p, Episode)]
    assert drawn
    assert {p.instruction for p in drawn} == {LINE}
    assert made.settings.recorded()["instruction"] == LINE


def test_decodability_of_the_instruction_alone() -> None:
    """Lines that differ give the task away; one line for all tasks gives nothing."""
    model = tiny_model("llama")
    found = {
        line: icl_mech.task_decodability(
            model, "letters", 12, 2, k=3, instruction=line, probe=False, progress=False
        )
        for line in ("none", "true", LINE)
    }
    n_tasks = len(found["true"].tasks)
    told = [e.value for e in found["true"].td(control="instruction")]
    same = [e.value for e in found[LINE].td(control="instruction")]
    assert min(told) == 1.0  # every prompt of a task begins with the same words
    assert np.allclose(same, 1 / n_tasks)
    with pytest.raises(InputError, match="no control 'instruction'"):
        found["none"].td(control="instruction")
    assert "instruction alone" in found["true"].table()
    assert "instruction alone" not in found["none"].table()
    assert found["true"].instruction_accuracy().value <= 1
    assert any("instruction names the task" in note for note in found["true"].caveats())
    assert not any("instruction names the task" in note for note in found[LINE].caveats())
    names = {trace.name for trace in found["true"].plot().data}
    assert "instruction alone" in names


def test_on_the_command_line(small: list[str]) -> None:
    assert_refused(run_room("patch", "--layer-scan", *small, "--instruction", "ture"), "true")
    assert_refused(run_room("patch", "--layer-scan", *small, "--instruction", "true"), "no instr")
