"""Which heads the packaged model needs."""

from icl_mech.heads import head_ablation
from icl_mech.model import HookedModel

TASK = "country_capital"


def test_the_task_needs_its_first_head(gemma: HookedModel) -> None:
    """Beyond the intervals: the top heads by AIE cost more than as many random ones."""
    found = head_ablation(gemma, TASK, None, 20, 10, counts=(10,), n_draws=5, progress=False)
    cost = found.cost(TASK, 10)
    assert cost.low > 0.1
    assert found.top(TASK, 10).high < found.random(TASK, 10).low
    assert found.ranked(TASK)[0] == "9.3"
    assert found.caveats() == []
