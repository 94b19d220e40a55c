"""What is planted in a model: its tasks, which blocks and heads do what, and the decoys."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from icl_mech.errors import InputError, choose
from icl_mech.tasks import Family, Pair, Task

#: What may be planted to mislead a read-out.
DECOYS = ("unread_head", "unread_direction", "partial_copy")
#: Heads of every block.
N_HEADS = 6
#: Every fifth input is answered by the partial copy, where there is one.
PARTIAL = 5

Head = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Plant:
    """Settings of a planted model.

    Attributes:
        n_layers: blocks.
        formed: the block whose heads write the task at the final token.
        decoded: the block that turns task and query into the answer.
        n_writers: heads of block `formed` that share the writing equally.
        n_tasks: tasks, each another one-to-one mapping of the same inputs to the same answers.
        n_inputs: inputs of every task.
        circuit: whether the model can do its tasks. Without the circuit there are only decoys and
            noise.
        decoys: among `DECOYS`.

            - `"unread_head"`: a head of block 1 that attends from the final token to the labels, as
              the writers do; nothing reads its output.
            - `"unread_direction"`: a head of block 1 that writes the task at the final token in a
              direction that nothing reads.
            - `"partial_copy"`: a head of block `formed - 1` that writes the task at the final
              token. For every fifth input this copy is read instead of the writers' output.
        noise: standard deviation of random weights that are added to all matrices except those that
            locate tokens (positions, and the keys of the head that finds the query), in units of a
            feature; 0 for none.
        seed: of the mappings, of the directions in the residual stream, of which heads do what,
            and of the noise.

    Raises:
        InputError: where the blocks are not in order, or a number is out of range.

    Example:
        >>> Plant(formed=3, decoded=5).truth().decoded
        5
    """

    n_layers: int = 8
    formed: int = 3
    decoded: int = 5
    n_writers: int = 1
    n_tasks: int = 3
    n_inputs: int = 40
    circuit: bool = True
    decoys: tuple[str, ...] = ()
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for decoy in self.decoys:
            choose(decoy, DECOYS, "decoy")
        blocks = (1, self.formed, self.decoded, self.n_layers)
        if not all(first < then for first, then in pairwise(blocks)):
            raise InputError(
                f"formed is {self.formed} and decoded {self.decoded} of {self.n_layers} layers; "
                "expected 1 < formed < decoded < n_layers (blocks 0 and 1 collect the labels)"
            )
        for name, least, most in (
            ("n_writers", 1, N_HEADS - 2),
            ("n_tasks", 2, self.n_inputs),
            ("n_inputs", PARTIAL, 64),
        ):
            if not least <= getattr(self, name) <= most:
                raise InputError(
                    f"{name} is {getattr(self, name)}; expected a number from {least} to {most}"
                )
        if not 0 <= self.noise <= 1:
            raise InputError(f"noise is {self.noise}; expected a number from 0 to 1")

    def mappings(self) -> np.ndarray:
        """The answer to every input, `[task, input]`; answers to an input differ between tasks."""
        rng = np.random.default_rng([self.seed, 0])
        first, shift = rng.permutation(self.n_inputs), rng.permutation(self.n_inputs)
        turned = (np.arange(self.n_inputs) + shift[: self.n_tasks, None]) % self.n_inputs
        return first[turned]

    def family(self) -> Family:
        """The tasks, which share inputs and answers."""
        tasks = (
            Task(
                f"planted/{letter}",
                "user",
                "a planted mapping",
                tuple(Pair(f"in{x}", (f"out{y}",)) for x, y in enumerate(answers)),
            )
            for letter, answers in zip(_letters(self.n_tasks), self.mappings(), strict=True)
        )
        return Family("planted", tuple(tasks))

    def truth(self) -> "Truth":
        """Which heads and MLPs do what."""
        rng = np.random.default_rng([self.seed, 1])
        free = [iter(rng.permutation(N_HEADS).tolist()) for _ in range(self.n_layers)]

        def head(layer: int) -> Head:
            return layer, next(free[layer])

        decoys = {}
        for name, layer in zip(DECOYS, (1, 1, self.formed - 1), strict=True):
            if name in self.decoys:
                decoys[name] = head(layer)
        return Truth(
            formed=self.formed,
            decoded=self.decoded,
            collect=head(0),
            write=tuple(head(self.formed) for _ in range(self.n_writers)),
            query=head(self.decoded),
            decoys=decoys,
        )


def random_plant(seed: int, *, decoys: bool = True, circuit: bool = True) -> Plant:
    """Settings drawn at random: 5 to 10 layers, 1 to 3 writers, little noise or none.

    Args:
        seed: of the settings, and of the plant.
        decoys: whether each decoy is present with a chance of one half; otherwise there is none.
        circuit: as in `Plant`.

    Example:
        >>> plant = random_plant(0)
        >>> plant.n_layers, plant.formed, plant.decoded, plant.decoys
        (8, 6, 7, ('unread_head', 'unread_direction'))
    """
    rng = np.random.default_rng([seed, 3])
    n_layers = int(rng.integers(5, 11))
    formed, decoded = sorted(rng.choice(np.arange(2, n_layers), 2, replace=False).tolist())
    return Plant(
        n_layers=n_layers,
        formed=formed,
        decoded=decoded,
        n_writers=int(rng.integers(1, 4)),
        noise=float(rng.choice([0, 0.05, 0.1])),
        decoys=tuple(name for name in DECOYS if rng.random() < 0.5 and decoys),
        circuit=circuit,
        seed=seed,
    )


@dataclass(frozen=True)
class Truth:
    """What every read-out of a planted model should find.

    Attributes:
        formed: the first block after which a task vector at the final token works.
        decoded: the block that writes the answer: after it a task vector no longer works.
        collect: the head that copies each demonstration's input to its label. There the MLP of
            block 0 finds the tasks that fit both.
        write: the heads that write the task at the final token.
        query: the head that copies the query to the final token. It does not read the task.
        decoys: the heads of each decoy, by its name.
    """

    formed: int
    decoded: int
    collect: Head
    write: tuple[Head, ...]
    query: Head
    decoys: dict[str, Head]

    @property
    def decoder(self) -> str:
        """The component that reads the task: an MLP."""
        return f"mlp {self.decoded}"


def _letters(n: int) -> Iterator[str]:
    """Names of tasks: a, b, ..., z, a1, ..."""
    for i in range(n):
        yield chr(ord("a") + i % 26) + (str(i // 26) if i >= 26 else "")
