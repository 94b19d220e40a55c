"""Reads and checks low-rank adapters in peft's own format, and merges them into a model's weights.

Only JSON and safetensors files are opened. An adapter says little about the model that it was
trained on (its base). So the names and shapes of its weights are compared with the model's. If
`icl_mech.finetune` wrote the adapter, a file beside it also holds a hash of the base's weights.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.pytorch_utils import Conv1D

from icl_mech.errors import InputError, ModelError, first_line
from icl_mech.model.sources import fingerprint, label
from icl_mech.model.weights import ADAPTER, json_object, some
from icl_mech.tasks.text import as_path

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
#: The file that icl-mech writes beside an adapter; it says which weights it was trained on.
RECORD = "icl_mech.json"
_MAP = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")
_BLOCK = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Adapter:
    """A description of an adapter's folder; the weights are not loaded yet.

    Attributes:
        folder: the path of the folder.
        name: the adapter's name in results: that of the folder, with a checksum of the weights.
        rank, alpha: of LoRA, which adds alpha / rank times B A to a weight.
        targets: last names of the linear maps that it changes, such as `"q_proj"`.
        layers: the blocks that it changes.
        base: the name of the model that it was trained on, if peft recorded one.
        base_hash: the hash of that model's weights (`base_hash`), if icl-mech recorded it.
        shapes: the shape of every weight in its file.
    """

    folder: Path
    name: str
    rank: int
    alpha: int | float
    targets: tuple[str, ...]
    layers: tuple[int, ...]
    base: str | None
    base_hash: str | None
    shapes: Mapping[str, tuple[int, ...]]


def read_adapter(folder: str | Path) -> Adapter:
    """Check an adapter's files; no weight is loaded.

    >>> read_adapter("no-such-folder")
    Traceback (most recent call last):
        ...
    icl_mech.errors.InputError: adapter no-such-folder: no such folder; expected ...

    Raises:
        InputError: where there is no such folder, or it holds no adapter.
        ModelError: where the adapter is pickled (which may run code when it is opened), damaged,
            or of another kind than LoRA.
    """
    path = as_path("an adapter", folder).expanduser()
    if not os.path.isdir(path):
        raise InputError(
            f"adapter {path}: no such folder; expected one with {ADAPTER} and {ADAPTER_WEIGHTS}"
        )
    _check_files(path)
    config, shapes = json_object(path / ADAPTER), _shapes(path / ADAPTER_WEIGHTS)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ModelError(
            f"adapter {path}: of kind {kind!r}; expected 'LORA', whose weights can be merged"
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise ModelError(
            f"adapter {path}: {ADAPTER} has r = {rank!r}, lora_alpha = {alpha!r}; expected numbers"
        )
    maps = [found[1] for name in shapes if (found := _MAP.fullmatch(name))]
    if not maps:
        raise ModelError(
            f"adapter {path}: {ADAPTER_WEIGHTS} holds no LoRA weights; expected names such as "
            "'base_model.model.....lora_A.weight'"
        )
    blocks = {int(found[1]) for name in maps if (found := _BLOCK.search(name))}
    base, record = config.get("base_model_name_or_path"), path / RECORD
    return Adapter(
        folder=path,
        name=f"{path.resolve().name}-{fingerprint(path / ADAPTER_WEIGHTS)}",
        rank=rank,
        alpha=alpha,
        targets=tuple(sorted({name.rpartition(".")[2] for name in maps})),
        layers=tuple(sorted(blocks)),
        base=label(str(base)) if base else None,
        base_hash=json_object(record).get("base_hash") if record.exists() else None,
        shapes=shapes,
    )


def _check_files(path: Path) -> None:
    """Refuse a folder that lacks a file of an adapter.

    Raises:
        InputError: where the folder holds no adapter; the message names a subfolder that does.
        ModelError: where the weights are missing or pickled.
    """
    if not (path / ADAPTER).exists():
        inside = sorted(file.parent.name for file in path.glob(f"*/{ADAPTER}"))
        hint = f"; did you mean {str(path / inside[-1])!r}?" if inside else ""
        raise InputError(f"adapter {path}: holds no {ADAPTER}{hint or '; expected an adapter'}")
    if not (path / ADAPTER_WEIGHTS).exists():
        why = f"holds no {ADAPTER_WEIGHTS}"
        if (path / PICKLED).exists():
            why = f"its weights are pickled ({PICKLED}), which may run code when they are opened"
        raise ModelError(
            f"adapter {path}: {why}; expected {ADAPTER_WEIGHTS} "
            "(peft: save_pretrained writes it by default)"
        )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="pt") as weights:
            names = list(weights.keys())
            return {name: tuple(weights.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: damaged ({first_line(error)}); expected safetensors weights of an adapter"
        ) from error


def base_hash(model: nn.Module) -> str:
    """sha256 over the names, shapes and values of a plain model's weights, rounded to bfloat16.

    The rounding makes the hash the same for a model loaded in float32 and in bfloat16.

    >>> import torch
    >>> one = torch.nn.Linear(2, 2)
    >>> base_hash(one) == base_hash(torch.nn.Linear(2, 2).bfloat16())  # another one
    False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous().view(-1)
        digest.update(rounded.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def merge_adapter(model: Any, adapter: Adapter, base: str) -> tuple[Any, dict[str, Any]]:
    """Add an adapter to a plain model's weights, in the model's own number format.

    Args:
        model: a model of Transformers; it is changed.
        adapter: from `read_adapter`.
        base: the name of the model.

    Returns:
        The merged model, and the entry about the adapter for the provenance.

    Raises:
        InputError: where the model is quantised or lies on several devices.
        ModelError: where the adapter was trained on another model, or holds numbers that are not
            finite.
    """
    refuse_unmergeable(model, base)
    faults = _misfits(model, adapter)
    if faults:
        trained = f", which was trained on {adapter.base!r}" if adapter.base else ""
        raise ModelError(
            f"adapter {adapter.folder}{trained}: does not fit {base}: {some(faults)}; expected an "
            f"adapter of {base}, or its own model"
        )
    compared = _compare(model, adapter, base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of Transformers, to peft
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        try:
            from peft import PeftModel

            merged = PeftModel.from_pretrained(model, str(adapter.folder)).merge_and_unload(
                safe_merge=True
            )
        except Exception as error:  # peft raises all kinds
            raise ModelError(
                f"adapter {adapter.folder}: cannot be merged into {base} "
                f"({type(error).__name__}: {first_line(error)}); expected one that was trained on "
                "it, with finite weights"
            ) from error
    # peft freezes the weights. Make them trainable again, as in a model without an adapter.
    merged.requires_grad_(True)
    recorded = {
        "name": adapter.name,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "targets": list(adapter.targets),
        "layers": list(adapter.layers),
        "base": base,
        "base_as_recorded": adapter.base,
        "base_weights_compared": compared,
    }
    return merged.eval(), recorded


def refuse_unmergeable(model: Any, base: str) -> None:
    """Refuse models to whose weights peft cannot add an adapter exactly.

    >>> refuse_unmergeable(torch.nn.Linear(2, 2), "tiny")

    Raises:
        InputError: where the model is quantised, or lies on several devices.
    """
    config = getattr(model, "config", None)
    if getattr(model, "is_quantized", False) or getattr(config, "quantization_config", None):
        raise InputError(
            f"{base} is quantised; expected full-precision weights: peft adds an adapter to "
            "quantised ones with rounding, or not at all"
        )
    places = set(map(str, (getattr(model, "hf_device_map", None) or {}).values()))
    if len(places) > 1 or places & {"disk", "meta"}:
        raise InputError(
            f"{base} lies on several devices ({', '.join(sorted(places))}); expected one: peft "
            "adds adapters to weights that are all there"
        )


def _misfits(model: nn.Module, adapter: Adapter) -> list[str]:
    """Describe an adapter's weights that fit no linear map of the model, by name or by shape."""
    maps = dict(model.named_modules())
    faults = []
    for name, shape in adapter.shapes.items():
        found = _MAP.fullmatch(name)
        if found is None:  # not a LoRA weight: peft reports it if it does not fit
            continue
        module = maps.get(found[1])
        if module is None:
            faults.append(f"{found[1]} is not in the model")
            continue
        sizes = linear_sizes(module)
        if sizes is None:
            continue
        ours, theirs = (sizes[0], shape[-1]) if found[2] == "A" else (sizes[1], shape[0])
        if ours != theirs:
            side = "reads" if found[2] == "A" else "writes"
            faults.append(f"{found[1]} {side} {ours} numbers, not {theirs}")
    return faults


def linear_sizes(module: nn.Module) -> tuple[int, int] | None:
    """The input and output widths of a linear map; None if the module is not one.

    >>> linear_sizes(nn.Linear(2, 3)), linear_sizes(Conv1D(3, 2)), linear_sizes(nn.GELU())
    ((2, 3), (2, 3), None)
    """
    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.weight.shape[1]
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else None


def _compare(model: Any, adapter: Adapter, base: str) -> bool:
    """Compare the model's weights with those that the adapter was trained on, by their hash.

    Returns:
        Whether the weights could be compared.

    Raises:
        ModelError: where they differ.
    """
    dtypes = {p.dtype for p in model.parameters()}
    if adapter.base_hash is None or torch.float16 in dtypes:  # float16 has a smaller range
        if adapter.base is not None and _bare(adapter.base) != _bare(base):
            warnings.warn(
                f"adapter {adapter.name} says that it was trained on {adapter.base!r}, and {base} "
                "cannot be compared with that (its folder holds no hash of the weights): it fits "
                "by names and shapes",
                stacklevel=5,
            )
        return False
    if base_hash(model) != adapter.base_hash:
        raise ModelError(
            f"adapter {adapter.folder}: was trained on other weights than those of {base} (on "
            f"{adapter.base!r}); expected the same model"
        )
    return True


def _bare(name: str) -> str:
    """The name of a model without its owner and revision."""
    return name.partition("@")[0].rpartition("/")[2]


def write_record(folder: Path, values: Mapping[str, Any]) -> None:
    """Write icl-mech's own file beside an adapter."""
    (folder / RECORD).write_text(json.dumps(dict(values), indent=1), encoding="utf-8")


def is_adapter(folder: Path) -> bool:
    """Whether a folder has the configuration file of an adapter.

    >>> is_adapter(Path("no-such-folder"))
    False
    """
    return (folder / ADAPTER).exists()
