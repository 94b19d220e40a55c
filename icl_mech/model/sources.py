"""Finds the model that a name means, and checks its files before it is loaded."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import get_session
from transformers import AutoConfig
from xxhash import xxh32

from icl_mech.errors import InputError, ModelError
from icl_mech.layers import check_layer
from icl_mech.model.cache import folder_of
from icl_mech.model.gguf import PACKAGED_FOLDER, PACKAGED_MODEL, gguf_folder, packaged_folder
from icl_mech.model.gguf_reader import QuickReader
from icl_mech.model.weights import ADAPTER, CONFIG, INDEX, check_config, check_folder, check_index
from icl_mech.tasks.text import check_text

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
#: Seconds to wait for the hub's first answer. (The hub's library tries six times, with pauses.)
_PATIENCE = 5.0
#: A fingerprint reads this many bytes at each of this many places of every file of weights.
_PIECE, _PLACES = 4096, 64


@dataclass(frozen=True)
class Source:
    """Where a model is read from.

    Attributes:
        name: the model's name in results, never a path.
        given: the name as the caller wrote it, for messages.
        location: a folder, or a hub name.
        revision: of a hub model.
        offline: whether only files on this machine are read.
        converted: whether it is a folder of the cache, converted from GGUF.
    """

    name: str
    given: str
    location: str
    revision: str | None = None
    offline: bool = True
    converted: bool = False

    @property
    def local(self) -> bool:
        """Whether it is a folder on this machine."""
        return os.path.isdir(self.location)


def check_source(source: str | Path) -> None:
    """Refuse names that cannot be a model, before anything is loaded or downloaded.

    >>> check_source("gemma-3-270n")
    Traceback (most recent call last):
        ...
    icl_mech.errors.InputError: unknown model 'gemma-3-270n'; did you mean 'gemma-3-270m'?

    Raises:
        InputError: where a folder or file is not there, or a name is nearly the packaged model's.
    """
    name = str(source)
    check_text("model", name)
    path = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not os.path.exists(path):
        raise InputError(f"{name}: no such folder or file; expected a model")
    # A name without an owner may be on the hub ("gpt2"), but hardly one so close to the packaged
    # model's name.
    elsewhere = name == PACKAGED_MODEL or os.path.exists(path) or "/" in name
    if not elsewhere and get_close_matches(name.lower(), [PACKAGED_MODEL], cutoff=0.9):
        raise InputError(f"unknown model {name!r}; did you mean {PACKAGED_MODEL!r}?")


def find(source: str | Path) -> Source:
    """Find the folder (converted from GGUF if necessary) or hub name that a source means.

    Raises:
        InputError: where there is nothing of that name.
        ModelError: where `check_folder` refuses the files, or a GGUF file cannot be converted.
    """
    check_source(source)
    name = str(source)
    path = Path(name).expanduser()
    if name == PACKAGED_MODEL:
        return Source(name, name, str(packaged_folder()), converted=True)
    if path.suffix.lower() == ".gguf":
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such file; expected a .gguf file")
        given_name = f"{path.stem}-{fingerprint(path)}"
        return Source(given_name, name, str(gguf_folder(path)), converted=True)
    if os.path.isdir(path):
        check_folder(path)
        return Source(f"{path.resolve().name}-{fingerprint(path)}", name, str(path))
    location, _, revision = name.partition("@")
    if not _HUB_NAME.fullmatch(location) or os.path.exists(path):
        raise InputError(
            f"unknown model {name!r}; expected {PACKAGED_MODEL!r}, a hub name such as "
            "'org/name' or 'org/name@revision', a Transformers folder, or a .gguf file"
        )
    offline = not _hub_answers()
    _check_hub_files(location, revision or None, offline)
    return Source(name, name, location, revision or None, offline)


def label(name: str) -> str:
    """The name of a model in results: for a path, only its last part.

    >>> label("EleutherAI/pythia-70m")
    'EleutherAI/pythia-70m'
    """
    return Path(name).name if os.path.exists(Path(name).expanduser()) else name


def fingerprint(path: Path) -> str:
    """Eight hexadecimal digits that identify the weights in a file or a folder.

    They do not depend on the path. Only pieces of every file are read.
    """
    files = sorted(path.glob("*.safetensors")) if os.path.isdir(path) else [path]
    digest = xxh32()
    for file in files:
        size = file.stat().st_size
        digest.update(str(size).encode())
        with file.open("rb") as content:
            for i in range(_PLACES):
                content.seek(i * size // _PLACES)
                digest.update(content.read(_PIECE))
    return digest.hexdigest()


def _check_hub_files(location: str, revision: str | None, offline: bool) -> None:
    """Check a hub model's files as `check_folder` does. A missing model is refused later."""

    def adapter(path: Path) -> None:
        base = json.loads(path.read_text()).get("base_model_name_or_path")
        raise ModelError(
            f"{location}: holds an adapter of {base!r}, which is not a whole model; expected that "
            "model, with a folder that holds this adapter as adapter= (--adapter)"
        )

    checks: dict[str, Callable[[Path], None]] = {
        ADAPTER: adapter,
        CONFIG: check_config,
        INDEX: check_index,
    }
    for file, check in checks.items():
        try:
            path = hf_hub_download(location, file, revision=revision, local_files_only=offline)
        except (EntryNotFoundError, OSError, ValueError):
            continue
        check(Path(path))


def _hub_answers() -> bool:
    """Whether the hub can be reached; one request is made."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception:  # any failure of the network, a proxy or a certificate
        return False
    return True


def check_layer_of(source: str, layer: int | None) -> None:
    """Refuse a layer that a model does not have, if its configuration is on this machine.

    >>> check_layer_of("gemma-3-270m", 3)

    Args:
        source: as `load_model` takes it.
        layer: None is not checked.

    Raises:
        InputError: where the layer is out of range.
    """
    if layer is None:
        return
    known = n_layers(source)
    if known is not None:
        check_layer(layer, known)


def n_layers(source: str) -> int | None:
    """The number of blocks, or None if it is unknown; loading then says why.

    >>> n_layers("/no/such/model") is None
    True
    """
    path = Path(source).expanduser()
    if source == PACKAGED_MODEL:
        path = folder_of(PACKAGED_FOLDER)
    try:
        if os.path.isdir(path):
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
            return int(config.get("text_config", config)["num_hidden_layers"])
        if os.path.isfile(path):
            return _of_gguf(path)
        if source == PACKAGED_MODEL:  # not converted yet
            return None
        name, _, revision = source.partition("@")
        config = AutoConfig.from_pretrained(
            name, revision=revision or None, local_files_only=True, trust_remote_code=False
        )
        return int(config.get_text_config().num_hidden_layers)
    except Exception:  # `load_model` reports the error with its reason
        return None


def _of_gguf(path: Path) -> int:
    fields = QuickReader(path).fields
    family = fields["general.architecture"].contents()
    return int(fields[f"{family}.block_count"].contents())
