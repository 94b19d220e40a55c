"""Whether a module is one of peft's, told without importing peft.

Importing peft takes a twentieth of a second load, and a module of peft's can only be there where
something has imported peft.
"""

import sys
from typing import Any


def is_peft_model(module: Any) -> bool:
    """Whether a module is peft's wrapper of a whole model.

    >>> is_peft_model("no model")
    False
    """
    return _is_a(module, "peft", "PeftModel")


def is_adapter_layer(module: Any) -> bool:
    """Whether a module is a layer with an adapter of peft's beside its weights.

    >>> is_adapter_layer("no module")
    False
    """
    return _is_a(module, "peft.tuners.tuners_utils", "BaseTunerLayer")


def _is_a(module: Any, where: str, name: str) -> bool:
    kind = getattr(sys.modules.get(where), name, None)
    return kind is not None and isinstance(module, kind)
