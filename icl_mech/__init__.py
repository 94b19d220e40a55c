"""icl-mech: where does in-context learning form its task vector, and where is it decoded?"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_mech.errors import IclMechError, InputError, ModelError
    from icl_mech.model import Edit, HookedModel, load_model
    from icl_mech.patch import LayerScan, layer_scan
    from icl_mech.results import Result, load_result
    from icl_mech.tasks import Task, list_tasks, load_task

__version__ = version("icl-mech")

# Loaded on first use: `import icl_mech` and `--help` do not wait for torch.
_HOMES = {
    "IclMechError": "errors",
    "InputError": "errors",
    "ModelError": "errors",
    "Edit": "model",
    "HookedModel": "model",
    "load_model": "model",
    "LayerScan": "patch",
    "layer_scan": "patch",
    "Result": "results",
    "load_result": "results",
    "Task": "tasks",
    "list_tasks": "tasks",
    "load_task": "tasks",
}
__all__ = [
    "Edit",
    "HookedModel",
    "IclMechError",
    "InputError",
    "LayerScan",
    "ModelError",
    "Result",
    "Task",
    "layer_scan",
    "list_tasks",
    "load_model",
    "load_result",
    "load_task",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'icl_mech' has no attribute {name!r}")
    return getattr(import_module(f"icl_mech.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
