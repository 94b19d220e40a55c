"""Figures: what they show, and what they are written as."""

import inspect
import re
from pathlib import Path
from typing import get_args

import numpy as np
import plotly.graph_objects as go
import pytest
from made_results import N_LAYERS, N_PROMPTS, scan_of
from plain import wilson
from scipy.stats import t

from icl_mech.errors import InputError
from icl_mech.files import PlotlyJs
from icl_mech.patch import VECTORS, LayerScan
from icl_mech.patch.scan_plot import layer_scan_figure
from icl_mech.plotting import check_target, export
from icl_mech.plotting.style import COLOURS, DARK, PAPER, SERIES
from icl_mech.stats import Estimate, share


def named(figure: go.Figure, start: str) -> go.Scatter:
    (trace,) = [t for t in figure.data if t.name and t.name.startswith(start)]
    return trace


def test_one_task_shows_theta_its_controls_and_the_chosen_layer() -> None:
    scan = scan_of("task")
    figure = scan.plot()
    assert list(named(figure, "task vector").y) == [0, 0, 0, 1, 1, 0]
    assert named(figure, "layer 3, chosen on dev").x == (3,)
    for start in ("few-shot", "zero-shot", "most frequent", "θ from", "θ of", "random"):
        assert len(named(figure, start).x) == N_LAYERS
    theta = named(figure, "task vector")
    assert theta.customdata[3] == pytest.approx([0.8389, 1.0, 20], abs=1e-4)  # Wilson, 20 of 20
    assert "n = %{customdata[2]} prompts" in theta.hovertemplate


def test_several_tasks_give_a_heat_map_and_a_menu() -> None:
    scan = scan_of("first", "second", "third")
    figure = scan.plot()
    (heat,) = [t for t in figure.data if t.type == "heatmap"]
    assert np.array(heat.z).tolist() == [[0, 0, 0, 1, 1, 0]] * 3
    assert (heat.zmin, heat.zmax) == (0, 1)
    (menu,) = figure.layout.updatemenus
    assert [b.label for b in menu.buttons] == ["first", "second", "third"]
    for button in menu.buttons:
        shown = button.args[0]["visible"]
        assert len(shown) == len(figure.data)
        assert shown[0]
        assert sum(shown) == 1 + (len(figure.data) - 1) // 3


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    html = export(scan_of("<img src=x>", "b").plot(), tmp_path / "f.html").read_text()
    assert "<img src=x>" not in html
    assert r"\u003cimg src=x" not in html  # as plotly writes it
    assert "<b>m</b>" not in html


def test_a_figure_says_where_its_queries_are_few() -> None:
    """In the figure itself, for an image has nothing below it; names of tasks are escaped."""
    scan = scan_of("<i>t$")
    assert "few queries" not in scan.plot().layout.title.subtitle.text
    scan.data["query"][:] = [f"x{i % 3}" for i in range(N_PROMPTS)]
    assert (
        "<b>few queries: &lt;i&gt;t&#36; 3 in 20 prompts; fewer than 4 give no interval</b>"
        in scan.plot().layout.title.subtitle.text
    )


def test_intervals_where_prompts_share_queries() -> None:
    """Over queries, wherever the scan shows one; the caveat says so."""
    apart, shared = scan_of("t"), scan_of("t")
    queries = np.array([f"x{i % 4}" for i in range(N_PROMPTS)])
    shared.data["query"][:] = queries
    shared.data["n_queries"][:] = 4
    right = np.isin(queries, ["x0", "x1"])
    for scan in (apart, shared):
        scan.data["first_token"].loc[{"vector": "theta"}] = right[:, None]
        scan.data["prior_right"][:] = right
        scan.data["reference_first_token"].loc[{"reference": "regular"}] = right
        scan.data["reference_first_token"].loc[{"reference": "baseline"}] = False
    halves = Estimate(0.5, *(wilson(10, 20)), 20)
    for e in (apart.hypothesis("t"), apart.curve("t")[3], apart.prior("t")):
        assert (e.low, e.high) == pytest.approx((halves.low, halves.high))
    of_queries = share(right, queries)
    assert of_queries.high - of_queries.low > halves.high - halves.low + 0.3
    regular = shared.reference("t", "regular")
    assert [shared.hypothesis("t"), shared.prior("t"), regular] == [of_queries] * 3
    assert shared.curve("t") == [of_queries] * N_LAYERS
    z = t.ppf(0.975, 3)
    assert shared.reference("t", "baseline").high == pytest.approx(z**2 / (4 + z**2))
    shared.data["reference_first_token"].loc[{"reference": "regular"}] = False
    gain = shared.hypothesis_minus_regular("t")
    assert gain.value == of_queries.value
    assert gain.low <= of_queries.low
    assert gain.high >= of_queries.high
    assert any("4 different queries in 20 prompts" in line for line in shared.caveats())
    assert not any("different queries" in line for line in apart.caveats())
    shown = named(shared.plot(), "task vector")
    assert shown.customdata[3][:2] == pytest.approx((of_queries.low, of_queries.high))


def test_only_the_layer_that_is_quoted_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = scan_of("t")
    expected = {v: scan.curve("t", v)[scan.best_layer("t")] for v in VECTORS}
    monkeypatch.delattr(LayerScan, "curve")
    assert {v: scan.hypothesis("t", v) for v in VECTORS} == expected
    with pytest.raises(InputError, match="did you mean 'theta'"):
        scan.hypothesis("t", "thetta")


