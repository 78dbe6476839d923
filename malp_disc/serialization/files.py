"""Atomic writes and hashes of files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
"""Files of a saved model's folder."""

_MARK = ".partial"  # nobody else's file, such as .env.template, must look like one of these
_TEMPORARY = re.compile(rf"\.(?P<name>.+)\.[a-z0-9_]{{8}}{re.escape(_MARK)}(?P<suffix>(\.[^.]+)?)")


@contextlib.contextmanager
def atomic_path(path: str | Path, *, mode: int | None = None) -> Iterator[Path]:
    """Write a file atomically: yields the path of a temporary file, which is flushed and renamed to `path`, or deleted after an exception.

    Args:
        mode: permissions that the file has from its first byte on, 0o600 for a secret; None for those that the umask allows.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = _make_temporary(path)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "r+b") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask() if mode is None else mode)  # mkstemp creates files with mode 600
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk is reported without a name
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: str | Path, flag: str = "", *, advice: str = "give a file in a folder where you may write") -> None:
    """Check that `atomic_path` can write a file, before any long work; creates its folder.

    Args:
        flag: the command-line option that names the file, for the message.
        advice: what to do if the folder can't be written to.

    Raises:
        ValueError: it can't, or `path` is a folder, a device or a pipe.
    """
    path, named = Path(path), f"{flag} {path}".lstrip()
    if path.is_dir():
        raise ValueError(f"{named} is a folder; give a file's name")
    if path.exists() and not path.is_file():
        raise ValueError(f"{named} is a device or a pipe, which can't be replaced by a file; give a file's name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, probe = _make_temporary(path)  # as atomic_path does; several processes may do this at once
        os.close(handle)
        os.unlink(probe)
    except OSError as error:
        raise ValueError(f"can't write {named} ({error.strerror}); {advice}") from error


def _make_temporary(path: Path) -> tuple[int, str]:
    """Create ``.<name>.<8 characters>.partial<suffix>`` beside `path`; returns its handle and path. Of a long name, only the beginning is used.

    Raises:
        OSError: the folder isn't writable, or the name of `path` itself is too long.
    """
    with contextlib.suppress(FileNotFoundError):
        path.lstat()  # the system's check of the whole name
    suffix = _shortened(path.suffix, 100)
    stem = _shortened(path.stem, 255 - len("..") - 8 - len(_MARK) - 2 * len(os.fsencode(suffix)))  # bytes that file systems allow in a name: 255
    return tempfile.mkstemp(dir=path.parent, prefix=f".{stem}{suffix}.", suffix=_MARK + suffix)


def _shortened(name: str, most: int) -> str:
    """The beginning of a name, of at most `most` bytes and without cutting a character."""
    while len(os.fsencode(name)) > most:
        name = name[:-1]
    return name


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def sweep(folder: str | Path) -> None:
    """Delete temporary files of `atomic_path` that killed processes left in `folder` and below. No process may be writing there."""
    for path in Path(folder).rglob(".*"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and Path(match["name"]).suffix == match["suffix"] and path.is_file():
            path.unlink(missing_ok=True)


def sync_folder(folder: str | Path) -> None:
    """Flush a folder's directory entries to disk, if the system supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Of file names that aren't UTF-8, the strange bytes are written as escapes, such as ``\\udcfc``."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, with keys in the given order. The escapes of `write_text` are JSON's own, so file names are read back as they were.

    Raises:
        ValueError: NaN or infinity, which aren't valid JSON.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def file_sha256(path: str | Path) -> str:
    """sha256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()
