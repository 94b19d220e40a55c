"""Finds the heads and MLPs that decode a task vector, and tests them on other prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.decoder.effects import SITES, Component, Written
from icl_mech.decoder.plan import DecoderPlan, DecoderSettings, DecoderTask, plan
from icl_mech.decoder.result import EFFECTS, SETTINGS, Decoder
from icl_mech.errors import InputError
from icl_mech.heads import indirect_effects
from icl_mech.heads.attention import ROLES, attention_by_role
from icl_mech.layers import check_layer
from icl_mech.model import AnyEdit, HookedModel, as_array, check_model
from icl_mech.progress import READING, dear, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Encoder,
    accepted,
    few_shot,
    generator,
    in_context,
    zero_shot,
)
from icl_mech.results import over_tasks
from icl_mech.stats import mean
from icl_mech.tasks import Tasks
from icl_mech.vectors import choose_layer, scores_by_layer, theta


class NothingToDecodeError(InputError):
    """Theta is not shown to help on a task."""


#: Sizes of the sets of components that are set back together.
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def find_decoder(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 24,
    n_shots: int = 5,
    seed: int = 0,
    *,
    layer: int | None = None,
    n_draws: int = 8,
    gradients: bool = True,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> Decoder:
    """Which heads and MLPs decode the task vector, and how much of its effect goes through them?

    Theta (Hendel et al. 2023) is written over the last token of zero-shot prompts; the effect is
    the increase of the answer's log probability. Three effects of every head and MLP of a later
    block are measured exactly, on the same prompts: the loss if its output is set back to that
    without theta (*necessity*); the gain if it alone reads theta (*sufficiency*, path patching:
    Wang et al. 2022); and the gain by its own change if no later component reacts (*direct*). The
    first two are also estimated by gradients, and changes of heads' attention are recorded. Then
    sets of components, ranked on odd prompts, are set back together on even prompts. All others,
    and random sets of the same size, are set back for comparison.

    The same is measured on few-shot prompts with shuffled labels, into which the residual stream of
    the prompts with right labels is written. There AIE (Todd et al. 2023) tells which heads write
    the vector.

    Args:
        model: from `load_model`; every block needs attention heads and an MLP.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: test prompts per task; components are found on odd ones, tested on even ones.
        n_shots: demonstrations per prompt, at least 2.
        seed: of every random draw.
        layer: after which block theta is written, from 0 (or from the end, negative); by default
            the one that is best on dev prompts. There must be a later block.
        n_draws: number of random sets of components, for every size.
        gradients: also estimate effects to first order.
        n_dev: other prompts, on which the layer is chosen; by default half of `n_prompts`.
        n_dummies: dummy queries per demonstration set, over which theta is averaged.
        template: how a pair is written.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task, count or layer cannot work, no block is left after theta's, or blocks
            lack heads. Tasks on which theta is not shown to help are left out; if none is left,
            there is nothing to decode.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.find_decoder(
        ...     model, "country_capital", 8, 4, layer=9, n_draws=2, progress=False)
        >>> found.components("country_capital").index[0]
        '...'
    """
    check_model(model)
    settings = DecoderSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        layer=None if layer is None else check_layer(layer, model.n_layers),
        n_draws=n_draws,
        gradients=gradients,
        n_dev=n_dev,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure(model, plan(tasks, settings), progress)


def measure(model: HookedModel, plan: DecoderPlan, progress: bool = True) -> Decoder:
    """Run a plan of `plan`: what `find_decoder` does after the prompts are drawn.

    Raises:
        InputError: as `find_decoder`.
        ModelError: as `find_decoder`.
    """
    s = plan.settings
    if not model.adds_to_stream:
        raise InputError(
            f"{model.name} norms the whole residual stream in every block, so that what single "
            "components add to it cannot be told; expected a model with norms before attention "
            "and MLP"
        )
    for site in SITES:
        model.check_site(site)
    if s.layer is not None:
        check_layer(s.layer, model.n_layers)
        _refuse_last(s.layer, model.n_layers)
    reading = READING * ((s.n_prompts + s.dev) * (1 + s.n_dummies))
    heads = s.n_prompts * model.n_layers * model.n_heads
    total = reading + s.dev * model.n_layers * (s.layer is None) + heads
    with progress_bar(total * len(plan.tasks), "runs", progress) as bar:
        parts, left_out = _each(model, plan, bar)
    provenance = {
        "method": "necessity, path patching and direct effects of what comes after theta",
        **model.provenance(),
        **s.recorded(),
        "filters": "none: every prompt counts, also those that the model answers wrong",
        "left_out": left_out,
    }
    return Decoder(over_tasks(list(parts.values()), list(parts)), provenance)


def _each(
    model: HookedModel, plan: DecoderPlan, bar: tqdm
) -> tuple[dict[str, xr.Dataset], dict[str, str]]:
    """The data of every task on which theta helps, and why the others are left out.

    Raises:
        NothingToDecodeError: if it helps on none.
    """
    parts: dict[str, xr.Dataset] = {}
    left_out: dict[str, str] = {}
    for of in plan.tasks:
        try:
            parts[of.task.name] = _measure(model, of, plan.settings, bar)
        except NothingToDecodeError as error:
            left_out[of.task.name] = str(error)
    if not parts:
        raise NothingToDecodeError(next(iter(left_out.values())))
    return parts, left_out


def _refuse_last(layer: int, n_layers: int) -> None:
    if layer % n_layers == n_layers - 1:
        raise InputError(
            f"layer {layer} is the last: no head or MLP comes after theta; expected one of 0 to "
            f"{n_layers - 2}"
        )


def _measure(model: HookedModel, of: DecoderTask, s: DecoderSettings, bar: tqdm) -> xr.Dataset:
    """One task, in both settings."""
    bar.set_description(f"{of.task.name}: reading vectors")
    encoder = model.encoder(s.template, [p.y for p in of.task.pairs], s.leading_space)
    test, dev = of.split.test, of.split.dev
    resid = model.final_residuals(few_shot(encoder, test + dev), dear(bar.update))
    own = theta(resid[:, 1:])
    layer = s.layer
    if layer is None:
        layer = _best(model, encoder, of, own[len(test) :], bar)
        _refuse_last(layer, model.n_layers)
    layer = check_layer(layer, model.n_layers)
    clean, mixed = in_context(encoder, test), in_context(encoder, of.shuffled)
    bare = zero_shot(encoder, test)

    def answers(prompts: Sequence[Any]) -> list[int]:
        return [row[0] for row in accepted(encoder, prompts, test).first_tokens]

    written = [
        Written(model, bare, layer, own[: len(test), layer], answers(bare)),
        Written(model, mixed, layer, resid[: len(test), 0, layer], answers(mixed)),
    ]
    queries = np.array([e.query.x for e in test])
    parts = []
    for setting, each in zip(SETTINGS, written, strict=True):
        bar.set_description(f"{of.task.name}: {setting.replace('_', '-')}")
        rng = generator(s.seed, of.task.name, "random components", setting)
        parts.append(_setting(each, s, queries, setting == "zero_shot", rng, of.task.name))
    bar.set_description(f"{of.task.name}: heads")
    aie = indirect_effects(model, clean, mixed, written[1].answers, bar.update)
    data = xr.concat(parts, dim=xr.DataArray(list(SETTINGS), dims="setting", name="setting"))
    return data.assign(
        aie=(("prompt", "layer", "head"), aie),
        theta_layer=((), layer),
        query=("prompt", queries),
        n_queries=((), of.split.n_test_queries),
    )


def _best(
    model: HookedModel,
    encoder: Encoder,
    of: DecoderTask,
    own: Float[Tensor, "prompt layer d_model"],
    bar: tqdm,
) -> int:
    """The layer after which theta is best on dev prompts."""
    dev = of.split.dev
    right, logprob = scores_by_layer(model, encoder, dev, own, bar.update)
    return choose_layer(right, logprob, np.array([e.query.x for e in dev])).at


def _setting(
    of: Written,
    s: DecoderSettings,
    queries: np.ndarray,
    refuses: bool,
    rng: np.random.Generator,
    task: str,
) -> xr.Dataset:
    """All components in one setting; if `refuses`, raises if theta has no effect."""
    ends = as_array(of.logprob([None, of.edit, of.bypass()]))
    effect = ends[:, 1] - ends[:, 0]
    if refuses and not mean(effect, clusters=queries).low > 0:
        raise NothingToDecodeError(
            f"{task}: theta after block {of.layer} is not shown to help (it adds "
            f"{mean(effect, clusters=queries)} nats to the answer's log probability), so that "
            "there is nothing to decode; expected another task, layer, or more prompts"
        )
    found = _effects(of, ends, s.gradients)
    data: dict[str, Any] = {
        name: (("prompt", "layer", "part"), _by_place(of, values)) for name, values in found.items()
    }
    data |= {
        name: ("prompt", ends[:, i], {"units": "nats"})
        for i, name in enumerate(("without", "with_vector", "bypass"))
    }
    shares = [attention_by_role(of.model, of.prompts, edit) for edit in (None, of.edit)]
    data["attention"] = (("condition", "prompt", "layer", "head", "role"), np.stack(shares))
    data |= _sets(of, found["necessity"], s.n_draws, rng)
    parts = [*map(str, range(of.model.n_heads)), "mlp"]
    coords = {
        "layer": np.arange(of.model.n_layers),
        "part": parts,
        "head": np.arange(of.model.n_heads),
        "condition": ["without", "with"],
        "role": list(ROLES),
        "size": list(_SIZES),
    }
    return xr.Dataset(data, coords=coords)


def _effects(of: Written, ends: np.ndarray, gradients: bool) -> dict[str, np.ndarray]:
    """Every effect of every component, in nats, `[prompt, component]`."""
    edits: list[AnyEdit] = [of.reset([c]) for c in of.components]
    edits += [of.path(c) for c in of.components]
    edits += [of.direct(c) for c in of.components]
    found = np.split(as_array(of.logprob(edits)), 3, axis=1)
    effects = {
        "necessity": ends[:, 1:2] - found[0],
        "sufficiency": found[1] - ends[:, :1],
        "direct": found[2] - ends[:, :1],
    }
    if gradients:
        necessity, sufficiency = map(as_array, of.first_order())
        effects |= {
            "necessity_first_order": necessity,
            "sufficiency_first_order": sufficiency,
        }
    assert set(effects) <= set(EFFECTS)
    return effects


def _by_place(of: Written, values: np.ndarray) -> np.ndarray:
    """Reorder `[prompt, component]` to `[prompt, layer, part]`; NaN up to theta's layer."""
    out = np.full((len(values), of.model.n_layers, of.model.n_heads + 1), np.nan, dtype=np.float32)
    for i, c in enumerate(of.components):
        out[:, c.layer, -1 if c.head is None else c.head] = values[:, i]
    return out


