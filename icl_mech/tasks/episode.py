"""One demonstration set with its query: what a prompt is made from."""

from dataclasses import dataclass

from icl_mech.tasks.task import Pair


@dataclass(frozen=True)
class Episode:
    """One demonstration set with the query it is asked about.

    Attributes:
        demonstrations: what the prompt shows.
        query: what it asks, with the right answers.
        dummies: inputs that stand in for the query when theta is read (Hendel et al., section
            3.2): neither the query nor among the demonstrations.
        wrong: wrong answers that have a name, such as `("wrong_direction", ("B", "C"))`.
    """

    demonstrations: tuple[Pair, ...]
    query: Pair
    dummies: tuple[Pair, ...]
    wrong: tuple[tuple[str, tuple[str, ...]], ...] = ()
