"""One library in its own process: reads a task per line from stdin, replies with seconds and MB.

Started by `compare.py`. Nothing but replies is written to stdout.
"""

import importlib
import json
import os
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from work import Work

#: Time of day, and time of the processor for this process.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mb() -> float:
    """The most memory that this process has held since `forget_peak`."""
    kilobytes = re.search(r"VmHWM:\s+(\d+)", _STATUS.read_text())
    assert kilobytes is not None
    return int(kilobytes[1]) / 1024


def forget_peak() -> float:
    """Let the peak begin at what is held now, in MB."""
    _CLEAR_REFS.write_text("5")
    return peak_mb()


def run(library: Any, model: Any, asked: dict[str, Any]) -> dict[str, float]:
    """Do one task; results go to a file where one is named."""
    work = Work.load(Path(asked["work"]))
    held = forget_peak()
    clock = CLOCKS[asked["clock"]]
    start = clock()
    shared = library.before(model, asked["task"], work, asked["at_a_time"])
    middle = clock()
    task = getattr(library, asked["task"])
    found = task(model, work, asked["layers"], asked["at_a_time"], shared)
    end = clock()
    reply = {"before_s": middle - start, "edits_s": end - middle, "peak_mb": peak_mb()}
    reply["task_mb"] = max(0.0, reply["peak_mb"] - held)
    if asked["out"]:
        save_file({name: values.contiguous() for name, values in found.items()}, asked["out"])
    return reply


def main() -> None:
    """Load the library named first, then do what stdin asks until it ends."""
    module, folder, threads = sys.argv[1:]
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(int(threads))
    library = importlib.import_module(module)
    with torch.no_grad():
        model = library.load(Path(folder))
        hello = {"name": library.NAME, "version": version(library.DISTRIBUTION)}
        print(json.dumps(hello), file=replies)
        for line in sys.stdin:
            print(json.dumps(run(library, model, json.loads(line))), file=replies)


if __name__ == "__main__":
    main()
