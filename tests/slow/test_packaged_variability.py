"""Task vectors of the packaged model: how much they differ."""

from icl_mech.model import HookedModel
from icl_mech.variability import vector_variability


def test_the_packaged_model(gemma: HookedModel) -> None:
    """Vectors of a task lie together, apart from other tasks; with more shots more so."""
    tasks = ("to_upper", "present_gerund", "country_capital")
    result = vector_variability(gemma, tasks, 6, (1, 5), n_dev=4, progress=False)
    layer = result.best_layer()
    assert 8 <= layer <= 11
    for form in ("raw", "centred"):
        within, between = (
            [result.distances(None, o, n, [layer], form).at(0) for n in (1, 5)]
            for o in (None, "other")
        )
        assert within[1].high < between[1].low
        assert within[1].value < within[0].value
        separation = [result.separation(None, n, [layer], form).at(0).value for n in (1, 5)]
        assert separation[1] > separation[0] > 0.2
    assert result.accuracy()[layer].value > result.baseline().value + 0.3
    assert abs(result.controls("random").value[layer] - 1) < 0.1
