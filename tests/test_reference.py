"""The published numbers are the published numbers."""

import numpy as np
import pytest

from icl_mech.errors import InputError
from icl_mech.reference import ARMS, han2024, hendel2023
from icl_mech.tasks import list_tasks, load_task

#: Means over the 18 tasks as the paper has them: baseline, hypothesis, regular.
MEANS = {
    "gpt-j-6b": (0.12, 0.68, 0.81),
    "pythia-2.8b": (0.13, 0.72, 0.83),
    "pythia-6.9b": (0.11, 0.71, 0.82),
    "pythia-12b": (0.11, 0.73, 0.82),
    "llama-7b": (0.13, 0.78, 0.86),
    "llama-13b": (0.15, 0.79, 0.87),
    "llama-30b": (0.16, 0.78, 0.90),
}
#: Number of layers, and the layer at which the mean over tasks is highest.
LAYERS = {"gpt-j-6b": (28, 13), "llama-7b": (32, 14), "pythia-6.9b": (32, 13)}


def test_stated_means() -> None:
    stated = hendel2023().means
    assert {m: (a.baseline, a.hypothesis, a.regular) for m, a in stated.items()} == MEANS


def test_models_and_tasks() -> None:
    scans = hendel2023().scans
    assert set(scans) == set(LAYERS)
    for model, tasks in scans.items():
        assert len(tasks) == 18
        assert list(tasks) == list_tasks()
        for name, scan in tasks.items():
            assert (scan.model, scan.task) == (model, name)
            assert scan.category == load_task(name).category


@pytest.mark.parametrize("model", LAYERS)
def test_means_over_the_tasks_are_the_stated_ones(model: str) -> None:
    scans = hendel2023().scans[model].values()
    means = [np.mean([getattr(s, c) for s in scans]) for c in ("baseline", "hypothesis", "regular")]
    assert tuple(np.round(means, 2)) == MEANS[model]


@pytest.mark.parametrize("model", LAYERS)
def test_curves_are_in_the_order_of_the_layers(model: str) -> None:
    """Layers sorted as text ("1", "10", "11", ..., "2") keep the means and move the peak."""
    n_layers, peak = LAYERS[model]
    scans = hendel2023().scans[model].values()
    curves = np.array([s.dev_accuracy_by_layer for s in scans])
    assert curves.shape == (18, n_layers)
    assert curves.mean(0).argmax() == peak
    # One task shows it alone: no accuracy before the middle, and none after it.
    gerund = np.array(hendel2023().scan(model, "present_gerund").dev_accuracy_by_layer)
    (works,) = np.nonzero(gerund > 0.1)
    assert np.array_equal(works, np.arange(works[0], works[-1] + 1))
    assert 0.2 < works[0] / n_layers < works[-1] / n_layers < 0.65


def test_curve_is_counts_of_prompts_with_intervals() -> None:
    scan = hendel2023().scan("llama-7b", "country_capital")
    curve = scan.curve()
    assert [e.value for e in curve] == pytest.approx(scan.dev_accuracy_by_layer)
    assert {e.n for e in curve} == {50}
    assert all(e.low <= e.value <= e.high for e in curve)


def test_vector_wins_every_conflict_but_one() -> None:
    conflicts = hendel2023().conflicts
    assert {name for c in conflicts for name in (c.task, c.other_task)} <= set(list_tasks())
    kept = [(c.task, c.other_task) for c in conflicts if c.injected[0] > c.injected[1]]
    assert kept == [("en_es", "en_fr")]
    assert len(conflicts) == 5


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'llama-7b'"):
        hendel2023().scan("llama7b", "es_en")
    with pytest.raises(InputError, match="did you mean 'previous_letter'"):
        hendel2023().scan("llama-7b", "previous_leter")


def test_published_fits_of_decodability() -> None:
    fits = han2024()
    assert fits.fit("llama-3.1-8b", "pos") == 0.78
    assert fits.fit("llama-3.1-70b", "bitwise") == 0.32
    assert {model: tuple(of.values()) for model, of in fits.r_squared.items()} == {
        "llama-3.1-8b": (0.78, 0.53),
        "gemma-2-2b": (0.42, 0.78),
        "gemma-2-9b": (0.53, 0.45),
        "gemma-2-27b": (0.82, 0.59),
        "llama-3.1-70b": (0.84, 0.32),
        "mamba-2-8b": (0.596, 0.468),
    }
    assert fits.n_rows == 6 * len(fits.n_shots)
    assert "2412.12276" in fits.source
    with pytest.raises(InputError, match="unknown published model 'llama-8b'"):
        fits.fit("llama-8b", "pos")
    with pytest.raises(InputError, match="unknown published family 'verbs'"):
        fits.fit("gemma-2-2b", "verbs")


def test_published_table_of_finetuning() -> None:
    paper = han2024()
    assert set(paper.table_1) == {"pos", "bitwise"}
    for arms in paper.table_1.values():
        assert tuple(arms) == ARMS
        # TD lies upstream of the last blocks: tuning these leaves it as it was.
        assert arms["last"].td == arms["pretrained"].td
        assert arms["first"].accuracy[0] > arms["last"].accuracy[0] > arms["pretrained"].accuracy[0]
    assert paper.arm("pos", "first").td == (0.95, 0.02)
    assert paper.arm("bitwise", "prompt").accuracy == (0.572, 0.301)
    with pytest.raises(InputError, match="unknown published arm 'frist'; did you mean 'first'"):
        paper.arm("pos", "frist")
