"""The analyses of finetuning, checkpoints and families, on the measurements that come with them."""

import re
from pathlib import Path

from commands import run_analysis
from pages import plotly

from icl_mech.reference import ARMS, han2024


def test_table_of_finetuning(tmp_path: Path) -> None:
    out = tmp_path / "table.html"
    said = run_analysis("han_table1", "", out)
    published = han2024().arm("pos", "first")
    assert f"{published.td[0]:.2f} ± {published.td[1]:.2f}" in said
    assert "TD below block 12 is unchanged" in said
    gain = re.search(r"first third tuned minus last third tuned: .*'accuracy': '([+-]\.?\d+)", said)
    assert gain is not None or "first third tuned minus last third tuned" in said
    traces, _ = plotly(out)
    ours, theirs = traces[0], traces[1]
    assert ours["x"] == list(ARMS)
    assert theirs["y"] == [han2024().arm("pos", arm).td[0] for arm in ARMS]


def test_checkpoints_of_finetuning(tmp_path: Path) -> None:
    said = run_analysis("han_checkpoints", "", tmp_path / "checkpoints.html")
    assert said.count("Checkpoints on") == 2
    for arm in ("first", "last"):
        assert (tmp_path / f"checkpoints-{arm}.html").exists()
    # Upstream of the tuned blocks decodability stays as it was, to the digit that is printed.
    before, after = re.findall(r"last third tuned, after \d+ updates: ([\d. ]+)", said)
    assert before.split()[:12] == after.split()[:12]


def test_families_of_functions(tmp_path: Path) -> None:
    said = run_analysis("han_families", "", tmp_path / "families.html")
    assert re.search(r"linear +sparse +\d", said)
    assert "small-seed0: both ['0.1']" in said
    assert (tmp_path / "families-heads.html").exists()
