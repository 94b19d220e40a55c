"""In a notebook a result shows its figure and its table, and a bar leaves nothing behind."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import plotly.io
import pytest
from notebooks import Notebook
from tiny_models import tiny_model

from icl_mech import layer_scan, prompt_lens

PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    made = Notebook()
    yield made
    made.client.stop_channels()
    made.manager.shutdown_kernel()


def test_elsewhere_it_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Before there is a kernel in this process."""
    lens = prompt_lens(tiny_model("llama"), "ab")
    lens._ipython_display_()
    assert capsys.readouterr().out == f"{lens!r}\n"


def test_the_last_line_of_a_cell_shows_figure_and_table(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    scan = layer_scan(model, "to_upper", 2, 2, n_dev=1, progress=False)
    lens = prompt_lens(model, "<i>ab")
    monkeypatch.setattr(plotly.io.renderers, "default", "plotly_mimetype")
    script, *first = notebook.run("result", result=scan)
    # Plotly's script once, so that a page that is exported has the figures offline.
    assert len(script["text/html"]) > 10**6
    for result, (figure, table) in ((scan, first), (lens, notebook.run("it", it=lens))):
        assert len(figure[PLOTLY]["data"]) == len(result.plot().data)
        assert "Plotly.newPlot(" in figure["text/html"]
        assert len(figure["text/html"]) < 10**6
        assert table == {"text/html": result._repr_html_(), "text/plain": repr(result)}
        assert "<i>" not in figure["text/html"]
    monkeypatch.setattr(plotly.io.renderers, "default", "json")  # chosen by the user
    chosen, _ = notebook.run("result", result=scan)
    assert list(chosen) == ["application/json"]


BAR = """
from notebooks import Notebook
book = Notebook()
cell = "from icl_mech.progress import progress_bar\\nwith progress_bar(3, 'runs', True) as bar:\\n"
for then in ("bar.update(2)", "1 / 0", "progress_bar(3, 'runs', False).update()"):
    print([part["text/plain"] == "" for part in book.run(f"{cell}    {then}")])
"""


def test_a_bar_leaves_nothing_in_the_file_unless_it_failed() -> None:
    """In a process of its own: whether bars are widgets is decided where tqdm is imported."""
    pytest.importorskip("ipywidgets")
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", BAR], capture_output=True, text=True, cwd=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[True]", "[False]", "[True]"]
