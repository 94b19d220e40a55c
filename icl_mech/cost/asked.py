"""The size of a question, in prompts and tokens."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The size of a question, for one task.

    Attributes:
        n_tasks: the number of tasks in all.
        n_prompts, n_shots, n_dummies: as in the questions.
        per_demonstration: tokens of a demonstration.
        per_query: tokens of the query and its arrow.
        everywhere: whether a scan's controls are injected after every block.
        controls: whether decodability runs its controls.
        heads, masking: whether a map (`localize`) includes heads and masking.
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
        """The number of dev prompts, on which layers are chosen, if a question does not set it."""
        return max(1, self.n_prompts // 2)

    @property
    def demonstrations(self) -> int:
        """Tokens before the query: the sink token and the demonstrations."""
        return 1 + self.n_shots * self.per_demonstration

    @property
    def few_shot(self) -> int:
        """Tokens of a few-shot prompt."""
        return self.demonstrations + self.per_query

    @property
    def zero_shot(self) -> int:
        """Tokens of a zero-shot prompt."""
        return 1 + self.per_query

    @property
    def label(self) -> int:
        """Tokens of an answer: those of a demonstration without x, arrow and line break.

        x and arrow are counted as `per_query` tokens, but as three at least.
        """
        return max(1, self.per_demonstration - 1 - max(3, self.per_query))

    @property
    def roles(self) -> list[int]:
        """For each role in a position scan, the number of tokens from the role to the last token.

        A branch runs these tokens. Since only labels are shuffled, prompts are the same before the
        first label, and nothing is patched there.
        """
        n, last = self.per_demonstration, self.few_shot
        ends = (max(n - 4, 0), max(n - 3, 0), max(n - 2, 0))  # x, arrow, y; then a line break
        demos = [1 + i * n + end for i in range(self.n_shots) for end in ends][2:]
        return [last - at for at in (*demos, last - 2, last - 1)]
