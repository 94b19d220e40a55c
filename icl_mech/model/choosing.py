"""Chooses the engine that runs a model."""

from typing import Any, Literal, get_args

from icl_mech.errors import choose
from icl_mech.model.blocks import ReplayError
from icl_mech.model.engine import Engine
from icl_mech.model.network import context_length, trains
from icl_mech.model.plain_engine import PlainEngine
from icl_mech.model.shared_engine import SharedEngine
from icl_mech.model.verification import STEP

EngineName = Literal["auto", "shared", "plain"]
ENGINES: tuple[str, ...] = get_args(EngineName)
#: The length of the prompt on which a new engine is tried. Shorter prompts then need no second
#: check, which would delay the first figure.
TRIED = 2 * STEP


def check_engine(engine: str) -> None:
    """Refuse the name of an unknown engine.

    >>> check_engine("plane")
    Traceback (most recent call last):
        ...
    icl_mech.errors.InputError: unknown engine 'plane'; did you mean 'plain'? Choose from: ...
    """
    choose(engine, ENGINES, "engine")


def choose_engine(
    bridge: Any, wanted: str = "auto", batch_tokens: int | None = None
) -> tuple[Engine, str]:
    """Choose the engine for a model and try it; return it with the reason for the choice.

    The engine is not tried on a model in training mode, which is refused when it first runs.

    Args:
        bridge: the TransformerLens model.
        wanted: `"shared"`, `"plain"`, or `"auto"`: shared if it gives the numbers of an ordinary
            forward pass, otherwise plain.
        batch_tokens: as in `load_model`.

    Raises:
        ModelError: where the wanted engine does not fit the model.
    """
    check_engine(wanted)
    if wanted == "plain":
        return _tried(PlainEngine(bridge, batch_tokens)), "asked for"
    try:
        engine = _tried(SharedEngine(bridge, batch_tokens))
    except ReplayError as error:
        if wanted == "shared":
            raise
        return _tried(PlainEngine(bridge, batch_tokens)), error.why
    if wanted == "shared":
        return engine, "asked for"
    return engine, "block by block it gives the numbers of an ordinary forward pass"


def _tried(engine: Engine) -> Engine:
    if not trains(engine.bridge):
        engine.prepare(min(TRIED, context_length(engine.bridge) or TRIED))
    return engine
