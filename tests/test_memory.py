"""Memory: scans need little more than the weights."""

import os
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


#: Makes glibc return what is freed at once, so that a limit means the same on every machine.
STRICT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
}
#: Runs with little more memory than is mapped once the model is there. How many threads there are
#: is asked at the end: one that a bar starts would never come up, and be waited for.
TIGHT = """
import re, resource, sys, threading, warnings
from pathlib import Path
sys.path.insert(0, "tests")
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from transformer_lens.model_bridge import TransformerBridge
from plain import random_prompts
from tiny_models import _SIZES, byte_tokenizer
from icl_mech.model import Edit, HookedModel
from icl_mech.model.batching import MemoryWarning
from icl_mech.progress import progress_bar

config = LlamaConfig(**{**_SIZES, "vocab_size": 200_000})
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
model.config.architectures = ["LlamaForCausalLM"]
bridge = TransformerBridge.boot_transformers(
    "tiny", hf_model=model, tokenizer=byte_tokenizer(), device="cpu", dtype=torch.float32)
model = HookedModel(bridge, "tight")
prompts = random_prompts(model, (30, 40, 20, 40) * 3)
edits = [Edit(layer, torch.ones(32)) for layer in range(4)]
answers = [1, 2, 3, 4] * 3
ask = {
    "evaluate": lambda m: m.evaluate(prompts, edits, [[a] for a in answers]).logprob,
    "one prompt": lambda m: m.evaluate(prompts[:1], edits, [[1]]).logprob,
    "gradients": lambda m: m.heads.gradients(prompts, answers)[1],
}[sys.argv[1]]
warnings.simplefilter("ignore", MemoryWarning)
torch.set_num_threads(1)
ask(HookedModel(bridge, "first use"))  # maps what libraries load when they are first used
status = Path("/proc/self/status").read_text()
size = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", status)[1])
_, most = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + int(float(sys.argv[2]) * 2**20), most))
with progress_bar(3, "runs", shown=False) as bar:
    found = ask(model)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
roomy = HookedModel(bridge, "roomy")
torch.testing.assert_close(found, ask(roomy), atol=1e-4, rtol=1e-4)
counts = [m.provenance()["batch_halvings"] for m in (model, roomy)]
print(*counts, threading.active_count())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="sizes are read from /proc")
@pytest.mark.parametrize(
    ("what", "mebibytes"), [("evaluate", 8), ("one prompt", 6), ("gradients", 16)]
)
def test_a_limit_just_above_the_weights(what: str, mebibytes: int) -> None:
    """Slices of logits shrink with the batch, and the numbers are those of a roomy run."""

    done = subprocess.run(
        [sys.executable, "-c", TIGHT, what, str(mebibytes)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | STRICT,
    )
    assert done.returncode == 0, done.stderr
    tight, roomy, threads = map(int, done.stdout.split())
    assert tight > roomy == 0
    assert threads == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("call", "limit"),
    [
        ("icl_mech.layer_scan(model, 'country_capital', 50, progress=False)", 1.5e9),
        ("icl_mech.head_attribution(model, 'country_capital', 25, 10, progress=False)", 2e9),
        ("icl_mech.patch_positions(model, 'country_capital', 25, 10, sites=('resid_pre', 'z'), "
         "roles=('demo_8_y', 'final_arrow'), direction='denoise', progress=False)", 2e9),
    ],
    ids=["layer scan, 50 prompts", "head attribution, 25 prompts", "position scan, 25 prompts"],
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
