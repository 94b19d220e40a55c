"""Vectors between templates and tokens: the cells by hand, what is compared, bad input."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.neighbors import KNeighborsClassifier
from tiny_models import answering_bridge

from icl_mech import load_model, vector_transfer
from icl_mech.errors import InputError
from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import accepted, in_context, zero_shot
from icl_mech.tasks import Task
from icl_mech.transfer import VectorTransfer
from icl_mech.transfer.plan import TransferSettings, parse, plan_transfer
from icl_mech.transfer.run import _decoded, _standard, _thetas

FEW: dict[str, Any] = {"n_prompts": 4, "n_shots": 2, "progress": False}


@pytest.fixture(scope="module")
def answering() -> HookedModel:
    return load_model(answering_bridge())


def test_a_cell_by_hand(answering: HookedModel) -> None:
    """Read under one format, written under the other: one edit per layer and prompt."""
    found = vector_transfer(
        answering, ["to_upper", "next_letter"], formats=["qa", "arrow"], k=2, **FEW
    )
    ((task, split), _) = plan_transfer(
        ["to_upper", "next_letter"],
        TransferSettings(n_prompts=4, n_shots=2, formats=("qa", "arrow")),
    ).tasks
    words = [pair.y for pair in task.pairs]
    qa, arrow = (answering.encoder(parse(name).template, words) for name in ("qa", "arrow"))
    prompts = zero_shot(arrow, split.test)
    answers = accepted(arrow, prompts, split.test).first_tokens
    here = found.of("to_upper").sel(formed="qa", written="arrow")
    chosen = found.layer("to_upper", "qa", "arrow")
    for i, episode in enumerate(split.test):
        few = [qa.encode(episode.demonstrations, d.x) for d in episode.dummies]
        theta = answering.capture(few, [-1])[:, 0].mean(dim=0)
        read = answering.evaluate([prompts[i]], [Edit(chosen, theta[chosen])], [answers[i]])
        assert bool(read.hit[0, 0]) == bool(here["right"][i])
    shown = in_context(arrow, split.test)
    few_right = answering.predict(shown, accepted(arrow, shown, split.test).first_tokens).right
    assert (found.of("to_upper")["few_shot"].sel(written="arrow").values == few_right).all()
    # Under the first format, the last arrow of the demonstrations over the query.
    first = _thetas(answering, qa, split.test, ["final_arrow", "demo_1_arrow"])
    at = found.token_layer("to_upper", "last arrow", "query")
    bare = zero_shot(qa, split.test)
    read = answering.evaluate(
        bare,
        [Edit(at, first[1][:, at], position="query")],
        accepted(qa, bare, split.test).first_tokens,
    )
    values = found.of("to_upper")["at_token"].sel(formed_at="last arrow", written_at="query")
    assert (values.values == read.right[:, 0]).all()
    # A format and itself are at a cosine of 1.
    own = found.data["cosine"].sel(formed="qa", written="qa")
    np.testing.assert_allclose(own, 1, atol=1e-5)


def test_neighbours_come_from_the_other_format_and_other_demonstrations() -> None:
    """Against scikit-learn, each point's own set left out."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 18, 5))
    source[:9, 0] += 1.5
    target[:9, 0] += 1.5
    labels = np.repeat([0, 1], 9)
    found = _decoded(source.astype(np.float32), target.astype(np.float32), 2, 3)
    a, b = _standard(source.astype(np.float32)), _standard(target.astype(np.float32))
    for i in range(18):
        others = np.delete(np.arange(18), i)
        knn = KNeighborsClassifier(3, metric="cosine").fit(a[others], labels[others])
        assert found[i] == (knn.predict(b[i : i + 1])[0] == labels[i])
    assert 0.5 < found.mean() < 1


def test_formats_and_their_lines() -> None:
    plan = plan_transfer(["to_upper", "antonyms"], TransferSettings(n_prompts=4))
    assert [of.name for of in plan.formats][-1] == "arrow+instruction"
    assert plan.lines["to_upper"] == "Write the letter in upper case."
    other = plan_transfer("to_upper", TransferSettings(template="{x}: {y}", instruction="Go on."))
    assert [of.name for of in other.formats] == [
        "{x}: {y}",
        "qa",
        "sentence",
        "spanish",
        "{x}: {y}+instruction",
    ]
    assert other.lines == {"to_upper": "Go on."}
    pairs = {x: x.upper() for x in "abcdefghijklmnopqrst"}
    mine = Task.from_pairs(pairs, "mine")
    assert len(plan_transfer(mine, TransferSettings(n_prompts=4)).formats) == 4


