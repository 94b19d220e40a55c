"""Activation patching between pairs of prompts: which cells are patched, and the patched runs.

A cell is one site at one token of one block, in one direction.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import xarray as xr

from icl_mech.errors import InputError
from icl_mech.layers import Site
from icl_mech.model import Edit, HookedModel, Readout
from icl_mech.patch.contrasts import Contrast, check_aligned, default_roles
from icl_mech.patch.positions_plan import Roles
from icl_mech.patch.positions_result import VALUES
from icl_mech.prompts import Prompt

Values = dict[str, np.ndarray]

UNITS = {"logit_difference": "logits", "logprob": "nats"}


@dataclass(frozen=True)
class Grid:
    """The cells to patch: every site at every role, in every direction.

    Attributes:
        sites: the sites that are patched as a whole: all but `"z"`.
        directions: of `DIRECTIONS`.
        roles: the tokens at which `sites` are patched.
        head_roles: the tokens at which single heads (`"z"`) are patched; empty without that site.
        labels: the names of `roles` and of `head_roles` in the result.
    """

    sites: tuple[str, ...]
    directions: tuple[str, ...]
    roles: tuple[str | int, ...]
    head_roles: tuple[str | int, ...]
    labels: tuple[tuple[str, ...], tuple[str, ...]]

    def cells(self, model: HookedModel) -> int:
        """Number of patched runs per prompt."""
        places = len(self.sites) * len(self.roles) + len(self.head_roles) * model.n_heads
        return places * len(self.directions) * model.n_layers


def grid_of(
    model: HookedModel,
    contrasts: Mapping[str, Sequence[Contrast]],
    directions: tuple[str, ...],
    sites: tuple[str, ...],
    roles: str | Roles | None,
    head_roles: str | Roles | None,
) -> Grid:
    """The cells to patch between these prompts, checked before the first run.

    Raises:
        InputError: if the model has no such site, the prompts have no such role, or a clean and a
            corrupted prompt do not line up.
    """
    every = [contrast for of_task in contrasts.values() for contrast in of_task]
    tokens, labels = _roles(model, every, roles)
    head_tokens, head_labels = (
        (tokens, labels) if head_roles is None else _roles(model, every, head_roles)
    )
    if "z" not in sites:
        head_tokens, head_labels = (), ()
    plain = tuple(site for site in sites if site != "z")
    if not plain:
        tokens, labels = (), ()
    for site in sites:  # refuses a site that the model does not have
        model.capture([every[0].clean], [0], cast(Site, site))
    return Grid(plain, directions, tokens, head_tokens, (labels, head_labels))


def _roles(
    model: HookedModel, contrasts: Sequence[Contrast], roles: str | Roles | None
) -> tuple[tuple[str | int, ...], tuple[str, ...]]:
    """The tokens that are patched, and their names in the result."""
    chosen: tuple[str | int, ...]
    if roles == "tokens":
        if len(contrasts) > 1:
            raise InputError(
                f"roles='tokens' with {len(contrasts)} pairs of prompts; expected one "
                "(n_prompts=1), or roles: they are the same in every prompt"
            )
        (pair,) = contrasts
        check_aligned(contrasts, [0])
        return tuple(range(len(pair.clean))), tuple(_token_labels(model, pair))
    if roles is None:
        chosen = default_roles(contrasts[0].clean)
    elif roles == "all":
        chosen = tuple(role for role in dict.fromkeys(contrasts[0].clean.roles) if role)
    else:
        chosen = (roles,) if isinstance(roles, str) else tuple(roles)
    if not chosen or len(set(chosen)) != len(chosen):
        raise InputError(f"roles {list(chosen)}; expected at least one, each once")
    check_aligned(contrasts, chosen)
    return chosen, tuple(str(role) for role in chosen)


def _token_labels(model: HookedModel, contrast: Contrast) -> Iterator[str]:
    """The name of each token: `"5: word"`, or `"5: word | other word"` if the prompts differ."""
    for i, pair in enumerate(zip(contrast.clean.tokens, contrast.corrupted.tokens, strict=True)):
        # repr shows a line break as \n, so labels stay on one line in the figure.
        texts = [repr(model.to_string(token))[1:-1] for token in dict.fromkeys(pair)]
        yield f"{i}: {' | '.join(texts)}"


def patch_batch(
    model: HookedModel, contrasts: Sequence[Contrast], grid: Grid, tick: Callable[[int], object]
) -> xr.Dataset:
    """The values of both prompts of every pair, unpatched and with every patch."""
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
    """Runs of `target` with activations of `source`; values over (prompt, role, layer[, head])."""
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
    """Whether the prompts of every pair have the same tokens up to this one.

    Then its activations are the same too, and patching changes nothing.
    """
    return all(
        s.tokens[: s.position(role) + 1] == t.tokens[: t.position(role) + 1]
        for s, t in zip(source, target, strict=True)
    )


def _values(readout: Readout) -> Values:
    """The `VALUES` of a readout whose first target is the answer; the other targets are rivals."""
    logprob = readout.logprob.cpu().numpy()
    rivals = np.nanmean(logprob[..., 1:], axis=-1)  # padded with NaN if a prompt has fewer rivals
    return {
        "logit_difference": logprob[..., 0] - rivals,
        "logprob": logprob[..., 0],
        "rank": readout.rank[..., 0].cpu().numpy(),
    }


def _query(model: HookedModel, prompt: Prompt) -> str:
    """The query as the prompt writes it; empty if the prompt's tokens have no roles."""
    pairs = zip(prompt.tokens, prompt.roles, strict=True)
    tokens = [token for token, role in pairs if role == "query"]
    return str(model.tokenizer.decode(tokens)).strip() if tokens else ""
