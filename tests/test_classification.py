"""Tasks with a few labels: balance, both scores, classes, the packaged sentences, bad input."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from commands import assert_refused, run_command
from tiny_models import answering_bridge

from icl_mech import label_scores, load_model
from icl_mech.classification import LabelScores
from icl_mech.classification.plan import LabelSettings, LabelTask, plan_labels
from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.prompts import in_context
from icl_mech.tasks import Pair, Task, list_tasks, load_task

SMALL: dict[str, Any] = {"n_sets": 2, "n_steps": 1, "batch_size": 2, "progress": False}


@pytest.fixture(scope="module")
def answering() -> HookedModel:
    return load_model(answering_bridge())


def planned(task: Task | str, **settings: Any) -> LabelTask:
    return plan_labels(task, LabelSettings(**settings)).tasks[0]


def skewed(n_rare: int) -> Task:
    """A hundred of one label, a few of the other."""
    pairs = [Pair(f"a{i}", ("yes",)) for i in range(100)]
    return Task("skewed", "user", "", (*pairs, *(Pair(f"b{i}", ("no",)) for i in range(n_rare))))


# --- balance ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_shots", [2, 5, 10])
@pytest.mark.parametrize("name", ["sentences/sentiment", "sentences/topic"])
def test_classes_take_turns(name: str, n_shots: int) -> None:
    of = planned(name, n_prompts=20, n_shots=n_shots)
    k = len(of.labels)
    for episodes in (of.test, of.dev):
        counts = Counter(e.query.y for e in episodes)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert len(counts) == k
    for e in (*of.test, *of.dev):
        shown = Counter(pair.y for pair in e.demonstrations)
        counts = [shown[label] for label in of.labels]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == n_shots
    # Which class is first, and which is there once more, is drawn.
    assert len({e.demonstrations[0].y for e in of.test}) > 1
    asked = [{e.query.x for e in episodes} for episodes in (of.test, of.dev)]
    assert not asked[0] & asked[1]
    used = {p.x for e in (*of.test, *of.dev) for p in (*e.demonstrations, *e.dummies)}
    assert used <= {pair.x for pair in of.pairs}
    assert not (asked[0] | asked[1]) & {pair.x for pair in of.pairs}
    assert len(set(Counter(pair.y for pair in of.pairs).values())) == 1


def test_a_skewed_task_is_asked_as_if_it_were_not() -> None:
    of = planned(skewed(16), n_prompts=8, n_shots=4)
    assert Counter(e.query.y for e in of.test) == {"yes": 4, "no": 4}
    with pytest.raises(InputError, match="'skewed' has 5 pairs with the label 'no'; expected at"):
        planned(skewed(5), n_prompts=8, n_shots=4)


# --- scores -----------------------------------------------------------------------------------


def test_both_scores_by_hand(answering: HookedModel) -> None:
    """One full forward pass per label and prompt."""
    task = Task.from_pairs({f"w{i}": ("Qa", "Qb", "zz")[i % 3] for i in range(60)}, "three")
    found = label_scores(answering, task, 6, 3, methods="theta", n_dummies=1, **SMALL)
    of = planned(task, n_prompts=6, n_shots=3, n_dummies=1)
    assert found.labels("three") == ["Qa", "Qb", "zz"]
    encoder = answering.encoder("{x}->{y}", of.labels)
    for i, prompt in enumerate(in_context(encoder, of.test)):
        expected = []
        for tokens in encoder.answer_tokens(prompt, of.labels):
            with torch.no_grad():
                logits = answering.bridge(torch.tensor([[*prompt.tokens, *tokens]]))[0]
            at = torch.arange(len(prompt) - 1, len(prompt) + len(tokens) - 1)
            logprob = logits.log_softmax(dim=-1)[at, torch.tensor(tokens)]
            expected.append(float(logprob.sum()))
        values = found.of("three")["logprob"].sel(condition="few_shot").isel(prompt=i)
        np.testing.assert_allclose(values, expected, atol=1e-4)
        assert found.said("three", "few_shot")[i] == np.argmax(expected)
    assert any("two labels begin with the same token" in note for note in found.caveats())
    assert found.conditions == ["few_shot", "zero_shot", "theta", "random"]


def made(right: float, few_says: int | None = None, n: int = 40) -> LabelScores:
    """Few-shot prompts that are right with this chance; zero-shot prompts all say the first."""
    truth = np.arange(n) % 2
    said = np.where(np.arange(n) < right * n, truth, 1 - truth)
    if few_says is not None:
        said = np.full(n, few_says)
    logprob = np.stack([np.eye(2)[said], np.eye(2)[np.zeros(n, int)]]) - 3
    data = xr.Dataset(
        {
            "logprob": (("condition", "prompt", "label"), logprob),
            "open": (("condition", "prompt"), np.stack([said, np.full(n, -1)])),
            "truth": ("prompt", truth),
            "layer": ("condition", [np.nan, np.nan]),
            "query": ("prompt", [f"x{i}" for i in range(n)]),
            "n_queries": ((), n),
        },
        {"condition": ["few_shot", "zero_shot"], "label": [0, 1]},
    )
    tasks = {"t": {"labels": ["no", "yes"], "notes": {}}}
    said_of = {"model": "m", "seed": 0, "n_shots": 4, "tasks": tasks}
    return LabelScores(data.expand_dims(task=["t"]), said_of)


def test_findings_and_classes() -> None:
    good = made(0.9)
    assert good.finding() == (
        "Few-shot prompts are labelled beyond chance (90% right among the labels, chance 50%)"
    )
    assert made(0.5).finding().startswith("Few-shot prompts are not shown to be labelled beyond")
    two = LabelScores(
        xr.concat([good.data, made(0.5).data], dim="task").assign_coords(task=["t", "u"]),
        {**good.provenance, "tasks": {t: {"labels": ["no", "yes"], "notes": {}} for t in "tu"}},
    )
    assert two.finding().startswith("Few-shot prompts are shown to be labelled beyond chance in 1")
    # All of one class: half of the prompts are right, and a class is never.
    one = made(0, few_says=1)
    assert one.accuracy("t", "few_shot").value == 0.5
    classes = one.per_class("t", "few_shot")
    assert classes["accuracy"].tolist() == [0, 1]
    assert classes["said"].tolist() == [0, 1]
    assert any("one label is said in 100% of the prompts" in note for note in one.caveats())
    assert one.confusion("t", "few_shot").to_numpy().tolist() == [[0, 20], [0, 20]]
    by_open = one.confusion("t", "zero_shot", "open")
    assert by_open["other"].tolist() == [20, 20]
    assert good.accuracy("t", "zero_shot", "open").value == 0
    assert good.above("t", "few_shot").low > 0


# --- the packaged sentences -------------------------------------------------------------------


def test_the_sentences_are_balanced_and_leave_the_published_tasks_alone() -> None:
    sentiment, topic = (load_task(f"sentences/{name}") for name in ("sentiment", "topic"))
    assert (sentiment.labels(), topic.labels()) == (
        {"positive": 100, "negative": 100},
        dict.fromkeys(["food", "travel", "film", "sport", "work"], 40),
    )
    both = Counter((a.y, b.y) for a, b in zip(sentiment.pairs, topic.pairs, strict=True))
    assert set(both.values()) == {20}
    assert len({pair.x.casefold() for pair in sentiment.pairs}) == 200
    assert all(pair.x.endswith(".") and len(pair.x.split()) > 4 for pair in sentiment.pairs)
    assert len(list_tasks()) == 18
    assert not [name for name in list_tasks() if "sentences" in name]


# --- bad input --------------------------------------------------------------------------------


def test_what_is_refused(small: list[str], tmp_path: Path, answering: HookedModel) -> None:
    one = tmp_path / "one.csv"
    one.write_text("input,output\n" + "\n".join(f"text {i},good" for i in range(40)))
    done = run_command(
        "classify", *small[:2], "--task", str(one), "--out", str(tmp_path / "f.html")
    )
    assert_refused(done, "task 'one' has the one label 'good'; expected at least two classes")
    assert not (tmp_path / "f.html").exists()
    with pytest.raises(InputError, match="'antonyms' has .* different answers for .* inputs"):
        label_scores(answering, "antonyms")
    with pytest.raises(InputError, match="unknown condition 'few'"):
        made(1).accuracy("t", "few")
    with pytest.raises(InputError, match="unknown scoring 'closed'"):
        made(1).accuracy("t", "few_shot", "closed")


def test_a_csv_file_of_texts_and_labels(small: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    rows = [f"text {i},{'good' if i % 4 else 'bad'}" for i in range(60)]
    mine.write_text("\n".join(["input,output", *rows]))
    out = tmp_path / "labels.html"
    done = run_command(
        "classify",
        *small[:2],
        *("--task", str(mine), "--n-prompts", "4", "--n-shots", "2", "--n-sets", "2"),
        *("--methods", "theta", "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    assert "by class, restricted" in done.stdout
    assert out.exists()
