"""Rooms whose prompts share queries: their intervals are over queries, not over prompts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from icl_mech.answers import AnswerScores
from icl_mech.answers.text_scores import SCORES
from icl_mech.failures import TaskVectorFailures
from icl_mech.heads import FunctionVectors, HeadAblation, HeadAttribution
from icl_mech.patch import PositionScan
from icl_mech.results import Result
from icl_mech.stats import Estimate

#: Ten prompts of each of five queries; an answer depends on the query alone.
N, N_QUERIES = 50, 5
SHARED = np.array([f"q{i % N_QUERIES}" for i in range(N)])
APART = np.array([f"q{i}" for i in range(N)])
RIGHT = np.isin(SHARED, ["q0", "q1", "q2"])
#: Numbers that depend on the query alone, too.
VALUES = 1.0 + np.arange(N) % N_QUERIES


def over(*dims: str) -> tuple[str, ...]:
    return ("task", "prompt", *dims)


def answers() -> AnswerScores:
    right = np.stack([~RIGHT, RIGHT, np.ones(N, bool)])[None]
    dims = ("task", "condition", "prompt")
    data: dict[str, Any] = dict.fromkeys(SCORES, (dims, right))
    data["first_token"] = (dims, np.ones_like(right))
    data |= dict.fromkeys(("logprob", "first_logprob"), (dims, -(right * VALUES)))
    return AnswerScores(
        xr.Dataset(
            {**data, "cut": (dims, right)},
            coords={"condition": ["baseline", "hypothesis", "regular"]},
        ),
        {},
    )


def ablation() -> HeadAblation:
    right = RIGHT[None, :, None]
    drawn = {
        "top_right": (over("k"), ~right),
        "random_right": (over("k", "draw"), np.repeat(right[..., None], 4, -1)),
        "intact_right": (over(), right[..., 0]),
    }
    return HeadAblation(xr.Dataset(drawn, coords={"k": [1]}), {})


def vectors() -> FunctionVectors:
    names = ["function", "theta", "layer_mean", "random_heads", "random"]
    right = np.zeros((1, N, 2, 5, 2), bool)
    right[:, :, :, 0] = RIGHT[None, :, None, None]
    drawn = {
        "right": (over("setting", "vector", "layer"), right),
        "dev_right": (("task", "dev_prompt", "setting", "vector", "layer"), right[:, :3]),
        "plain_right": (over("setting"), right[:, :, :, 0, 0]),
        "few_shot_right": (over(), RIGHT[None]),
    }
    coords = {"setting": ["zero_shot", "shuffled"], "vector": names, "layer": [0, 1]}
    return FunctionVectors(xr.Dataset(drawn, coords=coords), {})


def attribution() -> HeadAttribution:
    rng = np.random.default_rng(0)
    effects = rng.standard_normal((2, 20, 1)) + rng.standard_normal((N_QUERIES, 2, 20, 2))
    of_query = effects[np.arange(N) % N_QUERIES][None]
    data = {m: (over("layer", "head"), of_query[..., i]) for i, m in enumerate(("aie", "direct"))}
    return HeadAttribution(xr.Dataset(data, coords={"layer": [0, 1], "head": range(20)}), {})


def failures() -> TaskVectorFailures:
    names = ["few_shot", "zero_shot", "theta"]
    right = np.stack([np.ones(N, bool), np.zeros(N, bool), RIGHT], axis=-1)[None]
    return TaskVectorFailures(
        xr.Dataset(
            {
                "right": (over("condition"), right),
                "prior_right": (over(), np.zeros((1, N), bool)),
                "guess_right": (over(), RIGHT[None] * 0.5),
            },
            coords={"condition": names},
        ),
        {},
    )


def positions() -> PositionScan:
    dims = ("task", "site", "direction", "prompt", "role", "layer")
    patched = (VALUES * RIGHT)[None, None, None, :, None, None]
    data = {
        "logit_difference": (dims, patched),
        "clean_logit_difference": (over(), VALUES[None]),
        "corrupted_logit_difference": (over(), np.zeros((1, N))),
    }
    coords = {"site": ["resid_post"], "direction": ["denoise"], "role": ["query"], "layer": [0]}
    return PositionScan(xr.Dataset(data, coords=coords), {})


def restored(scan: PositionScan) -> Estimate:
    found = scan.largest("t", "resid_post", "denoise")
    assert found is not None
    return found[-1]


CASES: dict[str, tuple[Callable[[], Result], Callable[[Any], Estimate]]] = {
    "answers: accuracy": (answers, lambda r: r.accuracy("t", "hypothesis", "accepted")),
    "answers: logprob": (answers, lambda r: r.logprob("t", "hypothesis")),
    "answers: ratio": (answers, lambda r: r.ratio("t", "accepted")),
    "answers: difference": (answers, lambda r: r.difference("t", "hypothesis", "accepted")),
    "ablation: intact": (ablation, lambda r: r.intact("t")),
    "ablation: top": (ablation, lambda r: r.top("t", 1)),
    "ablation: random": (ablation, lambda r: r.random("t", 1)),
    "ablation: cost": (ablation, lambda r: r.cost("t", 1)),
    "vectors: curve": (vectors, lambda r: r.curve("t")[1]),
    "vectors: accuracy": (vectors, lambda r: r.accuracy("t")),
    "vectors: plain": (vectors, lambda r: r.plain("t")),
    "vectors: few-shot": (vectors, lambda r: r.few_shot("t")),
    "vectors: difference": (vectors, lambda r: r.difference("t", "function", "random")),
    "attribution: estimates": (attribution, lambda r: r.estimates("t")[1][2]),
    "attribution: top": (attribution, lambda r: r.top("t", 1)[0][-1]),
    "attribution: agreement": (attribution, lambda r: r.agreement("t", "direct")),
    "failures: accuracy": (failures, lambda r: r.accuracy("t")),
    "failures: prior": (failures, lambda r: r.prior("t")),
    "failures: explained": (failures, lambda r: r.explained("t")),
    "failures: above prior": (failures, lambda r: r.above_prior("t")),
    "failures: difference": (failures, lambda r: r.difference("t", "few_shot", "theta")),
    "positions: effect": (positions, restored),
}


@pytest.mark.parametrize("case", CASES)
def test_intervals_are_over_queries(case: str) -> None:
    make, ask = CASES[case]
    found = {}
    for name, queries in (("shared", SHARED), ("apart", APART)):
        result = make()
        result.data = result.data.assign_coords(task=["t"])
        result.data["query"] = (("task", "prompt"), queries[None])
        found[name] = ask(result)
    shared, apart = found["shared"], found["apart"]
    assert shared.value == pytest.approx(apart.value)
    # Five trials instead of fifty: about three times as wide, where 1 and 0 do not bound it.
    assert shared.high - shared.low > 1.3 * (apart.high - apart.low) > 0


def test_prompts_without_roles_are_all_different() -> None:
    """What they ask is not known: it is no one query."""
    scan = positions()
    scan.data = scan.data.assign_coords(task=["t"])
    scan.data["query"] = (("task", "prompt"), np.full((1, N), ""))
    assert restored(scan).low < restored(scan).high
