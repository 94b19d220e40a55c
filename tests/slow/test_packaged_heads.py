"""Which heads the packaged model needs."""

from icl_mech.heads import function_vectors, head_ablation
from icl_mech.model import HookedModel

TASK = "country_capital"


def test_the_task_needs_its_first_head(gemma: HookedModel) -> None:
    """Beyond the intervals: the top heads by AIE cost more than as many random ones."""
    found = head_ablation(gemma, TASK, 20, 10, counts=(10,), n_draws=5, n_dev=25, progress=False)
    cost = found.cost(TASK, 10)
    assert cost.low > 0.1
    assert found.top(TASK, 10).high < found.random(TASK, 10).low
    assert found.ranked(TASK)[0] == "9.3"
    assert found.caveats() == []


def test_few_heads_carry_the_task_into_prompts_without_it(gemma: HookedModel) -> None:
    heads = [(9, 3), (10, 2)]
    result = function_vectors(
        gemma, TASK, 10, 10, heads=heads, scale=(2.0, 4.0), n_dev=6, progress=False
    )
    function = result.accuracy(TASK, "function")
    assert function.value > 0.3
    assert result.plain(TASK).value < 0.2
    assert result.difference(TASK, "function", "random").low > 0
    best = result.best_layer(TASK, "function")
    assert 5 <= best <= 11
