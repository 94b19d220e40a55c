"""Memory: scans need little more than the weights."""

import subprocess
import sys
from pathlib import Path

import pytest

# Not `ru_maxrss`: a new process inherits that from the one which started it.
PROGRAM = """
import re
from pathlib import Path
import icl_mech
model = icl_mech.load_model("gemma-3-270m", device="cpu")
{call}
status = Path("/proc/self/status").read_text()
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
weights = sum(p.numel() * p.element_size() for p in model.bridge.original_model.parameters())
print(peak, weights)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("call", "limit"),
    [
        ("icl_mech.layer_scan(model, 'country_capital', 8, progress=False)", 1.5e9),
        ("icl_mech.head_attribution(model, 'country_capital', 5, 10, progress=False)", 2e9),
        pytest.param(
            "icl_mech.patch_positions(model, 'country_capital', 5, 10, sites=('resid_pre', 'z'), "
            "roles=('demo_8_y', 'final_arrow'), direction='denoise', progress=False)",
            2e9,
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["layer scan", "head attribution", "position scan"],
)  # fmt: skip
def test_peak(call: str, limit: float) -> None:
    """In a process of its own: the peak is the whole process's, libraries included."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(call=call)],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, weights = map(int, done.stdout.split()[-2:])
    assert peak < weights + limit


SPREAD = """
import re
from pathlib import Path
import icl_mech
from icl_mech.model import load_model


def taken():  # not the pages of files, which the system gives back
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+) kB", status)[1])


before = taken()
model = load_model("gemma-3-270m", device="auto", max_memory={"cpu": "720MB"})
scan = icl_mech.layer_scan(model, "country_capital", 4, 3, n_dev=2, progress=False)
weights = sum(p.numel() * p.element_size() for p in model.bridge.original_model.parameters())
print(taken() - before, weights, model.provenance()["device"], scan.best_layer("country_capital"))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_spread_model_takes_less_than_its_weights() -> None:
    """Blocks that lie on disk are in memory one at a time only."""
    done = subprocess.run(
        [sys.executable, "-c", SPREAD], capture_output=True, text=True, check=True
    )
    taken, weights, device, best = done.stdout.split()
    assert device == "cpu+disk"
    assert best == "9"
    assert int(taken) < int(weights), done.stdout
