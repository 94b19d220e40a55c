"""Write another basis' representation into sequences, and read the changed prediction.

Han et al. (2024), arXiv 2412.12276, section 3, replace the residual stream after a layer by the
mean activation of a target basis, for every source and target. This is available, but has no effect
at these sizes: the models write a basis as a direction that is multiplied by y. Since y is as often
negative as positive, the bases' means nearly coincide. So the perturbation matrix here exchanges
the bases' lines (level + slope · y), with a random change of the same size as control.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import choose
from icl_mech.synthetic.model import RegressionTransformer

PerBasis = Float[Tensor, "layer basis pos d_model"]
Tokens = Literal["last_y", "all_y", "query"]
How = Literal["replace", "shift", "exchange", "random"]
TOKENS, HOWS = get_args(Tokens), get_args(How)


def positions(model: RegressionTransformer, tokens: str) -> list[int]:
    """The positions that a name stands for.

    Args:
        model: gives the number of examples.
        tokens: `"last_y"`, the y token of the last demonstration; `"all_y"`, those of all
            demonstrations; `"query"`, the last x token, where the answer is predicted.

    Raises:
        InputError: where there is no such name.
    """
    choose(tokens, TOKENS, "tokens")
    last = 2 * model.n_examples
    found = {"last_y": [last - 1], "all_y": list(range(1, last, 2)), "query": [last]}
    return found[tokens]


def residuals(
    model: RegressionTransformer, tokens: Float[Tensor, "seq pos dim_and_y"]
) -> tuple[Float[Tensor, "seq pos"], Float[Tensor, "layer seq pos d_model"]]:
    """The numbers read out, and the residual stream after every block."""
    with torch.no_grad():
        out, cache = model.run_with_cache(
            tokens, names_filter=lambda name: name.endswith("hook_resid_post")
        )
    layers = range(model.config.n_layers)
    return out, torch.stack([cache[f"blocks.{layer}.hook_resid_post"] for layer in layers])


@dataclass(frozen=True)
class BasisLines:
    """The mean activation of every basis, and its line: level + slope times the token's y.

    Attributes:
        mean: over sequences, position by position.
        level, slope: of the least-squares line; at x tokens, which have no y, the mean and 0.
        spread: a square root of the covariance of activations at y tokens. A standard normal vector
            times `spread` has their covariance.
    """

    mean: PerBasis
    level: PerBasis
    slope: PerBasis
    spread: Float[Tensor, "layer d_model d_model"]

    def given(
        self,
        layer: int,
        basis: Int[Tensor, "seq"],
        where: list[int],
        ys: Float[Tensor, "seq pos"],
    ) -> Float[Tensor, "seq where d_model"]:
        """The activations that the bases' lines give at these tokens, from their y."""
        level, slope = (part[layer, basis][:, where] for part in (self.level, self.slope))
        return level + slope * ys[:, where, None]


def token_ys(
    model: RegressionTransformer, tokens: Float[Tensor, "seq pos dim_and_y"]
) -> Float[Tensor, "seq pos"]:
    """The y of every y token; 0 at x tokens."""
    return tokens[..., model.dim]


def basis_lines(
    resid: Float[Tensor, "layer seq pos d_model"],
    ys: Float[Tensor, "seq pos"],
    basis: Int[Tensor, "seq"],
    n_bases: int,
) -> BasisLines:
    """Fit each basis' lines, position by position.

    Args:
        resid: of sequences, as `residuals` gives it.
        ys: of their tokens, as `token_ys` gives them.
        basis: of the sequences.
        n_bases: K.
    """
    means, levels, slopes = [], [], []
    for k in range(n_bases):
        ours, y = resid[:, basis == k], ys[basis == k]
        mean, centred = ours.mean(1), y - y.mean(0)
        moved = torch.einsum("lspd,sp->lpd", ours, centred)
        slope = moved / centred.square().sum(0).clamp_min(1e-12)[:, None]
        means.append(mean)
        levels.append(mean - slope * y.mean(0)[:, None])
        slopes.append(slope)
    mean, level, slope = (torch.stack(part, dim=1) for part in (means, levels, slopes))
    spread = torch.stack([_root(r[:, 1::2].flatten(0, 1)) for r in resid])
    return BasisLines(mean, level, slope, spread)


def _root(rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "d_model d_model"]:
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    return values.clamp_min(0).sqrt()[:, None] * vectors.T


def perturbed(
    model: RegressionTransformer,
    tokens: Float[Tensor, "seq pos dim_and_y"],
    basis: Int[Tensor, "seq"],
    lines: BasisLines,
    at: str = "last_y",
    how: str = "replace",
    source: BasisLines | None = None,
    seed: int = 0,
    resid: Float[Tensor, "layer seq pos d_model"] | None = None,
) -> Float[Tensor, "layer target seq"]:
    """The query's prediction after writing each basis' representation into every sequence.

    Args:
        model: in evaluation mode.
        tokens: sequences.
        basis: their own bases, the sources; not used by `"replace"`.
        lines: of the target bases, best fitted on other sequences.
        at: the tokens, as in `positions`.
        how: one of

            - `"exchange"`: replace the source's line by the target's, at the token's own y. This
              keeps all information of the token except its basis and its y.
            - `"random"`: the control for `"exchange"`. The change has the same length and also
              changes sign with y, but its direction is random for each sequence, drawn with the
              covariance of activations.
            - `"shift"`: add the difference of the target's and the source's means.
            - `"replace"`: write the target's mean, as the paper does. This also erases the token's
              information about W.
        source: the lines that are removed; `lines` by default. If they are fitted on other
            sequences than `lines`, giving a basis its own line shows the effect of estimation
            errors.
        seed: of the random directions.
        resid: of `tokens`, as `residuals` gives it; computed here by default.

    Raises:
        InputError: where `at` or `how` is unknown.
    """
    choose(how, HOWS, "how")
    where = positions(model, at)
    ys = token_ys(model, tokens)
    resid = residuals(model, tokens)[1] if resid is None else resid
    own = lines if source is None else source
    generator = torch.Generator().manual_seed(seed)
    found = []
    for layer in range(model.config.n_layers):
        normal = torch.randn(len(tokens), 1, lines.spread.shape[-1], generator=generator)
        direction = normal.to(lines.spread) @ lines.spread[layer]
        direction = direction / direction.norm(dim=-1, keepdim=True)
        for k in range(lines.mean.shape[1]):
            target = torch.full_like(basis, k)
            if how in ("exchange", "random"):
                old = own.given(layer, basis, where, ys)
                new = lines.given(layer, target, where, ys)
            else:
                old, new = own.mean[layer, basis][:, where], lines.mean[layer, target][:, where]
            if how == "random":
                # The same length as the exchange's change at each token, reversed for negative y.
                length = (new - old).norm(dim=-1, keepdim=True)
                sign = torch.where(ys[:, where] < 0, -1.0, 1.0)[..., None]
                new = old + direction * length * sign
            stream = resid[layer].clone()
            stream[:, where] = new if how == "replace" else stream[:, where] + new - old
            found.append(_read_on(model, stream, layer))
    return torch.stack(found).unflatten(0, (model.config.n_layers, -1))


def _read_on(
    model: RegressionTransformer, stream: Float[Tensor, "seq pos d_model"], layer: int
) -> Float[Tensor, "seq"]:
    """The query's prediction from the stream after block `layer`; only later blocks run."""
    with torch.no_grad():
        for block in model.blocks[layer + 1 :]:
            stream = block(stream)
        return model.read_out(model.ln_final(stream[:, -1:]))[:, 0, 0]
