"""How far a run is from the floor: operations and bytes by phase, beside what the machine can do.

`make bench-floor` runs it. The floor is the time that the matrix products alone would take at the
rate of one large product, measured in the same run. Everything runs on one thread, and times are
processor times, in which other processes on the machine show least. Operations and bytes are
counted in one run, and times are taken in others, because counting slows a run down.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from time import process_time
from typing import Any

import pandas as pd
import pytest
import torch
from counting import Counter
from torch.utils._pytree import tree_leaves
from transformer_lens.model_bridge.generalized_components.normalization import NormalizationBridge

from icl_mech import Cost, expected_cost, head_attribution, layer_scan
from icl_mech.model import (
    HookedModel,
    branches as branches_module,
    engine as engine_module,
    load_model,
    readout as readout_module,
    shared_engine as shared_module,
)
from icl_mech.model.blocks import Blocks
from icl_mech.model.chunked_logits import ChunkedLogits, Peaks, Top
from icl_mech.model.network import Unembedding

TASK = "country_capital"
LONGEST = 128
REST = "outside the model"
PROJECTIONS = "projections"
#: These read only some rows of their first argument.
PICKING = ("embedding", "index", "index_select", "gather")


@dataclass
class Spent:
    """What was counted in one phase."""

    operations: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Phases:
    """The phases that are open, the innermost last, and the seconds spent in each so far."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.since = process_time()

    @property
    def name(self) -> str:
        """The outermost phase and the innermost; projections belong to what has them."""
        if len(self.open) < 2:
            return "".join(self.open) or REST
        before, last = self.open[-2:]
        return f"{self.open[0]}: {f'{before} {last}' if last == PROJECTIONS else last}"

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        self.switch()
        self.open.append(name)
        try:
            yield
        finally:
            self.switch()
            self.open.pop()

    def switch(self) -> None:
        """Add the time since the last switch to the phase that is open."""
        now = process_time()
        self.seconds[self.name] += now - self.since
        self.since = now

    def timed(self, run: Callable[[], object]) -> dict[str, float]:
        """The seconds in each phase of a run, without those of the phases inside it."""
        self.seconds, self.since = defaultdict(float), process_time()
        run()
        self.switch()
        return self.seconds

    def of(self, name: str, function: Callable) -> Callable:
        """The same function, as a phase."""

        @wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            if self.open[-1:] == [name]:  # a bridge's module calls Transformers' own inside
                return function(*args, **kwargs)
            with self.inside(name):
                return function(*args, **kwargs)

        return marked

    def each(self, name: str, iterate: Callable[..., Iterator]) -> Callable[..., Iterator]:
        """The same generator; its own steps are a phase, and what its reader does is not."""

        @wraps(iterate)
        def marked(*args: Any) -> Iterator:
            steps = iterate(*args)
            while True:
                with self.inside(name):
                    try:
                        step = next(steps)
                    except StopIteration:
                        return
                yield step

        return marked


@contextmanager
def phases_of(model: HookedModel) -> Iterator[Phases]:
    """Phases of a run on the shared engine, marked from outside."""
    phases = Phases()
    with pytest.MonkeyPatch.context() as patched:

        def put(owner: Any, attribute: str, name: str) -> None:
            patched.setattr(owner, attribute, phases.of(name, getattr(owner, attribute)))

        put(shared_module, "prefill", "prefill")
        put(shared_module, "run_through", "prefill")
        put(shared_module, "advance", "queries")
        put(branches_module, "advance", "branches")
        put(engine_module, "read", "readout")
        put(Blocks, "embed", "embedding")
        put(Unembedding, "hidden", "norms")
        put(ChunkedLogits, "at", "logits of targets")
        patched.setattr(Peaks, "of", staticmethod(phases.of("largest logits", Peaks.of)))
        put(Top, "see", "largest logits")
        put(readout_module._Mass, "see", "normaliser")
        steps = phases.each("unembedding", ChunkedLogits.__iter__)
        patched.setattr(ChunkedLogits, "__iter__", steps)
        # A bridge's module hands on what is set on it, so its class is changed.
        block = model.bridge.blocks[0]
        put(type(block.attn), "forward", "attention")
        put(type(block.attn.q), "forward", PROJECTIONS)  # those of the MLP too
        put(type(block.mlp), "forward", "MLP")
        put(NormalizationBridge, "forward", "norms")
        # Transformers' own modules, which run where no hook watches the inside of a block.
        put(type(block.attn.original_component), "forward", "attention")
        put(type(block.mlp.original_component), "forward", "MLP")
        put(type(block.ln1.original_component), "forward", "norms")
        put(torch.nn.Linear, "forward", PROJECTIONS)
        yield phases


