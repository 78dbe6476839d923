"""A lock that allows one run at a time in a folder; the system releases it when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from malp_disc.serialization.files import write_text

logger = logging.getLogger("malp_disc")
LOCK_FILE = "run.lock"
HOLDER_SUFFIX = ".json"
"""Of the file beside the lock that names its holder: filelock may empty the locked file before it finds out that it is locked, and Windows lets no one read it."""
_WAIT = 10.0  # seconds: a run that was just killed, with its data loader processes, may need a while to end
_held: dict[Path, FileLock] = {}


def lock_folder(folder: str | Path, *, name: str = LOCK_FILE, wait: float | None = None, flag: str = "--output-dir") -> None:
    """Acquire the lock ``folder/<name>`` for this process until `release_locks` or its end; it may be acquired several times.

    Args:
        flag: the command-line option that names the folder, for the message.

    Raises:
        ValueError: another process holds it; names that process where it is known.
    """
    path = Path(folder).resolve() / name
    if path in _held:
        return
    lock = FileLock(str(path), thread_local=False)
    try:
        _acquire(lock, path, _WAIT if wait is None else wait)
    except Timeout:
        raise ValueError(
            f"{_holder(path) or 'another process'} is working in {folder}; wait for it to end, stop it, or choose another folder ({flag})"
        ) from None
    except (NotImplementedError, OSError) as error:  # some network file systems don't support locks
        logger.warning(f"can't lock {path} ({error}): make sure that no other run works in this folder")
        return
    _held[path] = lock
    with contextlib.suppress(OSError):
        _holder_file(path).unlink(missing_ok=True)  # of a process that was killed
        write_text(_holder_file(path), json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")


def is_locked(folder: str | Path) -> bool:
    """Whether another process holds the lock of `folder`, without changing it."""
    path = Path(folder).resolve() / LOCK_FILE
    if path in _held or not path.is_file():
        return False
    lock = FileLock(str(path), timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except (NotImplementedError, OSError):
        return False
    lock.release()
    return False


def release_locks() -> None:
    """Release every lock that this process holds."""
    for path in list(_held):
        with contextlib.suppress(OSError):
            _holder_file(path).unlink(missing_ok=True)
        _held.pop(path).release()


def _acquire(lock: FileLock, path: Path, wait: float) -> None:
    """Acquire the lock, or log its holder and wait."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info(f"{_holder(path) or 'another process'} holds {path}: waiting up to {wait:.0f} s for it to end")
        lock.acquire(timeout=wait)


def _holder(path: Path) -> str | None:
    """The process that holds the lock."""
    try:
        holder = json.loads(_holder_file(path).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _holder_file(path: Path) -> Path:
    return path.with_name(path.name + HOLDER_SUFFIX)
