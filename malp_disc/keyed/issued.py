"""The templates that were issued with a key: ``issued.jsonl`` beside the key file, one line each, by which they are found again, and their originals by name and look.

The numbers are random. So nobody has to know which ones other copies of the key have given out: that two of a million are the same has a chance of 1 in 18,000.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from malp_disc.keyed.looks import MOST, RESEMBLES, SIDE, look, resemblance
from malp_disc.keyed.secret import SECRET_FILE

ISSUED_FILE = "issued.jsonl"
TEMPLATES = 2**53
"""Templates of a key, numbered from 0; such numbers are exact in every reader of JSON."""


class IssuedTemplates:
    """The list beside a key file. Several processes may use it at once."""

    def __init__(self, key: str | Path) -> None:
        key = Path(key)
        self.path = key.with_name(ISSUED_FILE if key.name == SECRET_FILE else f"{key.name}.{ISSUED_FILE}")

    def issue(self, file: str, images: Tensor) -> int:
        """A number that no image has, for an image (1, 3, H, W) in [-1, 1]; it is recorded with the image's file name and look before it is given out.

        Raises:
            OSError: the list can't be written.
        """
        number = secrets.randbelow(TEMPLATES)
        line = json.dumps({"template": number, "file": file, "look": base64.b64encode(bytes(look(images)[0].tolist())).decode()}) + "\n"
        with FileLock(str(self.path.with_name(f".{self.path.name}.lock"))), open(self.path, "a+b") as listed:
            if listed.seek(0, os.SEEK_END):
                listed.seek(-1, os.SEEK_END)
                line = "\n" * (listed.read() != b"\n") + line  # the last one was cut off, because a process was killed or the disk was full
            listed.write(line.encode("ascii"))
            listed.flush()
            os.fsync(listed.fileno())
        return number


@dataclass(frozen=True)
class Issued:
    """The templates that an image may have.

    Attributes:
        numbers: of the templates.
        names: of the images that got them, by number, as far as they are known.
        looks: of these images, by number.
    """

    numbers: tuple[int, ...]
    names: Mapping[int, str] = field(default_factory=dict)
    looks: Mapping[int, Tensor] = field(default_factory=dict)

    @functools.cached_property
    def _gallery(self) -> Tensor:
        return torch.stack(list(self.looks.values()))

    def likely(self, images: Tensor) -> list[int]:
        """The templates of the originals, at most `MOST`, that an image (1, 3, H, W) resembles, the most similar first; none without looks."""
        if not self.looks:
            return []
        values, rows = resemblance(look(images)[0].cpu(), self._gallery).topk(min(MOST, len(self.looks)))
        numbers = list(self.looks)
        return [numbers[row] for row, value in zip(rows.tolist(), values.tolist()) if value >= RESEMBLES]

    @classmethod
    def read(cls, path: str | Path) -> Issued:
        """A list: an ``issued.jsonl``, or a ``protect.jsonl`` of `malp-disc protect`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it lists no template.
        """
        records = {record["template"]: record for line in Path(path).read_bytes().split(b"\n") if (record := _record(line)) is not None}
        if not records:
            raise ValueError(f"{path} lists no template; give the {ISSUED_FILE} beside the key that the images were protected with, or a protect.jsonl of malp-disc protect")
        names = {number: record["file"] for number, record in records.items() if isinstance(record.get("file"), str)}
        looks = {number: found for number, record in records.items() if (found := _look(record)) is not None}
        return cls(tuple(records), names, looks)


def _look(record: dict[str, Any]) -> Tensor | None:
    """The look in a line of a list, if it has one."""
    try:
        levels = base64.b64decode(record.get("look", ""), validate=True)
    except (ValueError, TypeError):
        return None
    return torch.tensor(list(levels), dtype=torch.uint8) if len(levels) == SIDE**2 else None


def _record(line: bytes) -> dict[str, Any] | None:
    """A line as it was written, or None for a part of one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    valid = isinstance(record, dict) and type(record.get("template")) is int and 0 <= record["template"] < TEMPLATES
    return record if valid else None
