"""Makes the episodes of tasks whose right answers depend on their own prompt."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, zip_longest

import numpy as np

from icl_mech.tasks.context import Compose
from icl_mech.tasks.task import Episode, Pair

#: The name of answers in the wrong direction (see `Episode.wrong`).
WRONG_DIRECTION = "wrong_direction"


def lookup(values: Sequence[str], n_pairs: int, repeats: int, at: int | None) -> Compose:
    """New pairs in every prompt; the asked key is among the demonstrations.

    Args:
        values: words with which keys are paired at random; no value occurs twice in a prompt.
        n_pairs: the number of different pairs per prompt.
        repeats: how often every pair is shown, in a new order each time.
        at: which demonstration's key is asked: 0 the first, -1 the last; None a random one.
    """

    def compose(
        asked: str, others: Sequence[str], n_dummies: int, rng: np.random.Generator
    ) -> Episode:
        keys = [asked, *others[: n_pairs - 1]]
        dummies = others[n_pairs - 1 :][:n_dummies]
        words = [values[i] for i in rng.choice(len(values), n_pairs, replace=False)]
        pairs = _paired(keys, words)
        rounds = [[pairs[i] for i in rng.permutation(n_pairs)] for _ in range(repeats)]
        if at is not None:
            _move(rounds[at], pairs[0], at)
        shown = tuple(pair for each in rounds for pair in each)
        # Dummies have no right answer; only the input of their pair is used.
        return Episode(shown, pairs[0], _paired(dummies, [words[0]] * len(dummies)))

    return compose


def _move(row: list[Pair], pair: Pair, at: int) -> None:
    """Swap a pair to the first or last place of its round."""
    where = row.index(pair)
    row[where], row[at] = row[at], row[where]


def _paired(inputs: Sequence[str], answers: Sequence[str]) -> tuple[Pair, ...]:
    return tuple(Pair(x, (y,)) for x, y in zip(inputs, answers, strict=True))


def constant(values: Sequence[str], n_shots: int) -> Compose:
    """All inputs of a prompt have the same answer, which is drawn for every prompt."""

    def compose(
        asked: str, others: Sequence[str], n_dummies: int, rng: np.random.Generator
    ) -> Episode:
        answer = values[int(rng.integers(len(values)))]
        inputs = [asked, *others[: n_shots + n_dummies]]
        query, *pairs = _paired(inputs, [answer] * len(inputs))
        return Episode(tuple(pairs[:n_shots]), query, tuple(pairs[n_shots:]))

    return compose


def both_ways(forward: Mapping[str, Pair], backward: Mapping[str, Pair], n_shots: int) -> Compose:
    """A mapping and its inverse in one prompt: half of the demonstrations each way.

    The query decides the direction, which is drawn; dummies go both ways in turn.

    Args:
        forward: an item's pair one way.
        backward: the same item's pair the other way; the first answer of each pair is the input of
            the other.
        n_shots: demonstrations; an even number, half of them in each direction.
    """
    directions = (forward, backward)
    sides = [tuple(side[item].x for item in forward) for side in directions]

    def compose(
        asked: str, others: Sequence[str], n_dummies: int, rng: np.random.Generator
    ) -> Episode:
        shown = rng.permutation([i % 2 for i in range(n_shots)])
        way, first = rng.integers(2, size=2)
        ways = [way, *shown, *((first + i) % 2 for i in range(n_dummies))]
        items = [asked, *others[: n_shots + n_dummies]]
        query, *rest = [directions[w][i] for w, i in zip(ways, items, strict=True)]
        own_side = tuple(word for word in sides[way] if word not in query.answers)
        wrong = ((WRONG_DIRECTION, own_side),)
        return Episode(tuple(rest[:n_shots]), query, tuple(rest[n_shots:]), wrong)

    return compose


def labelled(classes: Mapping[str, int], values: Sequence[str], n_shots: int) -> Compose:
    """Inputs of two classes; which two words label them is drawn for every prompt.

    Args:
        classes: item -> 0 or 1.
        values: words that may be labels.
        n_shots: demonstrations per prompt, equally many of both classes as far as items suffice.
    """

    def compose(
        asked: str, others: Sequence[str], n_dummies: int, rng: np.random.Generator
    ) -> Episode:
        label = [values[i] for i in rng.choice(len(values), 2, replace=False)]
        members = [[i for i in others if classes[i] == c] for c in (0, 1)]
        # One of each class in turn, then what is left of the larger one.
        turns = [i for i in chain(*zip_longest(*members)) if i is not None]
        shown, dummies = turns[:n_shots], turns[n_shots:][:n_dummies]
        shown = [shown[i] for i in rng.permutation(n_shots)]

        def pair(item: str) -> Pair:
            return Pair(item, (label[classes[item]],))

        return Episode(tuple(map(pair, shown)), pair(asked), tuple(map(pair, dummies)))

    return compose


def mapped(
    answer: Callable[[str], str], wrong: Callable[[str], Sequence[str]], name: str, n_shots: int
) -> Compose:
    """A fixed function of the input.

    Args:
        answer: the function.
        wrong: gives wrong answers to an input that are counted under `name`.
        name: of these wrong answers.
        n_shots: demonstrations per prompt.
    """

    def compose(
        asked: str, others: Sequence[str], n_dummies: int, rng: np.random.Generator
    ) -> Episode:
        items = [asked, *others[: n_shots + n_dummies]]
        query, *rest = (Pair(item, (answer(item),)) for item in items)
        names = tuple(wrong(asked))
        named = ((name, names),) if names else ()
        return Episode(tuple(rest[:n_shots]), query, tuple(rest[n_shots:]), named)

    return compose
