"""Checks a model's files before it is loaded, and the list of loaded weights afterwards.

Transformers fills weights that are missing from the files with random values, and ignores weights
that the model has no place for. Both would give a different model without an error.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from icl_mech.errors import ModelError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
#: The most blocks that a configuration may have. The deepest models have about 130, and building a
#: block takes milliseconds, even before the weights are read.
MOST_LAYERS = 1000
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
#: Tables in old checkpoints that a model computes itself: causal masks, frequencies.
_CONSTANT = re.compile(r"(^|\.)(attn|attention|self_attn)\.(masked_)?bias$|\binv_freq$")
_SHOWN = 5
_TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "spiece*", "merges.txt")


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are.

    >>> some(["b", "a"]), some("abcdefgh")
    ("'a', 'b'", "'a', 'b', 'c', 'd', 'e' and 3 more")
    """
    listed = sorted(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(repr(name) for name in listed[:_SHOWN]) + more


def check_config(path: Path) -> None:
    """Refuse a configuration that asks for more blocks than any model has.

    Raises:
        ModelError: naming the entry; or where the file does not hold a JSON object.
    """
    config = json_object(path)
    for entry, value in _entries(config):
        if entry in _LAYERS and isinstance(value, int) and value > MOST_LAYERS:
            raise ModelError(
                f"{path}: {entry} is {value}; expected at most {MOST_LAYERS} (the deepest models "
                "have about 130 blocks, and building more would take minutes)"
            )
    explicit = config.get("transformers_weights")
    if explicit is not None:
        _check_name(path, explicit, (".safetensors", ".safetensors.index.json"))


def check_index(path: Path) -> None:
    """Refuse an index that names anything but .safetensors files of its own folder.

    Raises:
        ModelError: naming the entry; or where the file is not an index.
    """
    files = json_object(path).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ModelError(f"{path}: no 'weight_map'; expected an index of .safetensors files")
    for file in dict.fromkeys(map(str, files.values())):
        _check_name(path, file, (".safetensors",))


def check_folder(folder: Path) -> None:
    """Check the configuration and file list of a model's folder before anything is loaded.

    Raises:
        ModelError: where it holds an adapter instead of a model, or no tokenizer, and as
            `check_config` and `check_index` do.
    """
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"{folder}: holds an adapter ({ADAPTER}), which is not a whole model; expected the "
            "model that it was trained on, with this folder as adapter= (--adapter): "
            "load_model(base, adapter=folder)"
        )
    for name, check in ((CONFIG, check_config), (INDEX, check_index)):
        if (folder / name).exists():
            check(folder / name)
    if not any(file for pattern in _TOKENIZERS for file in folder.glob(pattern)):
        raise ModelError(
            f"{folder}: holds no tokenizer; expected tokenizer.json and tokenizer_config.json "
            "beside the weights: tokenizer.save_pretrained writes them"
        )


def refuse_incomplete(name: str, found: Mapping[str, Any]) -> None:
    """Refuse a model with missing weights, and files with weights that it has no place for.

    >>> refuse_incomplete("tiny", {"unexpected_keys": [], "missing_keys": []})

    Args:
        name: of the model, for the message.
        found: the report of `from_pretrained(..., output_loading_info=True)`. Tied weights, which a
            file holds once, do not count as missing.

    Raises:
        ModelError: naming the weights.
    """
    unused = [key for key in found["unexpected_keys"] if not _CONSTANT.search(key)]
    faults = [
        f"{what}: {some(names)}"
        for what, names in (
            ("weights that are missing", found["missing_keys"]),
            ("weights that the model has no place for", unused),
        )
        if names
    ]
    if faults:
        raise ModelError(
            f"{name}: cannot be loaded: {'; '.join(faults)}. Expected all weights of the model "
            "that config.json describes, and no others"
        )


def other_shapes(folder: Path, expected: Mapping[str, Sequence[int]]) -> list[str]:
    """Weights in a folder's files whose shapes differ from those of the model."""
    found = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (no mapping)
                shape = list(weights.get_slice(name).get_shape())
                if name in expected and list(expected[name]) != shape:
                    found.append(f"{name} {shape}, not {list(expected[name])}")
    return found


def _check_name(path: Path, file: object, endings: tuple[str, ...]) -> None:
    """Refuse a file name outside the folder, or of another kind than the `endings`."""
    plain = isinstance(file, str) and not re.search(r"[\\\0:]", file) and file[:1] not in ("/", "~")
    if not plain or ".." in str(file).split("/") or not str(file).endswith(endings):
        raise ModelError(
            f"{path}: names the file {file!r}; expected .safetensors files inside the model's "
            "folder (others may run code when they are opened)"
        )


def json_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        ModelError: where it cannot be read, or holds anything else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path}: cannot be read ({type(error).__name__}); expected JSON"
        ) from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds no JSON object; expected one")
    return found


def _entries(value: object) -> Iterable[tuple[str, object]]:
    """All entries of a JSON object, and of the objects inside it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _entries(inner)
