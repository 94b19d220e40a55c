"""Loads a `HookedModel` from a name, a folder, a file or a bridge."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from icl_mech.devices import pick_device
from icl_mech.errors import InputError
from icl_mech.model.adapters import Adapter, merge_adapter, read_adapter
from icl_mech.model.bridging import as_bridge, bridge_round, refuse_other_tokenizer
from icl_mech.model.choosing import EngineName, check_engine, choose_engine
from icl_mech.model.foreign import foreign_hooks, left_hooks
from icl_mech.model.gguf import PACKAGED_MODEL, quiet_transformers
from icl_mech.model.hooked import HookedModel
from icl_mech.model.network import device_of, module_of
from icl_mech.model.placement import MaxMemory, Placement, number_format
from icl_mech.model.plain import explained, read_plain
from icl_mech.model.precision import MatmulPrecision, check_precision, measured
from icl_mech.model.sources import Source, find, label
from icl_mech.progress import say
from icl_mech.prompts import Sink, choose_sink
from icl_mech.prompts.sink import prepends_bos


def load_model(
    source: str | Path | nn.Module = PACKAGED_MODEL,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    adapter: str | Path | None = None,
    device: str | torch.device | None = None,
    max_memory: MaxMemory | None = None,
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
    batch_tokens: int | None = None,
    sink: str | int | None = None,
    engine: EngineName = "auto",
    matmul_precision: MatmulPrecision = "highest",
) -> HookedModel:
    """Load a model whose activations can be captured and edited.

    Results name a folder or file by its stem and a checksum of its weights, never by its path.

    >>> icl_mech.load_model("no-such-model/")
    Traceback (most recent call last):
        ...
    icl_mech.errors.InputError: ...
    >>> model  # as icl_mech.load_model() gives it
    HookedModel('gemma-3-270m', 18 layers, 4 heads, d_model 640, torch.float32 on ...)

    Args:
        source: `"gemma-3-270m"` (the packaged model, offline); a hub name, with `@revision` if
            wanted (`"EleutherAI/pythia-70m@step3000"`); a Transformers folder; a `.gguf` file.
            Or a model object, which is used as it is: a `TransformerBridge`; a `HookedTransformer`
            of TransformerLens 3; or a model of Transformers, which may be quantised, dispatched
            over devices, or have peft's adapters. A bridge is built around the latter, and its
            modules become part of that bridge.
        tokenizer: of a model of Transformers; the other sources have their own.
        adapter: a folder in peft's format (`adapter_config.json`, `adapter_model.safetensors`),
            such as a checkpoint of `icl_mech.finetune`. It is merged into the weights, so that
            everything runs on the adapted model. Results name it after the model, with a checksum.
        device: `"cuda"`, `"mps"`, `"cpu"`, ...; by default the first of these that is available.
            `"auto"` spreads a model over all GPUs, then the CPU, then disk (accelerate), so that it
            may be larger than one device.
        max_memory: with `device="auto"`, the most memory of each device that weights may take, as
            in Transformers: `{0: "20GB", "cpu": "60GB"}`.
        dtype: of weights and activations, by name; `"float32"` by default, `"auto"` for that of the
            files.
        trust_remote_code: let a hub model run code of its own. Off unless you trust it.
        batch_tokens: the number of tokens that run at once; halved whenever memory runs out.
        sink: the token that every prompt begins with, as text or id. By default it is BOS if the
            tokenizer itself prepends it, otherwise the end-of-text token.
        engine: `"shared"` runs what prompts and edits share only once, and needs a model whose
            blocks can run one at a time. `"plain"` runs a full forward pass for every edit, and
            fits every family. `"auto"` uses shared if it gives the numbers of an ordinary forward
            pass; otherwise it uses plain, and says so on stderr.
        matmul_precision: precision of float32 matrix products in everything that the engine runs,
            as in `torch.set_float32_matmul_precision`. Torch's own setting is ignored and left
            unchanged. `"medium"` multiplies in bfloat16 (on a CPU with AMX or AVX-512 BF16) or TF32
            (on an NVIDIA GPU) and sums in float32. `"high"` uses TF32, which changes nothing on a
            CPU. The error is measured on the model, printed on stderr, and added to every result
            as a caveat.

    Raises:
        InputError: where an argument names nothing that exists, a model object has another device
            or dtype than the one asked for, or an adapter is given with a model object.
        ModelError: where a file is damaged, weights are missing or left over, the adapter is of
            another model, or the model cannot be edited (at all, or with this engine).

    Example:
        >>> model.n_layers, model.d_model  # model = icl_mech.load_model("gemma-3-270m")
        (18, 640)
    """
    check_engine(engine)
    check_precision(matmul_precision)
    if isinstance(source, nn.Module):
        if adapter is not None:
            raise InputError(
                f"adapter= beside a {type(source).__name__}; expected the name or folder of its "
                "model, or the model with the adapter already in it"
            )
        _refuse_other_place(source, device, dtype)
        bridge = as_bridge(source, tokenizer)
        return _wrap(bridge, batch_tokens, sink, engine, matmul_precision)
    if tokenizer is not None:
        raise InputError(
            "tokenizer= beside a model's name; expected it beside a model of Transformers only: a "
            "name or folder comes with its tokenizer"
        )
    placement = Placement.of(device, dtype, max_memory)
    check_precision(matmul_precision, number_format(dtype))
    if adapter is not None and placement.device is None:
        raise InputError("adapter= with device='auto'; expected one device, on which it is merged")
    read = None if adapter is None else read_adapter(adapter)
    with quiet_transformers():
        found = find(source)
        bridge, chosen_sink, merged = _boot(found, placement, trust_remote_code, sink, read)
    name = found.name if read is None else f"{found.name}+{read.name}"
    return _finished(bridge, name, batch_tokens, chosen_sink, engine, matmul_precision, merged)


def _refuse_other_place(
    model: nn.Module, device: str | torch.device | None, dtype: str | torch.dtype | None
) -> None:
    """Raise InputError where a model has another device or dtype than the one asked for."""
    if device is None and dtype is None:
        return
    here, number = device_of(model), next(module_of(model).parameters()).dtype
    wanted = here if device in (None, "auto") else pick_device(device)
    same_device = wanted.type == here.type and wanted.index in (None, here.index)
    if number_format(dtype) not in (None, "auto", number) or not same_device:
        raise InputError(
            f"the {type(model).__name__} is {number} on {here}, and is used as it is; expected no "
            "dtype= or device= beside it, or the same: use .to(...) first"
        )


def _wrap(
    bridge: Any,
    batch_tokens: int | None,
    sink: str | int | None,
    engine: str,
    precision: MatmulPrecision,
) -> HookedModel:
    """Make a `HookedModel` of a bridge that the caller made, without changing the bridge."""
    chosen = choose_sink(bridge.tokenizer, sink, _publishes_bos(bridge.tokenizer))
    name = label(bridge.cfg.model_name)
    model = _finished(bridge, name, batch_tokens, chosen, engine, precision)
    hooks = foreign_hooks(bridge)
    if hooks:
        warnings.warn(left_hooks(hooks), stacklevel=3)
    return model


def _publishes_bos(tokenizer: Any) -> bool:
    """Whether the published tokenizer prepends BOS (TransformerLens may have changed this one)."""
    if not prepends_bos(tokenizer):
        return False
    try:
        original = AutoTokenizer.from_pretrained(tokenizer.name_or_path, local_files_only=True)
    except Exception:  # made in memory, or not on this machine: judge by this tokenizer
        return True
    return prepends_bos(original)


def _finished(
    bridge: Any,
    name: str,
    batch_tokens: int | None,
    sink: Sink,
    engine: str,
    precision: MatmulPrecision,
    adapter: dict[str, Any] | None = None,
) -> HookedModel:
    """The model with its engine; prints or warns of choices that a user should know about."""
    refuse_other_tokenizer(name, bridge.tokenizer, int(bridge.unembed.W_U.shape[1]), sink.token)
    chosen, reason = choose_engine(bridge, engine, batch_tokens)
    check_precision(precision, chosen.dtype)
    chosen.precision = measured(bridge, precision)
    model = HookedModel(bridge, name, batch_tokens, sink, adapter, chosen, reason)
    if engine == "auto" and model.engine == "plain":
        say(f"{name}: the plain engine runs it, a full forward pass for every edit ({reason})")
    if model.precision.note:
        say(f"{name}: {model.precision.note}")
    if sink.rival is not None:
        warnings.warn(
            f"prompts begin with {model.to_string(sink.token)!r} ({sink.reason}: "
            f"{model.to_string(sink.rival)!r}); sink= chooses another",
            stacklevel=4,
        )
    return model


def _boot(
    source: Source,
    placement: Placement,
    trust_remote_code: bool,
    sink: str | int | None,
    adapter: Adapter | None,
) -> tuple[Any, Sink, dict[str, Any] | None]:
    """Read the model, merge an adapter into it, and wrap it in a bridge.

    Returns:
        The bridge, the sink, and the entry about the adapter for the provenance.
    """
    model, tokenizer, chosen = read_plain(
        source, placement, trust_remote_code=trust_remote_code, sink=sink
    )
    merged = None
    if adapter is not None:
        model, merged = merge_adapter(model, adapter, source.name)
    with explained(source):
        bridge = bridge_round(model, tokenizer, source.name)
    return bridge, chosen, merged
