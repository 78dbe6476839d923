"""What a command has done so far, a JSON line per image, so that a repeated run goes on where the last one ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from malp_disc.serialization.files import write_text


class Manifest:
    """An append-only file of JSON lines, known by their entry ``file``; of several lines for one file the last counts.

    While an image is worked on, a small hidden file beside it names it, so that after a kill its outputs are known to be ours.

    Args:
        path: the file; None keeps the lines in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        self._needs_newline = False
        self._current = None if path is None else path.with_name(f".{path.name}.current")
        self.interrupted: dict[str, Any] | None = None
        """What `begin` was told last, in a run that was killed."""
        if self._current is not None and self._current.is_file():
            self.interrupted = json.loads(self._current.read_text(encoding="utf-8"))
        if path is not None and path.is_file():
            text = path.read_text(encoding="utf-8")
            self._needs_newline = bool(text) and not text.endswith("\n")
            for line in text.splitlines():
                try:
                    record = json.loads(line)
                except ValueError:  # cut off when the process was killed: that image is done again
                    continue
                if isinstance(record, dict) and "file" in record:
                    self.records[record["file"]] = record

    def begin(self, record: dict[str, Any]) -> None:
        """Remember what is being worked on, until `end`."""
        if self._current is not None:
            write_text(self._current, json.dumps(record))

    def end(self) -> None:
        """Nothing is being worked on any more."""
        if self._current is not None:
            self._current.unlink(missing_ok=True)

    def append(self, record: dict[str, Any]) -> None:
        """Add a line, and have it on its way to the disk."""
        self.records[record["file"]] = record
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("\n" * self._needs_newline + json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._needs_newline = False
