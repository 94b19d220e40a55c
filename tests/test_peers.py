"""What `make bench-peers` can show without the other libraries: equal numbers, a whole table."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import D_VOCAB, N_LAYERS, tiny_model

PEERS = Path(__file__).parent / "benchmarks" / "peers"
AT_A_TIME = 2


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of the folder; all of them are forgotten afterwards."""
    monkeypatch.syspath_prepend(PEERS)
    yield importlib.import_module
    for path in PEERS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def made(peers, task: str):
    """Work for a tiny model, of random tokens and vectors."""
    random = torch.Generator().manual_seed(0)
    model = tiny_model("gemma3")
    shape = {
        "inject": (N_LAYERS, model.d_model),
        "heads": (N_LAYERS, model.n_heads, model.d_head),
    }.get(task, (0,))
    return peers("work").Work(
        torch.randint(D_VOCAB - 1, (3, 7), generator=random),
        torch.randint(D_VOCAB - 1, (3,), generator=random),
        torch.randn(shape, generator=random),
    )


@pytest.mark.parametrize("task", ["inject", "heads", "lens", "stream"])
@torch.no_grad()
def test_icl_mech_and_transformer_lens_find_the_same(peers, task: str) -> None:
    model, work = tiny_model("gemma3"), made(peers, task)
    layers = list(range(N_LAYERS))
    ours = getattr(peers("with_icl_mech"), task)(model, work, layers, AT_A_TIME, None)
    lens = peers("with_transformer_lens")
    before = lens.before(model.bridge, task, work, AT_A_TIME)
    theirs = getattr(lens, task)(model.bridge, work, layers, AT_A_TIME, before)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=1e-4)


def test_other_numbers_are_refused_before_anything_is_timed(peers) -> None:
    compare = peers("compare")
    reference = {
        "top": torch.arange(compare.N_LAYERS * 2).view(-1, 2),
        "logprob": torch.zeros(compare.N_LAYERS, 2),
    }
    layers = [4, 13]
    found = {name: values[layers] for name, values in reference.items()}
    compare.check("inject", reference, found, layers)
    for name, off in [("top", 1), ("logprob", 0.002)]:
        with pytest.raises(AssertionError):
            compare.check("inject", reference, {**found, name: found[name] + off}, layers)


def test_part_of_the_blocks_costs_on_average_what_all_cost(peers) -> None:
    compare = peers("compare")
    for share in (1, 3, 9):
        layers = compare.Plan(share, 1, 1).layers("heads", "nnsight")
        assert sum(layers) / len(layers) == (compare.N_LAYERS - 1) / 2


def test_table_says_first_where_another_is_faster(peers) -> None:
    table = peers("table")
    cells = [
        table.Cell("inject", "icl-mech", "1", 1.0, 2048, 9),
        table.Cell("inject", "other", "2", 3.0, 1024, 9),
        table.Cell("stream", "icl-mech", "1", 1.0, 2048, 9),
        table.Cell("stream", "other", "2", 0.5, 1024, 9),
    ]
    said = table.verdict(cells)
    assert said.startswith("Faster than icl-mech: other in *residual stream")
    assert "3.0 times (θ at the last token" in said
    assert "| 12 s, 1.0 GB, 9 MB |" in table.table(
        [table.Cell("lens", "other", "2", 12.3, 1024, 9)]
    )


def test_table_in_the_readme_has_every_task_and_library(peers) -> None:
    table, compare = peers("table"), peers("compare")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.written(table.README.read_text(encoding="utf-8")).splitlines()
        if line.startswith("|")
    ]
    head, _, *body = rows
    assert [row[0] for row in body] == list(table.TASKS.values())
    assert {len(row) for row in rows} == {1 + len(compare.LIBRARIES)}
    names = [cell.rpartition(" ")[0] for cell in head[1:]]
    assert names == ["icl-mech", "TransformerLens", "nnsight", "nnterp", "pyvene"]
