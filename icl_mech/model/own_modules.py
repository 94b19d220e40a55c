"""Runs a block's own Transformers modules without the bridge's wrappers.

A bridge replaces each module of a block by a component with hook points, and computes attention
step by step so that its inside can be hooked. If no hook is set inside a module, the module itself
gives the same numbers in less time. So every block gets a twin: copies of the modules that contain
others (the block, its attention, its MLP), with Transformers' own modules instead of the
components. All weights are shared. Hooks on the input or output of a module (`hook_resid_pre`,
`hook_z`, `hook_attn_out`, ...) are called there.

`OwnModules.of` decides which blocks can have a twin, `OwnModules.watched` decides when the twin may
run, and `verification.verify` checks that it gives the model's numbers.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from operator import is_
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from icl_mech.model.attention import NAME, Context
from icl_mech.model.norms import quicker

#: Attributes of a module that hold its hooks, including TransformerLens's hooks on a hook point.
_KEPT = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Place(NamedTuple):
    """A hook point, and the module whose input (`before`) or output it receives."""

    point: HookPoint
    module: nn.Module
    before: bool


class OwnModules:
    """The twin of one block.

    Attributes:
        module: the block as a Transformers module.
        attends: whether its attention is `attention.attend`, which handles prefix and branches
            separately.
    """

    def __init__(self, block: Any, attends: bool) -> None:
        self._block = block
        self._places: list[Place] = []
        self._twins: dict[int, Any] = {}
        self.module = self._own(block)
        attention: Any = self._twins.get(id(block.attn.original_component))
        self.attends = attends and hasattr(attention, "config")
        if self.attends:
            attention.config = _Config(attention.config)
        self._attention = attention
        places = {id(place.point) for place in self._places}
        self._others = [
            module
            for module in block.modules()
            if isinstance(module, HookPoint | GeneralizedComponent) and id(module) not in places
        ]
        # The modules' own dictionaries: a hundred modules are asked for hooks before every run.
        self._hooks_of_others = [hooks for module in self._others for hooks in _hooks_of(module)]
        self._hooks_of_places = [(place, _hooks_of(place.point)) for place in self._places]
        self._unhooked_at = -1

    @staticmethod
    def of(block: Any, attends: bool) -> "OwnModules | None":
        """The twin of a block, or None if it cannot have one.

        It has none if the block holds weights that Transformers' own modules do not have (processed
        ones), or a module whose `forward` was replaced (by accelerate, to fetch weights).
        """
        if any("forward" in vars(module) for module in block.modules()):
            return None
        made = OwnModules(block, attends)
        known = {_storage(parameter) for parameter in made.module.parameters()}
        if any(_storage(parameter) not in known for parameter in block.parameters()):
            return None
        return made

    def watched(self) -> list[Place] | None:
        """Where hooks are set; None if the twin must not run.

        It must not run if a hook is set on anything but the input or output of one of its modules,
        or on one whose shape the bridge's block records as it runs (OPT's, which puts all tokens in
        a row).
        """
        # Torch numbers the hooks of a process. Where no new one was set since this block had none,
        # it has none.
        newest = RemovableHandle.next_id
        if newest == self._unhooked_at:
            return []
        hooked = [place for place, hooks in self._hooks_of_places if any(hooks)]
        watched = [place for place in hooked if self._is_watched(place.point)]
        if any(_shape_is_noted(place.point) for place in watched):
            return None
        if any(self._hooks_of_others) and any(map(self._is_watched, self._others)):
            return None
        if not watched:
            self._unhooked_at = newest
        return watched

    def run(
        self,
        hidden: Tensor,
        arguments: dict[str, Any],
        context: Context,
        watched: Sequence[Place],
    ) -> Any:
        """What the block returns, with hooks called at the places that `watched` found."""
        with ExitStack() as stack:
            for point, module, before in watched:
                if before:
                    handle = module.register_forward_pre_hook(_enter(point), with_kwargs=True)
                else:
                    handle = module.register_forward_hook(_leave(point))
                stack.callback(handle.remove)
            if self.attends:
                self._attention.context = context
                stack.callback(delattr, self._attention, "context")
            return self.module(hidden, **arguments)

    def _own(self, module: Any) -> Any:
        """A copy of a module with no components in it, or the module itself if it has none."""
        if isinstance(module, GeneralizedComponent):
            own = self._own(module.original_component)
            self._places += [
                Place(module.hook_in, own, True),
                Place(module.hook_out, own, False),
            ]
            return own
        inside = {name: self._own(child) for name, child in module.named_children()}
        if all(getattr(module, name) is child for name, child in inside.items()):
            return quicker(module)
        twin = copy.copy(module)  # shares parameters, buffers and hooks
        vars(twin)["_modules"] = {**module._modules, **inside}
        self._twins[id(module)] = twin
        return twin

    def _is_watched(self, module: nn.Module) -> bool:
        """Whether there are hooks on a module, except those that TransformerLens sets itself."""
        wiring = {handle.id for handle in getattr(self._block, "_capture_hook_handles", ())}
        return any(number not in wiring for hooks in _hooks_of(module) for number in hooks)


def _shape_is_noted(point: Any) -> bool:
    """Whether the activations of a hook point get a shape that the block recorded."""
    return hasattr(getattr(point, "hook_conversion", None), "batch_seq")


def _hooks_of(module: nn.Module) -> list[dict[int, Any]]:
    """A module's hooks by their number, forward and backward, before it runs and after."""
    return [getattr(module, kept) for kept in _KEPT]


class Parts:
    """All modules, weights and replaced `forward` methods of a block.

    If they change, the block's twin is out of date.
    """

    def __init__(self, block: nn.Module) -> None:
        found: dict[int, Any] = {}
        left: list[Any] = [block]
        while left:
            module = left.pop()
            if module is not None and id(module) not in found:
                found[id(module)] = module
                left += module._modules.values()
        # Most modules of a bridge are hook points, which hold nothing that could be replaced.
        others = (module for module in found.values() if not isinstance(module, HookPoint))
        self._found = [(vars(module), _inside(vars(module))) for module in others]

    def same(self) -> bool:
        """Whether all parts are still the same objects."""
        for here, then in self._found:
            now = _inside(here)
            if len(then) != len(now) or not all(map(is_, then, now)):
                return False
        return True


def _inside(here: dict[str, Any]) -> tuple[Any, ...]:
    """A module's direct children, its weights, and its replaced `forward` (or None)."""
    return (*here["_modules"].values(), *here["_parameters"].values(), here.get("forward"))


class _Config:
    """An attention module's configuration that selects `attention.attend`."""

    _attn_implementation = NAME

    def __init__(self, config: Any) -> None:
        self._theirs = config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)


def _storage(parameter: Tensor) -> int:
    return parameter.untyped_storage().data_ptr()


def _enter(point: HookPoint) -> Callable[..., Any]:
    """A hook that passes a module's input through a hook point, and continues with its result."""

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (point(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": point(kwargs["hidden_states"])}

    return enter


def _leave(point: HookPoint) -> Callable[..., Any]:
    """A hook that passes a module's output through a hook point, and continues with its result."""

    def leave(module: nn.Module, args: Any, out: Any) -> Any:
        return (point(out[0]), *out[1:]) if isinstance(out, tuple) else point(out)

    return leave
