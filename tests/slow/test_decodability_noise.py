"""Without any task, TD is not above chance: activations that are noise, the layer chosen freely."""

import numpy as np
import pytest

from icl_mech.decodability import TaskDecodability
from icl_mech.decodability.measure import measure
from icl_mech.decodability.plan import DecodabilitySettings, Plan, plan
from icl_mech.tasks import Task, load_family

N_RUNS, N_LAYERS, WIDTH = 150, 8, 32


def planned(n_tasks: int, n_inputs: int | None) -> Plan:
    """Prompts of tasks of a family, of all its inputs or of the first few."""
    whole = load_family("pos" if n_tasks > 4 else "verbs").tasks[:n_tasks]
    tasks = [Task(t.name, t.category, "", t.pairs[:n_inputs]) for t in whole]
    settings = DecodabilitySettings(
        n_prompts=30,
        n_shots=(2,),
        seed=0,
        k=10,
        role="final_arrow",
        metric="cosine",
        normalise="none",
        leave_out="query",
        template="{x}->{y}",
        leading_space=None,
    )
    return plan(tasks, settings)


def decoded(rows: np.ndarray, p: Plan) -> TaskDecodability:
    """As `task_decodability` makes it from the representations of a model."""
    data = measure(rows, p, pairs=True).drop_vars("pair_credit").expand_dims(shots=[2])
    names = p.pool.names
    data = data.assign_coords(task=names, voted=names, half=[0, 1], layer=range(rows.shape[1]))
    data["query_id"] = (("task", "point"), p.queries)
    return TaskDecodability(data, {"shared_inputs": p.pool.shared, "k": 10, "leave_out": "query"})


@pytest.mark.parametrize(
    ("n_tasks", "n_inputs"),
    [
        (2, 16),
        *(
            pytest.param(*case, marks=pytest.mark.thorough)
            for case in ((2, None), (6, None), (6, 16))
        ),
    ],
)
def test_noise_is_not_decoded(n_tasks: int, n_inputs: int | None) -> None:
    """At a layer that was fixed, at the one that is held out, and at the best of all."""
    p, rng = planned(n_tasks, n_inputs), np.random.default_rng(n_tasks)
    shape = (p.queries.size, N_LAYERS, WIDTH)
    above, values = [], []
    for _ in range(N_RUNS):
        # Prompts with one query are like one another, as words make them in a model.
        words = rng.standard_normal((p.queries.max() + 1, *shape[1:]))[p.queries.ravel()]
        found = decoded(rng.standard_normal(shape) + words, p)
        fixed, held, best = found.td()[0], found.held_out(), found.peak()
        naive = max(found._means(found._credit(None, None), None), key=lambda e: e.value)
        above.append([e.low > found.chance for e in (fixed, held, best, naive)])
        values.append([fixed.value, held.value, (fixed.high - fixed.low) / 2 / 1.96])
    share, mean = np.mean(above, axis=0), np.mean(values, axis=0)
    ratio = np.std([v[0] for v in values]) / mean[2]
    print(
        f"{n_tasks} tasks, {len(np.unique(p.queries))} queries: above chance "
        f"fixed {share[0]:.2f}, held out {share[1]:.2f}, largest {share[2]:.2f}, "
        f"largest with its own interval {share[3]:.2f}; mean {mean[0]:.3f}, held out "
        f"{mean[1]:.3f}; standard deviation over that of the interval {ratio:.2f}"
    )
    assert (share[:3] <= 0.05).all()
    assert abs(mean[1] - 1 / n_tasks) < 0.02
    assert ratio < 1.1


def test_a_task_is_still_decoded() -> None:
    """One layer of eight separates the tasks a little; the others do not."""
    p, rng = planned(4, None), np.random.default_rng(0)
    found = []
    for _ in range(40):
        rows = rng.standard_normal((p.queries.size, N_LAYERS, WIDTH))
        rows[:, 3, :4] += 1.5 * np.eye(4)[p.labels]
        found.append(decoded(rows, p))
    assert np.mean([r.held_out().low > r.chance for r in found]) > 0.9
    assert np.mean([r.peak().low > r.chance for r in found]) > 0.9
    assert np.mean([set(r.held_out_layers()) == {3} for r in found]) > 0.8
