"""The files of a benchmark's folder: a line of JSON for every cell of its tables, and every cell's scores image by image.

``benchmark.jsonl`` has the lines; ``cells/<key>.json`` a cell's `ImageScores`, named by the content of everything that they depend on, so that a run that is
started again, or another suite in the same folder, computes none twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from malp_disc.benchmark.intervals import Estimate, detection_over_images, mean_over_images
from malp_disc.benchmark.measure import ImageScores
from malp_disc.serialization.files import write_json, write_text
from malp_disc.serialization.typed_json import from_json, to_json

RESULTS = "benchmark.jsonl"
SCALED, UNSCALED = "sc.", "no sc."
_DETECTION = ("score", "score_untouched")


@dataclass(frozen=True)
class Line:
    """A cell of the tables: one localizer, with one seed, on one generator's edits; or a gap.

    Attributes:
        generator, attribute: whose edits; the only edited attribute, or None.
        trained_on: whether the localizers saw the generator in training.
        localizer, seed: name in the tables, and number among those of one name.
        method: name of the method in `malp_disc.benchmark.printed`, None for one that isn't in the paper.
        family: passive or proactive.
        scale, size: "sc." or "no sc.", and the side of the images that the localizer got.
        degradation, level: of Figure 5, None elsewhere.
        images: number of images.
        threshold, score_threshold: fixed ones of the map and of the score.
        published_psnr: dB of the published images; None where they are the originals.
        scores: value and ends of the 95 % interval over images, by name.
        numbers: the thresholds that are best for the set.
        cell: key of the scores image by image.
        gap: why nothing was measured; then everything after it in the tables is missing.
    """

    generator: str
    attribute: str | None = None
    trained_on: bool = False
    localizer: str | None = None
    seed: int = 0
    method: str | None = None
    family: str | None = None
    scale: str | None = None
    size: int | None = None
    degradation: str | None = None
    level: str | None = None
    images: int | None = None
    threshold: float | None = None
    score_threshold: float | None = None
    published_psnr: float | None = None
    scores: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    cell: str | None = None
    gap: str | None = None

    def estimate(self, score: str) -> Estimate | None:
        """A score with its interval, None if it wasn't measured or isn't defined."""
        found = self.scores.get(score)
        return None if found is None else Estimate(*found)


def summarized(scores: ImageScores, *, score_threshold: float) -> dict[str, tuple[float | None, ...]]:
    """Mean and interval of every score, and the detection's; scores that no image has are left out."""
    found = {name: mean_over_images(values) for name, values in scores.values.items() if name not in _DETECTION}
    found |= detection_over_images(scores.values["score_untouched"], scores.values["score"], threshold=score_threshold)
    return {name: (estimate.value, estimate.low, estimate.high) for name, estimate in found.items() if estimate is not None}


def write_lines(folder: Path, lines: Sequence[Line]) -> None:
    """Write ``benchmark.jsonl``."""
    write_text(folder / RESULTS, "".join(json.dumps(to_json(line), allow_nan=False) + "\n" for line in lines))


def read_lines(folder: Path) -> list[Line]:
    """The lines of a benchmark's folder.

    Raises:
        FileNotFoundError: no benchmark was run in this folder.
        ValueError: a damaged file.
    """
    path = Path(folder) / RESULTS
    if not path.is_file():
        raise FileNotFoundError(f"no {RESULTS} in {folder}; `malp-disc benchmark --output-dir {folder}` writes it")
    lines = []
    for number, text in enumerate(path.read_bytes().splitlines(), start=1):  # of bytes: a name may hold other line separators
        try:
            lines.append(from_json(Line, json.loads(text), f"{path}, line {number}"))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number} is damaged: {error}; delete the file and run the benchmark again, which keeps what it measured"
            ) from error
    return lines


def cell_path(folder: Path, key: str) -> Path:
    """The file of a cell's scores."""
    return Path(folder) / "cells" / f"{key}.json"


def write_cell(folder: Path, key: str, scores: ImageScores) -> None:
    """Write a cell's scores; NaN becomes null."""
    values = {name: [None if math.isnan(value) else value for value in column] for name, column in scores.values.items()}
    write_json(cell_path(folder, key), {"values": values, "numbers": scores.numbers})


def read_cell(folder: Path, key: str) -> ImageScores | None:
    """A cell's scores, or None if there is no whole file."""
    try:
        found = json.loads(cell_path(folder, key).read_text(encoding="utf-8"))
        values = {name: [math.nan if value is None else value for value in column] for name, column in found["values"].items()}
        return ImageScores(values, dict(found["numbers"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
