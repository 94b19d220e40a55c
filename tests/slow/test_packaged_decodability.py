"""Where families of tasks are told apart on the packaged model: 100 points, 5 shots."""

import numpy as np
import pytest
import torch

from icl_mech import HookedModel, TaskDecodability, task_decodability
from icl_mech.decodability.plan import DecodabilitySettings, plan
from icl_mech.patch import mean_patching
from icl_mech.stats import paired_difference
from icl_mech.tasks import load_family


def decodability(gemma: HookedModel, family: str, outputs: tuple[str, ...]) -> TaskDecodability:
    tasks = [load_family(family).task(output) for output in outputs]
    return task_decodability(gemma, tasks, 100, 5, probe=False, progress=False)


@pytest.fixture(scope="module")
def verbs(gemma: HookedModel) -> TaskDecodability:
    return decodability(gemma, "verbs", ("gerund", "past", "participle"))


@pytest.fixture(scope="module")
def languages(gemma: HookedModel) -> TaskDecodability:
    return decodability(gemma, "english_words", ("spanish", "french", "italian"))


def test_verbs_are_told_apart_where_theta_transfers(verbs: TaskDecodability) -> None:
    td = verbs.td()
    assert 7 <= verbs.best_layer() <= 12
    assert td[verbs.best_layer()].low >= 0.7
    assert verbs.held_out().low >= 0.7
    assert td[12].high < td[11].low  # and lost again where theta stops to transfer


def test_languages_are_told_apart_only_after_theta_has_stopped(languages: TaskDecodability) -> None:
    """The target language separates in the last blocks, not where vectors transfer (9 to 11)."""
    td = languages.td()
    assert all(e.value >= 0.9 and e.low >= 0.85 for e in td[-3:])
    assert all(e.high < min(late.low for late in td[-3:]) for e in td[:13])
    # The same with only the point itself left out, as in the paper.
    paper = languages.data["sensitivity"].sel(setting="left out: the point", shots=5)
    by_layer = paper.mean(("task", "point")).values
    assert (by_layer[-3:] >= 0.9).all()
    assert (by_layer[1:10] < 0.6).all()


def test_the_query_alone_says_nothing(verbs: TaskDecodability, languages: TaskDecodability) -> None:
    for run in (verbs, languages):
        for e in run.td(control="input"):
            assert e.value == pytest.approx(1 / 3)
            assert e.low - 1e-6 <= 1 / 3 <= e.high + 1e-6


def test_block_0_reads_the_words_not_the_mapping(languages: TaskDecodability) -> None:
    """Languages are half told apart after block 0, and no less so when labels are shuffled."""
    right, shuffled = (
        languages.data[name].sel(shots=5, layer=0).values.ravel().astype(float)
        for name in ("credit", "shuffled_credit")
    )
    assert right.mean() > 0.5
    assert not paired_difference(right, shuffled).low > 0
    assert np.mean(right) < languages.td()[-1].low


def test_exact_match_is_what_greedy_decoding_says(gemma: HookedModel) -> None:
    found = task_decodability(gemma, "verbs", 12, 4, k=3, probe=False, progress=False)
    settings = DecodabilitySettings(n_prompts=12, k=3)
    p = plan("verbs", settings)
    encoder = gemma.encoder("{x}->{y}", [pair.y for t in p.pool.tasks for pair in t.pairs])
    for row in (0, 2):
        for i in range(0, 12, 3):
            e = p.points.episodes[row][i]
            prompt = encoder.encode(e.demonstrations, e.query.x)
            whole = encoder.answer_tokens(prompt, e.query.answers)
            said: list[int] = []
            for _ in range(max(map(len, whole))):
                tokens = torch.tensor([[*prompt.tokens, *said]])
                with torch.inference_mode():
                    said.append(int(gemma.bridge(tokens)[0, -1].argmax()))
            right = any(tuple(said[: len(answer)]) == answer for answer in whole)
            assert bool(found.data["exact"].sel(shots=4)[row, i]) == right
            first = said[0] in {answer[0] for answer in whole}
            assert bool(found.data["first_token"].sel(shots=4)[row, i]) == first


def test_another_tasks_mean_changes_the_answer_to_that_task(gemma: HookedModel) -> None:
    """Where task vectors work, the answer follows the injected mean; after it, nothing does."""
    result = mean_patching(
        gemma, "verbs", 6, 4, n_mean=8, layers=[3, 11], modes=["replace"], progress=False
    )
    assert result.change("own", 11).value > -0.2
    assert result.change("others", 11).value < -0.3
    assert result.followed(11).value > result.followed_before().value + 0.15
    assert result.change("others", 3).value > result.change("others", 11).value
