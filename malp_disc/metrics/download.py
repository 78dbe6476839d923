"""Downloads published weights to a cache per user, verified by sha256 and written atomically."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from malp_disc.serialization.files import atomic_path, file_sha256

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class PublishedFile:
    """A downloadable file with known content."""

    name: str
    url: str
    sha256: str
    megabytes: int


# The files that pytorch-fid 0.3.0 and clean-fid 0.1.35 download; neither verifies its cached copy.
PYTORCH_FID_INCEPTION = PublishedFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    megabytes=96,
)
CLEAN_FID_INCEPTION = PublishedFile(
    name="inception-2015-12-05.pt",
    url="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    sha256="f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    megabytes=96,
)


def cache_folder() -> Path:
    """``$MALP_DISC_CACHE``, otherwise ``malp-disc`` in the user's cache folder. Created only when a file is written.

    Raises:
        ValueError: no such variable, and the user has no home folder, as in a container that runs as another user.
    """
    if os.environ.get("MALP_DISC_CACHE"):
        return Path(os.environ["MALP_DISC_CACHE"]).expanduser()
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "malp-disc"
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "malp-disc"
    try:
        return Path.home() / ".cache" / "malp-disc"
    except RuntimeError as error:
        raise ValueError("there is no home folder for the cache; set the variable MALP_DISC_CACHE to a folder") from error


def fetch(file: PublishedFile) -> Path:
    """Path of the file in the cache, downloaded if it isn't there.

    Raises:
        FileNotFoundError: not in the cache, and the download failed; the message says which file to copy where.
        ValueError: the file, cached or downloaded, has another content than expected.
    """
    path = cache_folder() / file.name
    if path.is_file():
        check_content(path, file)
        return path
    logger.info("downloading %s (%d MB) to %s", file.url, file.megabytes, path.parent)
    try:
        with atomic_path(path) as temporary:
            with urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECONDS) as response, open(temporary, "wb") as target:
                shutil.copyfileobj(response, target)
            check_content(temporary, file)
    except OSError as error:  # no network, refused, timed out, disk full
        raise FileNotFoundError(
            f"{file.name} is not in {path.parent} and could not be downloaded ({error}). Get {file.url} on a machine with internet and "
            f"put it there (MALP_DISC_CACHE names another folder), or give its path with --fid-weights PATH; sha256 {file.sha256}"
        ) from error
    return path


def check_content(path: Path, file: PublishedFile) -> None:
    """Raise ValueError unless `path` has the sha256 of the published file."""
    found = file_sha256(path)
    if found != file.sha256:
        raise ValueError(
            f"{path} is not the published {file.name}: sha256 {found[:16]}…, expected {file.sha256[:16]}…; delete it and get {file.url} again"
        )
