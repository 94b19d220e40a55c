"""The counted quantities: operations and bytes of matrix products, and peak memory."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """The work of matrix products.

    Attributes:
        operations: multiplications and additions.
        bytes: bytes read and written, if every product reads its arguments from main memory.
    """

    operations: int = 0
    bytes: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.operations + other.operations, self.bytes + other.bytes)

    def __mul__(self, times: int) -> "Work":
        return Work(self.operations * times, self.bytes * times)

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """The time to compute or to move the bytes, whichever is longer."""
        return max(self.operations / flops_per_second, self.bytes / bytes_per_second)


@dataclass(frozen=True)
class Cost:
    """The expected cost of a question.

    Attributes:
        parts: the work of running whole prompts (`"prompts"`), of running edited tokens and those
            after them (`"branches"`), and of the unembedding (`"readout"`).
        weights: bytes of the model's weights.
        memory: the most bytes in use at once, including the weights.

    Example:
        >>> cost = Cost({"prompts": Work(2_000, 100), "readout": Work(1_000, 900)}, 400, 700)
        >>> cost.operations, cost.seconds(flops_per_second=100.0, bytes_per_second=20.0)
        (3000, 65.0)
    """

    parts: Mapping[str, Work]
    weights: int
    memory: int

    @property
    def operations(self) -> int:
        """The operations of all parts."""
        return sum(part.operations for part in self.parts.values())

    @property
    def bytes(self) -> int:
        """The bytes of all parts."""
        return sum(part.bytes for part in self.parts.values())

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """The expected time; each part takes the longer of computing and moving its bytes.

        Args:
            flops_per_second: operations per second that matrix products really reach.
            bytes_per_second: bytes per second that main memory really reaches.
        """
        rates = flops_per_second, bytes_per_second
        return sum(part.seconds(*rates) for part in self.parts.values())
