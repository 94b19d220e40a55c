"""Prompts and a grid -> patched runs, a batch of prompts at a time."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import xarray as xr

from icl_mech.model import Edit, HookedModel, Readout, Site
from icl_mech.patch.contrasts import Contrast
from icl_mech.patch.grid import Grid, Roles
from icl_mech.patch.positions_result import VALUES
from icl_mech.prompts import Prompt

Values = dict[str, np.ndarray]

UNITS = {"logit_difference": "logits", "logprob": "nats"}


def patch_batch(
    model: HookedModel, contrasts: Sequence[Contrast], grid: Grid, tick: Callable[[int], object]
) -> xr.Dataset:
    """Both prompts of every pair as they are, and with every patch."""
    prompts = {
        "clean": [contrast.clean for contrast in contrasts],
        "corrupted": [contrast.corrupted for contrast in contrasts],
    }
    answers = [[contrast.answer, *contrast.rivals] for contrast in contrasts]
    unpatched = {kind: _unpatched(model, some, answers) for kind, some in prompts.items()}

    def patched(direction: str, site: str, roles: Roles) -> Values:
        kinds = ("clean", "corrupted") if direction == "denoise" else ("corrupted", "clean")
        source, target = (prompts[kind] for kind in kinds)
        return _patched(model, source, target, answers, site, roles, unpatched[kinds[1]], tick)

    variables: dict[str, Any] = {}
    if grid.sites:
        runs = [[patched(d, site, grid.roles) for d in grid.directions] for site in grid.sites]
        dims = ("site", "direction", "prompt", "role", "layer")
        variables |= _variables("", dims, lambda name: [[run[name] for run in r] for r in runs])
    if grid.head_roles:
        by_head = [patched(d, "z", grid.head_roles) for d in grid.directions]
        dims = ("direction", "prompt", "head_role", "layer", "head")
        variables |= _variables("head_", dims, lambda name: [run[name] for run in by_head])
    for kind, values in unpatched.items():
        variables |= _variables(f"{kind}_", ("prompt",), values.__getitem__)
        variables[f"{kind}_text"] = ("prompt", [prompt.text for prompt in prompts[kind]])
    variables["query"] = ("prompt", [_query(model, prompt) for prompt in prompts["clean"]])
    variables["answer"] = ("prompt", [model.to_string(c.answer).strip() for c in contrasts])
    names = {
        "site": list(grid.sites),
        "direction": list(grid.directions),
        "role": list(grid.labels[0]),
        "head_role": list(grid.labels[1]),
        "layer": np.arange(model.n_layers),
        "head": np.arange(model.n_heads),
    }
    used = {dim for dims, *_ in variables.values() for dim in dims}
    return xr.Dataset(variables, coords={dim: xs for dim, xs in names.items() if dim in used})


def _variables(prefix: str, dims: tuple[str, ...], of: Callable[[str], Any]) -> dict[str, tuple]:
    return {
        prefix + name: (dims, np.array(of(name)), {"units": UNITS[name]} if name in UNITS else {})
        for name in VALUES
    }


def _unpatched(
    model: HookedModel, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]
) -> Values:
    return _values(model.predict(prompts, answers))


def _patched(
    model: HookedModel,
    source: Sequence[Prompt],
    target: Sequence[Prompt],
    answers: Sequence[Sequence[int]],
    site: str,
    roles: Roles,
    unpatched: Values,
    tick: Callable[[int], object],
) -> Values:
    """`target` with activations of `source`: values over (prompt, role, layer[, head])."""
    shape = (model.n_layers, model.n_heads) if site == "z" else (model.n_layers,)
    live = [i for i, role in enumerate(roles) if not _same_until(source, target, role)]
    tick(len(target) * (len(roles) - len(live)) * int(np.prod(shape)))
    cells = (len(target), len(roles), *shape)
    out = {
        name: np.broadcast_to(array.reshape(-1, *[1] * (len(cells) - 1)), cells).copy()
        for name, array in unpatched.items()
    }
    if not live:
        return out
    activations = model.capture(source, [roles[i] for i in live], cast(Site, site))
    edits = [
        Edit(
            layer=at[0],
            value=activations[(slice(None), r, *at)],
            site=cast(Site, site),
            position=roles[i],
            head=at[1] if site == "z" else None,
        )
        for r, i in enumerate(live)
        for at in np.ndindex(*shape)
    ]
    for name, array in _values(model.evaluate(target, edits, answers, tick)).items():
        out[name][:, live] = array.reshape(len(target), len(live), *shape)
    return out


def _same_until(source: Sequence[Prompt], target: Sequence[Prompt], role: str | int) -> bool:
    """Whether, in every pair, all tokens up to this one agree: then its activations do too."""
    return all(
        s.tokens[: s.position(role) + 1] == t.tokens[: t.position(role) + 1]
        for s, t in zip(source, target, strict=True)
    )


def _values(readout: Readout) -> Values:
    """What is kept of a readout whose first target is the answer, and the others its rivals."""
    logprob = readout.logprob.cpu().numpy()
    rivals = np.nanmean(logprob[..., 1:], axis=-1)  # NaN: this prompt has fewer rivals
    return {
        "logit_difference": logprob[..., 0] - rivals,
        "logprob": logprob[..., 0],
        "rank": readout.rank[..., 0].cpu().numpy(),
    }


def _query(model: HookedModel, prompt: Prompt) -> str:
    """The query as the prompt writes it; empty where its tokens have no roles."""
    pairs = zip(prompt.tokens, prompt.roles, strict=True)
    tokens = [token for token, role in pairs if role == "query"]
    return str(model.tokenizer.decode(tokens)).strip() if tokens else ""
