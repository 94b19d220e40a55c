"""icl-mech beside TransformerLens, nnsight, nnterp and pyvene on the same work.

`make bench-peers` runs it and writes the table into `analyses/README.md`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from making import write_all
from safetensors.torch import load_file
from table import Cell, write
from work import N_PROMPTS, PROMPTS_AT_A_TIME, Found

from icl_mech.model import load_model
from icl_mech.model.gguf import packaged_folder

#: icl-mech first: the others must find what it finds.
LIBRARIES = ("icl_mech", "transformer_lens", "nnsight", "nnterp", "pyvene")
N_LAYERS = 18
#: nnterp 1.3 does not import on nnsight 0.8: it has the newest nnsight that it runs on.
OWN = {"nnterp": {"PYTHONPATH": str(Path(sys.prefix) / "nnsight-for-nnterp")}}
#: Tasks of one edit after another. The others are timed on a part of the blocks, whose mean cost
#: is that of all, and scaled up.
EDITS = ("inject", "heads")
CLOSE = {"logprob": {"atol": 1e-3, "rtol": 0.0}, "effect": {"atol": 1e-3, "rtol": 0.0}}


@dataclass
class Library:
    """A library in a process of its own.

    Attributes:
        clock: by which it is timed, see `Plan`.
        name, version: as the process says.
        at_a_time: how many prompts it runs at once, by task: the fastest of those tried.
    """

    module: str
    process: subprocess.Popen[str]
    clock: str = "wall"
    name: str = ""
    version: str = ""
    at_a_time: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def started(module: str, folder: Path, plan: "Plan") -> "Library":
        """Start a worker and wait until its model is loaded."""
        worker = Path(__file__).with_name("worker.py")
        process = subprocess.Popen(
            [sys.executable, str(worker), f"with_{module}", str(folder), str(plan.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **OWN.get(module, {})},
        )
        library = Library(module, process, plan.clock)
        hello = library._reply()
        library.name, library.version = hello["name"], hello["version"]
        return library

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.module} ended; its error is above")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def run(
        self, task: str, work: Path, layers: list[int], at_a_time: int, out: Path | None = None
    ) -> dict[str, Any]:
        """Do a task once."""
        asked = {"task": task, "work": str(work), "layers": layers, "at_a_time": at_a_time}
        asked |= {"clock": self.clock, "out": out and str(out)}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self._reply()

    def end(self) -> None:
        """Let the process end."""
        self.process.communicate()


@dataclass(frozen=True)
class Plan:
    """How much is run.

    Attributes:
        share: libraries other than icl-mech edit one block in so many.
        rounds: how often each library is timed, in turn.
        threads: of every library.
        clock: `"wall"`, or `"processor"`: the time that a library's process had of the processor,
            in which other work on the machine shows least; with one thread it is the time that
            the work takes on an idle machine.
        try_sizes: try every number of prompts at a time; else all prompts run at once.
    """

    share: int
    rounds: int
    threads: int
    clock: str = "wall"
    try_sizes: bool = False

    @property
    def said(self) -> str:
        """For the caption of the table."""
        timed = "processor time" if self.clock == "processor" else "time of day"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)} each"
        return f"{timed}, {threads}, {platform.machine()}, float32"

    def layers(self, task: str, module: str = "") -> list[int]:
        """The blocks that are edited, or all."""
        if task not in EDITS or module == "icl_mech":
            return list(range(N_LAYERS))
        return list(range(self.share // 2, N_LAYERS, self.share))

    def seconds(self, task: str, module: str, reply: dict[str, Any]) -> float:
        """Of the whole task."""
        scale = N_LAYERS / len(self.layers(task, module))
        return float(reply["before_s"] + scale * reply["edits_s"])


def check(task: str, reference: Found, found: Found, layers: list[int]) -> None:
    """Refuse to time a library that finds other numbers."""
    for name, values in found.items():
        expected = reference[name]
        if task in EDITS:
            expected = expected.unflatten(0, (N_LAYERS, -1))[layers].flatten(0, 1)
        if name == "stream":
            off = (values - expected).flatten(2).norm(dim=-1) / expected.flatten(2).norm(dim=-1)
            assert float(off.max()) < 1e-4, f"the stream is off by {float(off.max()):.1e}"
        elif name == "top":
            assert torch.equal(values, expected), f"{int((values != expected).sum())} other tokens"
        else:
            torch.testing.assert_close(values, expected, **CLOSE[name])


def try_sizes(library: Library, task: str, work: Path, plan: Plan, out: Path) -> Found:
    """Run a task, find how many prompts at a time are fastest, return what it found."""
    several = plan.try_sizes and library.module != "icl_mech"
    sizes = PROMPTS_AT_A_TIME[task][: None if several else 1]
    layers, took = plan.layers(task, library.module), {}
    for size in sizes:
        reply = library.run(task, work, layers, size, out)
        took[size] = plan.seconds(task, library.module, reply)
    library.at_a_time[task] = min(took, key=lambda size: took[size])
    said = ", ".join(f"{size} at a time {seconds:.1f} s" for size, seconds in took.items())
    print(f"{library.name}, {task}: {said}", flush=True)
    return load_file(out)


def check_all(libraries: list[Library], paths: dict[str, Path], plan: Plan, folder: Path) -> None:
    """Every library finds what icl-mech finds; nothing is timed for the table before."""
    for task, work in paths.items():
        first, *others = libraries
        reference = try_sizes(first, task, work, plan, folder / "reference")
        for library in others:
            found = try_sizes(library, task, work, plan, folder / "found")
            try:
                check(task, reference, found, plan.layers(task))
            except AssertionError as error:
                raise SystemExit(f"{library.name}, {task}: {error}") from error


def measure(libraries: list[Library], paths: dict[str, Path], plan: Plan) -> Iterator[list[Cell]]:
    """Medians of interleaved rounds, after every round."""
    replies: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for _ in range(plan.rounds):
        for task, work in paths.items():
            for library in libraries:
                layers = plan.layers(task, library.module)
                reply = library.run(task, work, layers, library.at_a_time[task])
                replies[task, library.module].append(reply)
        yield [
            median(task, library, replies[task, library.module], plan)
            for task in paths
            for library in libraries
        ]


def median(task: str, library: Library, replies: list[dict[str, Any]], plan: Plan) -> Cell:
    """One cell of the table."""
    seconds = [plan.seconds(task, library.module, reply) for reply in replies]
    peak, own = (statistics.median(reply[k] for reply in replies) for k in ("peak_mb", "task_mb"))
    return Cell(task, library.name, library.version, statistics.median(seconds), peak, own)


def main() -> None:
    """Check, measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=int, default=9, help="edit one block in so many: 1, 3, 9")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--try-sizes", action="store_true", help="try fewer prompts at a time too")
    parser.add_argument("--tasks", nargs="+", default=list(N_PROMPTS), choices=list(N_PROMPTS))
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=LIBRARIES)
    parser.add_argument("--no-write", action="store_true", help="leave analyses/README.md alone")
    args = parser.parse_args()
    if args.clock == "processor" and args.threads != 1:
        parser.error("--clock processor adds up the threads; expected --threads 1 with it")
    if LIBRARIES[0] not in args.libraries:
        parser.error(f"--libraries without {LIBRARIES[0]}; expected it among them, to compare with")
    whole = set(args.tasks) == set(N_PROMPTS) and set(args.libraries) == set(LIBRARIES)
    keep = whole and not args.no_write  # a part of the table would replace all of it
    plan = Plan(args.share, args.rounds, args.threads, args.clock, args.try_sizes)
    torch.set_num_threads(args.threads)
    model_folder = packaged_folder()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = write_all(load_model(model_folder, device="cpu"), folder)
        paths = {task: made[task] for task in args.tasks}
        libraries = [Library.started(m, model_folder, plan) for m in args.libraries]
        check_all(libraries, paths, plan, folder)
        print("all results are equal; timing", flush=True)
        for done, cells in enumerate(measure(libraries, paths, plan), start=1):
            write(cells, plan.share, done, plan.said, keep)
        for library in libraries:
            library.end()


if __name__ == "__main__":
    main()
