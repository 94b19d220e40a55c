"""A question has the same defaults as a function, as a command, and as settings."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

import icl_mech
from icl_mech.cli.main import command
from icl_mech.heads.plan import AblationSettings, AttributionSettings, FunctionVectorSettings
from icl_mech.lens.plan import LensSettings, VectorLensSettings
from icl_mech.localize.plan import MapSettings
from icl_mech.patch.scan_plan import ScanSettings
from icl_mech.prompts import PromptSettings

QUESTIONS = {
    "scan": (icl_mech.layer_scan, ScanSettings),
    "heads": (icl_mech.head_attribution, AttributionSettings),
    "ablate": (icl_mech.head_ablation, AblationSettings),
    "function-vectors": (icl_mech.function_vectors, FunctionVectorSettings),
    "lens": (icl_mech.logit_lens, LensSettings),
    "vector-lens": (icl_mech.vector_lens, VectorLensSettings),
    "localize": (icl_mech.localize, MapSettings),
}


def flat(settings: Any) -> dict[str, Any]:
    """Every setting by name, those of settings within settings too."""
    found: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        found |= flat(value) if is_dataclass(value) else {field.name: value}
    return found


@pytest.mark.parametrize("name", QUESTIONS)
def test_defaults(name: str) -> None:
    function: Callable[..., Any]
    function, settings = QUESTIONS[name]
    parameters = inspect.signature(function).parameters
    given = {n: p.default for n, p in parameters.items()}
    assert list(given)[:5] == ["model", "tasks", "n_prompts", "n_shots", "seed"]
    for n, value in flat(settings()).items():
        assert given[n] == value, n
    assert isinstance(command(name)().settings, settings)
    assert command(name)().settings == settings()
    assert issubclass(settings, PromptSettings)


def test_settings_are_recorded_as_files_hold_them() -> None:
    recorded = LensSettings(roles=("query", "final_arrow")).recorded()
    assert recorded["roles"] == ["query", "final_arrow"]
    assert recorded["n_prompts"] == 25
