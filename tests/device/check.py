"""Everything that only a machine with an accelerator can show, in one run: `make device-check`.

It compares a device's numbers and times with the CPU's: both engines on every family of models,
the questions on the packaged model, models spread over devices, bfloat16, and training. What was
measured is written to a file after every row, so that a killed run leaves it. No step stops
another.

The exit code is 0 where all steps passed, 1 where one failed, and 2 where there is no accelerator.
"""

import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import tyro
from device.record import Record

STEPS = ("engines", "questions", "placement", "bfloat16", "training")
_LIBRARIES = ("icl-mech", "torch", "transformers", "transformer-lens", "accelerate")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an accelerator computes, and how fast, beside the CPU."""

    out: Path = Path("device_check.json")
    """The file that holds everything measured."""
    minutes: float = 7.5
    """The time that all steps may take together; training gets what is left of it."""
    steps: tuple[str, ...] = STEPS
    """Which steps: engines, questions, placement, bfloat16, training."""
    n_prompts: int = 24
    """Prompts per task of the layer scans; fewer where the CPU would take too long."""


class Clock:
    """How much of the time that a check may take has gone."""

    def __init__(self, minutes: float) -> None:
        self.total = 60 * minutes
        self._begun = time.perf_counter()

    @property
    def left(self) -> float:
        """Seconds until the time is over."""
        return self.total - (time.perf_counter() - self._begun)

    def past(self, share: float) -> bool:
        """Whether more than this share of the time has gone."""
        return self.left < (1 - share) * self.total


def accelerator() -> torch.device | None:
    """The device to check; None where there is none."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None and found.type in ("cuda", "mps") else None


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    named: dict[str, Any] = {"device": device.type}
    if device.type == "cuda":
        first = torch.cuda.get_device_properties(0)
        named = {
            "device": first.name,
            "devices": torch.cuda.device_count(),
            "GB": round(first.total_memory / 1e9, 1),
            "CUDA": torch.version.cuda,
        }
    named |= {"CPU threads": torch.get_num_threads(), "Python": platform.python_version()}
    return named | {library: version(library) for library in _LIBRARIES}


def full_precision() -> None:
    """Let no device round float32 to fewer bits (TF32), which would hide wrong numbers."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def main(options: Options) -> int:
    """Run the check and return its exit code."""
    clock = Clock(options.minutes)
    device = accelerator()
    if device is None:
        print("no accelerator: torch finds no GPU here, and there is nothing to check without one")
        return 2
    unknown = [name for name in options.steps if name not in STEPS]
    if unknown:
        print(f"no step {unknown[0]!r}; expected some of {', '.join(STEPS)}", file=sys.stderr)
        return 1
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched
    from device.steps import Check, Sizes  # what takes long to import

    full_precision()
    record = Record(options.out, machine(device))
    Check(device, clock, Sizes(n_prompts=options.n_prompts)).run(record, options.steps)
    print(f"\n{record.markdown()}\n{options.out}: all that was measured", flush=True)
    return 0 if record.ok else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