class PhaseCounter(Counter):
    """Counts operations of matrix products, and bytes that each call reads and writes, by phase.

    Bytes are those of a call's arguments and results, as if nothing stayed in the cache; views
    move none.
    """

    def __init__(self, phases: Phases, found: dict[str, Spent]) -> None:
        super().__init__()
        self.phases, self.found = phases, found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.work.operations
        out = super().__torch_dispatch__(func, types, args, kwargs)
        spent = self.found[self.phases.name]
        spent.operations += self.work.operations - before
        aliases = [a.alias_info for a in func._schema.arguments if a.alias_info is not None]
        if not aliases or any(alias.is_write for alias in aliases):
            picks = func.overloadpacket.__name__ in PICKING
            parts = (out, out) if picks else (args, kwargs, out)
            tensors = [t for t in tree_leaves(parts) if isinstance(t, torch.Tensor)]
            spent.bytes += sum(t.numel() * t.element_size() for t in tensors)
        return out


def measured(model: HookedModel, run: Callable[[], object], rounds: int = 2) -> dict[str, Spent]:
    """Operations, bytes and seconds of every phase of a run; the times are of the fastest run."""
    model.windows(LONGEST)  # blocks are recorded and verified before
    found: dict[str, Spent] = defaultdict(Spent)
    with phases_of(model) as phases:
        with PhaseCounter(phases, found):
            run()
        fastest = min(
            (phases.timed(run) for _ in range(rounds)), key=lambda times: sum(times.values())
        )
    for name, seconds in fastest.items():
        found[name].seconds = seconds
    return found


def product_rate(n: int = 2048, rounds: int = 5) -> float:
    """Operations per second of a large float32 matrix product: the best of a few."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    return max(2 * n**3 / lasts(partial(torch.mm, a, b)) for _ in range(rounds))


def memory_rate(n_bytes: int = 2**28, rounds: int = 5) -> float:
    """Bytes per second read and written when a large array is copied: the best of a few."""
    source = torch.zeros(n_bytes, dtype=torch.uint8)
    target = torch.empty_like(source)
    return max(2 * n_bytes / lasts(partial(target.copy_, source)) for _ in range(rounds))


def lasts(run: Callable[[], object]) -> float:
    begun = process_time()
    run()
    return process_time() - begun


def table(found: dict[str, Spent], rate: float) -> pd.DataFrame:
    """One row a phase, the longest first, and their sum."""
    total = Spent(*(sum(getattr(w, f) for w in found.values()) for f in vars(Spent())))
    rows = sorted(found.items(), key=lambda item: -item[1].seconds)
    return pd.DataFrame(
        {
            "phase": name,
            "GFLOP": work.operations / 1e9,
            "GB": work.bytes / 1e9,
            "s": work.seconds,
            "time %": 100 * work.seconds / total.seconds,
            "GFLOP/s": work.operations / 1e9 / max(work.seconds, 1e-9),
            "of rate %": 100 * work.operations / max(work.seconds, 1e-9) / rate,
            "GB/s": work.bytes / 1e9 / max(work.seconds, 1e-9),
        }
        for name, work in [*rows, ("all", total)]
    )


def report(model: HookedModel, what: str, run: Callable[[], object], expected: Cost) -> None:
    """Measure a run and the machine, and print what was found."""
    before = product_rate(), memory_rate()
    found = measured(model, run)
    rate, memory = (max(pair) for pair in zip(before, (product_rate(), memory_rate()), strict=True))
    rows = table(found, rate)
    work = sum(w.operations for w in found.values())
    seconds = sum(w.seconds for w in found.values())
    print(f"\n{what}; one thread, processor time")
    print(f"the machine: {rate / 1e9:.0f} GFLOP/s in matrix products, {memory / 1e9:.0f} GB/s")
    print(rows.to_string(index=False, float_format="{:.2f}".format))
    print(
        f"floor (all matrix products at the machine's rate): {work / rate:.2f} s; "
        f"measured {seconds:.2f} s: {seconds * rate / work:.2f} times the floor"
    )
    print(
        f"expected_cost: {expected.operations / 1e9:.0f} GFLOP, "
        f"{expected.seconds(rate, memory):.2f} s at the machine's rates"
    )


def main() -> None:
    torch.set_num_threads(1)
    model = load_model("gemma-3-270m", device="cpu")
    scan = partial(layer_scan, model, TASK, progress=False)
    expected = expected_cost("scan", "gemma-3-270m")
    report(model, "layer scan, one task, 50 prompts", scan, expected)
    heads = partial(
        head_attribution,
        model,
        TASK,
        n_prompts=4,
        n_shots=10,
        n_clean=4,
        methods="aie",
        progress=False,
    )
    expected = expected_cost("heads", "gemma-3-270m", n_prompts=4, n_shots=10)
    report(model, "head_attribution, AIE alone, 4 ten-shot prompts", heads, expected)


if __name__ == "__main__":
    main()
