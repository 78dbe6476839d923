"""A record of finished images, one JSON line each, so that a repeated run continues where the last one ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from malp_disc.serialization.files import write_text


class Manifest:
    """An append-only file of JSON lines with the key ``file``; the last line of a file counts.

    Lines are in ASCII: names of files may hold surrogates (bytes that aren't UTF-8), which UTF-8 can't encode, and characters that count as line ends to some readers.

    While an image is processed, a small hidden file next to the manifest names it, so that its outputs can be recognised after the process was killed.

    Args:
        path: of the manifest; None keeps the lines in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        self._needs_newline = False
        self._current = None if path is None else path.with_name(f".{path.name}.current")
        self.interrupted: dict[str, Any] | None = None
        """The last argument of `begin` in a run that was killed, or None."""
        if self._current is not None and self._current.is_file():
            self.interrupted = json.loads(self._current.read_text(encoding="utf-8"))
        if path is not None and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")  # a line may have been cut within a character
            self._needs_newline = bool(text) and not text.endswith("\n")
            for line in text.split("\n"):
                try:
                    record = json.loads(line)
                except ValueError:  # cut off when the process was killed: that image is done again
                    continue
                if isinstance(record, dict) and "file" in record:
                    self.records[record["file"]] = record

    def begin(self, record: dict[str, Any]) -> None:
        """Record the image in progress, until `end`."""
        if self._current is not None:
            write_text(self._current, json.dumps(record))

    def end(self) -> None:
        """Delete the record of the image in progress."""
        if self._current is not None:
            self._current.unlink(missing_ok=True)

    def append(self, record: dict[str, Any]) -> None:
        """Append a line.

        Raises:
            ValueError, OSError: it can't be written; the image isn't recorded then.
        """
        if self.path is not None:
            line = "\n" * self._needs_newline + json_line(record)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._needs_newline = True  # if the disk is full, a part of the line may be written
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
            self._needs_newline = False
        self.records[record["file"]] = record


def json_line(record: dict[str, Any]) -> str:
    """A record as a line of JSON in ASCII, with its newline."""
    return json.dumps(record, allow_nan=False) + "\n"
