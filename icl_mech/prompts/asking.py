"""Turns episodes into prompts, and lists the answers that count as right."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_mech.prompts.encode import Encoder, Prompt
from icl_mech.tasks.task import Episode


def zero_shot(encoder: Encoder, episodes: Sequence[Episode]) -> list[Prompt]:
    """The queries alone, without demonstrations and without an instruction.

    >>> from icl_mech.tasks import Pair
    >>> episode = Episode((Pair("a", ("A",)),), Pair("b", ("B",)), (Pair("c", ("C",)),))
    >>> encoder = model.encoder("{x}->{y}", ["A", "B"])
    >>> [prompt.text for prompt in zero_shot(encoder, [episode])]
    [' b->']
    """
    return [encoder.encode((), e.query.x) for e in episodes]


def instruction_only(encoder: Encoder, episodes: Sequence[Episode]) -> list[Prompt]:
    """The queries, each after its instruction, without demonstrations.

    >>> from icl_mech.tasks import Pair
    >>> episode = Episode((Pair("a", ("A",)),), Pair("b", ("B",)), (), instruction="Write it big.")
    >>> encoder = model.encoder("{x}->{y}", ["A", "B"])
    >>> [prompt.text for prompt in instruction_only(encoder, [episode])]
    ['Write it big.\\n b->']
    """
    return [encoder.encode((), e.query.x, e.instruction) for e in episodes]


def in_context(encoder: Encoder, episodes: Sequence[Episode]) -> list[Prompt]:
    """The queries, each after its demonstrations, and these after the instruction if there is one.

    >>> from icl_mech.tasks import Pair
    >>> episode = Episode((Pair("a", ("A",)),), Pair("b", ("B",)), (Pair("c", ("C",)),))
    >>> encoder = model.encoder("{x}->{y}", ["A", "B"])
    >>> [prompt.text for prompt in in_context(encoder, [episode])]
    [' a-> A\\n b->']
    """
    return [encoder.encode(e.demonstrations, e.query.x, e.instruction) for e in episodes]


def with_dummies(encoder: Encoder, episodes: Sequence[Episode]) -> list[list[Prompt]]:
    """Each episode's dummy queries, each after the demonstrations, in place of the query.

    >>> from icl_mech.tasks import Pair
    >>> episode = Episode((Pair("a", ("A",)),), Pair("b", ("B",)), (Pair("c", ("C",)),))
    >>> encoder = model.encoder("{x}->{y}", ["A", "B"])
    >>> [[prompt.text for prompt in row] for row in with_dummies(encoder, [episode])]
    [[' a-> A\\n c->']]
    """
    return [
        [encoder.encode(e.demonstrations, d.x, e.instruction) for d in e.dummies] for e in episodes
    ]


def few_shot(encoder: Encoder, episodes: Sequence[Episode]) -> list[list[Prompt]]:
    """For each episode, the prompt with its query, then one prompt per dummy query.

    >>> from icl_mech.tasks import Pair
    >>> episode = Episode((Pair("a", ("A",)),), Pair("b", ("B",)), (Pair("c", ("C",)),))
    >>> encoder = model.encoder("{x}->{y}", ["A", "B"])
    >>> [[prompt.text for prompt in row] for row in few_shot(encoder, [episode])]
    [[' a-> A\\n b->', ' a-> A\\n c->']]
    """
    asked, dummies = in_context(encoder, episodes), with_dummies(encoder, episodes)
    return [[first, *others] for first, others in zip(asked, dummies, strict=True)]


@dataclass(frozen=True)
class Answers:
    """The accepted answers to every prompt.

    Attributes:
        texts: for each prompt, the accepted answers as the task writes them.
        first_tokens: for each prompt, the ids with which these answers begin, each once.
        n_tokens: for each prompt, the number of tokens of its first answer, the one that
            demonstrations would show.
    """

    texts: tuple[tuple[str, ...], ...]
    first_tokens: tuple[tuple[int, ...], ...]
    n_tokens: tuple[int, ...]


def accepted(encoder: Encoder, prompts: Sequence[Prompt], episodes: Sequence[Episode]) -> Answers:
    """The answers to the episodes' queries, tokenised as they would follow `prompts`.

    >>> from icl_mech.tasks import Pair
    >>> episode = Episode((Pair("a", ("A",)),), Pair("b", ("B", "bee")), ())
    >>> encoder = model.encoder("{x}->{y}", ["A", "B"])
    >>> answers = accepted(encoder, in_context(encoder, [episode]), [episode])
    >>> [model.to_string(token) for token in answers.first_tokens[0]], answers.n_tokens
    ([' B', ' bee'], (1,))
    """
    texts = tuple(e.query.answers for e in episodes)
    tokens = [encoder.answer_tokens(p, of) for p, of in zip(prompts, texts, strict=True)]
    return Answers(
        texts,
        tuple(tuple(dict.fromkeys(ids[0] for ids in of)) for of in tokens),
        tuple(len(of[0]) for of in tokens),
    )
