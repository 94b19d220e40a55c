"""A browser without network draws the figures: `make test-browser`."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_results import scan_of

from icl_mech.plotting import export


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


@pytest.mark.parametrize("tasks", [("task",), ("first", "<i>second</i>", "third")])
def test_a_browser_without_network_draws_it(
    browser: str, tasks: tuple[str, ...], tmp_path: Path
) -> None:
    figure = scan_of(*tasks).plot()
    page = export(figure, tmp_path / "figure.html")
    page.write_text(WATCH + page.read_text())
    dom = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert "data-error" not in dom
    visible = [t for t in figure.data if t.type == "scatter" and t.visible]
    assert len(re.findall(r'class="trace scatter', dom)) == len(visible)
    assert ('class="heatmaplayer mlayer"><g class="hm"' in dom) == (len(tasks) > 1)
    assert "accuracy (first token)" in dom
    assert "task vector θ (hypothesis)" in dom
