"""How many prompts a task map needs."""

from icl_mech.errors import InputError

#: Heads' mean outputs come from as many other prompts as heads are measured on, or from these.
MIN_MEAN = 10


def check_heads_points(n_prompts: int, n_points: int, n_shots: int) -> None:
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
