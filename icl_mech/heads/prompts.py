"""The prompts of questions about heads, as token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from icl_mech.errors import InputError
from icl_mech.heads.plan import HeadsPlan, HeadsTask, Labelled
from icl_mech.model import HookedModel
from icl_mech.prompts import Encoder, Episode, Prompt, in_context, zero_shot


@dataclass(frozen=True)
class Prompts:
    """Few-shot prompts with right and with shuffled labels, for the same queries.

    Attributes:
        labels: all labels of the task.
        episodes: the episodes with right labels.
        clean: their prompts.
        shuffled: the same prompts with shuffled labels.
    """

    encoder: Encoder
    labels: tuple[str, ...]
    episodes: tuple[Episode, ...]
    clean: tuple[Prompt, ...]
    shuffled: tuple[Prompt, ...]

    @staticmethod
    def of(encoder: Encoder, labels: tuple[str, ...], episodes: Labelled) -> "Prompts":
        """Encode episodes."""
        clean, shuffled = (
            tuple(in_context(encoder, part)) for part in (episodes.clean, episodes.shuffled)
        )
        return Prompts(encoder, labels, episodes.clean, clean, shuffled)

    @cached_property
    def zero_shot(self) -> tuple[Prompt, ...]:
        """The queries alone."""
        return tuple(zero_shot(self.encoder, self.episodes))

    @cached_property
    def answers(self) -> list[int]:
        """The first token of each right answer."""
        return [
            self.encoder.answer_tokens(prompt, [e.query.y])[0][0]
            for prompt, e in zip(self.clean, self.episodes, strict=True)
        ]

    @property
    def targets(self) -> list[list[int]]:
        """`answers` in the form that `model.evaluate` and `model.predict` take."""
        return [[token] for token in self.answers]

    @cached_property
    def rivals(self) -> list[tuple[int, ...]]:
        """The first tokens of the labels that each answer is compared with.

        These are the other labels that the prompt shows. If all labels shown are the right answer
        (as happens in tasks with few labels), they are all other labels of the task.

        Raises:
            InputError: if the task has no other label.
        """
        found = []
        for prompt, e in zip(self.clean, self.episodes, strict=True):
            shown = self.encoder.rivals(
                prompt, e.query.answers, (pair.y for pair in e.demonstrations)
            )
            rivals = shown or self.encoder.rivals(prompt, e.query.answers, self.labels)
            if not rivals:
                raise InputError(
                    f"all labels begin with the same token as {e.query.y!r}, the answer to "
                    f"{e.query.x!r}; expected another label to compare it with"
                )
            found.append(rivals)
        return found


@dataclass(frozen=True)
class TaskPrompts:
    """A planned task with its prompts, dev apart from test."""

    plan: HeadsTask
    dev: Prompts
    test: Prompts

    def asked(self) -> dict[str, Any]:
        """The queries and answers of the test prompts, as arrays of a result."""
        return {
            "n_queries": ((), self.plan.n_queries),
            "query": ("prompt", [e.query.x for e in self.test.episodes]),
            "answer": ("prompt", [e.query.y for e in self.test.episodes]),
        }


def encode(model: HookedModel, plan: HeadsPlan) -> list[TaskPrompts]:
    """The prompts of every task; nothing is run.

    Raises:
        InputError: if the model's tokenizer cannot write a prompt.
    """
    s = plan.settings
    encoded = []
    for of in plan.tasks:
        words = [pair.y for pair in of.task.pairs]
        encoder = model.encoder(s.template, words, s.leading_space)
        labels = tuple(dict.fromkeys(words))
        dev, test = (Prompts.of(encoder, labels, part) for part in (of.dev, of.test))
        encoded.append(TaskPrompts(of, dev, test))
    return encoded


def elsewhere(model: HookedModel, encoded: TaskPrompts) -> Sequence[Prompt]:
    """The prompts of other tasks, written with the same template as the task's own."""
    template = encoded.test.encoder.template
    prompts: list[Prompt] = []
    for task, episodes in encoded.plan.elsewhere:
        words = [pair.y for pair in task.pairs]
        prompts += in_context(model.encoder(template.text, words, template.leading_space), episodes)
    return prompts