def made(own: float, across: float, read: float, n: int = 40) -> VectorTransfer:
    """Two tasks and two formats with these accuracies, and a decodability across them."""
    right = np.zeros((2, 2, 2, n))
    for i in range(2):
        for j in range(2):
            right[:, i, j] = np.arange(n) < n * (own if i == j else across)
    decoded = np.tile(np.arange(n) < n * read, (2, 2, 2, 1, 1)).astype(float)
    cell = ("task", "formed", "written")
    data = xr.Dataset(
        {
            "right": ((*cell, "prompt"), right),
            "decoded": ((*cell, "layer", "prompt"), decoded),
            "chosen_layer": (cell, np.zeros((2, 2, 2), int)),
            "zero_shot": (("task", "written", "prompt"), np.zeros((2, 2, n))),
            "few_shot": (("task", "written", "prompt"), np.ones((2, 2, n))),
            "query": (("task", "prompt"), [[f"{t}{i}" for i in range(n)] for t in "tu"]),
            "n_queries": ("task", [n, n]),
        },
        {"task": ["t", "u"], "formed": ["a", "b"], "written": ["a", "b"], "layer": [0]},
    )
    return VectorTransfer(data, {"model": "m", "seed": 0})


def test_findings() -> None:
    assert made(0.9, 0.3, 0.8).finding() == (
        "A vector loses accuracy under other formats (90% under its own format, 30% under others); "
        "its task is decoded across formats in 80%"
    )
    same = made(0.5, 0.5, 0.8)
    assert same.finding().startswith("A vector is not shown to lose accuracy under other formats")
    alone = same.alone("t").finding()
    assert alone.endswith("(50% under its own format, 50% under others)")
    assert made(0.3, 0.9, 0.8).finding().startswith("A vector works better under other formats")
    assert made(0.9, 0.3, 0.8).recovered("t", "a", "b").value == pytest.approx(0.3)


def test_what_is_refused(answering: HookedModel) -> None:
    with pytest.raises(InputError, match="unknown format 'arow'; did you mean 'arrow'"):
        vector_transfer(answering, "to_upper", formats=["arow", "qa"])
    with pytest.raises(InputError, match=r"formats \['qa'\]; expected at least two, each once"):
        vector_transfer(answering, "to_upper", formats=["qa"])
    with pytest.raises(InputError, match="beside formats; expected one of them"):
        vector_transfer(answering, "to_upper", formats=["qa", "arrow"], template="{x}:{y}")
    with pytest.raises(InputError, match="k is 5; expected at most 3"):
        vector_transfer(answering, ["to_upper", "next_letter"], formats=["qa", "arrow"], **FEW)
    pairs = {x: x.upper() for x in "abcdefghijklmnopqrst"}
    with pytest.raises(InputError, match="task 'mine' has no instruction of its own"):
        vector_transfer(answering, Task.from_pairs(pairs, "mine"), formats=["qa", "qa+instruction"])
    with pytest.raises(InputError, match="expected {x}, then some text, then {y}"):
        vector_transfer(answering, "to_upper", formats=["qa", "{y}{x}"])


def test_vectors_are_read_once_per_format(answering: HookedModel) -> None:
    """The stream of every role is that of the prompt alone."""
    ((task, split),) = plan_transfer("to_upper", TransferSettings(n_prompts=2, n_shots=2)).tasks
    encoder = answering.encoder("{x}->{y}", [pair.y for pair in task.pairs])
    found = _thetas(answering, encoder, split.test, ["final_arrow", "demo_1_y"])
    (first, *_) = split.test
    prompts = [encoder.encode(first.demonstrations, d.x) for d in first.dummies]
    own = answering.capture(prompts, ["demo_1_y"])[:, 0].mean(dim=0)
    torch.testing.assert_close(found[1][0], own, atol=1e-5, rtol=1e-4)
