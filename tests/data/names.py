"""Names of a data set's images."""

from __future__ import annotations

from pathlib import Path


def stems(images) -> list[str]:
    return [Path(path).stem for path in images.paths]
