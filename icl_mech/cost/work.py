"""What is counted: operations and bytes of matrix products, and the most memory in use."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Matrix products.

    Attributes:
        operations: multiplications and additions.
        bytes: read and written, where every product reads its arguments from main memory.
    """

    operations: int = 0
    bytes: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.operations + other.operations, self.bytes + other.bytes)

    def __mul__(self, times: int) -> "Work":
        return Work(self.operations * times, self.bytes * times)

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """The longer of the two: computing, or moving the bytes."""
        return max(self.operations / flops_per_second, self.bytes / bytes_per_second)


@dataclass(frozen=True)
class Cost:
    """What a question is expected to cost.

    Attributes:
        parts: the work of running whole prompts (`"prompts"`), of running tokens with an edit and
            what follows them (`"branches"`), and of the unembedding (`"readout"`).
        weights: bytes of the model's weights.
        memory: the most bytes in use at a time, weights included.

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
        """Of all parts."""
        return sum(part.operations for part in self.parts.values())

    @property
    def bytes(self) -> int:
        """Of all parts."""
        return sum(part.bytes for part in self.parts.values())

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> float:
        """The expected time, every part at the slower of the two rates.

        Args:
            flops_per_second: matrix products' operations per second that are really reached.
            bytes_per_second: of main memory, that are really reached.
        """
        rates = flops_per_second, bytes_per_second
        return sum(part.seconds(*rates) for part in self.parts.values())
