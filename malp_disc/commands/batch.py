"""Processing of one image or a folder of images: skips finished ones, protects existing files, and collects failures."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from malp_disc.commands.manifest import Manifest, json_line
from malp_disc.data.listing import list_images, printable
from malp_disc.errors import memory_suffices
from malp_disc.run_folder.lock import lock_folder, release_locks
from malp_disc.serialization.files import check_writable, file_sha256, sweep, write_text

_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the next image would fail as well
_SHOWN = 5  # failures named in the last line
LOCK_FILE = ".run.lock"
"""In the output folder; hidden, as people publish what is beside it."""
TOO_LARGE = "too large for the memory of {}; scale the image down, or give another --device"


@dataclass
class Sources:
    """The images to process, as '/'-separated names below `root`."""

    root: Path
    names: tuple[str, ...]
    single: bool

    @classmethod
    def find(cls, place: Path) -> Sources:
        """The file itself, or all images in a folder and its sub-folders.

        Raises:
            FileNotFoundError: the path doesn't exist.
            ValueError: the folder has no images.
        """
        if not place.exists():
            raise FileNotFoundError(f"nothing at {printable(place)} (current folder: {Path.cwd()}); give an image or a folder of images")
        if place.is_file():
            return cls(place.parent, (place.name,), single=True)
        listing = list_images(place)
        listing.check_enough(1)
        listing.warn()
        return cls(place, listing.names, single=False)

    def check_apart(self, output: Path) -> None:
        """Raise ValueError if the output folder lies inside the input folder, where the next run would process the results as images."""
        if not self.single and (output.resolve() == self.root.resolve() or self.root.resolve() in output.resolve().parents):
            raise ValueError(f"OUT {printable(output)} lies in IN {printable(self.root)}, so the next run would take the results for images; give a folder elsewhere")

    def check_kept(self, targets: Iterable[Path]) -> None:
        """Raise ValueError if an output would replace one of the images, also through links."""
        originals = {(self.root / name).resolve() for name in self.names}
        for target in targets:
            if target.resolve() in originals:
                raise ValueError(f"OUT would replace the original {printable(target)}, which isn't kept anywhere else; give another name or folder")


@dataclass
class Outcome:
    """The result of processing all images."""

    records: list[dict[str, Any]] = field(default_factory=list)
    """Of every finished image, from this run or an earlier one."""
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Reason of the failure, by name."""

    def counted(self, done: str) -> str:
        """``"7 images protected (2 of them in an earlier run)"`` for ``done = "protected"``."""
        before = f" ({self.skipped} of them in an earlier run)" if self.skipped else ""
        return f"{len(self.records)} image{'s' * (len(self.records) != 1)} {done}{before}"

    @property
    def total(self) -> int:
        """The number of images, failed ones included."""
        return len(self.failed) + len(self.records)

    def failures(self, of: str = "") -> str:
        """``"2 of 7 images failed: NAME: reason; …"``, with `of` after "images"; empty if none failed."""
        if not self.failed:
            return ""
        named = "; ".join(f"{printable(name)}: {why}" for name, why in list(self.failed.items())[:_SHOWN])
        more = f"; and {len(self.failed) - _SHOWN} more" if len(self.failed) > _SHOWN else ""
        return f"{len(self.failed)} of {self.total} image{'s' * (self.total != 1)}{of} failed: {named}{more}"

    def finish(self, of: str = "") -> None:
        """Raise ValueError if images failed, which ends the command with status 1."""
        if self.failed:
            raise ValueError(self.failures(of))


