"""How many blocks a model has, read from its configuration without its weights."""

import json
from pathlib import Path

from gguf import GGUFReader
from transformers import AutoConfig

from icl_mech.layers import check_layer
from icl_mech.model.cache import folder_of
from icl_mech.model.gguf import PACKAGED_FOLDER, PACKAGED_MODEL


def check_layer_of(source: str, layer: int | None) -> None:
    """Refuse a layer that a model does not have, where its configuration is already on disk.

    >>> check_layer_of("gemma-3-270m", 3)

    Args:
        source: as `load_model` takes it.
        layer: None for none in particular.

    Raises:
        InputError: where the layer is out of range.
    """
    if layer is None:
        return
    known = n_layers(source)
    if known is not None:
        check_layer(layer, known)


def n_layers(source: str) -> int | None:
    """The number of blocks, or None where it cannot be told: loading will say why.

    >>> n_layers("/no/such/model") is None
    True
    """
    path = Path(source).expanduser()
    if source == PACKAGED_MODEL:
        path = folder_of(PACKAGED_FOLDER)
    try:
        if path.is_dir():
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
            return int(config.get("text_config", config)["num_hidden_layers"])
        if path.is_file():
            return _of_gguf(path)
        if source == PACKAGED_MODEL:  # not converted yet
            return None
        name, _, revision = source.partition("@")
        config = AutoConfig.from_pretrained(
            name, revision=revision or None, local_files_only=True, trust_remote_code=False
        )
        return int(config.get_text_config().num_hidden_layers)
    except Exception:  # whatever is wrong with it is said, with its reason, by `load_model`
        return None


def _of_gguf(path: Path) -> int:
    fields = GGUFReader(path).fields
    family = fields["general.architecture"].contents()
    return int(fields[f"{family}.block_count"].contents())
