"""The table of `make bench-peers`, in `analyses/README.md`."""

from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[3] / "analyses" / "README.md"
BEGIN = "<!-- peers: `make bench-peers` writes this table -->"
END = "<!-- peers: end -->"
OURS = "icl-mech"
TASKS = {
    "inject": "θ at the last token after each of 18 blocks, 16 five-shot prompts",
    "heads": "AIE of all 72 heads, 8 ten-shot prompts with shuffled labels",
    "lens": "logit lens at the last token, 18 blocks, 32 prompts",
    "stream": "residual stream at all tokens and blocks, 4 prompts",
}


@dataclass(frozen=True)
class Cell:
    """What one library took for one task.

    Attributes:
        name, version: of the library.
        seconds: median over rounds, of the whole task.
        peak_mb: the most memory that its process held meanwhile, weights included.
        task_mb: by how much that is more than it held before.
    """

    task: str
    name: str
    version: str
    seconds: float
    peak_mb: float
    task_mb: float


def table(cells: list[Cell]) -> str:
    """In Markdown: a row per task, a column per library."""
    libraries = list(dict.fromkeys(f"{cell.name} {cell.version}" for cell in cells))
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    rows = [["", *libraries], ["---"] * (1 + len(libraries))]
    rows += [[TASKS[task], *map(shown, of_task(cells, task))] for task in tasks]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def shown(cell: Cell) -> str:
    """Seconds, the peak in gigabytes, and what of it the task took in megabytes."""
    seconds = f"{cell.seconds:.2f}" if cell.seconds < 10 else f"{cell.seconds:.0f}"
    return f"{seconds} s, {cell.peak_mb / 1024:.1f} GB, {cell.task_mb:.0f} MB"


def of_task(cells: list[Cell], task: str) -> list[Cell]:
    return [cell for cell in cells if cell.task == task]


def verdict(cells: list[Cell]) -> str:
    """Where another library is faster, then by how much icl-mech is, against the fastest other."""
    faster, slower = [], []
    for task in dict.fromkeys(cell.task for cell in cells):
        ours = next(cell for cell in of_task(cells, task) if cell.name == OURS)
        others = [cell for cell in of_task(cells, task) if cell.name != OURS]
        for cell in others:
            if cell.seconds < ours.seconds:
                ratio = ours.seconds / cell.seconds
                faster.append(f"{cell.name} in *{TASKS[task]}* ({ratio:.2f} times)")
        best = min(others, key=lambda cell: cell.seconds)
        if best.seconds >= ours.seconds:
            ratio = best.seconds / ours.seconds
            slower.append(f"{ratio:.1f} times ({TASKS[task]}; {best.name})")
    said = [f"Faster than icl-mech: {'; '.join(faster)}."] if faster else []
    if slower:
        said.append(f"icl-mech is faster than the fastest other: {'; '.join(slower)}.")
    return " ".join(said)


def written(readme: str) -> str:
    """What stands between the markers."""
    return readme.partition(BEGIN)[2].partition(END)[0].strip("\n")


def write(cells: list[Cell], share: int, rounds: int, how: str, keep: bool) -> None:
    """Print the table with its caption, and write it into the README if `keep`."""
    part = (
        f" The others' edits (first two rows) are timed on one block in {share} (blocks of the "
        "same mean cost as all) and scaled up; icl-mech does all of them."
        if share > 1
        else ""
    )
    caption = (
        f"Medians of {rounds} round{'s' * (rounds > 1)} in turn, {how}; memory is the peak "
        "of each library's process, weights included, and by how much it was more than what "
        f"the process held before the task.{part}"
    )
    text = f"{verdict(cells)}\n\n{table(cells)}\n\n{caption}"
    print(text)
    if keep:
        readme = README.read_text(encoding="utf-8")
        before, _, rest = readme.partition(BEGIN)
        _, _, after = rest.partition(END)
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
