"""TransformerLens hooks that write edits into a running batch."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from icl_mech.model.edits import HOOKS, ORDER, PlacedEdit
from icl_mech.model.network import is_bridge


@dataclass(frozen=True)
class Write:
    """An edit, with the indices of its tokens in the activations of a batch.

    Attributes:
        placed: the edit.
        layer: its block, from 0.
        prompts: indices of the batch's prompts among all prompts, which choose its values.
        rows, columns: the first two indices of the edited activations, one pair per prompt.
    """

    placed: PlacedEdit
    layer: int
    prompts: Int[Tensor, "prompt"]
    rows: Int[Tensor, "prompt"]
    columns: Int[Tensor, "prompt"]

    def into(self, activation: Tensor) -> None:
        """Write into an activation `[row, column, ...]`."""
        head = () if self.placed.edit.head is None else (self.placed.edit.head,)
        device = activation.device  # may differ from block to block
        here = (self.rows.to(device), self.columns.to(device), *head)
        activation[here] = self.placed.written(self.prompts.to(device), activation[here])


def writing(bridge: Any, writes: Sequence[Write]) -> AbstractContextManager[Any]:
    """Context with the hooks that write these edits, in the order of the sites in a block."""
    groups: dict[tuple[int, str], list[Write]] = defaultdict(list)
    for write in writes:
        groups[write.layer, write.placed.edit.site].append(write)
    if not groups:  # looking up hook points takes longer than running a small block
        return nullcontext()
    hooks: list[tuple[str, Callable[..., Tensor]]] = []
    for (layer, site), group in sorted(groups.items(), key=lambda g: ORDER.index(g[0][1])):
        if site == "resid_mid":
            hooks += _between(bridge, layer, group)
        else:
            hooks.append((HOOKS[site].format(layer), _writer(group)))
    return bridge.hooks(fwd_hooks=hooks)


def _writer(group: Sequence[Write]) -> Callable[..., Tensor]:
    """A hook that writes a group of edits at one site of one block."""

    def write(activation: Tensor, hook: Any) -> Tensor:
        activation = activation.clone()
        for one in group:
            one.into(activation)
        return activation

    return write


def _between(
    bridge: Any, layer: int, group: Sequence[Write]
) -> list[tuple[str, Callable[..., Tensor]]]:
    """Hooks that write the residual stream between attention and MLP.

    A bridge's `hook_resid_mid` is the input of the norm before the MLP: an edit there reaches the
    MLP, but not the residual stream. So the change is added to the stream at the end of the block.
    (A `HookedTransformer`'s hook is in the stream itself.)
    """
    write = _writer(group)
    difference: list[Tensor] = []

    def edit(resid_mid: Tensor, hook: Any) -> Tensor:
        edited = write(resid_mid, hook)
        difference[:] = [edited - resid_mid]
        return edited

    def carry(resid_post: Tensor, hook: Any) -> Tensor:
        return resid_post + difference[0]

    hooks: list[tuple[str, Callable[..., Tensor]]] = [(HOOKS["resid_mid"].format(layer), edit)]
    if is_bridge(bridge):
        hooks.append((HOOKS["resid_post"].format(layer), carry))
    return hooks