def process_images(
    sources: Sources,
    work: Callable[[str], dict[str, Any]],
    *,
    complete: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda name, record: record,
    targets: Callable[[str], Sequence[Path]] = lambda name: (),
    manifest: Path | None = None,
    settings: dict[str, Any],
    overwrite: bool = False,
    summary: Callable[[dict[str, Any]], str],
    stream: TextIO,
    label: str,
    device: object,
) -> Outcome:
    """Call `work` for every image that isn't finished.

    An image is finished if the manifest has a line with the same file content and `settings`, and all its `targets` exist. Existing targets that the manifest
    doesn't list are refused, unless `overwrite` is set, which also processes finished images again. An image that fails doesn't stop the others, and leaves no targets.

    Args:
        work: name -> its record, after its targets have been written.
        complete: name and record of a finished image -> its record, to which this run may add something.
        targets: name -> the files that `work` writes.
        manifest: in the output folder, which is locked meanwhile; None without such a folder, where nothing is remembered.
        summary: record -> the line to print to `stream`.
        device: that `work` computes on, for the message about its memory.

    Raises:
        ValueError: another run works in the output folder.
    """
    outcome = Outcome()
    with _open_manifest(manifest) as done, tqdm(sources.names, desc=label, unit="image", disable=sources.single) as bar:
        for name in bar:
            try:
                task = {"file": name, "source_sha256": file_sha256(sources.root / name), "settings": settings}
                before = done.records.get(name)
                ours = before is not None and all(before.get(entry) == value for entry, value in task.items())
                existing = [path for path in targets(name) if path.exists()]
                if ours and len(existing) == len(targets(name)) and not overwrite:
                    with memory_suffices(TOO_LARGE.format(device)):
                        record = complete(name, before)
                    if record != before:
                        done.append(record)
                        bar.write(summary(record), file=stream)
                    outcome.records.append(record)
                    outcome.skipped += 1
                    continue
                if existing and not (overwrite or ours or done.interrupted == task):
                    why = " and was made from another file or with other settings" if before is not None else ""
                    raise ValueError(f"{printable(existing[0])} exists{why}; --overwrite replaces it")
                done.begin(task)
                with memory_suffices(TOO_LARGE.format(device)), _removed_on_failure([path for path in targets(name) if path not in existing]):
                    record = {**task, **work(name)}
                    done.append(record)
            except (ValueError, OSError) as error:
                if sources.single or getattr(error, "errno", None) in _FATAL:
                    raise
                outcome.failed[name] = str(error)
                bar.write(f"failed: {printable(name)}: {error}", file=sys.stderr)
                continue
            finally:
                done.end()
            outcome.records.append(record)
            bar.write(summary(record), file=stream)
    return outcome


@contextlib.contextmanager
def _open_manifest(path: Path | None) -> Iterator[Manifest]:
    """The manifest, whose folder is locked meanwhile and rid of the temporary files that killed runs left in it."""
    manifest = Manifest(None)
    if path is None:
        yield manifest
        return
    lock_folder(path.parent, name=LOCK_FILE, flag="OUT")
    try:
        manifest = Manifest(path)
        sweep(path.parent)
        yield manifest
    finally:
        release_locks()


@contextlib.contextmanager
def _removed_on_failure(paths: Sequence[Path]) -> Iterator[None]:
    """Delete `paths` if the body raises, so that an image is finished completely or not at all."""
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise


def check_output(path: Path) -> None:
    """Raise ValueError if a file of the output OUT couldn't be written, before the first image; creates its folder."""
    check_writable(path, "OUT", advice="give an output where you may write")


class JsonLines:
    """The file of ``--json``, with a line per image; ``-`` for standard output, None for no file.

    Attributes:
        stream: where lines for people go: to standard output, or to standard error if the JSON lines go there.

    Raises:
        ValueError: the file couldn't be written, before any work.
    """

    def __init__(self, file: Path | None) -> None:
        self._file, self._is_output = file, str(file) == "-"
        self.stream: TextIO = sys.stderr if self._is_output else sys.stdout
        if file is not None and not self._is_output:
            check_writable(file, "--json")

    def write(self, records: Sequence[dict[str, Any]]) -> None:
        """Write all lines, a file atomically."""
        if self._file is None:
            return
        lines = "".join(map(json_line, records))
        if self._is_output:
            sys.stdout.write(lines)
        else:
            write_text(self._file, lines)