def _sets(
    of: Written, necessity: np.ndarray, n_draws: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Log probabilities with sets of components, all others, or random sets set back.

    Components are ranked by mean necessity on odd prompts. Random sets have the same sizes.
    """
    n = len(of.components)
    order = np.argsort(-necessity[1::2].mean(axis=0))
    draws = [rng.permutation(n) for _ in range(n_draws)]
    sizes = [size for size in _SIZES if size < n]

    def chosen(ranking: np.ndarray) -> list[Component]:
        return [of.components[i] for i in ranking]

    edits: list[AnyEdit] = []
    for ranking in (order, *draws):
        edits += [of.reset(chosen(ranking[:size])) for size in sizes]
    edits += [of.reset(chosen(order[size:])) for size in sizes]
    found = as_array(of.logprob(edits)).reshape(len(necessity), -1, len(sizes))
    padded = np.full((len(necessity), n_draws + 2, len(_SIZES)), np.nan, dtype=np.float32)
    padded[..., : len(sizes)] = found
    rank = np.empty(n)
    rank[order] = np.arange(n)
    return {
        "rank": (("layer", "part"), _by_place(of, rank[None])[0]),
        "set_back": (("prompt", "size"), padded[:, 0], {"units": "nats"}),
        "random_set_back": (
            ("draw", "prompt", "size"),
            padded[:, 1:-1].swapaxes(0, 1),
            {"units": "nats"},
        ),
        "others_set_back": (("prompt", "size"), padded[:, -1], {"units": "nats"}),
    }