@pytest.mark.parametrize("ask", ["prior", "best_layer", "hypothesis", "curve"])
def test_a_task_that_is_not_there(ask: str) -> None:
    with pytest.raises(InputError, match="did you mean 'capital'"):
        getattr(scan_of("capital"), ask)("capitl")


def test_the_other_score() -> None:
    figure = layer_scan_figure(scan_of("task"), "two_way_prefix")
    assert figure.layout.yaxis.title.text == "accuracy (two-way prefix)"
    with pytest.raises(InputError, match="unknown score"):
        layer_scan_figure(scan_of("task"), "first")


def test_unknown_kinds_of_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown kind of figure '.gif'"):
        export(go.Figure(), tmp_path / "figure.gif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("folder.html", "folder.html is a folder; expected the name of a file"),
        ("folder", "folder is a folder; expected the name of a file"),
        ("data.html", "cannot write the data of data.html: data.nc is a folder"),
        ("file/figure.html", "cannot write file/figure.html: file is a file; expected a folder"),
        ("file/new/figure.html", "cannot write file/new/figure.html: file is a file"),
        (
            "x" * 300 + ".html",
            f"cannot write {'x' * 25}...(305 characters)...{'x' * 20}.html (File n",
        ),
        ("figure.gif", "unknown kind of figure '.gif'"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.html", "folder", "data.nc"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        check_target(Path(target))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_target_that_can_be_written_leaves_no_trace(tmp_path: Path) -> None:
    check_target(tmp_path / "new" / "figure.html")
    assert list(tmp_path.rglob("*")) == []
    (tmp_path / "there.html").write_text("as it was")
    check_target(tmp_path / "there.html")
    assert (tmp_path / "there.html").read_text() == "as it was"


def test_static_images_without_a_browser_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match="need kaleido and a Chrome"):
        export(scan_of("task").plot(), tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


def test_a_browser_that_does_not_start_is_found_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\nexit 127\n")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    with pytest.raises(InputError, match=r"that starts \(BrowserFailedError: The browser seemed"):
        check_target(tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == [browser]


def test_caveats_stand_below_a_figure(tmp_path: Path) -> None:
    page = export(go.Figure(), tmp_path / "figure.html", ["few <prompts>", "repeated queries"])
    text = page.read_text()
    notes = "<ul><li>few &lt;prompts&gt;</li><li>repeated queries</li></ul></div></body>"
    assert text.count(notes) == 1
    assert "<title>Figure</title>" in text
    assert "What to keep in mind" not in export(go.Figure(), page).read_text()


# --- pages ------------------------------------------------------------------------------------


def test_a_page_is_titled_with_what_was_found(tmp_path: Path) -> None:
    scan = scan_of("<img src=x>")
    scan.data["reference_first_token"][:] = False
    page = export(scan.plot(), tmp_path / "f.html").read_text()
    assert "<title>θ works after blocks 3 and 4 and not from block 5 on</title>" in page
    hostile = go.Figure(layout={"title": {"text": "a<br>&lt;script&gt; <b>b</b>"}})
    page = export(hostile, tmp_path / "f.html").read_text()
    assert "<title>a &lt;script&gt; b</title>" in page


def test_a_page_follows_the_theme(tmp_path: Path) -> None:
    page = export(scan_of("t").plot(), tmp_path / "f.html").read_text()
    assert "color-scheme: light dark" in page
    assert "prefers-color-scheme: dark" in page
    assert DARK[PAPER] in page
    # It can go back: no dark colour is there twice, nor among the light ones.
    assert len({*DARK, *DARK.values(), *COLOURS.values(), *SERIES}) == len(
        {*DARK, *COLOURS.values(), *SERIES}
    ) + len(DARK)


@pytest.mark.parametrize("plotlyjs", get_args(PlotlyJs))
def test_where_a_page_has_plotly_js_from(tmp_path: Path, plotlyjs: PlotlyJs) -> None:
    page = export(scan_of("t").plot(), tmp_path / "a.html", plotlyjs=plotlyjs)
    text, beside = page.read_text(), tmp_path / "plotly.min.js"
    assert (len(text) < 500_000) == (plotlyjs != "inline")
    assert beside.exists() == (plotlyjs == "directory")
    assert ('src="https://cdn.plot.ly' in text) == (plotlyjs == "cdn")
    if plotlyjs == "directory":
        assert 'src="plotly.min.js"' in text
        written = beside.stat()
        export(scan_of("u").plot(), tmp_path / "b.html", plotlyjs=plotlyjs)
        assert beside.stat().st_mtime_ns == written.st_mtime_ns  # once for all pages
        beside.write_text("another version")
        export(scan_of("u").plot(), tmp_path / "b.html", plotlyjs=plotlyjs)
        assert beside.stat().st_size == written.st_size
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == {"directory": ["a.html", "b.html", "plotly.min.js"]}.get(plotlyjs, ["a.html"])


def test_help_shows_the_options_of_every_figure() -> None:
    assert list(inspect.signature(LayerScan.plot).parameters) == ["self", "score", "height", "task"]
    said = inspect.getdoc(LayerScan.plot) or ""
    assert said.startswith("Accuracy against layer")
    assert "height: of the whole figure, in pixels" in said
