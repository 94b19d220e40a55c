"""Splits tasks into held-out inputs, which training never sees, and inputs for training prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_mech.errors import InputError
from icl_mech.prompts.sampling import Episode, check_counts, draw_episodes
from icl_mech.tasks.seeds import generator
from icl_mech.tasks.task import Pair, Task

#: Share of the inputs that are held out.
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class HeldOut:
    """A set of tasks, split by inputs into pairs for training and held-out pairs.

    Attributes:
        names: of the tasks.
        train: `[task][pair]`; queries and demonstrations of training.
        held_out: `[task][pair]`; an input that is held out in one task is so in every task.
        test: `[task][prompt]`; queries are held out, demonstrations are from `train`.
        n_queries: the number of different queries in `test`, by task.
    """

    names: tuple[str, ...]
    train: tuple[tuple[Pair, ...], ...]
    held_out: tuple[tuple[Pair, ...], ...]
    test: tuple[tuple[Episode, ...], ...]
    n_queries: tuple[int, ...]

    def batch(self, size: int, n_shots: int, seed: int, step: int) -> list[tuple[int, Episode]]:
        """The prompts of an update: for each, the number of its task and its episode.

        They depend on the arguments alone. Tasks take turns across updates, so that all tasks get
        equally many prompts.

        Args:
            size: how many.
            n_shots: demonstrations of each, other pairs than its query.
            seed: of the run.
            step: updates done so far.
        """
        rng = generator(seed, "finetune", str(step))
        drawn = []
        for i in range(size):
            task = (step * size + i) % len(self.train)
            pairs = self.train[task]
            # Draw a few more pairs than are shown, since one of them may give away the answer.
            picked = [pairs[j] for j in rng.permutation(len(pairs))[: 2 * n_shots + 2]]
            (episode,) = draw_episodes(picked[:1], picked[1:], 1, n_shots, 0, rng)
            drawn.append((task, episode))
        return drawn


def hold_out(
    tasks: Sequence[Task],
    n_prompts: int,
    n_shots: int,
    seed: int,
    share: float = HELD_OUT_SHARE,
) -> HeldOut:
    """Split tasks by inputs, and draw prompts whose queries are held-out inputs.

    If the tasks share their inputs, prompt `i` of every task has the same query and the same
    demonstration inputs.

    Args:
        tasks: all of them.
        n_prompts: how many for each task; queries repeat if there are fewer.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        share: of the inputs that is held out.

    Raises:
        InputError: where a count or the seed cannot work, or a task has too few inputs.

    Example:
        >>> from icl_mech.tasks import load_family
        >>> cut = hold_out(load_family("letters").tasks, n_prompts=4, n_shots=2, seed=0)
        >>> len(cut.train[0]), len(cut.held_out[0]), len(cut.test[0])
        (19, 5, 4)
        >>> {e.query.x for e in cut.test[0]} <= {pair.x for pair in cut.held_out[0]}
        True
    """
    n_prompts, n_shots = check_counts({"n_prompts": n_prompts, "n_shots": n_shots}, seed)
    inputs = list(dict.fromkeys(pair.x for task in tasks for pair in task.pairs))
    order = generator(seed, "held out").permutation(len(inputs))
    chosen = order[: max(1, round(share * len(inputs)))].tolist()
    rank = {inputs[j]: place for place, j in enumerate(chosen)}
    train, held, test = [], [], []
    for task in tasks:
        kept = tuple(pair for pair in task.pairs if pair.x not in rank)
        out = tuple(sorted((p for p in task.pairs if p.x in rank), key=lambda p: rank[p.x]))
        if not out or len(kept) < n_shots + 1:
            raise InputError(
                f"task {task.name!r} has {len(task)} inputs, too few: {len(out)} of them are held "
                f"out and {len(kept)} trained on; expected at least 1 and {n_shots + 1} "
                f"({n_shots} shots + 1 query)"
            )
        # The same draws for every task.
        rng = generator(seed, "held out prompts")
        train.append(kept)
        held.append(out)
        test.append(draw_episodes(out[:n_prompts], kept, n_prompts, n_shots, 0, rng))
    return HeldOut(
        tuple(task.name for task in tasks),
        tuple(train),
        tuple(held),
        tuple(test),
        tuple(min(n_prompts, len(pairs)) for pairs in held),
    )
