"""From a name, a folder, a file or a bridge to a `HookedModel`."""

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

from icl_mech.devices import pick_device
from icl_mech.errors import InputError, ModelError, choose, first_line
from icl_mech.model.gguf import (
    PACKAGED_MODEL,
    gguf_folder,
    packaged_folder,
    quiet_transformers,
)
from icl_mech.model.hooked import HookedModel
from icl_mech.tasks.text import check_text

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_model(
    source: str | Path | TransformerBridge = PACKAGED_MODEL,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    trust_remote_code: bool = False,
    batch_tokens: int | None = None,
) -> HookedModel:
    """Load a model to capture from and to edit.

    Args:
        source: `"gemma-3-270m"` (the packaged model, offline); a hub name, with `@revision` if
            wanted (`"EleutherAI/pythia-70m@step3000"`); a Transformers folder; a `.gguf` file;
            or a `TransformerBridge`, which is used as it is.
        device: `"cuda"`, `"mps"`, `"cpu"`, ...; by default the first of these that is there.
        dtype: of weights and activations, by name.
        trust_remote_code: let a hub model run code of its own. Off unless you trust it.
        batch_tokens: how many tokens run at once (halved by itself when memory runs out).

    Raises:
        InputError: where the source, device or dtype does not exist.
        ModelError: where a file is damaged, or the model is of a kind that cannot be edited.
    """
    if isinstance(source, TransformerBridge):
        return HookedModel(source, name=source.cfg.model_name, batch_tokens=batch_tokens)
    chosen_dtype = (
        dtype if isinstance(dtype, torch.dtype) else DTYPES[choose(dtype, DTYPES, "dtype")]
    )
    chosen_device = pick_device(device)
    check_source(source)
    name, revision = str(source), None
    with quiet_transformers():
        if name == PACKAGED_MODEL:
            location = str(packaged_folder())
        elif name.endswith(".gguf"):
            location = str(gguf_folder(_existing(Path(name))))
        elif os.path.isdir(name):  # unlike Path.is_dir, False for a name that is too long
            location = name
        else:
            location, _, at = name.partition("@")
            revision = at or None
            if not _HUB_NAME.fullmatch(location) or os.path.exists(name):
                raise InputError(
                    f"unknown model {name!r}; expected {PACKAGED_MODEL!r}, a hub name such as "
                    "'org/name' or 'org/name@revision', a Transformers folder, or a .gguf file"
                )
        bridge = _boot(location, name, revision, chosen_device, chosen_dtype, trust_remote_code)
    return HookedModel(bridge, name=name, batch_tokens=batch_tokens)


def check_source(source: str | Path) -> None:
    """Refuse, before anything is loaded or asked for, what can be no model.

    Raises:
        InputError: where a folder or file is not there, or a name is nearly the packaged model's.
    """
    name = str(source)
    check_text("model", name)
    path = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not os.path.exists(path):
        raise InputError(f"{name}: no such folder or file; expected a model")
    # A name without an owner may still be on the hub ("gpt2"), but hardly one letter away.
    elsewhere = name == PACKAGED_MODEL or os.path.exists(path) or "/" in name
    if not elsewhere and get_close_matches(name.lower(), [PACKAGED_MODEL], cutoff=0.9):
        raise InputError(f"unknown model {name!r}; did you mean {PACKAGED_MODEL!r}?")


def _boot(
    location: str,
    name: str,
    revision: str | None,
    device: torch.device,
    dtype: torch.dtype,
    trust_remote_code: bool,
) -> TransformerBridge:
    """Read weights (safetensors only) and tokenizer, and wrap them in a bridge."""
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, **options)
        model = AutoModelForCausalLM.from_pretrained(
            location, **options, dtype=dtype, use_safetensors=True, attn_implementation="eager"
        )
        return TransformerBridge.boot_transformers(
            location,
            hf_model=model.to(device).eval(),
            tokenizer=tokenizer,
            device=device,
            dtype=dtype,
        )
    except Exception as error:  # every library below raises its own kinds
        if os.path.isdir(location) or not isinstance(error, OSError):
            raise ModelError(
                f"{name}: cannot be loaded ({type(error).__name__}: {first_line(error)}); expected "
                "config.json, tokenizer.json and .safetensors weights of a causal language model "
                "that TransformerLens knows, and memory for it"
            ) from error
        raise InputError(
            f"model {name!r} cannot be loaded: it is not on this machine, and the hub has no such "
            f"model or cannot be reached ({type(error).__name__}: {first_line(error)}). "
            f"Without network use {PACKAGED_MODEL!r}, a local folder or a .gguf file"
        ) from error


def _existing(path: Path) -> Path:
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file; expected a .gguf file")
    return path
