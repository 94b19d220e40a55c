"""Context masking: equal to one plain forward per cell, right on planted models and made curves."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from test_every_family import model
from tiny_models import answering_task

from icl_mech import InputError, Plant, context_masking, localize, planted_model
from icl_mech.masking import MASKS, ContextMasking
from icl_mech.masking.plan import MaskingSettings, plan
from icl_mech.model import HookedModel, Knockout
from icl_mech.prompts import accepted, in_context
from icl_mech.stats.curves import Rule

FEW: dict[str, Any] = {"n_prompts": 3, "n_shots": 2, "progress": False}


def test_equals_whole_prompts_with_a_masked_attention(tiny_llama: HookedModel) -> None:
    """The plain engine, one knockout at a time; distances from whole rows of probabilities."""
    found = context_masking(tiny_llama, answering_task(), **FEW)
    ((task, split),) = plan(answering_task(), MaskingSettings(n_prompts=3, n_shots=2)).tasks
    encoder = tiny_llama.encoder("{x}->{y}", [pair.y for pair in task.pairs])
    prompts = in_context(encoder, split.test)
    answers = accepted(encoder, prompts, split.test).first_tokens
    whole, n = tiny_llama.with_engine("plain"), tiny_llama.n_layers
    every = [list(range(len(tiny_llama.vocabulary)))] * len(prompts)
    clean = whole.evaluate(prompts, [None], every).logprob[:, 0]
    for name, mask in MASKS.items():
        for layer in range(n):
            for direction, blocks in (("until", range(layer + 1, n)), ("after", range(layer + 1))):
                edit = Knockout(blocks, mask.hidden, mask.at) if blocks else None
                rows = whole.evaluate(prompts, [edit], every).logprob[:, 0]
                here = found.of("q").sel(mask=name, direction=direction, layer=layer)
                top = rows.argmax(dim=-1)
                for p, row in enumerate(rows):
                    assert bool(here["right"][p]) == (int(top[p]) in answers[p])
                    best = max(float(row[a]) for a in answers[p])
                    assert float(here["logprob"][p]) == pytest.approx(best, abs=1e-4)
                kl = (clean.exp() * (clean - rows)).sum(dim=-1)
                np.testing.assert_allclose(here["kl"], kl, atol=1e-4)
                apart = (clean.exp() - rows.exp()).abs().sum(dim=-1) / 2
                np.testing.assert_allclose(here["total_variation"], apart, atol=1e-4)
    last = found.of("q").sel(direction="until", layer=n - 1)
    assert float(abs(last["kl"]).max()) < 1e-6


@pytest.mark.parametrize(
    ("formed", "decoded"), [(2, 4), pytest.param(3, 5, marks=pytest.mark.slow)]
)
def test_planted_demonstrations_are_read_by_the_block_that_writes(
    formed: int, decoded: int
) -> None:
    """One block's heads read the labels at the last token: before it they may be hidden, and after.

    Block 0 and 1 collect labels at the demonstrations themselves, which no mask hides from them.
    """
    planted = planted_model(Plant(n_layers=decoded + 2, formed=formed, decoded=decoded))
    task = planted.family.tasks[0]
    found = context_masking(planted.model, task, 12, 4, progress=False)
    for mask in ("demonstrations", "last_token"):
        right = found.of(task.name)["right"].sel(mask=mask)
        until = right.sel(direction="until").mean("prompt").values
        after = right.sel(direction="after").mean("prompt").values
        assert (until[formed:] == 1).all()
        assert until[formed - 1] <= 0.2
        assert (after[:formed] == 1).all()
        assert after[formed] <= 0.2
        assert found.read_by(task.name, mask).estimate.value == formed
        assert found.read_from(task.name, mask).estimate.value == formed
    mapped = localize(planted.model, planted.family, 12, 4, n_points=48, progress=False)
    assert mapped.formation(task.name, "masking").estimate.value == formed
    assert "masking" in mapped.agreement(task.name).reset_index()["second"].tolist()


# --- results ----------------------------------------------------------------------------------


def made(by: int, n: int = 40, n_layers: int = 8, few_shot: float = 1.0) -> ContextMasking:
    """Demonstrations that are needed up to block `by`."""
    rng = np.random.default_rng(0)
    right = np.zeros((1, 2, 1, n, n_layers), dtype=bool)
    learnt = rng.random(n) < few_shot
    right[0, 0, 0, :, by:] = learnt[:, None]
    right[0, 1, 0, :, :by] = learnt[:, None]
    dims = ("task", "direction", "mask", "prompt", "layer")
    values = dict.fromkeys(("logprob", "kl", "total_variation"), (dims, right.astype(float)))
    data = xr.Dataset(
        {
            "right": (dims, right),
            **values,
            "few_shot_right": (("task", "prompt"), learnt[None]),
            "zero_shot_right": (("task", "prompt"), np.zeros((1, n), dtype=bool)),
            "query": (("task", "prompt"), [[f"q{i}" for i in range(n)]]),
            "n_queries": ("task", [n]),
        },
        coords={
            "task": ["t"],
            "direction": ["until", "after"],
            "mask": ["demonstrations"],
            "layer": range(n_layers),
        },
    )
    return ContextMasking(data, {"rule": vars(Rule()), "model": "m"})


def test_layers_are_named_where_demonstrations_matter() -> None:
    found = made(by=4)
    assert found.read_by("t").estimate.value == 4
    assert found.read_from("t").estimate.value == 4
    assert found.finding() == "The demonstrations have been read by the end of block 4"
    useless = made(by=4, few_shot=0.0)
    assert np.isnan(useless.read_by("t").estimate.value)
    assert useless.finding().startswith("No layer")
    assert "t: no layers for demonstrations: hiding them everywhere" in useless.caveats()[-1]


def test_bad_settings() -> None:
    with pytest.raises(InputError, match="did you mean 'labels'"):
        MaskingSettings(masks=("label",))
    with pytest.raises(InputError, match="expected at least one"):
        MaskingSettings(masks=())
    with pytest.raises(InputError, match="direction 'untill'"):
        made(3).curve("t", "demonstrations", "untill")


def test_models_without_attention() -> None:
    tiny_mamba = model("mamba")
    with pytest.raises(InputError, match="has no attention in block 0 .no block has any."):
        context_masking(tiny_mamba, answering_task(), **FEW)
    mapped = localize(tiny_mamba, answering_task(), n_points=12, heads=False, **FEW)
    assert "masking" not in mapped.readouts
    assert any("masking was not measured" in note for note in mapped.caveats())
