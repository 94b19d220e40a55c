"""What is refused before a model is loaded."""

from icl_mech.errors import InputError
from icl_mech.prompts import check_counts

#: How many neighbours vote, by default.
N_NEIGHBOURS = 10


def check_sizes(
    n_prompts: int, n_shots: int, n_points: int, k: int, seed: int, heads: bool
) -> None:
    """Refuse counts that cannot work.

    Raises:
        InputError: naming the first.
    """
    check_counts({"n_prompts": n_prompts, "n_shots": n_shots, "k": k}, seed)
    if not k < n_points >= n_prompts:
        raise InputError(
            f"n_points is {n_points}; expected more than k = {k} neighbours, and at least "
            f"n_prompts = {n_prompts}"
        )
    if heads and n_shots < 2:
        raise InputError("heads need at least 2 shots (labels are shuffled); expected heads=False")
