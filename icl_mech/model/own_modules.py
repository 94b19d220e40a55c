"""A block's own Transformers modules, run without the bridge's wrappers.

A bridge puts a component with hook points in the place of each module of a block, and writes
attention out so that its inside can be hooked. Where nothing watches the inside of a module, the
module itself gives the same numbers in less time. So every block gets a twin: copies of the modules
that have others in them (the block, its attention, its MLP), with Transformers' own modules in the
place of the components. All weights are shared. What watches the input or the output of a module
(`hook_resid_pre`, `hook_z`, `hook_attn_out`, ...) is called there.

`OwnModules.of` says of which blocks there may be a twin, `OwnModules.running` when it may run, and
`verification.verify` whether it gives the model's numbers.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from operator import is_
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from icl_mech.model.attention import NAME, Context

#: Where a module keeps its hooks; TransformerLens's hooks on a hook point are among them.
_KEPT = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Place(NamedTuple):
    """A hook point, and the module whose input or output it shows."""

    point: HookPoint
    module: nn.Module
    before: bool


class OwnModules:
    """The twin of one block.

    Attributes:
        module: Transformers' modules, from the block down.
        attends: whether its attention is that of `attention.attend`, which sees prefix and
            branches apart.
    """

    def __init__(self, block: Any, attends: bool) -> None:
        self._block = block
        self._places: list[_Place] = []
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

    @staticmethod
    def of(block: Any, attends: bool) -> "OwnModules | None":
        """The twin of a block.

        None where the block holds weights that Transformers' own modules do not have (processed
        ones), or a module whose `forward` was exchanged (by accelerate, to fetch weights).
        """
        if any("forward" in vars(module) for module in block.modules()):
            return None
        made = OwnModules(block, attends)
        known = {_storage(parameter) for parameter in made.module.parameters()}
        if any(_storage(parameter) not in known for parameter in block.parameters()):
            return None
        return made

    @contextmanager
    def running(self, context: Context) -> Iterator[bool]:
        """What is watched is called while the twin runs; false where it must not run.

        It must not where a hook sits on anything but the input or output of a module in it, or on
        one whose shape the bridge's block notes as it runs (OPT's, which puts all tokens in a row).
        """
        watched = [module for module in self._others if _has_hooks(module)]
        watched += [place.point for place in self._places if _shape_is_noted(place.point)]
        if any(self._watched(module) for module in watched):
            yield False
            return
        with ExitStack() as stack:
            for point, module, before in self._places:
                if not (_has_hooks(point) and self._watched(point)):
                    continue
                if before:
                    handle = module.register_forward_pre_hook(_enter(point), with_kwargs=True)
                else:
                    handle = module.register_forward_hook(_leave(point))
                stack.callback(handle.remove)
            if self.attends:
                self._attention.context = context
                stack.callback(delattr, self._attention, "context")
            yield True

    def _own(self, module: Any) -> Any:
        """A module without components in it: itself where it has none."""
        if isinstance(module, GeneralizedComponent):
            own = self._own(module.original_component)
            self._places += [
                _Place(module.hook_in, own, True),
                _Place(module.hook_out, own, False),
            ]
            return own
        inside = {name: self._own(child) for name, child in module.named_children()}
        if all(getattr(module, name) is child for name, child in inside.items()):
            return module
        twin = copy.copy(module)  # shares parameters, buffers and hooks
        vars(twin)["_modules"] = {**module._modules, **inside}
        self._twins[id(module)] = twin
        return twin

    def _watched(self, module: nn.Module) -> bool:
        """Whether there are hooks on a module, but for those of TransformerLens's own."""
        wiring = {handle.id for handle in getattr(self._block, "_capture_hook_handles", ())}
        return any(number not in wiring for kept in _KEPT for number in getattr(module, kept))


def _shape_is_noted(point: Any) -> bool:
    """Whether a watched point's activations get a shape that its block noted."""
    return _has_hooks(point) and hasattr(getattr(point, "hook_conversion", None), "batch_seq")


def _has_hooks(module: nn.Module) -> bool:
    """Whether any are on a module, for a first look: it is asked of a hundred in every block."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


class Parts:
    """All modules, weights and exchanged `forward`s of a block.

    A twin is out of date when these are others.
    """

    def __init__(self, block: nn.Module) -> None:
        found: dict[int, Any] = {}
        left: list[Any] = [block]
        while left:
            module = left.pop()
            if module is not None and id(module) not in found:
                found[id(module)] = module
                left += module._modules.values()
        # Most modules of a bridge are hook points, in which there is nothing to exchange.
        others = (module for module in found.values() if not isinstance(module, HookPoint))
        self._found = [(module, _inside(module)) for module in others]

    def same(self) -> bool:
        """Whether they are still the same; modules below others are, where those hold the same."""
        return all(
            len(then) == len(now) and all(map(is_, then, now))
            for then, now in ((then, _inside(module)) for module, then in self._found)
        )


def _inside(module: Any) -> tuple[Any, ...]:
    """What a module itself holds: modules, weights, and its exchanged `forward`."""
    here = vars(module)
    return (*here["_modules"].values(), *here["_parameters"].values(), here.get("forward"))


class _Config:
    """An attention module's configuration, in which its attention is `attention.attend`."""

    _attn_implementation = NAME

    def __init__(self, config: Any) -> None:
        self._theirs = config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)


def _storage(parameter: Tensor) -> int:
    return parameter.untyped_storage().data_ptr()


def _enter(point: HookPoint) -> Callable[..., Any]:
    """Show the input of a module to a hook point, and go on with what it returns."""

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (point(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": point(kwargs["hidden_states"])}

    return enter


def _leave(point: HookPoint) -> Callable[..., Any]:
    """Show the output of a module to a hook point, and go on with what it returns."""

    def leave(module: nn.Module, args: Any, out: Any) -> Any:
        return (point(out[0]), *out[1:]) if isinstance(out, tuple) else point(out)

    return leave
