"""Finds images that two lists of files have in common: one file on two paths (a link, or a folder inside the other), or a copy of it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from malp_disc.serialization.files import file_sha256

from .listing import printable

logger = logging.getLogger("malp_disc")
_START = 4096  # bytes
_FEW = 0.01  # share of the held-out images, below which they hardly change a distance: a blank tile that both domains have


def shared_files(first: Sequence[str | Path], second: Sequence[str | Path]) -> list[tuple[str, str]]:
    """The files of `first` whose bytes a file of `second` has too, each with the first such file of `second`.

    Sizes are compared first, then the beginnings of those with a size in common, so that few files are read whole.
    """
    ours, theirs = ([os.fspath(path) for path in paths] for paths in (first, second))
    for key in (os.path.getsize, _beginning, file_sha256):
        of_ours, of_theirs = _keys(ours, key), _keys(theirs, key)
        common = set(of_ours.values()) & set(of_theirs.values())
        ours, theirs = [path for path in ours if of_ours[path] in common], [path for path in theirs if of_theirs[path] in common]
    partner = {of_theirs[path]: path for path in reversed(theirs)}
    return [(path, partner[of_ours[path]]) for path in ours]


def check_held_out(edited: Sequence[str], compared: Sequence[str], trained: Sequence[str], folder: Path, *, paired: bool = False) -> None:
    """Refuse references that the images edited in an evaluation are among, which a generator that changes nothing would match best.

    Args:
        edited, compared: held-out images, and the references that their edits are compared with.
        trained: the references of the training.
        folder: of the references.
        paired: `compared` are the partners of `edited`; some of them may be equal to their partner, but not all.

    Raises:
        ValueError: references that are compared with or trained on are among `edited`: one in a hundred or more; of fewer, a warning is logged.
    """
    cure = "leave --reference-root out for a generator whose edits are of the domain of its inputs, or take these out of one of the folders"
    if paired:
        if edited and len(shared_files(edited, compared)) == len(edited):
            raise ValueError(
                f"--paired: all {len(edited)} held-out images are copies of images of {printable(folder)}, so leaving images as they are would come out best; "
                "give the folder of their partners as --reference-root"
            )
        return
    for references, consequence in (
        (compared, "that their edits are compared with, so leaving images as they are would come out best"),
        (trained, "that discriminators get as real images, so they aren't held out"),
    ):
        if shared := shared_files(edited, references):
            (ours, theirs) = map(printable, shared[0])
            same = f"{ours} is {theirs}" if ours != theirs else ours
            message = (
                f"{len(shared)} of the {len(edited)} held-out images are also among the images of --reference-root {printable(folder)} {consequence} "
                f"(the first: {same}); {cure}"
            )
            if len(shared) >= _FEW * len(edited):
                raise ValueError(message)
            logger.warning(message)


def count_same_files(first: Sequence[str | Path], second: Sequence[str | Path]) -> int:
    """Number of different files of `second` that are in `first` too, whatever their paths are. Nothing is read: a copy is another file."""
    there = {_identity(path) for path in first}
    return len({_identity(path) for path in second} & there)


def _keys(paths: Sequence[str], key: Callable[[str], Hashable]) -> dict[str, Hashable]:
    return {path: key(path) for path in paths}


def _beginning(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.blake2b(file.read(_START), digest_size=16).digest()


def _identity(path: str | Path) -> Hashable:
    status = os.stat(path)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)  # some network drives have no inodes
