"""Episodes -> the prompts that ask them, and the answers that are right."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_mech.prompts.encode import Encoder, Prompt
from icl_mech.tasks.episode import Episode


def zero_shot(encoder: Encoder, episodes: Sequence[Episode]) -> list[Prompt]:
    """The queries alone.

    Example:
        >>> from icl_mech.prompts import draw_split
        >>> task = icl_mech.load_task("antonyms")
        >>> encoder = model.encoder("{x}->{y}", [pair.y for pair in task.pairs])
        >>> episodes = draw_split(task, 3, 1, 2, 2, 0).test
        >>> len(zero_shot(encoder, episodes))
        3
    """
    return [encoder.encode((), e.query.x) for e in episodes]


def in_context(encoder: Encoder, episodes: Sequence[Episode]) -> list[Prompt]:
    """The queries, each after its demonstrations.

    Example:
        >>> from icl_mech.prompts import draw_split
        >>> task = icl_mech.load_task("antonyms")
        >>> encoder = model.encoder("{x}->{y}", [pair.y for pair in task.pairs])
        >>> episodes = draw_split(task, 3, 1, 2, 2, 0).test
        >>> len(in_context(encoder, episodes))
        3
    """
    return [encoder.encode(e.demonstrations, e.query.x) for e in episodes]


def with_dummies(encoder: Encoder, episodes: Sequence[Episode]) -> list[list[Prompt]]:
    """Each episode's dummies after its demonstrations, in place of its query.

    Example:
        >>> from icl_mech.prompts import draw_split
        >>> task = icl_mech.load_task("antonyms")
        >>> encoder = model.encoder("{x}->{y}", [pair.y for pair in task.pairs])
        >>> episodes = draw_split(task, 3, 1, 2, 2, 0).test
        >>> [len(group) for group in with_dummies(encoder, episodes)]
        [2, 2, 2]
    """
    return [[encoder.encode(e.demonstrations, d.x) for d in e.dummies] for e in episodes]


def few_shot(encoder: Encoder, episodes: Sequence[Episode]) -> list[list[Prompt]]:
    """Each episode's prompt with its query, then with each of its dummies.

    Example:
        >>> from icl_mech.prompts import draw_split
        >>> task = icl_mech.load_task("antonyms")
        >>> encoder = model.encoder("{x}->{y}", [pair.y for pair in task.pairs])
        >>> episodes = draw_split(task, 3, 1, 2, 2, 0).test
        >>> [len(group) for group in few_shot(encoder, episodes)]  # the query, two dummies
        [3, 3, 3]
    """
    asked, dummies = in_context(encoder, episodes), with_dummies(encoder, episodes)
    return [[first, *others] for first, others in zip(asked, dummies, strict=True)]


@dataclass(frozen=True)
class Answers:
    """The accepted answers to every prompt.

    Attributes:
        texts: as the task writes them.
        first_tokens: the ids with which they may begin, without repeats.
        n_tokens: tokens of the answer that demonstrations would show.
    """

    texts: tuple[tuple[str, ...], ...]
    first_tokens: tuple[tuple[int, ...], ...]
    n_tokens: tuple[int, ...]


def accepted(encoder: Encoder, prompts: Sequence[Prompt], episodes: Sequence[Episode]) -> Answers:
    """The answers to the episodes' queries as they would follow `prompts`.

    Example:
        >>> from icl_mech.prompts import draw_split
        >>> task = icl_mech.load_task("antonyms")
        >>> encoder = model.encoder("{x}->{y}", [pair.y for pair in task.pairs])
        >>> episodes = draw_split(task, 3, 1, 2, 2, 0).test
        >>> answers = accepted(encoder, zero_shot(encoder, episodes), episodes)
        >>> len(answers.first_tokens)
        3
    """
    texts = tuple(e.query.answers for e in episodes)
    tokens = [encoder.answer_tokens(p, of) for p, of in zip(prompts, texts, strict=True)]
    return Answers(
        texts,
        tuple(tuple(dict.fromkeys(ids[0] for ids in of)) for of in tokens),
        tuple(len(of[0]) for of in tokens),
    )
