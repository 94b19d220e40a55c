"""Finds hooks that a caller has left on a bridge; they act in every run and change every result."""

from typing import Any

from torch import nn

from icl_mech.model.network import module_of

#: Libraries whose own hooks a bridge needs.
_LIBRARIES = ("transformer_lens", "transformers", "accelerate", "torch", "icl_mech")


def foreign_hooks(bridge: Any) -> list[str]:
    """The names of hook points and modules on which a caller has left hooks."""
    names = {
        str(point.name or name)
        for name, point in bridge.hook_dict.items()
        if not all(map(_is_a_bridges_own, [*point.fwd_hooks, *point.bwd_hooks]))
    }
    names |= {
        f"{name or 'the model'} (a hook of PyTorch)"
        for whole in (bridge, module_of(bridge))
        for name, module in whole.named_modules()
        if any(_is_foreign(hook) for hook in _torch_hooks(module))
    }
    return sorted(names)


def left_hooks(hooks: list[str]) -> str:
    """The warning about hooks that a caller has left.

    >>> left_hooks(["blocks.1.hook_resid_post"])[:64]
    'the bridge has hooks of its own at blocks.1.hook_resid_post: the'
    """
    more = f" and {len(hooks) - 3} more" if len(hooks) > 3 else ""
    return (
        f"the bridge has hooks of its own at {', '.join(hooks[:3])}{more}: they act in every run, "
        "and change every result. Remove them with bridge.reset_hooks(), or the handle's remove()"
    )


def _is_a_bridges_own(handle: Any) -> bool:
    """Whether TransformerLens put a hook there itself, as for the MLPs of OPT."""
    home = getattr(getattr(handle, "user_hook", None), "__module__", None) or ""
    return bool(handle.is_permanent) and home.startswith("transformer_lens.model_bridge.")


def _torch_hooks(module: nn.Module) -> list[Any]:
    return [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]


def _is_foreign(hook: Any) -> bool:
    """Whether the hook's function, or its class, is defined outside these libraries."""
    home = getattr(getattr(hook, "func", hook), "__module__", None) or type(hook).__module__
    return home.split(".")[0] not in _LIBRARIES
