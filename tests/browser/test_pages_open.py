"""A browser without network draws the figures: `make test-browser`."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_results import scan_of

from icl_mech.files import PlotlyJs
from icl_mech.plotting import export
from icl_mech.plotting.style import DARK, INK, PAPER


@pytest.fixture(scope="module")
def browser() -> str:
    """Chromium or Chrome; without one the tests are left out, but where everything must run."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI") != "true":
        pytest.skip("needs the command chromium or google-chrome; neither is there")
    assert found, "CI must install Chromium"
    return found


WATCH = (
    "<script>addEventListener('error', e => document.documentElement.dataset.error = e.message)"
    "</script>"
)


def opened(browser: str, page: Path, *options: str) -> str:
    """What a browser without network makes of a page."""
    page.write_text(WATCH + page.read_text())
    return subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={page.parent / 'profile'}",
            "--virtual-time-budget=10000",
            *options,
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


@pytest.mark.parametrize("plotlyjs", ["inline", "directory"])
@pytest.mark.parametrize("tasks", [("task",), ("first", "<i>second</i>", "third")])
def test_a_browser_without_network_draws_it(
    browser: str, tasks: tuple[str, ...], plotlyjs: PlotlyJs, tmp_path: Path
) -> None:
    figure = scan_of(*tasks).plot()
    dom = opened(browser, export(figure, tmp_path / "figure.html", plotlyjs=plotlyjs))
    assert "data-error" not in dom
    visible = [t for t in figure.data if t.type == "scatter" and t.visible]
    assert len(re.findall(r'class="trace scatter', dom)) == len(visible)
    assert ('class="heatmaplayer mlayer"><g class="hm"' in dom) == (len(tasks) > 1)
    assert "accuracy (first token)" in dom
    assert "task vector θ (hypothesis)" in dom


@pytest.mark.parametrize(("scheme", "paper", "ink"), [(0, DARK[PAPER], DARK[INK]), (1, PAPER, INK)])
def test_a_figure_follows_the_theme(
    browser: str, scheme: int, paper: str, ink: str, tmp_path: Path
) -> None:
    page = export(scan_of("#222222").plot(), tmp_path / "figure.html")
    dom = opened(browser, page, f"--blink-settings=preferredColorScheme={scheme}")
    assert "data-error" not in dom
    assert f"background: {rgb(paper)}" in dom
    title = re.search(r'<text class="gtitle"[^>]*style="([^"]*)"', dom)
    assert title is not None
    assert f"fill: {rgb(ink)}" in title[1]
    assert "#222222, &lt;b&gt;m" in dom  # a name that looks like a colour is left alone


def rgb(colour: str) -> str:
    """A colour as the browser writes it."""
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"
