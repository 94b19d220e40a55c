"""Reads the metadata of a GGUF file quickly, and only once.

The `gguf` package makes two numpy arrays of the mapped file for every word of the vocabulary and
every merge, and Transformers reads a file three times while it loads it. For a vocabulary of
262,144 words this takes most of the time of a conversion. Here the words are slices of one buffer,
and a file is read once.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from gguf import GGUFReader, GGUFValueType

_LENGTH = struct.Struct("<Q")
_ARRAY = struct.Struct("<IQ")


class QuickReader(GGUFReader):
    """A faster `gguf.GGUFReader` with the same fields and tensors.

    Parts of arrays in `fields` are slices of one buffer instead of numpy arrays of the mapped file.
    `field.contents()` and Transformers can read both.

    Raises:
        ValueError, IndexError, struct.error: where the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._buffer = memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))
        super().__init__(path)

    def _get_field_parts(self, orig_offs: int, raw_type: Any) -> tuple[int, list, list, list]:
        if raw_type != GGUFValueType.ARRAY or self.byte_order == "S":
            return super()._get_field_parts(orig_offs, raw_type)
        kind, count = _ARRAY.unpack_from(self._buffer, orig_offs)
        start = orig_offs + _ARRAY.size
        head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
        types = [GGUFValueType.ARRAY, *([GGUFValueType(kind)] if count else [])]
        number = self.gguf_scalar_to_np.get(GGUFValueType(kind))
        if number is not None:
            values = np.frombuffer(self._buffer, number, count, start) if count else np.empty(0)
            return (
                _ARRAY.size + values.nbytes,
                [*head, *values.reshape(-1, 1)],
                list(range(2, 2 + count)),
                types,
            )
        if kind != GGUFValueType.STRING:
            return super()._get_field_parts(orig_offs, raw_type)
        words, end = self._words(start, count)
        return end - orig_offs, [*head, *words], list(range(3, 3 + len(words), 2)), types

    def _words(self, start: int, count: int) -> tuple[list[memoryview], int]:
        """The lengths and contents of `count` words in alternation, and where the last one ends."""
        buffer, parts, at = self._buffer, list[memoryview](), start
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(buffer, at)
            begin = at + _LENGTH.size
            at = begin + length
            if at > len(buffer):
                raise ValueError(f"a word ends at byte {at}, behind the end of the file")
            parts += (buffer[begin - _LENGTH.size : begin], buffer[begin:at])
        return parts, at


@contextmanager
def read_once(reader: QuickReader, path: Path) -> Iterator[None]:
    """Make Transformers use this reader instead of reading the file again.

    Args:
        reader: of the file.
        path: the path by which Transformers opens the file. Other files get readers of their own.
    """

    def known(asked: Any, *args: Any, **kwargs: Any) -> GGUFReader:
        return reader if Path(asked) == path else GGUFReader(asked, *args, **kwargs)

    with patch("gguf.GGUFReader", known):
        yield
