"""Names of tasks that look like something else: figures show them as they are."""

import pytest
from made_results import scan_of

from icl_mech.patch.scan_plot import layer_scan_figure


@pytest.mark.parametrize("names", [("2023-01-01", "2024-05-01"), ("1", "2", "10"), ("nan", "inf")])
def test_a_heat_map_of_tasks_that_look_like_dates_or_numbers(names: tuple[str, ...]) -> None:
    figure = layer_scan_figure(scan_of(*names))
    heat_map = figure.data[0]
    assert heat_map.type == "heatmap"
    assert tuple(heat_map.y) == names
    assert figure.layout.yaxis.type == "category"
    assert figure.layout.yaxis.autorange == "reversed"
    assert figure.layout.yaxis2.type != "category"
