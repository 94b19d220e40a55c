"""Both engines on a device, on tiny models of every family, against each other and the CPU."""

import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from typing import get_args

import torch
from device.record import Row, Value, one_line
from plain import prompt_of
from tiny_models import D_VOCAB, byte_tokenizer, random_model
from torch import Tensor

from icl_mech.errors import InputError, ModelError
from icl_mech.model import Edit, HookedModel, Mode, Site, as_array, load_model
from icl_mech.model.choosing import choose_engine
from icl_mech.model.placing import Placer

#: The largest difference of log probabilities (nats) that is accepted.
TOLERANCE = 1e-3
#: The same of everything else that is read, as a share of one plus its size.
RELATIVE = 1e-3
ANSWERS = [[1, 200], [3, 4]]


def engine_rows(
    device: torch.device, families: Sequence[str], stop: Callable[[], bool] = lambda: False
) -> Iterator[Row]:
    """A row per family.

    Args:
        device: to check.
        families: of `tiny_models`.
        stop: whether the rest of them is left out.
    """
    for family in families:
        if stop():
            yield Row(family, note="left out: no time")
            continue
        try:
            yield _family(device, family)
        except Exception as error:  # any library's: the other families are still worth running
            yield Row(family, ok=False, note=one_line(error))


def _family(device: torch.device, family: str) -> Row:
    begun = time.perf_counter()
    try:
        on_cpu = _model(family, torch.device("cpu"))
    except (InputError, ModelError) as error:
        return Row(family, note=f"not on the CPU either: {one_line(error)}")
    ours = _model(family, device)
    expected, found = observed(on_cpu), observed(ours)
    plain = observed(_on_plain_engine(ours)) if ours.engine == "shared" else found
    with_cpu = _apart(found["edits"], expected["edits"])
    plain_with_cpu = _apart(plain["edits"], expected["edits"])
    between = _apart(found["edits"], plain["edits"])
    reads = {
        name: _relative(each[name], expected[name])
        for each in (found, plain)
        for name in expected
        if name in each and each[name].shape == expected[name].shape
    }
    faults = [f"{ours.engine} engine, on the CPU {on_cpu.engine}"] * (ours.engine != on_cpu.engine)
    faults += [
        f"{name} differ"
        for name in expected
        if name not in found or name not in plain or not reads.get(name, torch.inf) <= RELATIVE
    ]
    if not max(with_cpu, plain_with_cpu, between) <= TOLERANCE:
        faults.append("log probabilities differ")
    numbers: dict[str, Value] = {
        "engine": ours.engine,
        "edits_vs_cpu": with_cpu,
        "plain_vs_cpu": plain_with_cpu,
        "between_engines": between,
        "reads_vs_cpu": max(reads.values()),
        "seconds": time.perf_counter() - begun,
    }
    return Row(family, numbers, ok=not faults, note="; ".join(faults))


def _model(family: str, device: torch.device) -> HookedModel:
    """A random model, the same on every device, on the engine that fits it."""
    with redirect_stderr(io.StringIO()), warnings.catch_warnings():  # which engine: in the table
        warnings.simplefilter("ignore")
        return load_model(random_model(family).to(device), tokenizer=byte_tokenizer())


def _on_plain_engine(model: HookedModel) -> HookedModel:
    engine, reason = choose_engine(model.bridge, "plain")
    return HookedModel(model.bridge, model.name, engine=engine, engine_reason=reason)


def observed(model: HookedModel) -> dict[str, Tensor]:
    """Everything that an engine does, on two prompts of two lengths, as numbers on the CPU.

    `"edits"` are log probabilities of answers, with every edit and without. What a family does not
    have is left out.
    """
    tokens = torch.randint(D_VOCAB - 1, (14,), generator=torch.Generator().manual_seed(1)).tolist()
    prompts = [prompt_of([D_VOCAB - 1, *tokens[:n]]) for n in (13, 10)]
    edits = [None, *_edits(model)]
    few = [None, Edit(1, torch.full((model.d_model,), 0.5), position=-3)]
    ask: dict[str, Callable[[], Tensor]] = {
        "edits": lambda: model.evaluate(prompts, edits, ANSWERS).logprob,
        "streams": lambda: model.final_residuals([[p] for p in prompts]),
        "texts": lambda: _texts(model, few, prompts),
        "continuations": lambda: model.sequence_logprob(prompts, [[[5, 6, 7], [8]], [[9]]], few),
        "best": lambda: _best(model),
        "vocabulary": lambda: (
            model.vocabulary.top_tokens(torch.ones(1, 2, model.d_model), 3).logprob
        ),
        "heads": lambda: model.capture(prompts, [0, -2], "z"),
        "attention": lambda: model.heads.attention(prompts)[0],
        "gradients": lambda: model.heads.gradients(prompts, [1, 2])[1],
        "direct": lambda: model.heads.direct_effects(prompts, [1, 2], [[4], [5, 6]]).heads,
    }
    found = {}
    for name, values in ask.items():
        try:
            found[name] = torch.from_numpy(as_array(values()))
        except (InputError, ModelError):
            if name == "edits":
                raise
    return found


def _best(model: HookedModel) -> Tensor:
    """Log probabilities of the most probable tokens of two vectors."""
    best = model.read(torch.ones(2, model.d_model), ANSWERS, n_best=3).best_logprob
    assert best is not None
    return best


def _edits(model: HookedModel) -> list[Edit]:
    """An edit of each mode at every site of two blocks, one of each kind where a family mixes."""
    generator = torch.Generator().manual_seed(0)
    placer, half = Placer(model.bridge, model.name), model.n_layers // 2
    edits = []
    for layer in (half - 1, half):
        for site in get_args(Site):
            try:
                placer.hook(site, layer)
            except InputError:
                continue
            head, width = (1, model.d_head) if site == "z" else (None, model.d_model)
            for mode in get_args(Mode):
                value = torch.randn(width, generator=generator)
                edits.append(Edit(layer, value, site, -3, mode, scale=2.0, head=head))
    # One value for each prompt, at the last block, and two edits in one.
    each = torch.randn(2, model.d_model, generator=generator)
    return [*edits, Edit(-1, each), Edit(0, each, position=-2, mode="add")]


def _texts(model: HookedModel, edits: list[Edit | None], prompts: list) -> Tensor:
    """Token ids of greedy texts, filled up with -1."""
    said = model.generate(prompts, edits, 3, "no such text")
    rows = [[*text.tokens, -1, -1, -1][:3] for of_prompt in said for text in of_prompt]
    return torch.tensor(rows)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference; infinite where only one of two is a number."""
    both = ours.isnan() & theirs.isnan()
    apart = (ours - theirs).abs().masked_fill(both, 0.0)
    return float(apart.nan_to_num(nan=torch.inf).max())


def _relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of one plus the size."""
    size = 1 + theirs.abs().nan_to_num()
    return _apart(ours / size, theirs / size)
