"""Planted models do what was planted, and the read-outs find it."""

import pytest
import torch

from icl_mech import InputError, Plant, planted_model
from icl_mech.planted import DECOYS, Planted, random_plant, read_outs

PLANT = Plant(n_layers=6, formed=2, decoded=4, n_writers=2, decoys=DECOYS)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_model(PLANT)


def shown(planted: Planted, task: int, *inputs: int, ask: int) -> str:
    pairs = [planted.family.tasks[task].pairs[i] for i in inputs]
    asked = planted.family.tasks[task].pairs[ask].x
    return "".join(f"{pair.x}->{pair.y}\n" for pair in pairs) + f"{asked}->"


def said(planted: Planted, text: str) -> str:
    """The next word, from an ordinary forward pass."""
    model = planted.model
    tokens = torch.tensor([model.prompt(text).tokens])
    with torch.no_grad():
        logits = model.bridge.original_model(tokens).logits
    return model.to_string(int(logits[0, -1].argmax()))


@pytest.mark.parametrize("task", [0, 1, 2])
def test_tasks_are_done_in_context_only(planted: Planted, task: int) -> None:
    for ask in (10, 11):  # the first is read from the partial copy
        assert said(planted, shown(planted, task, 1, 2, 3, ask=ask)) == (
            planted.family.tasks[task].pairs[ask].y
        )
        assert said(planted, shown(planted, task, ask=ask)) == "?"


def test_the_stream_holds_the_task_from_the_planted_block_on(planted: Planted) -> None:
    prompt = planted.model.prompt(shown(planted, 1, 1, 2, 3, ask=11))
    stream = planted.model.capture([prompt], ["final_arrow"])[0, 0]  # [layer, d_model]
    written = stream @ planted.directions["task"].T
    expected = torch.tensor([0.0, 1.0, 0.0]) * (torch.arange(6) >= 2)[:, None]
    torch.testing.assert_close(written, expected, atol=1e-4, rtol=0)
    answer = stream @ planted.directions["answer"].T
    assert answer[:4].abs().max() < 1e-4
    right = int(planted.family.tasks[1].pairs[11].y.removeprefix("out"))
    assert (answer[4:].argmax(-1) == right).all()


@pytest.mark.slow
def test_read_outs_that_are_not_causal_are_misled() -> None:
    wrong = {each.readout: each for each in read_outs(PLANT) if not each.right}
    assert list(wrong) == ["formed, by encoding", "heads, by attention to labels"]
    assert wrong["formed, by encoding"].found == (1,)
    attending = wrong["heads, by attention to labels"].found
    assert set(attending) == {*PLANT.truth().write, *PLANT.truth().decoys.values()}


def test_nothing_is_found_without_a_circuit() -> None:
    found = read_outs(
        Plant(circuit=False, decoys=DECOYS, noise=0.1, n_layers=5, formed=2, decoded=3)
    )
    assert all(each.found == each.planted == () for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_plants_are_found(seed: int) -> None:
    plant = random_plant(seed)
    wrong = {each.readout for each in read_outs(plant) if not each.right}
    # Noise, too, lets tasks be decoded from the first block on.
    assert wrong <= {"formed, by encoding", "heads, by attention to labels"}
    if plant.decoys:
        assert "heads, by attention to labels" in wrong


def test_the_seed_decides() -> None:
    one, same, other = (Plant(seed=seed, noise=0.1) for seed in (0, 0, 1))
    weights = [planted_model(p).model.bridge.original_model.state_dict() for p in (one, same)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert one.family() == same.family() != other.family()
    assert any(Plant(seed=s).truth() != one.truth() for s in range(1, 5))
    assert one.family().distinct == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formed": 5, "decoded": 5}, "expected 1 < formed < decoded < n_layers"),
        ({"formed": 1}, "expected 1 < formed < decoded < n_layers"),
        ({"decoys": ("unread_haed",)}, "did you mean 'unread_head'"),
        ({"n_writers": 9}, "n_writers is 9; expected a number from 1 to 4"),
        ({"noise": -1}, "noise is -1; expected a number from 0 to 1"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plant(**settings)
