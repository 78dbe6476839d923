"""Lists the image files of a folder, by one rule for data sets, references and `malp-disc fid`.

* Sub-folders are searched at any depth, and links to folders and files are followed. Each path is an image of its own, so the images of a
  folder that is linked twice are listed twice. A link to a folder that contains it, above the root too, isn't followed.
* Images are recognized by their suffix, in upper or lower case (`IMAGE_SUFFIXES`), and ``.npy`` files by a header of uint8 pixels
  (`is_image_array`).
* Hidden files and the files and folders of operating systems (`SYSTEM_FOLDERS`) are ignored.
* Images are sorted by the code points of their '/'-separated paths, on every file system.

`ImageListing.left_out` summarizes in one line what was skipped.
"""

from __future__ import annotations

import contextlib
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
"""The suffixes of clean-fid; pytorch-fid has the same without ``.npy``."""
IMAGE_SUFFIXES = (*PACKAGE_SUFFIXES, ".gif", ".jfif", ".jpe", ".pbm")
"""In addition, further suffixes of JPEG and PPM, and GIF. Of an animation, the first frame is used."""
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")
_UNSUPPORTED = (".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".svg", ".psd", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".tga", ".ico")
_SMALLEST_ARRAY = 8  # pixels; excludes label tables such as uint8 (N, 5)
_SHOWN = 3  # suffixes or names per reason in `left_out`

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
_LOSSES = (DEAD, FORBIDDEN, SPECIAL, FORMAT, ARRAY)  # possibly images that the user expects to be used


@dataclass(frozen=True)
class ImageListing:
    """The images below a folder, and what was skipped."""

    root: Path
    names: tuple[str, ...]
    """'/'-separated paths relative to `root`, sorted by code point."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Skipped paths by reason."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def left_out(self) -> str:
        """One line on what was skipped, ``"left out: 2 dead links (a.png, b.png)"``; empty if nothing was."""
        parts = [_describe(reason, self.skipped[reason]) for reason in _PLURALS if self.skipped.get(reason)]
        return "left out: " + ", ".join(parts) if parts else ""

    def warn(self) -> None:
        """Log `left_out` once per process: as a warning if images may be missing, otherwise as information."""
        line = f"{printable(self.root)}: {self.left_out}"
        if not self.left_out or line in _logged:
            return
        _logged.add(line)
        logger.log(logging.WARNING if any(self.skipped.get(reason) for reason in _LOSSES) else logging.INFO, "%s", line)

    def check_enough(self, fewest: int = 1) -> None:
        """Check the number of images.

        Raises:
            ValueError: fewer than `fewest` images; the message lists what was skipped.
        """
        if len(self) < fewest:
            found = f"{len(self)} image{'s' * (len(self) != 1)}" if self.names else "no images"
            raise ValueError(
                f"{found} in {printable(self.root)} and the folders below it, expected at least {fewest} "
                f"({' '.join(sorted(IMAGE_SUFFIXES))}){'; ' * bool(self.left_out)}{self.left_out}"
            )


_logged: set[str] = set()  # a run lists its folder once per split, but should warn once only


def list_images(root: str | Path) -> ImageListing:
    """All images below `root`, by the rule in this module's docstring. Opens no files except the headers of ``.npy`` files.

    Raises:
        FileNotFoundError: `root` doesn't exist.
        ValueError: `root` is a file.
        PermissionError: `root` itself can't be read; unreadable folders below it are skipped.
        OSError: the disk or the network failed.
    """
    root = Path(root).expanduser()
    check_folder(root)
    names: list[str] = []
    skipped: dict[str, list[str]] = {}
    _walk(str(root), "", (_identity(str(root)), *_around(root)), names.append, lambda reason, name: skipped.setdefault(reason, []).append(name))
    return ImageListing(root, tuple(sorted(names)), {reason: sorted(found) for reason, found in skipped.items()})


def check_folder(root: Path, flag: str = "") -> None:
    """Check that `root` is a folder; messages name the command-line option `flag`, if given.

    Raises:
        FileNotFoundError: `root` doesn't exist or is a dead link.
        ValueError: `root` is a file.
    """
    must = f"; {flag} must name one that holds images" if flag else "; give one that holds images"
    if not root.exists():
        dead = f": it is a link to {printable(os.readlink(root))}, where nothing is" if root.is_symlink() else ""
        raise FileNotFoundError(f"no folder at {printable(root)}{dead}{must}")
    if root.is_dir():
        return
    if root.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(f"{printable(root)} is a single file, expected a folder; give the folder that holds it")
    if root.suffix.lower() in (".zip", ".tar", ".tgz", ".gz", ".rar", ".7z", ".lmdb"):
        raise ValueError(f"{printable(root)} is an archive, expected a folder; unpack it and give the folder")
    raise ValueError(f"{printable(root)} is a file, expected a folder{must}")


def npy_header(path: str | Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in a ``.npy`` file.

    Raises:
        ValueError: not a ``.npy`` file, or damaged in its header.
        OSError: the file can't be read.
    """
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        except (ValueError, OSError):
            raise
        except Exception as error:  # Python's parser, which numpy calls, has further ones: MemoryError, RecursionError, TypeError, TokenError
            raise ValueError(f"its header can't be parsed ({type(error).__name__})") from error
    return shape, dtype


def is_image_array(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether an array holds an image: uint8 of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), at least 8 by 8.

    Floats are refused, since the file doesn't tell whether their range is [0, 1], [-1, 1] or [0, 255].
    """
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    return dtype == np.uint8 and fits and min(shape[:2]) >= _SMALLEST_ARRAY


def printable(name: str | Path) -> str:
    """A path for messages: bytes that aren't UTF-8 are replaced by escape sequences."""
    return os.fspath(name).encode("utf-8", "backslashreplace").decode("utf-8")


def _walk(folder: str, prefix: str, above: tuple[object, ...], keep: Callable[[str], None], skip: Callable[[str, str], None]) -> None:
    """List `folder` recursively; `prefix` is its path below the root, with a trailing '/'.

    `above` identifies the folder and all its parents, up to the file system's root: following a link to one of these would recurse
    without end or list the whole disk.
    """
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
        os.stat(os.path.join(folder, os.curdir))  # names can be listed, but not opened, without the permission to search (x)
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
            try:
                identity = _identity(entry.path)
            except PermissionError:  # a file system that another user has mounted
                skip(FORBIDDEN, name)
                continue
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
    """ "folder", "file", or the reason to skip it."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return DEAD if entry.is_symlink() and not os.path.exists(entry.path) else SPECIAL
    except OSError as error:
        if error.errno == errno.ELOOP:  # links that lead to each other
            return DEAD
        if isinstance(error, PermissionError):  # the link's target is in an unreadable folder
            return FORBIDDEN
        raise


def _no_image(entry: os.DirEntry[str]) -> str | None:
    suffix = _suffix(entry.name)
    if suffix == ".npy":
        try:
            return None if is_image_array(*npy_header(entry.path)) else ARRAY
        except (ValueError, OSError):  # damaged: listed, and reported when it is decoded, as in the other formats
            return None
    if suffix in IMAGE_SUFFIXES:
        return None
    return FORMAT if suffix in _UNSUPPORTED else OTHER


def _identity(folder: str) -> object:
    status = os.stat(folder)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)  # some network drives have no inodes


def _around(folder: str | Path) -> list[object]:
    """All parents of a folder, with links resolved, except those above the current folder that may not be reached."""
    found = []
    for parent in Path(os.path.realpath(folder)).parents:
        with contextlib.suppress(PermissionError):
            found.append(_identity(str(parent)))
    return found


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
