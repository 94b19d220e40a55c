"""Operations, bytes and memory of a run, counted as it goes on."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from icl_mech.cost import Work

#: PyTorch counts other devices' fused attention, and not this one.
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _fused(query: torch.Tensor, key: torch.Tensor, *_: Any, **__: Any) -> int:
    """Operations of scores, and of what heads make of values."""
    return 4 * query.numel() * key.shape[2]


class Counter(TorchDispatchMode):
    """Counts operations as `FlopCounterMode` does, and bytes of products' arguments and results.

    Attributes:
        work: of all matrix products.
        live, peak: bytes of the tensors that the run made and that are in use, now and at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = {**FlopCounterMode(display=False).flop_registry, _FUSED: _fused}
        self.work = Work()
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count = self.flops.get(func.overloadpacket)
        if count is not None:
            tensors = [t for t in tree_leaves((args, out)) if isinstance(t, torch.Tensor)]
            n_bytes = sum(t.numel() * t.element_size() for t in tensors)
            self.work += Work(count(*args, **kwargs, out_val=out), n_bytes)
        self._made(func, out)
        return out

    def _made(self, func: Any, out: Any) -> None:
        """Note the memory of results that are no views of what was there before."""
        if any(argument.alias_info for argument in func._schema.arguments):
            return
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.live += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.live)

    def _freed(self, n_bytes: int) -> None:
        self.live -= n_bytes


def counted(run: Callable[[], object]) -> Counter:
    """What a run did."""
    with Counter() as counter:
        run()
    return counter
