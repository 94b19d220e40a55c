"""The edits that a check tries: random vectors of the activation's length, or the activation."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from icl_mech.check.ask import ROLES, Asked
from icl_mech.layers import Mode, Site, evenly_spaced
from icl_mech.model import Edit
from icl_mech.prompts import generator
from icl_mech.vectors import random_like

LAST, EARLY = ROLES
#: Blocks per site on which two engines are compared.
N_BLOCKS = 4
#: For each site, the edits that are tried, each a list of edits that are applied together.
Trials = Mapping[str, Sequence[list[Edit]]]


def contrasting(asked: Asked, seed: int) -> Trials:
    """Replace and add at an early and at the last token, in some blocks of every site.

    At `"z"`, each edit is of one head; the heads take turns.
    """
    rng = generator(seed, "check", "contrasting")
    places: list[tuple[str, Mode]] = [(role, mode) for role in ROLES for mode in ("replace", "add")]
    return {
        site: [
            [edits[i % len(edits)]]
            for i, edits in enumerate(
                _random(asked, site, blocks[at], role, mode, rng)
                for at in evenly_spaced(len(blocks), N_BLOCKS)
                for role, mode in places
            )
        ]
        for site, blocks in asked.sites.items()
    }


def adding(asked: Asked, seed: int) -> Trials:
    """Add a vector as long as the activation at the last token, in every block of every site.

    At `"z"`, vectors are added to all heads together.
    """
    rng = generator(seed, "check", "adding")
    return {
        site: [_random(asked, site, block, LAST, "add", rng) for block in blocks]
        for site, blocks in asked.sites.items()
    }


def restoring(asked: Asked) -> Trials:
    """Write the activation over itself at both tokens, in every block of every site."""
    return {
        site: [
            _edits(site, block, role, "replace", asked.own[site, block, role])
            for role in ROLES
            for block in blocks
        ]
        for site, blocks in asked.sites.items()
    }


def timed(asked: Asked, n_edits: int, seed: int) -> list[list[Edit]]:
    """Edits of the residual stream at the last token, block after block.

    Together the prompts run at least `n_edits` of them.
    """
    rng = generator(seed, "check", "timed")
    blocks = asked.sites["resid_post"]
    n = -(-n_edits // len(asked.prompts))
    return [
        _random(asked, "resid_post", blocks[i % len(blocks)], LAST, "replace", rng)
        for i in range(n)
    ]


def _random(
    asked: Asked, site: str, block: int, role: str, mode: Mode, rng: np.random.Generator
) -> list[Edit]:
    """Edits with vectors of random direction and the activation's length, at `"z"` one per head."""
    return _edits(site, block, role, mode, random_like(asked.own[site, block, role], rng))


def _edits(
    site: str, block: int, role: str, mode: Mode, values: Float[Tensor, "prompt *shape"]
) -> list[Edit]:
    """One edit, or at `"z"` one per head."""
    known: Site = site  # type: ignore[assignment]
    if site != "z":
        return [Edit(block, values, known, role, mode)]
    return [
        Edit(block, values[:, head], known, role, mode, head=head)
        for head in range(values.shape[1])
    ]


def described(edits: Sequence[Edit]) -> str:
    """The place of an edit, in words."""
    first = edits[0]
    token = "the last token" if first.position == LAST else f"token {first.position}"
    head = f", head {first.head}" if len(edits) == 1 and first.head is not None else ""
    return f"{first.mode} in block {first.layer}{head} at {token}"
