"""Bitwise operations on two binary numbers (Han et al. 2024)."""

from collections.abc import Callable, Iterable
from itertools import product

from icl_mech.errors import InputError
from icl_mech.tasks.builtin import instruction_of
from icl_mech.tasks.family import Family
from icl_mech.tasks.seeds import generator
from icl_mech.tasks.task import Pair, Task

N_DIGITS = 5
#: The way in which two numbers are written. The paper gives none.
WRITTEN = "{a} {b}"

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "and": lambda a, b: a & b,
    "nand": lambda a, b: ~(a & b),
    "or": lambda a, b: a | b,
    "nor": lambda a, b: ~(a | b),
    "xor": lambda a, b: a ^ b,
    "xnor": lambda a, b: ~(a ^ b),
}
OUTPUTS = (*OPERATIONS, "null")


def bitwise_family(written: str = WRITTEN, seed: int = 0) -> Family:
    """Six operations on all 1,024 pairs of 5-digit binary numbers, and random digits.

    On about half of the pairs two operations agree (OR and XOR, if no digit is 1 in both numbers).
    The paper draws from all pairs; `only_distinct()` keeps those on which no two operations agree.

    >>> bitwise_family().tasks[0].pairs[33]
    Pair(x='00001 00001', answers=('00001',))

    Args:
        written: how an input is written, with `{a}` and `{b}`, each once.
        seed: of the null task's digits, which differ from input to input.

    Raises:
        InputError: where `written` lacks a number, has one twice or has several lines, or the
            seed is negative.
    """
    if written.count("{a}") != 1 or written.count("{b}") != 1 or "\n" in written:
        raise InputError(
            f"written {written!r}: expected one line with {{a}} and {{b}}, each once, "
            f"as in {WRITTEN!r}"
        )
    operands = list(product(range(2**N_DIGITS), repeat=2))
    inputs = [written.replace("{a}", digits(a)).replace("{b}", digits(b)) for a, b in operands]
    tasks = []
    for name, operation in OPERATIONS.items():
        answers = (digits(operation(a, b)) for a, b in operands)
        description = f"two binary numbers -> their bitwise {name.upper()}"
        tasks.append(_task(name, description, inputs, answers))
    drawn = (digits(int(generator(seed, "bitwise/null", x).integers(2**N_DIGITS))) for x in inputs)
    tasks.append(_task("null", f"two binary numbers -> random digits (seed {seed})", inputs, drawn))
    return Family("bitwise", tuple(tasks), "bitwise/null")


def digits(number: int) -> str:
    """The last `N_DIGITS` binary digits of a number, negative ones as two's complement.

    >>> digits(5), digits(-1)
    ('00101', '11111')
    """
    return format(number % 2**N_DIGITS, f"0{N_DIGITS}b")


def _task(name: str, description: str, inputs: Iterable[str], answers: Iterable[str]) -> Task:
    pairs = (Pair(x, (y,)) for x, y in zip(inputs, answers, strict=True))
    full = f"bitwise/{name}"
    return Task(full, "bitwise", description, tuple(pairs), instruction_of(full))
