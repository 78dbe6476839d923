"""Reading the variables of a TensorFlow checkpoint without TensorFlow.

A checkpoint of TensorFlow's Saver consists of an index, ``NAME.index``, and the data, ``NAME.data-00000-of-00001``. The index is a sorted string table
in LevelDB's format: data blocks with prefix-compressed keys, an index block, and a footer that points to it. The value of every key is a protocol buffer
with dtype, shape, shard and offset. Nothing in it is executed.
"""

from __future__ import annotations

import glob
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from malp_disc.serialization.file_kinds import file_kind
from malp_disc.serialization.reading import read_arrays

MAGIC = 0xDB4775248B80FB57
# TensorFlow's enum of the dtypes that variables have: float32, float64, int32, uint8, int64, bool, float16
KINDS = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 9: "<i8", 10: "?", 19: "<f2"}
STRINGS = 7  # TensorFlow 2 stores metadata in them


def is_tensorflow(path: str | Path) -> bool:
    """Whether `path` is a file that `read_variables` accepts."""
    path = Path(path)
    return path.suffix in (".npz", ".index") or ".data-0" in path.suffix or _index_of(path).is_file()


def read_variables(path: str | Path) -> dict[str, Tensor]:
    """Variables by name, in TensorFlow's order of dimensions.

    Args:
        path: the checkpoint's name without suffix, as passed to TensorFlow's ``save``; or one of its files; or a ``.npz`` of the variables
            (``numpy.savez(path, **{name: value})``).

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: a damaged file, TensorFlow's first format, or another kind of file.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return {name: torch.from_numpy(array) for name, array in read_arrays(path, what="a network's variables by name").items()}
    index = _index_of(path)
    if not index.is_file():
        raise FileNotFoundError(f"no TensorFlow checkpoint at {path}: expected {index.name} beside its .data files")
    try:
        entries = {name: _message(value) for name, value in _table(index.read_bytes())}
        shards = entries.pop(b"").get(1, [1])[-1]
        return {name.decode(): _variable(index, shards, entry) for name, entry in entries.items() if entry.get(1, [0])[-1] != STRINGS}
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file can cause any exception
        foreign = [(file.name, kind) for file in (index, *_shards_of(index)) if (kind := file_kind(file)).name not in ("tensorflow", "unknown")]
        told = f"; {foreign[0][0]} is {foreign[0][1].text}: {foreign[0][1].advice}" if foreign else ""
        raise ValueError(f"{index} can't be read as a TensorFlow checkpoint ({error or type(error).__name__}){told}") from error


def _index_of(path: Path) -> Path:
    """``NAME.index``, given NAME or one of its files."""
    if path.suffix == ".index":
        return path
    name = path.name.partition(".data-0")[0]
    return path.with_name(f"{name}.index")


def _shards_of(index: Path) -> list[Path]:
    return sorted(index.parent.glob(f"{glob.escape(index.name.removesuffix('.index'))}.data-0*"))


def _variable(index: Path, shards: int, entry: dict[int, list]) -> Tensor:
    """The tensor of an index entry, with the fields dtype (1), shape (2), shard (3), offset (4), size (5), slices (7)."""
    kind, shard, offset, size = (entry.get(field, [0])[-1] for field in (1, 3, 4, 5))
    if 7 in entry:
        raise ValueError("it has a variable in slices, which is not supported")
    if kind not in KINDS:
        raise ValueError(f"it has numbers of TensorFlow's kind {kind}, which is not supported")
    shape = [_message(side).get(1, [0])[-1] for side in _message(entry[2][-1]).get(2, [])] if 2 in entry else []
    data = index.with_name(f"{index.name.removesuffix('.index')}.data-{shard:05}-of-{shards:05}")
    if not data.is_file():
        raise FileNotFoundError(f"{index} needs {data.name} beside it")
    with open(data, "rb") as file:
        file.seek(offset)
        numbers = np.frombuffer(file.read(size), KINDS[kind])
    return torch.from_numpy(numbers.reshape(shape).copy())


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a sorted string table, in order."""
    if len(content) < 48 or struct.unpack("<Q", content[-8:])[0] != MAGIC:
        raise ValueError("it doesn't end like one; checkpoints of a single file, from before TensorFlow 1.0, are not supported")
    footer, place = content[-48:], 0
    for _ in range(2):  # the footer's two handles, of metaindex and index block; the first isn't needed
        place = _varint(footer, place)[1]
    offset, place = _varint(footer, place)
    for _, handle in _block(content, offset, _varint(footer, place)[0]):
        offset, place = _varint(handle, 0)
        yield from _block(content, offset, _varint(handle, place)[0])


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block, compression = content[offset : offset + size], content[offset + size]
    if compression:
        raise ValueError("its index is compressed, which TensorFlow's Saver doesn't do")
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]  # followed by the restart points, for binary search
    key, place = b"", 0
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + own]
        place += own
        yield key, block[place : place + length]
        place += length


def _message(content: bytes) -> dict[int, list]:
    """Fields of a protocol buffer by number: integers, and bytes for nested messages."""
    fields: dict[int, list] = {}
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        if tag & 7 == 0:
            value, place = _varint(content, place)
        elif tag & 7 == 2:
            length, place = _varint(content, place)
            value, place = content[place : place + length], place + length
        elif tag & 7 in (1, 5):
            length = 8 if tag & 7 == 1 else 4
            value, place = int.from_bytes(content[place : place + length], "little"), place + length
        else:
            raise ValueError("a field of unknown kind")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A varint (seven bits per byte, lowest first), and the position after it."""
    value = shift = 0
    while True:
        byte = content[place]
        value, place, shift = value | (byte & 127) << shift, place + 1, shift + 7
        if byte < 128:
            return value, place
