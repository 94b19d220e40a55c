"""Heads switched off together: against the plain way, and what the result makes of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from plain import plain_logprobs

from icl_mech import Edit, load_result
from icl_mech.errors import InputError
from icl_mech.heads import HeadAblation, head_ablation
from icl_mech.heads.plan import AblationSettings, plan_heads
from icl_mech.heads.prompts import encode
from icl_mech.model import HookedModel

TASK = "country_capital"
HEADS = [(9, 3), (15, 1), (11, 2)]


@pytest.fixture(scope="module")
def result(gemma: HookedModel) -> HeadAblation:
    return head_ablation(
        gemma,
        TASK,
        3,
        5,
        heads=HEADS,
        counts=(1, 3),
        n_draws=2,
        n_dev=2,
        off="zero",
        progress=False,
    )


def test_equals_one_forward_with_all_heads_off(gemma: HookedModel, result: HeadAblation) -> None:
    (drawn,) = encode(gemma, plan_heads(TASK, AblationSettings(n_prompts=3, n_dev=2, n_shots=5)))
    nothing = torch.zeros(gemma.d_head)
    for i in (0, 2):
        prompt, answer = drawn.test.clean[i], drawn.test.answers[i]
        for k in (1, 3):
            off = [Edit(x, nothing, "z", "final_arrow", head=h) for x, h in HEADS[:k]]
            expected = plain_logprobs(gemma, prompt, off)[answer]
            ours = float(result.data["top_logprob"].sel(task=TASK, k=k)[i])
            assert abs(ours - float(expected)) < 1e-3
        intact = float(result.data["intact_logprob"].sel(task=TASK)[i])
        assert abs(intact - float(plain_logprobs(gemma, prompt)[answer])) < 1e-3


def made(top: np.ndarray, random: np.ndarray, intact: np.ndarray) -> HeadAblation:
    n, k = top.shape
    data = xr.Dataset(
        {
            "top_right": (("task", "prompt", "k"), top[None]),
            "top_logprob": (("task", "prompt", "k"), top[None] * 1.0),
            "random_right": (("task", "prompt", "k", "draw"), random[None]),
            "random_logprob": (("task", "prompt", "k", "draw"), random[None] * 1.0),
            "intact_right": (("task", "prompt"), intact[None]),
            "intact_logprob": (("task", "prompt"), intact[None] * 1.0),
            "ranked": (("task", "position"), [["1.0", "0.1"]]),
            "query": (("task", "prompt"), [[f"q{i}" for i in range(n)]]),
            "answer": (("task", "prompt"), [[f"a{i}" for i in range(n)]]),
        },
        coords={"task": ["t"], "k": [1, 2][:k]},
    )
    data["n_queries"] = ("task", [n])
    provenance = {"model": "m", "off": "zero", "n_shots": 5, "n_draws": 3, "seed": 0}
    return HeadAblation(data, provenance)


def test_numbers_by_hand() -> None:
    intact = np.array([True] * 8 + [False] * 2)
    top = np.stack([intact & (np.arange(10) < 4), np.zeros(10, bool)], axis=1)
    random = np.repeat(np.repeat(intact[:, None, None], 2, axis=1), 5, axis=2)
    result = made(top, random, intact)
    assert result.intact("t").value == 0.8
    assert result.top("t", 1).value == 0.4
    assert result.random("t", 2).value == pytest.approx(0.8)
    assert result.cost("t", 1).value == pytest.approx(0.4)
    assert result.cost("t", 2).value == pytest.approx(0.8)
    assert result.caveats() == []
    frame = result.to_frame()
    assert len(frame) == 10 + 10 * 2 + 10 * 2 * 5
    assert frame[(frame["k"] == 1) & (frame["draw"] == -1)]["right"].sum() == 4
    assert frame[frame["k"] == 0]["right"].sum() == 8
    assert result.full_summary().loc[("t", 2), "heads"] == "1.0 0.1"
    with pytest.raises(InputError, match=r"k = 7 was not run; expected one of 1, 2 \(nearest: 2\)"):
        result.top("t", 7)


def test_no_random_head_that_matters_is_no_certainty() -> None:
    """[1.00, 1.00] would say that no head anywhere can matter; three draws cannot."""
    every = np.ones(25, bool)
    result = made(np.stack([~every, ~every], axis=1), np.ones((25, 2, 3), bool), every)
    found = result.random("t", 1)
    assert found.value == found.high == 1
    assert 0.4 < found.low < 0.5  # Wilson's of three trials
    assert result.intact("t").low > 0.8


def test_heads_that_do_not_matter_are_reported() -> None:
    intact = np.array([True, False] * 5)
    same = np.repeat(intact[:, None], 2, axis=1)
    result = made(same, np.repeat(same[..., None], 5, axis=2), intact)
    (note,) = result.caveats()
    assert "the ranking is not shown to matter" in note


def test_saved_loaded_and_drawn(result: HeadAblation, tmp_path: Path) -> None:
    again = load_result(result.save(tmp_path / "ablation.nc"))
    assert isinstance(again, HeadAblation)
    assert again.data.identical(result.data)
    figure = again.plot()
    top = next(t for t in figure.data if t.name.startswith("top"))
    assert list(top.x) == [1, 3]
    assert top.customdata[1][2] == "9.3, 15.1, 11.2"
    assert "switched off: output 0" in figure.layout.title.subtitle.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": [(9, 9)], "counts": (1,)}, "the model has no head 9.9: expected layers 0 to 3"),
        ({"heads": [(1, 1), (1, 1)], "counts": (1,)}, "head 1.1 is there twice"),
        ({"heads": []}, "no heads"),
        ({"heads": [(1, 1)], "counts": (2,)}, "expected numbers from 1 to 1"),
        ({"n_draws": 0}, "n_draws is 0"),
    ],
)
def test_bad_input(tiny_llama: HookedModel, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        head_ablation(tiny_llama, "to_upper", n_prompts=2, n_shots=2, progress=False, **arguments)
