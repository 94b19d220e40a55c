"""The numbers that a layer scan of the packaged model must reach."""

import pytest

from icl_mech import load_result
from icl_mech.model import HookedModel
from icl_mech.patch import LayerScan, layer_scan

TASKS = ("country_capital", "to_upper", "antonyms", "present_gerund")
N_PROMPTS = 20


@pytest.fixture(scope="module")
def scan(gemma: HookedModel) -> LayerScan:
    """The default settings (5 shots, seed 0), with fewer prompts."""
    return layer_scan(gemma, TASKS, N_PROMPTS, progress=False)


def test_country_capital(scan: LayerScan) -> None:
    curve = [e.value for e in scan.curve("country_capital")]
    assert max(curve[8:12]) >= 0.60
    assert max(curve[12:]) <= 0.10
    assert 8 <= scan.best_layer("country_capital") <= 11
    assert scan.hypothesis("country_capital").value >= 0.60


def test_to_upper(scan: LayerScan) -> None:
    assert scan.hypothesis("to_upper").value >= 0.80


def test_antonyms(scan: LayerScan) -> None:
    assert scan.hypothesis("antonyms").value >= 0.40


def test_present_gerund(scan: LayerScan) -> None:
    assert scan.hypothesis("present_gerund").value >= 0.45
    assert max(e.value for e in scan.curve("present_gerund")[:8]) <= 0.10


def test_controls_carry_nothing(scan: LayerScan) -> None:
    for task in TASKS:
        assert scan.hypothesis(task, "random").value <= 0.10
        assert scan.hypothesis(task, "other_task").value <= 0.10


def test_the_result_says_what_it_did(scan: LayerScan, tmp_path) -> None:
    frame = scan.to_frame()
    per_task = N_PROMPTS * (4 * 18 + 2)
    assert len(frame) == len(TASKS) * per_task
    at_best = frame[
        (frame.task == "antonyms")
        & (frame.vector == "theta")
        & (frame.layer == scan.best_layer("antonyms"))
    ]
    assert at_best.first_token.mean() == scan.hypothesis("antonyms").value
    assert (at_best.logprob <= 0).all()
    # Right by the first token means rank 0, and the other way round.
    assert ((at_best["rank"] == 0) == at_best.first_token).all()
    again = load_result(scan.save(tmp_path / "run.nc"))
    assert isinstance(again, LayerScan)
    assert again.data.identical(scan.data)
    assert again.provenance == scan.provenance
    assert "country_capital" in scan._repr_html_()
