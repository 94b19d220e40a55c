"""Reads the weights and tokenizer of a Transformers model, and explains failures in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from icl_mech.errors import InputError, ModelError, first_line
from icl_mech.model.families import refuse_config
from icl_mech.model.gguf import PACKAGED_MODEL, converted_tokenizer
from icl_mech.model.placement import Placement
from icl_mech.model.sources import Source
from icl_mech.model.weights import other_shapes, refuse_incomplete, some
from icl_mech.prompts import Sink, choose_sink


def read_config(source: Source, trust_remote_code: bool = False) -> Any:
    """Read a model's configuration, and refuse families that cannot be edited.

    Raises:
        InputError: where the model is not on this machine and cannot be reached.
        ModelError: where the files are damaged, or the family cannot be edited.
    """
    with explained(source):
        config = AutoConfig.from_pretrained(source.location, **_options(source, trust_remote_code))
        refuse_config(source.given, config)
        return config


def read_tokenizer(source: Source, trust_remote_code: bool = False) -> Any:
    """Read a model's tokenizer.

    Raises:
        InputError: where the model is not on this machine and cannot be reached.
        ModelError: where the files are damaged.
    """
    with explained(source):
        if source.converted:
            return converted_tokenizer(Path(source.location))
        return AutoTokenizer.from_pretrained(source.location, **_options(source, trust_remote_code))


def read_plain(
    source: Source,
    placement: Placement,
    *,
    trust_remote_code: bool = False,
    sink: str | int | None = None,
    attention: str = "eager",
) -> tuple[Any, Any, Sink]:
    """Read the model (safetensors only), the tokenizer, and the token that prompts begin with.

    Args:
        source: from `find`.
        placement: where the weights are put, and in which number format.
        trust_remote_code, sink: as in `load_model`.
        attention: Transformers' implementation of attention.

    Raises:
        InputError: where the model is not on this machine and cannot be reached.
        ModelError: where the files are damaged, or the family cannot be edited.
    """
    options = _options(source, trust_remote_code)
    place = source.location
    with explained(source):
        config = AutoConfig.from_pretrained(place, **options)
        refuse_config(source.given, config)
        tokenizer = read_tokenizer(source, trust_remote_code)
        chosen = choose_sink(tokenizer, sink)
        placement.refuse_too_large(source.given, Path(place), getattr(config, "dtype", None))
        read = partial(
            AutoModelForCausalLM.from_pretrained,
            place,
            **options,
            use_safetensors=True,
            attn_implementation=attention,
            output_loading_info=True,
        )
        model, found = placement.read(read)
        refuse_incomplete(source.given, found)
        return model.eval(), tokenizer, chosen


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Replace errors that libraries raise while a model is read by errors in one line.

    Raises:
        InputError: where the model is not on this machine and cannot be reached.
        ModelError: for every other error.
    """
    try:
        yield
    except (InputError, ModelError):
        raise
    except Exception as error:  # libraries raise many kinds of errors
        said = f"{type(error).__name__}: {first_line(error)}"
        if source.local and "ignore_mismatched_sizes" in str(error):
            said = f"weights of another shape: {some(_other_shapes(source.location))}"
        if source.local or not isinstance(error, OSError):
            raise ModelError(
                f"{source.given}: cannot be loaded ({said}); expected "
                "config.json, tokenizer.json and .safetensors weights of a causal language model "
                "that TransformerLens knows, and memory for it"
            ) from error
        reached = "and the hub cannot be reached" if source.offline else "and the hub has none"
        raise InputError(
            f"model {source.given!r} cannot be loaded: it is not on this machine, {reached} "
            f"({said}). Without network use {PACKAGED_MODEL!r}, a local folder or a .gguf file"
        ) from error


def _options(source: Source, trust_remote_code: bool) -> dict[str, Any]:
    return {
        "revision": source.revision,
        "trust_remote_code": trust_remote_code,
        "local_files_only": source.offline,
    }


def _other_shapes(folder: str) -> list[str]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return other_shapes(Path(folder), {k: v.shape for k, v in model.state_dict().items()})
