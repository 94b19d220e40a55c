"""The models of a sweep: where and how each is loaded, and what identifies it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from icl_mech.errors import InputError, choose, shown
from icl_mech.sweep.measures import as_option

if TYPE_CHECKING:
    from icl_mech.model import HookedModel

#: Options on which a cell's numbers depend. (Both engines give the same numbers.)
_DECIDES = ("dtype", "sink")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """The arguments of `load_model`, for all models of a sweep or for one.

    Example:
        >>> Loading(dtype="bfloat16").dtype
        'bfloat16'
    """

    adapter: str | None = None
    """A folder with an adapter of the model in peft's format."""
    device: str | None = None
    """cuda, mps or cpu; by default the first that is there. auto spreads a model over GPUs, CPU and
    disk."""
    dtype: Literal["float32", "bfloat16", "float16", "float64", "auto"] | None = None
    """Of weights and activations; float32 by default, auto takes that of the files."""
    trust_remote_code: bool = False
    """Let hub models run their own code. Only for sources that you trust."""
    batch_tokens: int | None = None
    """Tokens that run at once."""
    sink: str | None = None
    """The token that every prompt begins with."""
    engine: Literal["auto", "shared", "plain"] = "auto"
    """shared, plain, or auto: shared where it gives the model's own numbers."""


@dataclass(frozen=True)
class ModelEntry:
    """A model of a sweep.

    Attributes:
        name: a unique name for results and files.
        source: a name, folder or file as in `load_model`. It may also be a loaded model, or a
            function that returns one; only this process can use these.
        loading: how it is loaded.
    """

    name: str
    source: "str | HookedModel | Callable[[], HookedModel]"
    loading: Loading

    @property
    def named(self) -> bool:
        """Whether another process can load it."""
        return isinstance(self.source, str)

    def load(self) -> "HookedModel":
        """Load the model.

        Raises:
            InputError: where it is not there.
            ModelError: where it is damaged or cannot be edited.
        """
        from icl_mech.model import check_model, load_model

        if isinstance(self.source, str):
            usual = vars(Loading())
            options = {n: v for n, v in vars(self.loading).items() if v != usual[n]}
            return load_model(self.source, **options)
        model: Any = self.source
        if _is_loader(model):
            model = model()
        check_model(model)
        return model

    def identity(self) -> dict[str, Any]:
        """What distinguishes it from other models of the same name, as a manifest holds it.

        Raises:
            InputError: where there is no such folder or file.
        """
        if not isinstance(self.source, str):
            if _is_loader(self.source):  # unknown before the function has loaded a model
                return {"source": "a function"}
            provenance = self.source.provenance()  # type: ignore[union-attr]
            return {n: provenance[n] for n in ("weights_sha256", "architecture", "dtype")}
        decides = {n: getattr(self.loading, n) for n in _DECIDES}
        found = {"source": _weights(self.source), **decides}
        if self.loading.adapter is not None:
            found["adapter"] = _weights(self.loading.adapter)
        return found

    def config(self) -> Any:
        """Its configuration, as `expected_cost` takes it; None for a model without a name.

        Raises:
            InputError: where the model is not there.
            ModelError: where its files are damaged, or it cannot be edited.
        """
        from icl_mech.model.plain import read_config
        from icl_mech.model.sources import find

        if isinstance(self.source, str):
            return read_config(find(self.source), self.loading.trust_remote_code)
        return None

    def tokenizer(self) -> Any:
        """The tokenizer of a model that has a name.

        Raises:
            InputError: where the model is not there.
            ModelError: where its files are damaged.
        """
        from icl_mech.model.plain import read_tokenizer
        from icl_mech.model.sources import find

        assert isinstance(self.source, str)
        return read_tokenizer(find(self.source), self.loading.trust_remote_code)


def _is_loader(source: Any) -> bool:
    """Whether it is a function that loads a model, and not a model, which may be callable too."""
    return callable(source) and not hasattr(source, "forward") and not hasattr(source, "bridge")


def _weights(source: str) -> str:
    """Identify a file or folder by its content, so that it may be moved, or a hub model by name."""
    from icl_mech.model.sources import check_source, fingerprint

    check_source(source)
    path = Path(source).expanduser()
    return f"{path.name}-{fingerprint(path)}" if path.exists() else source


def plan_models(models: Any, loading: Loading) -> list[ModelEntry]:
    """List the models of a sweep, each with a unique name.

    Args:
        models: a source, a list of sources, or a mapping from names to them. A source may be a
            mapping too, with `source`, `name` and arguments of `load_model` for this model alone.
        loading: the arguments of `load_model` for all models, unless a model has its own.

    Raises:
        InputError: where no model is given, an item is not a source, or two have the same name.

    Example:
        >>> [m.name for m in plan_models(["org/a", {"source": "b", "name": "c"}], Loading())]
        ['org/a', 'c']
    """
    if isinstance(models, Mapping) and "source" not in models:
        several = [_with_name(name, of) for name, of in models.items()]
    else:
        several = list(models) if isinstance(models, list | tuple) else [models]
    if not several:
        raise InputError("no model is named; expected at least one")
    entries: dict[str, ModelEntry] = {}
    for given in several:
        entry = _entry(given, loading)
        twin = entries.setdefault(entry.name, entry)
        if twin is not entry:
            raise InputError(
                f"two models are called {entry.name!r} ({_said(twin)} and {_said(entry)}); "
                "expected another name for one of them: a mapping from names to models, "
                "or {source: ..., name: ...}"
            )
    return list(entries.values())


def _with_name(name: Any, given: Any) -> dict[str, Any]:
    return {"name": str(name), **(given if isinstance(given, Mapping) else {"source": given})}


def _entry(given: Any, loading: Loading) -> ModelEntry:
    if isinstance(given, ModelEntry):
        return given
    options = dict(given) if isinstance(given, Mapping) else {"source": given}
    source, name = options.pop("source", None), options.pop("name", None)
    hints = get_type_hints(Loading)
    for option, value in options.items():
        choose(str(option), ["source", "name", *hints], "entry of a model")
        as_option(f"model {source}: {option}", value, hints[option])
    if isinstance(source, Path):
        source = str(source)
    if isinstance(source, str):
        name = name or _label(source)
    elif hasattr(source, "provenance"):
        name = name or source.name
    elif not _is_loader(source) or name is None:
        raise InputError(
            f"a model is {shown(source)}; expected a name, a folder or file, a loaded model, or a "
            "mapping from names to functions that load one"
        )
    return ModelEntry(str(name), source, replace(loading, **options))


def _label(source: str) -> str:
    """A model's name in a sweep: that of the hub, or the last part of a path."""
    path = Path(source).expanduser()
    return path.resolve().name if path.exists() else source


def _said(entry: ModelEntry) -> str:
    return entry.source if isinstance(entry.source, str) else "a model in memory"
