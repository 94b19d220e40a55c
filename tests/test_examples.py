"""Every Example in a docstring is run, and every public function has one."""

import doctest
import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import commands
import numpy as np
import pytest

import icl_mech

#: What examples may use without an import; the model is loaded where one names it.
NAMES: dict[str, Any] = {"icl_mech": icl_mech, "np": np}


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(icl_mech.__path__, "icl_mech."):
        if not found.name.endswith("__main__"):
            yield found.name


def examples(module: str) -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [t for t in finder.find(import_module(module), extraglobs=NAMES) if t.examples]


#: Examples that take four seconds and more, or ten and more.
LONG = {
    "icl_mech.answers.run": "slow",
    "icl_mech.check.run": "thorough",
    "icl_mech.checkpoints.run": "slow",
    "icl_mech.classification.run": "slow",
    "icl_mech.decodability.accuracy": "slow",
    "icl_mech.decoder.run": "thorough",
    "icl_mech.failures.run": "slow",
    "icl_mech.finetune.run": "slow",
    "icl_mech.heads.attribution": "slow",
    "icl_mech.heads.vectors": "slow",
    "icl_mech.knowledge.run": "thorough",
    "icl_mech.localize.run": "slow",
    "icl_mech.one_prompt.attention": "slow",
    "icl_mech.patch.means": "slow",
    "icl_mech.patch.positions": "slow",
    "icl_mech.patch.scan": "slow",
    "icl_mech.patchscope.run": "slow",
    "icl_mech.planted.found": "slow",
    "icl_mech.progressive.run": "slow",
    "icl_mech.sweep.run": "slow",
    "icl_mech.table.files": "slow",
    "icl_mech.table.run": "slow",
    "icl_mech.transfer.run": "thorough",
    "icl_mech.variability.compare": "slow",
    "icl_mech.variability.run": "slow",
    "icl_mech.vector_methods.run": "thorough",
}


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(m, marks=[getattr(pytest.mark, LONG[m])] if m in LONG else [])
        for m in modules()
    ],
)
def test_examples(module: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for test in examples(module):
        if any("model" in example.source for example in test.examples):
            test.globs.setdefault("model", commands.loaded())
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def public_functions() -> Iterator[str]:
    """Functions and classes that a package names as its own, by their full names."""
    for package in ("icl_mech", *(m for m in modules() if m.count(".") == 1)):
        found = import_module(package)
        for name in getattr(found, "__all__", ()):
            thing = getattr(found, name)
            if inspect.isfunction(thing) and thing.__module__.startswith("icl_mech."):
                yield f"{thing.__module__}.{thing.__name__}"


@pytest.mark.parametrize("name", sorted(set(public_functions())))
def test_every_public_function_has_an_example(name: str) -> None:
    module, _, function = name.rpartition(".")
    text = inspect.getdoc(getattr(import_module(module), function)) or ""
    assert ">>>" in text, f"{name} has no Example"
