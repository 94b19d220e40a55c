"""What is refused before a model is loaded."""

from icl_mech.errors import InputError
from icl_mech.prompts import check_counts

#: How many neighbours vote, by default.
N_NEIGHBOURS = 10
#: Heads' mean outputs come from as many other prompts as heads are measured on, or from these.
MIN_MEAN = 10


def check_sizes(
    n_prompts: int, n_shots: int, n_points: int, k: int, seed: int, heads: bool
) -> None:
    """Refuse counts that cannot work.

    Raises:
        InputError: naming the first.
    """
    counts = {"n_prompts": n_prompts, "n_points": n_points, "n_shots": n_shots, "k": k}
    n_prompts, n_points, n_shots, k = check_counts(counts, seed)
    if not k < n_points >= n_prompts:
        raise InputError(
            f"n_points is {n_points}; expected more than k = {k} neighbours, and at least "
            f"n_prompts = {n_prompts}"
        )
    if heads:
        _check_heads_points(n_prompts, n_points, n_shots)


def _check_heads_points(n_prompts: int, n_points: int, n_shots: int) -> None:
    """Refuse counts with which heads' effects cannot be measured well.

    Raises:
        InputError: where there are no labels to shuffle, or too few other prompts to average over.
    """
    if n_shots < 2:
        raise InputError("heads need at least 2 shots (labels are shuffled); expected heads=False")
    least = n_prompts + min(n_prompts, MIN_MEAN)
    if n_points < least:
        raise InputError(
            f"n_points is {n_points}: heads' mean outputs come from the {n_points - n_prompts} "
            f"points after the first n_prompts = {n_prompts}; expected n_points of at least "
            f"{least}, or no heads"
        )
