"""The tables of expected costs in icl_mech/README.md: `make costs` writes it."""

from math import ceil
from pathlib import Path

import pandas as pd

from icl_mech import Cost, expected_cost
from icl_mech.cost import Sizes
from icl_mech.cost.questions import NAMES

README = Path(__file__).parents[1] / "icl_mech" / "README.md"
BEGIN, END = "<!-- costs -->", "<!-- end of costs -->"
N_TASKS = 18
#: Of one H100 SXM: dense bfloat16 products, main memory, and bytes of memory, as NVIDIA names them.
FLOPS, BANDWIDTH, MEMORY = 989e12, 3.35e12, 80e9
#: The share of both rates that is taken to be reached.
SHARE = 0.3
#: As the configurations that are published with the weights say.
PUBLISHED = {
    "Gemma 2 2B": Sizes(
        n_layers=26, d_model=2304, n_heads=8, n_kv_heads=4, d_head=256, d_mlp=9216, d_vocab=256000
    ),
    "Llama 3.1 8B": Sizes(
        n_layers=32,
        d_model=4096,
        n_heads=32,
        n_kv_heads=8,
        d_head=128,
        d_mlp=14336,
        d_vocab=128256,
        tied=False,
    ),
    "Llama 3.1 70B": Sizes(
        n_layers=80,
        d_model=8192,
        n_heads=64,
        n_kv_heads=8,
        d_head=128,
        d_mlp=28672,
        d_vocab=128256,
        tied=False,
    ),
}


def row(name: str, sizes: Sizes) -> dict[str, str]:
    def cost(question: str, engine: str = "shared") -> Cost:
        return expected_cost(
            question, sizes, N_TASKS, engine=engine, dtype="bfloat16", device="cuda"
        )

    def seconds(found: Cost) -> str:
        return f"{found.seconds(SHARE * FLOPS, SHARE * BANDWIDTH):,.0f} s"

    scan = cost("scan")
    return {
        "model, bfloat16": name,
        "weights": f"{scan.weights / 1e9:.0f} GB",
        "in use at most": f"{scan.memory / 1e9:.0f} GB",
        "H100 of 80 GB": str(ceil(scan.memory / (0.9 * MEMORY))),
        "scan, 10¹² operations": f"{scan.operations / 1e12:,.0f}",
        "scan": seconds(scan),
        "scan, plain engine": seconds(cost("scan", "plain")),
        "AIE of heads": seconds(cost("heads")),
        "position scan": seconds(cost("positions")),
    }


def seconds_of(question: str, sizes: Sizes) -> str:
    """The expected time of a question on all tasks."""
    cost = expected_cost(question, sizes, N_TASKS, dtype="bfloat16", device="cuda")
    return f"{cost.seconds(SHARE * FLOPS, SHARE * BANDWIDTH):,.1f} s"


def tables() -> str:
    """The models, and below them every question on each of them, as Markdown."""
    models = [row(*item) for item in PUBLISHED.items()]
    questions = [
        {"question": f"`{q}`", **{name: seconds_of(q, s) for name, s in PUBLISHED.items()}}
        for q in NAMES
    ]
    return f"{markdown(models)}\n\n{markdown(questions)}"


def markdown(found: list[dict[str, str]]) -> str:
    """A table whose rows are named by the first column."""
    rows = pd.DataFrame(found).set_index(next(iter(found[0])))
    lines = [
        [str(rows.index.name), *rows.columns],
        ["---"] * (1 + len(rows.columns)),
        *([str(name), *values] for name, values in zip(rows.index, rows.to_numpy(), strict=True)),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    made = tables()
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}", encoding="utf-8")
    print(made)


if __name__ == "__main__":
    main()
