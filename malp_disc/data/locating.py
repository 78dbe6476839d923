"""Resolves the image names of a table (attribute tables, CelebA's lists and its partition file) to files below a root folder.

A row may name its image by

1. its path below the root, or a suffix of that path that is unique (``000.png`` for ``images/000.png``);
2. a path that starts with the last folders of the root's own path (``images/000.png`` if the root is ``…/images``);
3. an absolute path, or a path relative to the table's folder, to an image below the root, also through links.

``./``, ``..``, repeated slashes and backslashes are normalized. Case and Unicode normalization form (macOS decomposes accents) are ignored
unless they distinguish two images.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from .listing import ImageListing, printable

_DRIVE = re.compile(r"[A-Za-z]:/")
_NAMED = 3  # in an error


class ImageLocator:
    """Finds images by their names in a table.

    Args:
        listing: the images.
        table: path of the table, for names relative to its folder and for messages.
    """

    def __init__(self, listing: ImageListing, table: str | Path) -> None:
        self.listing, self.table = listing, Path(table).expanduser()
        self.root = os.path.abspath(listing.root)
        self._real_root = os.path.realpath(self.root)
        self._roots = (Path(self.root).as_posix(), Path(self._real_root).as_posix())
        self._places = set(listing.names)
        self._real_folders: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """The path, relative to the root, of the image called `name`; None if there is none.

        Raises:
            ValueError: the name is ambiguous, or outside the root.
        """
        name = plain_name(name)
        if name in self._places:  # most rows
            return name
        if name.startswith(self.root + "/") and name[len(self.root) + 1 :] in self._places:
            return name[len(self.root) + 1 :]
        if is_absolute(name):
            return self._one(name, self._inside(name, os.path.expanduser(name)))
        if name.startswith("../"):
            return self._one(name, self._inside(name, os.path.join(self.table.parent, name), os.path.join(self.root, name)))
        places = self._candidates(name, self._by_name, str) or self._candidates(name, self._by_folded, _folded)
        beside = os.path.join(self.table.parent, name)
        if not places and os.path.exists(beside):  # a link beside the table
            places = self._inside(name, beside)
        return self._one(name, places)

    def find_all(self, names: Sequence[str]) -> list[str]:
        """The path, relative to the root, of each name.

        Raises:
            ValueError: absent images, ambiguous names, names outside the root, or two names of one image.
        """
        found = [self.find(name) for name in names]
        absent = [name for name, place in zip(names, found) if place is None]
        if absent:
            raise ValueError(
                f"{len(absent)} of {len(names)} images listed are absent from {printable(self.listing.root)} and the folders below it, which hold "
                f"{len(self.listing)} images; first {[printable(name) for name in absent[:_NAMED]]}{self._renamed(absent[0])}. "
                f"Add them, or take their rows out of {printable(self.table)}{'; ' * bool(self.listing.left_out)}{self.listing.left_out}"
            )
        owners: dict[str | None, str] = {}
        for name, place in zip(names, found):
            if place in owners:
                raise ValueError(
                    f"{printable(self.table)} lists {printable(place)} twice, as {printable(owners[place])} and {printable(name)}; keep one row"
                )
            owners[place] = name
        return [place for place in found if place is not None]

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped(self.listing.names, _last)

    @cached_property
    def _by_folded(self) -> dict[str, list[str]]:
        return _grouped(self.listing.names, lambda place: _folded(_last(place)))

    @cached_property
    def _by_real_path(self) -> dict[str, list[str]]:
        return _grouped(self.listing.names, lambda place: os.path.realpath(os.path.join(self.root, place)))

    def _candidates(self, name: str, grouped: dict[str, list[str]], fold: Callable[[str], str]) -> list[str]:
        """Images whose path is `name`; else those whose path, with the root's path before it, ends in `name`."""
        name = fold(name)
        alike = grouped.get(_last(name), [])
        exact = [place for place in alike if fold(place) == name]
        return exact or [place for place in alike if any(f"{fold(root)}/{fold(place)}".endswith("/" + name) for root in self._roots)]

    def _inside(self, name: str, *paths: str) -> list[str]:
        """Paths, relative to the root, of the image at one of the absolute `paths`, literally or with links resolved.

        Raises:
            ValueError: none of `paths` is below the root.
        """
        outside = 0
        for path in paths:
            if _DRIVE.match(path) and os.name != "nt":
                outside += 1
                continue
            inner = _relative(os.path.abspath(path), self.root)
            if inner in self._places:
                return [inner]
            real = _relative(self._resolved(path), self._real_root)
            if real in self._places:
                return [real]
            places = self._by_real_path.get(os.path.realpath(path)) or self._exactly(inner)
            if places:
                return places
            outside += inner.startswith("../") and real.startswith("../")
        if outside < len(paths):
            return []
        raise ValueError(
            f"{printable(self.table)} names {printable(name)}, which lies outside {printable(self.listing.root)}; give the --data-root that holds it, or "
            "write names relative to that folder"
        )

    def _resolved(self, path: str) -> str:
        """`path` with the links in its folder resolved; cached, since thousands of rows share a folder."""
        folder, name = os.path.split(os.path.abspath(path) if "/../" not in path else os.path.realpath(path))
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        return os.path.join(self._real_folders[folder], name)

    def _exactly(self, place: str) -> list[str]:
        """Images whose path equals `place` up to case and Unicode form."""
        return [other for other in self._by_folded.get(_folded(_last(place)), []) if _folded(other) == _folded(place)]

    def _one(self, name: str, places: list[str]) -> str | None:
        if len(places) > 1:
            shown = " and ".join(printable(place) for place in places[:_NAMED])
            raise ValueError(
                f"{printable(name)} is listed, and below {printable(self.listing.root)} there are {shown}; list it with its folder, as it is spelled there"
            )
        return places[0] if places else None

    def _renamed(self, name: str) -> str:
        """A hint if there is an image of the same name with another suffix."""
        stem = posixpath.splitext(_last(plain_name(name)))[0]
        other = next((place for place in self.listing.names if posixpath.splitext(_last(place))[0] == stem), None)
        return f" (there is {printable(other)}: is the suffix right?)" if stem and other else ""


def names_for_split(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """The names to hash for the split: those in the table, or the paths below the root where the table's depend on the machine."""
    return [name if f"/{place}".endswith(f"/{name}") else place for name, place in zip(names, places)]


def plain_name(name: str) -> str:
    """A name from a table, normalized and '/'-separated: ``.\\\\a\\\\..\\\\b.png`` becomes ``b.png``."""
    name = name.strip().replace("\\", "/")
    return posixpath.normpath(name) if name else name


def is_absolute(name: str) -> bool:
    """Whether a '/'-separated name is an absolute path, on Windows too."""
    return name.startswith(("/", "~/")) or _DRIVE.match(name) is not None


def _relative(path: str, root: str) -> str:
    """`path` relative to `root`, '/'-separated; starts with ``../`` if it is outside."""
    try:
        return os.path.relpath(path, root).replace(os.sep, "/")
    except ValueError:  # on Windows another drive
        return "../" + path


def _grouped(places: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for place in places:
        grouped.setdefault(key(place), []).append(place)
    return grouped


def _last(place: str) -> str:
    return place.rpartition("/")[2]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
