"""Memory: a scan needs little more than the weights."""

import subprocess
import sys

PROGRAM = """
import resource
from icl_mech import layer_scan, load_model
model = load_model("gemma-3-270m", device="cpu")
layer_scan(model, "country_capital", n_prompts=50, progress=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
weights = sum(p.numel() * p.element_size() for p in model.bridge.original_model.parameters())
print(peak, weights)
"""


def test_peak_of_a_scan_with_50_prompts() -> None:
    """In a process of its own: the peak is the whole process's, libraries included."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    peak, weights = map(int, done.stdout.split())
    assert peak < weights + 1.5e9
