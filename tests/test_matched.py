"""Episodes that match across tasks."""

import pytest

from icl_mech.errors import InputError
from icl_mech.prompts import draw_matched, same_inputs
from icl_mech.tasks import Pair, Task, load_family, load_task


def queries(matched: object) -> list[set[str]]:
    return [{e.query.x for e in row} for row in matched.episodes]


def test_sets_share_no_query_and_no_query_is_shown() -> None:
    tasks = load_family("verbs").tasks
    dev, test = draw_matched(tasks, {"dev": 30, "test": 10}, 4, seed=3)
    assert [len(row) for row in dev.episodes] == [30] * 4
    assert [len(row) for row in test.episodes] == [10] * 4
    asked = [set.union(*queries(m)) for m in (dev, test)]
    assert not asked[0] & asked[1]
    assert (dev.n_queries, test.n_queries) == (len(asked[0]), len(asked[1]))
    shown = {d.x for m in (dev, test) for row in m.episodes for e in row for d in e.demonstrations}
    assert not shown & (asked[0] | asked[1])
    for e in dev.episodes[0]:
        assert len({d.x for d in e.demonstrations}) == 4


def test_queries_return_with_other_demonstrations_where_inputs_are_few() -> None:
    (drawn,) = draw_matched(load_family("letters").tasks, {"n_points": 60}, 3, seed=0)
    assert drawn.n_queries == 14  # 60 % of 24
    first = drawn.episodes[0]
    again = [e for e in first if e.query == first[0].query]
    assert len(again) == 5
    assert len({tuple(d.x for d in e.demonstrations) for e in again}) > 1
    # As many shots as leave two queries.
    (drawn,) = draw_matched(load_family("letters").tasks, {"n_points": 60}, 22, seed=0)
    assert drawn.n_queries == 2


def test_the_seed_decides_and_the_tasks_beside_do_not() -> None:
    tasks = load_family("verbs").tasks
    (a,), (b,), (c,) = (
        draw_matched(tasks[:n], {"n_points": 9}, 4, seed) for n, seed in ((4, 0), (2, 0), (4, 1))
    )
    assert a.episodes[:2] == b.episodes
    assert a.episodes != c.episodes


def test_tasks_with_other_inputs_are_drawn_each_for_itself() -> None:
    tasks = [load_task("antonyms"), load_task("country_capital")]
    assert not same_inputs(tasks)
    (both,) = draw_matched(tasks, {"n_points": 12}, 4, seed=0)
    (alone,) = draw_matched(tasks[1:], {"n_points": 12}, 4, seed=0)
    assert len(both.episodes) == 2
    assert both.n_queries == alone.n_queries == 12
    for row in both.episodes:
        for e in row:
            assert all(d.x not in e.query.answers for d in e.demonstrations)


def test_what_cannot_be_drawn() -> None:
    small = Task("small", "user", "", tuple(Pair(f"w{i}", ("y",)) for i in range(6)))
    with pytest.raises(InputError, match=r"'small' has 6 inputs, too few: expected at least 7 \(3"):
        draw_matched([small], {"dev": 5, "test": 5}, 3, seed=0)
    with pytest.raises(InputError, match="n_shots is 0; expected at least 1"):
        draw_matched([small], {"n_points": 5}, 0, seed=0)
    with pytest.raises(InputError, match="test is 0"):
        draw_matched([small], {"dev": 5, "test": 0}, 2, seed=0)
    with pytest.raises(InputError, match="seed is -1"):
        draw_matched([small], {"n_points": 5}, 2, seed=-1)
