"""What a position scan patches: sites, directions and roles, checked before anything runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from icl_mech.errors import InputError, choose
from icl_mech.model import SITES, HookedModel, Site
from icl_mech.patch.contrasts import Contrast, check_aligned, default_roles
from icl_mech.patch.positions_result import DIRECTIONS

Roles = Sequence[str | int]


@dataclass(frozen=True)
class Grid:
    """What is patched: every site at every role, in every direction.

    Attributes:
        sites: without `"z"`.
        directions: of `DIRECTIONS`.
        roles: for `sites`.
        head_roles: for `"z"`; none where it was not asked for.
        labels: the names of `roles` and of `head_roles` in the result.
    """

    sites: tuple[str, ...]
    directions: tuple[str, ...]
    roles: tuple[str | int, ...]
    head_roles: tuple[str | int, ...]
    labels: tuple[tuple[str, ...], tuple[str, ...]]

    def cells(self, model: HookedModel) -> int:
        """Patched runs per prompt."""
        places = len(self.sites) * len(self.roles) + len(self.head_roles) * model.n_heads
        return places * len(self.directions) * model.n_layers


def each(chosen: str | Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """One name or several, each of which must be known and come once.

    Raises:
        InputError: naming the nearest that exists.
    """
    several = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    for name in several:
        choose(name, known, what)
    if not several or len(set(several)) != len(several):
        raise InputError(
            f"{what}s {list(several)}; expected at least one of {', '.join(known)}, each once"
        )
    return several


def grid_of(
    model: HookedModel,
    contrasts: Mapping[str, Sequence[Contrast]],
    direction: str | Sequence[str],
    sites: str | Sequence[str],
    roles: str | Roles | None,
    head_roles: str | Roles | None,
) -> Grid:
    """Names -> what is patched; everything that can be checked before the first patched run is.

    Raises:
        InputError: where a direction, site or role does not exist, or prompts do not line up.
    """
    directions = each(direction, DIRECTIONS, "direction")
    all_sites = each(sites, SITES, "site")
    every = [contrast for of_task in contrasts.values() for contrast in of_task]
    tokens, labels = _roles(model, every, roles)
    head_tokens, head_labels = (
        (tokens, labels) if head_roles is None else _roles(model, every, head_roles)
    )
    if "z" not in all_sites:
        head_tokens, head_labels = (), ()
    plain = tuple(site for site in all_sites if site != "z")
    if not plain:
        tokens, labels = (), ()
    for site in all_sites:  # the engine knows which sites the model has
        model.capture([every[0].clean], [0], cast(Site, site))
    return Grid(plain, directions, tokens, head_tokens, (labels, head_labels))


def _roles(
    model: HookedModel, contrasts: Sequence[Contrast], roles: str | Roles | None
) -> tuple[tuple[str | int, ...], tuple[str, ...]]:
    """The tokens asked for, and what the result calls them."""
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
    else:
        chosen = (roles,) if isinstance(roles, str) else tuple(roles)
    if not chosen or len(set(chosen)) != len(chosen):
        raise InputError(f"roles {list(chosen)}; expected at least one, each once")
    check_aligned(contrasts, chosen)
    return chosen, tuple(str(role) for role in chosen)


def _token_labels(model: HookedModel, contrast: Contrast) -> Iterator[str]:
    """`"5: word"`, or `"5: word | other word"` where the prompts differ."""
    for i, pair in enumerate(zip(contrast.clean.tokens, contrast.corrupted.tokens, strict=True)):
        # As in source code, so that a line break is seen and breaks no line of the figure.
        texts = [repr(model.to_string(token))[1:-1] for token in dict.fromkeys(pair)]
        yield f"{i}: {' | '.join(texts)}"
