"""Tells whether a module belongs to peft, without importing peft.

The import takes time, and a module of peft can only exist after something has imported peft.
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
    """Whether a module is a layer to which peft has added an adapter.

    >>> is_adapter_layer("no module")
    False
    """
    return _is_a(module, "peft.tuners.tuners_utils", "BaseTunerLayer")


def _is_a(module: Any, where: str, name: str) -> bool:
    kind = getattr(sys.modules.get(where), name, None)
    return kind is not None and isinstance(module, kind)
