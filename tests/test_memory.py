"""Memory: what runs where little is left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Makes glibc return what is freed at once, so that a limit means the same on every machine.
STRICT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
}
#: Runs with little more memory than is mapped once the model is there, each in a copy of the
#: process. How many threads there are is asked at the end: one that a bar starts would never come
#: up, and be waited for.
TIGHT = """
import os, re, resource, sys, threading, warnings
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
}
warnings.simplefilter("ignore", MemoryWarning)
torch.set_num_threads(1)

def within(mebibytes, ask):
    ask(HookedModel(bridge, "first use"))  # maps what libraries load when they are first used
    status = Path("/proc/self/status").read_text()
    size = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", status)[1])
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + mebibytes * 2**20, most))
    with progress_bar(3, "runs", shown=False) as bar:
        found = ask(model)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    roomy = HookedModel(bridge, "roomy")
    torch.testing.assert_close(found, ask(roomy), atol=1e-4, rtol=1e-4)
    counts = [m.provenance()["batch_halvings"] for m in (model, roomy)]
    print(*counts, threading.active_count(), flush=True)

for what, mebibytes in (("evaluate", 8), ("one prompt", 6), ("gradients", 16)):
    if (copy := os.fork()) == 0:
        within(mebibytes, ask[what])
        os._exit(0)
    assert os.waitpid(copy, 0)[1] == 0, what
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="sizes are read from /proc")
def test_a_limit_just_above_the_weights() -> None:
    """Slices of logits shrink with the batch, and the numbers are those of a roomy run."""
    done = subprocess.run(
        [sys.executable, "-c", TIGHT],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | STRICT,
    )
    assert done.returncode == 0, done.stderr
    said = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(said) == 3
    for _, roomy, threads in said:
        assert roomy == 0
        assert threads == 1
    # The first two run within what the first use had mapped; gradients need smaller batches.
    assert said[-1][0] > 0
