"""How much a question asks, in tokens and prompts."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How much is asked, of one task.

    Attributes:
        n_tasks: how many tasks are asked in all.
        n_prompts, n_shots, n_dummies: as in the questions.
        per_demonstration: tokens of a demonstration.
        per_query: tokens of the query and the arrow behind it.
        everywhere: whether a scan's controls are injected after every block.
        controls: whether decodability has any.
        heads, masking: whether a map has these.
    """

    n_tasks: int
    n_prompts: int
    n_shots: int
    n_dummies: int
    per_demonstration: int
    per_query: int
    everywhere: bool
    controls: bool = True
    heads: bool = True
    masking: bool = True

    @property
    def n_dev(self) -> int:
        """Prompts on which layers are chosen, where a question has no number of its own."""
        return max(1, self.n_prompts // 2)

    @property
    def demonstrations(self) -> int:
        """Tokens before the query: the sink and the demonstrations."""
        return 1 + self.n_shots * self.per_demonstration

    @property
    def few_shot(self) -> int:
        """Tokens of a prompt with demonstrations."""
        return self.demonstrations + self.per_query

    @property
    def zero_shot(self) -> int:
        """Tokens of a prompt without."""
        return 1 + self.per_query

    @property
    def label(self) -> int:
        """Tokens of an answer: a demonstration's, without x, arrow and line break.

        What stands before it takes at least three tokens; where a query has more, so many.
        """
        return max(1, self.per_demonstration - 1 - max(3, self.per_query))

    @property
    def roles(self) -> list[int]:
        """The tokens that a position scan's branches run: from each role to the last token.

        Labels are shuffled: prompts are the same up to the first label, where nothing is patched.
        """
        n, last = self.per_demonstration, self.few_shot
        ends = (max(n - 4, 0), max(n - 3, 0), max(n - 2, 0))  # x, arrow, y; then a line break
        demos = [1 + i * n + end for i in range(self.n_shots) for end in ends][2:]
        return [last - at for at in (*demos, last - 2, last - 1)]
