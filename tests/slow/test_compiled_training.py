"""Training that is compiled: the compiler takes its time."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from icl_mech.synthetic import ModelConfig, load_checkpoint, preset, train
from icl_mech.synthetic.checkpoints import LAST

TINY = preset("tiny")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.thorough
def test_compiled_training_is_near_plain_training(tmp_path: Path) -> None:
    """In a process of its own: the tests' checks of shapes cannot be compiled."""
    one_layer = ModelConfig(1, 1, 8, init_std=0.1)
    plain = train(
        replace(TINY, n_steps=3, model=one_layer), tmp_path / "plain", device="cpu", progress=False
    )
    program = (
        "import sys; from icl_mech.synthetic import ModelConfig, preset, train\n"
        "settings = preset('tiny', n_steps=3, model=ModelConfig(1, 1, 8, init_std=0.1))\n"
        "train(settings, sys.argv[1], device='cpu', compile=True, progress=False)"
    )
    folder = tmp_path / "compiled"
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
    loss = load_checkpoint(folder / LAST).extra["loss"]
    torch.testing.assert_close(loss, plain.loss, rtol=1e-4, atol=1e-5)
