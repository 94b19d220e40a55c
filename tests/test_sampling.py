"""Episodes: what is shown, asked and held out, and that draws can be repeated."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

import forked
import numpy as np
import pytest

from icl_mech.errors import InputError
from icl_mech.patch.means_plan import MeanSettings
from icl_mech.prompts import (
    Episode,
    Split,
    check_counts,
    draw_context_split,
    draw_matched,
    draw_split,
    generator,
    half,
    shot_counts,
    shuffle_labels,
)
from icl_mech.tasks import Pair, Task, list_tasks, load_failure, load_task, load_tasks

#: n_test, n_dev, n_shots, n_dummies
COUNTS = [(50, 25, 5, 2), (1, 1, 1, 1), (7, 90, 3, 4), (200, 100, 16, 2), (10, 5, 8, 1)]


def small(n: int, name: str = "small") -> Task:
    return Task(name, "user", "", tuple(Pair(f"x{i}", (f"y{i}",)) for i in range(n)))


def queries(episodes: tuple[Episode, ...]) -> set[str]:
    return {episode.query.x for episode in episodes}


def shown(split: Split) -> set[str]:
    """Inputs of all demonstrations and dummies."""
    return {
        pair.x
        for episode in split.dev + split.test
        for pair in (*episode.demonstrations, *episode.dummies)
    }


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 12345])
@pytest.mark.parametrize("name", list_tasks())
def test_nothing_leaks(name: str, seed: int, counts: tuple[int, int, int, int]) -> None:
    task = load_task(name)
    n_test, n_dev, n_shots, n_dummies = counts
    split = draw_split(task, *counts, seed=seed)
    dev, test = queries(split.dev), queries(split.test)
    assert (len(split.test), len(split.dev)) == (n_test, n_dev)
    assert not dev & test
    assert not (dev | test) & shown(split)
    assert (split.n_dev_queries, split.n_test_queries) == (len(dev), len(test))
    for episode in split.dev + split.test:
        drawn = (*episode.demonstrations, *episode.dummies)
        assert (len(episode.demonstrations), len(episode.dummies)) == (n_shots, n_dummies)
        assert len({pair.x for pair in drawn}) == n_shots + n_dummies
        assert set(drawn) | {episode.query} <= set(task.pairs)


@pytest.mark.parametrize("n", [4, 5, 7, 10, 11, 30])
@pytest.mark.parametrize("n_test", [1, 2, 5, 100])
@pytest.mark.parametrize("n_dev", [1, 2, 5, 100])
def test_nothing_leaks_in_the_smallest_tasks(n: int, n_test: int, n_dev: int) -> None:
    split = draw_split(small(n), n_test, n_dev, n_shots=1, n_dummies=1, seed=n)
    dev, test = queries(split.dev), queries(split.test)
    assert dev
    assert test
    assert not dev & test
    assert not (dev | test) & shown(split)
    assert (split.n_dev_queries, split.n_test_queries) == (len(dev), len(test))


def test_large_task_repeats_no_query() -> None:
    split = draw_split(load_task("list_first"), 50, 25, n_shots=5, n_dummies=2, seed=0)
    assert (split.n_test_queries, split.n_dev_queries) == (50, 25)


def test_small_task_repeats_queries_evenly_and_says_how_many_differ() -> None:
    split = draw_split(load_task("next_letter"), 50, 25, n_shots=5, n_dummies=2, seed=0)
    # Of 25 pairs, 60 % may be asked: 15, shared out as 50 to 25.
    assert (split.n_test_queries, split.n_dev_queries) == (10, 5)
    assert set(Counter(e.query.x for e in split.test).values()) == {5}
    assert set(Counter(e.query.x for e in split.dev).values()) == {5}
    assert len({e.demonstrations for e in split.test}) == 50


def test_prior_is_the_most_frequent_answer_that_is_not_asked() -> None:
    task = load_task("location_religion")
    for seed in range(5):
        split = draw_split(task, 50, 25, n_shots=5, n_dummies=2, seed=seed)
        asked = queries(split.dev) | queries(split.test)
        labels = Counter(pair.y for pair in task.pairs if pair.x not in asked)
        assert labels[split.prior] == max(labels.values())


# --- repeating a draw -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["antonyms", "next_letter"])
def test_same_seed_same_draw_whatever_was_drawn_before(name: str) -> None:
    first = draw_split(load_task(name), 20, 10, 5, 2, seed=3)
    draw_split(load_task("en_fr"), 20, 10, 5, 2, seed=3)
    np.random.default_rng(0).random(10)
    assert draw_split(load_task(name), 20, 10, 5, 2, seed=3) == first


def test_other_seed_other_draw() -> None:
    draws = [draw_split(load_task("antonyms"), 20, 10, 5, 2, seed=seed) for seed in range(6)]
    assert len({draw.test for draw in draws}) == 6
    assert len({draw.dev for draw in draws}) == 6


def test_tasks_draw_independently() -> None:
    one, other = (draw_split(small(60, name), 20, 10, 5, 2, seed=0) for name in ("one", "other"))
    assert one.test != other.test


def test_same_draw_in_another_process() -> None:
    code = (
        "from icl_mech.prompts import draw_split, generator, shuffle_labels\n"
        "from icl_mech.tasks import load_task\n"
        "split = draw_split(load_task('antonyms'), 8, 4, 5, 2, seed=7)\n"
        "rng = generator(7, 'antonyms', 'controls')\n"
        "print(split, shuffle_labels(split.test[0].demonstrations, rng))\n"
    )
    split = draw_split(load_task("antonyms"), 8, 4, 5, 2, seed=7)
    shuffled = shuffle_labels(split.test[0].demonstrations, generator(7, "antonyms", "controls"))
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONUTF8": "1"},
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        assert done.stdout == f"{split} {shuffled}\n"


def test_generators_differ_by_seed_and_by_label() -> None:
    labels = [(0, "a", "b"), (1, "a", "b"), (0, "b", "a"), (0, "a"), (0, "a", "c"), (0,)]
    first = [float(generator(seed, *names).random()) for seed, *names in labels]
    again = [float(generator(seed, *names).random()) for seed, *names in labels]
    assert first == again
    assert len(set(first)) == len(labels)


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_shots", "n_dummies", "needed"), [(5, 2, 9), (1, 1, 4), (20, 3, 25)])
def test_too_few_pairs_says_how_many_are_needed(n_shots: int, n_dummies: int, needed: int) -> None:
    with pytest.raises(
        InputError,
        match=rf"'small' has {needed - 1} pairs, too few: expected at least {needed} "
        rf"\({n_shots} shots \+ {n_dummies} dummy",
    ):
        draw_split(small(needed - 1), 10, 5, n_shots, n_dummies, seed=0)
    assert len(draw_split(small(needed), 10, 5, n_shots, n_dummies, seed=0).test) == 10


@pytest.mark.parametrize("count", [0, -1])
@pytest.mark.parametrize("name", ["n_prompts", "n_dev", "n_shots"])
def test_counts_must_be_positive(name: str, count: int) -> None:
    counts = {"n_prompts": 10, "n_dev": 5, "n_shots": 2} | {name: count}
    with pytest.raises(InputError, match=f"{name} is {count}; expected at least 1"):
        draw_split(small(50), *counts.values(), n_dummies=1, seed=0)


def test_negative_dummies_are_an_error() -> None:
    with pytest.raises(InputError, match="n_dummies is -1"):
        draw_split(small(50), 10, 5, n_shots=5, n_dummies=-1, seed=0)


@pytest.mark.parametrize(
    ("given", "said"), [(2.5, "2.5"), ("5", "'5'"), (None, "None"), (np.float64(3), "3.0")]
)
def test_counts_and_seeds_must_be_whole_numbers(given: object, said: str) -> None:
    with pytest.raises(InputError, match=f"^n_prompts is {said}; expected a whole number$"):
        check_counts({"n_dev": 1, "n_prompts": given}, 0)
    with pytest.raises(InputError, match=f"^seed is {said}; expected a whole number$"):
        check_counts({"n_prompts": 1}, given)
    with pytest.raises(InputError, match=f"^n_shots is {said}; expected a whole number$"):
        shot_counts(given)
    with pytest.raises(InputError, match=f"^n_prompts is {said}; expected a whole number$"):
        half(given, None)


def test_integers_of_numpy_are_integers() -> None:
    counts = check_counts({"n_prompts": np.uint8(200), "n_dev": np.int64(1)}, np.int64(3))
    assert counts == [200, 1]
    assert shot_counts(np.int64(4)) == (4,)
    assert shot_counts(np.array([4, 1])) == (1, 4)
    numbers = [*counts, *shot_counts(np.array([4, 1])), half(np.int64(9), None)]
    assert {type(number) for number in numbers} == {int}


@pytest.mark.parametrize("name", ["n_prompts", "n_dev"])
@pytest.mark.parametrize("value", [10_001, 10**9, 10**6_000], ids=["near", "far", "digits"])
def test_a_count_that_nobody_could_draw_is_refused_at_once(name: str, value: int) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError, match=f"^{name} is .*; expected at most 10,000, of which"):
        check_counts({"n_shots": 5, name: value}, 0)
    assert time.perf_counter() - start < 1
    assert check_counts({name: 10_000}, 0) == [10_000]


#: What draws, with a count each that cannot be, named as its caller knows it.
TOO_MANY: dict[str, Callable[[int], object]] = {
    "n_prompts": lambda n: draw_split(load_task("antonyms"), n, 5, 5, 2, 0),
    "n_dev": lambda n: half(10, n),
    "n_shots": lambda n: shot_counts((4, n)),
    "n_mean": lambda n: MeanSettings(n_mean=n),
    "n_points": lambda n: draw_matched(load_tasks("letters"), {"n_points": n}, 4, 0),
    "n_dummies": lambda n: draw_context_split(load_failure("lookup"), 5, 5, n, 0),
}


@pytest.mark.parametrize("name", TOO_MANY)
def test_every_count_is_bounded_and_named_as_it_was_typed(name: str) -> None:
    with pytest.raises(InputError, match=f"^{name} is 1000000000; expected at most 10,000"):
        TOO_MANY[name](10**9)
    with pytest.raises(InputError, match=f"^{name} is 0; expected at least 1"):
        TOO_MANY[name](0)


@pytest.mark.parametrize("seed", [2**63, 10**6_000], ids=["near", "digits"])
def test_a_seed_that_no_file_can_hold(seed: int) -> None:
    with pytest.raises(InputError, match=r"^seed is .*; expected at most 9223372036854775807"):
        generator(seed, "label")
    assert generator(2**63 - 1).random() != generator(0).random()


def test_a_truth_value_is_no_count() -> None:
    with pytest.raises(InputError, match="n_prompts is True; expected a whole number"):
        check_counts({"n_prompts": True}, 0)


def test_a_split_by_integers_of_numpy_is_the_same_split() -> None:
    """In a process of its own: here arguments are checked to be plain integers."""
    code = (
        "import numpy as np; from icl_mech.prompts import draw_matched, draw_split\n"
        "from icl_mech.tasks import load_tasks\n"
        "(task,) = load_tasks('country_capital')\n"
        # As numpy adds them up, 200 and 100 are 44.
        "given = (np.uint8(200), np.uint8(100), np.int64(5), np.int32(2), np.int64(3))\n"
        "print(draw_split(task, *given) == draw_split(task, 200, 100, 5, 2, 3))\n"
        "sizes = [{'a': n(200), 'b': n(100)} for n in (int, np.uint8)]\n"
        "matched = [draw_matched([task], size, type(size['a'])(4), 0) for size in sizes]\n"
        "print(matched[0] == matched[1])"
    )
    done = forked.run(code)
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")


# --- shuffled labels ------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_shuffled_labels_move_every_answer(n: int) -> None:
    pairs = tuple(Pair(f"x{i}", (f"y{i}", f"z{i}")) for i in range(n))
    orders = set()
    for seed in range(20):
        shuffled = shuffle_labels(pairs, np.random.default_rng(seed))
        assert [pair.x for pair in shuffled] == [pair.x for pair in pairs]
        assert sorted(pair.answers for pair in shuffled) == sorted(pair.answers for pair in pairs)
        assert not {a.answers for a in pairs} - {b.answers for b in shuffled}
        assert all(a.answers != b.answers for a, b in zip(pairs, shuffled, strict=True))
        orders.add(shuffled)
    assert len(orders) >= min(n - 1, 10)


@pytest.mark.parametrize("name", list_tasks())
def test_shuffled_labels_of_every_task(name: str) -> None:
    for episode in draw_split(load_task(name), 10, 5, 5, 2, seed=0).test:
        pairs = episode.demonstrations
        shuffled = shuffle_labels(pairs, generator(0, name))
        assert [pair.x for pair in shuffled] == [pair.x for pair in pairs]
        assert Counter(p.answers for p in shuffled) == Counter(p.answers for p in pairs)
        if len({pair.y for pair in pairs}) == len(pairs):
            assert all(a.y != b.y for a, b in zip(pairs, shuffled, strict=True))


def test_shuffled_labels_repeat_with_the_generator() -> None:
    pairs = load_task("antonyms").pairs[:20]
    first, again = (shuffle_labels(pairs, generator(1, "labels")) for _ in range(2))
    assert first == again


def test_a_single_demonstration_keeps_its_label() -> None:
    """There is no other answer to give it: with one shot, "shuffled" is the demonstration."""
    pairs = (Pair("a", ("b",)),)
    assert shuffle_labels(pairs, np.random.default_rng(0)) == pairs


def test_no_demonstrations_stay_none() -> None:
    assert shuffle_labels((), np.random.default_rng(0)) == ()


@pytest.mark.parametrize("seed", range(5))
def test_no_demonstration_gives_the_answer_away(seed: int) -> None:
    """With "cold -> hot" in the prompt, "hot" needs no antonym."""
    split = draw_split(load_task("antonyms"), 100, 50, 20, 2, seed)
    for episode in split.dev + split.test:
        for pair in episode.demonstrations + episode.dummies:
            assert not (pair.x in episode.query.answers and episode.query.x in pair.answers)
