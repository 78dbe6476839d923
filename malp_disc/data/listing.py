"""Which files below a folder are images: one rule for data sets, references and `malp-disc fid`.

* Sub-folders count at any depth, and links to folders and files are followed. Each path is an image of its own, so a folder that two links
  lead to counts twice; a link to a folder that it lies in itself, above the root too, is cut.
* The suffix decides, in either case (`IMAGE_SUFFIXES`). A ``.npy`` file counts if its header announces uint8 pixels, see `is_image_array`.
* Names with a leading dot and what systems leave behind (`SYSTEM_FOLDERS`) don't count.
* The order is that of the '/'-separated paths by code point, on every file system.

Whatever is left out is counted, and `ImageListing.left_out` says so in one line.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

PACKAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".npy", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What clean-fid lists; pytorch-fid lists the same without ``.npy``."""
IMAGE_SUFFIXES = (*PACKAGE_SUFFIXES, ".gif", ".jfif", ".jpe", ".pbm")
"""Besides, other names of JPEG and of PPM's family, and GIF. Of an animation the first frame counts."""
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")
_UNSUPPORTED = (".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".svg", ".psd", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".tga", ".ico")
_SMALLEST_ARRAY = 8  # pixels; a table of labels (N, 5) in uint8 is no image
_SHOWN = 3  # suffixes and names in the line

DEAD, LOOP, FORBIDDEN, SPECIAL = "dead link", "link back to a folder above", "folder without permission to read", "special file"
HIDDEN, FORMAT, ARRAY, OTHER = "hidden file", "image of an unsupported format", ".npy array that is no image", "file of another kind"
_PLURALS = {
    DEAD: "dead links",
    LOOP: "links back to a folder above",
    FORBIDDEN: "folders without permission to read",
    SPECIAL: "special files",
    HIDDEN: "hidden files",
    FORMAT: "images of unsupported formats",
    ARRAY: ".npy arrays that are no images",
    OTHER: "files of other kinds",
}
_LOSSES = (DEAD, FORBIDDEN, SPECIAL, FORMAT, ARRAY)  # may have been meant to count


@dataclass(frozen=True)
class ImageListing:
    """The images below a folder, and what lies there and isn't one."""

    root: Path
    names: tuple[str, ...]
    """'/'-separated paths below `root`, sorted by code point."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> what was left out for it: paths as in `names`."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def left_out(self) -> str:
        """One line on what isn't counted, ``"left out: 2 dead links (a.png, b.png)"``; empty where nothing was left out."""
        parts = [_describe(reason, self.skipped[reason]) for reason in _PLURALS if self.skipped.get(reason)]
        return "left out: " + ", ".join(parts) if parts else ""

    def warn(self) -> None:
        """Log `left_out`, once in a process: as a warning where images may be missing, else as information."""
        line = f"{printable(self.root)}: {self.left_out}"
        if not self.left_out or line in _said:
            return
        _said.add(line)
        logger.log(logging.WARNING if any(self.skipped.get(reason) for reason in _LOSSES) else logging.INFO, "%s", line)

    def check_enough(self, fewest: int = 1) -> None:
        """Raises:
        ValueError: fewer than `fewest` images; the message says what there is instead.
        """
        if len(self) < fewest:
            found = f"{len(self)} image{'s' * (len(self) != 1)}" if self.names else "no images"
            raise ValueError(
                f"{found} in {printable(self.root)} and the folders below it, expected at least {fewest} "
                f"({' '.join(sorted(IMAGE_SUFFIXES))}){'; ' * bool(self.left_out)}{self.left_out}"
            )


_said: set[str] = set()  # a run lists its folder once a split, and says it once


def list_images(root: str | Path) -> ImageListing:
    """All images below `root`, by the rule at the top of this file. No file is opened, but for the headers of ``.npy`` files.

    Raises:
        FileNotFoundError: nothing at `root`.
        ValueError: `root` is a file.
        PermissionError: `root` itself may not be read. (Of folders below it, this is counted.)
        OSError: the disk or the network failed.
    """
    root = Path(root).expanduser()
    check_folder(root)
    names: list[str] = []
    skipped: dict[str, list[str]] = {}
    _walk(str(root), "", (_identity(str(root)), *_around(root)), names.append, lambda reason, name: skipped.setdefault(reason, []).append(name))
    return ImageListing(root, tuple(sorted(names)), {reason: sorted(found) for reason, found in skipped.items()})


def check_folder(root: Path, flag: str = "") -> None:
    """Raises:
    FileNotFoundError: nothing at `root`, or a link that leads nowhere; names `flag`, where one is given.
    ValueError: `root` is a file.
    """
    must = f"; {flag} must name one that holds images" if flag else "; give one that holds images"
    if not root.exists():
        dead = f": it is a link to {printable(os.readlink(root))}, where nothing is" if root.is_symlink() else ""
        raise FileNotFoundError(f"no folder at {printable(root)}{dead}{must}")
    if root.is_dir():
        return
    if root.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{printable(root)} is no folder but a single file; give the folder that it lies in")
    if root.suffix.lower() in (".zip", ".tar", ".tgz", ".gz", ".rar", ".7z", ".lmdb"):
        raise ValueError(f"{printable(root)} is no folder but an archive; unpack it and give the folder")
    raise ValueError(f"{printable(root)} is no folder{must}")


def npy_header(path: str | Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in a ``.npy`` file.

    Raises:
        ValueError: no such file, or one cut short in its header.
    """
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return shape, dtype


def is_image_array(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether an array holds an image: uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), at least 8 by 8.

    Floats are not taken, since nothing in the file says whether they lie in [0, 1], [-1, 1] or [0, 255].
    """
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    return dtype == np.uint8 and fits and min(shape[:2]) >= _SMALLEST_ARRAY


def printable(name: str | Path) -> str:
    """A path that every encoding can write: bytes that aren't UTF-8 appear as their escape sequence."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode("utf-8")


def _walk(folder: str, prefix: str, above: tuple[object, ...], keep: Callable[[str], None], skip: Callable[[str, str], None]) -> None:
    """Visit `folder`, which `prefix` leads to from the root; `above` identifies it and the folders that it lies in,
    the root's own included: a link to one of these, or one that leads back through another link, would go round for ever or bring in the whole disk."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except PermissionError:
        if not prefix:
            raise
        skip(FORBIDDEN, prefix.rstrip("/"))
        return
    for entry in found:
        name = prefix + entry.name
        if entry.name in SYSTEM_FOLDERS or entry.name.lower() in _SYSTEM_FILES:
            continue
        if entry.name.startswith("."):
            if _suffix(entry.name) in IMAGE_SUFFIXES:
                skip(HIDDEN, name)
            continue
        kind = _kind(entry)
        if kind == "folder":
            identity = _identity(entry.path)
            if identity in above:
                skip(LOOP, name)
            else:
                around = _around(entry.path) if entry.is_symlink() else ()
                _walk(entry.path, name + "/", (*above, identity, *around), keep, skip)
        elif kind == "file" and (reason := _no_image(entry)) is None:
            keep(name)
        else:
            skip(kind if kind != "file" else reason, name)


def _kind(entry: os.DirEntry[str]) -> str:
    """ "folder", "file", or the reason why it is neither."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return DEAD if entry.is_symlink() and not os.path.exists(entry.path) else SPECIAL
    except OSError as error:
        if error.errno == errno.ELOOP:  # links that lead to each other
            return DEAD
        if isinstance(error, PermissionError):  # the link leads through a folder that may not be read
            return FORBIDDEN
        raise


def _no_image(entry: os.DirEntry[str]) -> str | None:
    suffix = _suffix(entry.name)
    if suffix == ".npy":
        try:
            return None if is_image_array(*npy_header(entry.path)) else ARRAY
        except (ValueError, OSError):  # damaged: decoding it will name it, as it does for the other formats
            return None
    if suffix in IMAGE_SUFFIXES:
        return None
    return FORMAT if suffix in _UNSUPPORTED else OTHER


def _identity(folder: str) -> object:
    status = os.stat(folder)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)  # some network drives have no inodes


def _around(folder: str | Path) -> list[object]:
    """The folders that a folder, or what a link to it leads to, lies in."""
    return [_identity(str(parent)) for parent in Path(os.path.realpath(folder)).parents]


def _suffix(name: str) -> str:
    return os.path.splitext(name.lstrip("."))[1].lower()


def _describe(reason: str, names: list[str]) -> str:
    counted = f"{len(names)} {reason if len(names) == 1 else _PLURALS[reason]}"
    if reason == HIDDEN:
        return counted
    if reason in (FORMAT, OTHER):
        kinds = [suffix or "no suffix" for suffix, _ in Counter(_suffix(name.rpartition("/")[2]) for name in names).most_common()]
    else:
        kinds = [printable(name) for name in names]
    return f"{counted} ({', '.join(kinds[:_SHOWN])}{', …' if len(kinds) > _SHOWN else ''})"
