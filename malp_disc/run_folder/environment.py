"""Software versions and machine type of a run, without names of hosts, people or folders."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import malp_disc

_PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "scipy", "timm", "pytorch-fid", "clean-fid")


def collect_environment() -> dict[str, Any]:
    """Versions by package (None: not installed), Python, platform, CPU count, this package's version and git commit."""
    return {
        "malp_disc": malp_disc.__version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
    }


def git_commit(folder: Path = Path(malp_disc.__file__).parent) -> str | None:
    """Commit of the checkout the package runs from, with "-dirty" if tracked files were changed; None for an installed wheel.

    A wheel inside somebody else's repository (a .venv folder) must not report theirs, so the root has to be the package's parent.
    """

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != folder.parent.resolve():
            return None
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit yet
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
