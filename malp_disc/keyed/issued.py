"""The templates that were issued with a key: ``issued.jsonl`` beside the key file, one line each, by which they are found again, and their originals by name and look.

The numbers are random. So nobody has to know which ones other copies of the key have given out: that two of a million are the same has a chance of 1 in 18,000.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from malp_disc.keyed.looks import MOST, RESEMBLES, SIDE, differences, look
from malp_disc.keyed.secret import SECRET_FILE

ISSUED_FILE = "issued.jsonl"
TEMPLATES = 2**53
"""Templates of a key, numbered from 0; such numbers are exact in every reader of JSON."""
_WAIT = 60.0  # seconds for another process to write its line
_COPIES = 4  # templates of one original that are tried first
_ROUNDING = 1e-4  # by which the resemblances of the same looks may differ


class IssuedTemplates:
    """The list beside a key file, readable by its owner only. Several processes may use it at once.

    Args:
        key: the key file.
        fingerprint: of the key, which the lines name.
    """

    def __init__(self, key: str | Path, fingerprint: str) -> None:
        key = Path(key)
        self.path, self.fingerprint = key.with_name(ISSUED_FILE if key.name == SECRET_FILE else f"{key.name}.{ISSUED_FILE}"), fingerprint

    def issue(self, file: str, images: Tensor) -> dict[str, Any]:
        """A template for an image (1, 3, H, W) in [-1, 1], recorded before it is given out: its number as ``template``, with which it is found again the ``look``, ``width`` and ``height``, the ``file`` and the ``key``.

        Raises:
            OSError: the list can't be written.
            ValueError: another process doesn't release it.
        """
        seen = base64.b64encode(bytes(look(images)[0].tolist())).decode()
        record = {"template": secrets.randbelow(TEMPLATES), "file": file, "look": seen, "width": images.shape[3], "height": images.shape[2], "key": self.fingerprint}
        try:
            with FileLock(str(self.path.with_name(f".{self.path.name}.lock")), timeout=_WAIT):
                self._append(json.dumps(record) + "\n")
        except (Timeout, NotImplementedError) as error:
            raise ValueError(f"can't lock the list {self.path} ({error}); wait for the process that uses it, or keep the key in a folder of a file system with locks") from error
        return record

    def _append(self, line: str) -> None:
        with open(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+b") as listed:
            if listed.seek(0, os.SEEK_END):
                listed.seek(-1, os.SEEK_END)
                line = "\n" * (listed.read() != b"\n") + line  # the last one was cut off, because a process was killed or the disk was full
            listed.write(line.encode("ascii"))
            listed.flush()
            os.fsync(listed.fileno())


@dataclass(frozen=True)
class Issued:
    """The templates that an image may have.

    Attributes:
        numbers: of the templates.
        names: of the images that got them, by number, as far as they are known.
        looks: of these images, by number.
        shapes: (height, width) of these images, by number.
    """

    numbers: tuple[int, ...]
    names: Mapping[int, str] = field(default_factory=dict)
    looks: Mapping[int, Tensor] = field(default_factory=dict)
    shapes: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @functools.cached_property
    def _gallery(self) -> tuple[Tensor, Tensor]:
        """The looks, (N, 144), and their differences, of which a long list would otherwise be made anew for every image."""
        looks = torch.stack(list(self.looks.values()))
        return looks, differences(looks)

    def likely(self, images: Tensor, least: float = RESEMBLES) -> list[int]:
        """The templates of the originals, at most `MOST`, that an image (1, 3, H, W) resembles, by a `resemblance` of at least `least`, the most similar first; none without looks.

        Of an original that got several, all count, the newest first, up to `_COPIES`.
        """
        return list(self.similar(images, least))

    def similar(self, images: Tensor, least: float) -> dict[int, float]:
        """The same templates, and for each the resemblance of its original."""
        if not self.looks:
            return {}
        looks, theirs = self._gallery
        values, order = (theirs @ differences(look(images).cpu())[0]).sort(descending=True)
        rows_of: dict[bytes, dict[int, float]] = {}
        for value, row in zip(values.tolist(), order.tolist()):
            if value < least:
                break
            seen = looks[row].numpy().tobytes()
            if seen in rows_of or len(rows_of) < MOST:
                rows_of.setdefault(seen, {})[row] = value
            else:
                least = max(least, value - _ROUNDING)  # of which there are no more copies of the first ones
        numbers = list(self.looks)
        return {numbers[row]: rows[row] for rows in rows_of.values() for row in sorted(rows, reverse=True)[:_COPIES]}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identifier of the set of numbers: 16 hex digits."""
        return hashlib.sha256(repr(sorted(self.numbers)).encode()).hexdigest()[:16]

    @classmethod
    def read(cls, path: str | Path, *, key: str | None = None) -> Issued:
        """A list: an ``issued.jsonl``, or a ``protect.jsonl`` of `malp-disc protect`.

        Args:
            key: fingerprint of the key whose templates they must be; None accepts any.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it lists no template, or those of another key.
        """
        records = {record["template"]: record for line in Path(path).read_bytes().split(b"\n") if (record := _record(line)) is not None}
        if not records:
            raise ValueError(f"{path} lists no template; give the {ISSUED_FILE} beside the key that the images were protected with, or a protect.jsonl of malp-disc protect")
        keys = {own for record in records.values() if (own := _key(record)) is not None}
        if key is not None and keys - {key}:
            raise ValueError(f"{path} lists templates of the key {min(keys - {key})}, and this is the key {key}; give the list of this key, or the other one with --key")
        names = {number: record["file"] for number, record in records.items() if isinstance(record.get("file"), str)}
        looks = {number: found for number, record in records.items() if (found := _look(record)) is not None}
        shapes = {number: found for number, record in records.items() if (found := _shape(record)) is not None}
        return cls(tuple(records), names, looks, shapes)


def _key(record: dict[str, Any]) -> str | None:
    """Fingerprint of the key that a line names, if it does: those of a ``protect.jsonl`` have it among the settings."""
    settings = record.get("settings")
    own = record.get("key", settings.get("key") if isinstance(settings, dict) else None)
    return own if isinstance(own, str) else None


def _look(record: dict[str, Any]) -> Tensor | None:
    """The look in a line of a list, if it has one."""
    try:
        levels = base64.b64decode(record.get("look", ""), validate=True)
    except (ValueError, TypeError):
        return None
    return torch.tensor(list(levels), dtype=torch.uint8) if len(levels) == SIDE**2 else None


def _shape(record: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width in a line of a list, if it has them."""
    sides = record.get("height"), record.get("width")
    return sides if all(type(side) is int and 0 < side < 2**31 for side in sides) else None


def _record(line: bytes) -> dict[str, Any] | None:
    """A line as it was written, or None for a part of one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    valid = isinstance(record, dict) and type(record.get("template")) is int and 0 <= record["template"] < TEMPLATES
    return record if valid else None
