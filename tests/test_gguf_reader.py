"""The quick reader of GGUF files against the reader of the `gguf` package."""

import struct
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from test_loading import write_gguf
from transformers.integrations.ggml import _gguf_parse_value

from icl_mech.model.gguf import convert
from icl_mech.model.gguf_reader import QuickReader

ENDS = (gguf.GGUFEndian.LITTLE, gguf.GGUFEndian.BIG)


def write_every_kind(path: Path, end: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> None:
    """A file with values and arrays of every kind, one tensor behind them."""
    writer = gguf.GGUFWriter(path, "llama", endianess=end)
    writer.add_array("words", ["", "a", "Ġé", "日本", "a" * 300])
    writer.add_array("whole", [1, -2, 3])
    writer.add_array("scores", [0.5, -1000.0, 0.0])
    writer.add_array("flags", [True, False])
    writer.add_array("lists", [[1, 2], [3]])
    writer.add_string("name", "Ünï")
    writer.add_float32("eps", 1e-6)
    writer.add_bool("yes", True)
    writer.add_tensor("token_embd.weight", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def parsed(field: Any) -> list[Any]:
    """A field's value as Transformers reads it."""
    return [_gguf_parse_value(field.parts[i], field.types) for i in field.data]


@pytest.mark.parametrize("end", ENDS)
def test_the_same_fields_and_tensors(end: gguf.GGUFEndian, tmp_path: Path) -> None:
    path = tmp_path / "every.gguf"
    write_every_kind(path, end)
    ours, theirs = QuickReader(path), gguf.GGUFReader(path)
    assert list(ours.fields) == list(theirs.fields)
    assert len(ours.fields) == 12
    for name, field in theirs.fields.items():
        mine = ours.fields[name]
        assert (mine.offset, mine.types) == (field.offset, field.types), name
        if name != "lists":  # the package's own `contents` fails on lists of lists
            assert mine.contents() == field.contents(), name
            assert parsed(mine) == parsed(field), name
        assert [bytes(p) for p in mine.parts] == [bytes(p) for p in field.parts], name
        assert mine.data == field.data, name
    for mine, tensor in zip(ours.tensors, theirs.tensors, strict=True):
        assert (mine.name, mine.data_offset) == (tensor.name, tensor.data_offset)
        assert np.array_equal(mine.data, tensor.data)


def test_a_file_that_ends_inside_a_word_or_a_list(tmp_path: Path) -> None:
    path = tmp_path / "every.gguf"
    write_every_kind(path)
    whole = path.read_bytes()
    for end in range(24, QuickReader(path).tensors[0].data_offset, 7):
        path.write_bytes(whole[:end])
        with pytest.raises((ValueError, IndexError, struct.error)):
            QuickReader(path)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_conversion_is_that_of_transformers(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, architecture)
    folders = tmp_path / "ours", tmp_path / "theirs"
    for folder in folders:
        folder.mkdir()
    convert(path, folders[0])
    monkeypatch.setattr("icl_mech.model.gguf.read_once", lambda *_: nullcontext())
    monkeypatch.setattr("icl_mech.model.gguf.QuickReader", gguf.GGUFReader)
    convert(path, folders[1])
    ours, theirs = ({p.name: p.read_bytes() for p in f.iterdir()} for f in folders)
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= set(ours)
    assert ours == theirs
