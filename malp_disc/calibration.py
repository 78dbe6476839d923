"""Detection threshold for a given false-alarm rate, calibrated on images that aren't manipulated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from malp_disc.serialization.files import write_json

CALIBRATION_FILE = "detection.json"
Statistic = Literal["image", "window"]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A detection threshold and how it was calibrated. Saved in the MaLP's folder as ``detection.json``.

    Attributes:
        threshold: images with a score *above* it are classified as manipulated.
        false_alarm_rate: upper bound for the probability that an image from the distribution of the `n` exceeds the threshold.
        n: number of calibration images (of each kind, if there are several).
        detection_rate: share of manipulated images above the threshold; None if there were none.
        n_manipulated: number of manipulated images.
        statistic: "image" for the mean score over an image's windows, "window" for the maximum.
        images: description of the calibration images.
        detector: fingerprint of weights and key, since other weights need another threshold.
    """

    threshold: float
    false_alarm_rate: float
    n: int
    detection_rate: float | None = None
    n_manipulated: int = 0
    statistic: Statistic = "image"
    images: str = ""
    detector: str = ""

    @classmethod
    def fit(
        cls,
        real: Sequence[ArrayLike],
        false_alarm_rate: float,
        *,
        manipulated: ArrayLike = (),
        statistic: Statistic = "image",
        images: str = "",
        detector: str = "",
    ) -> Calibration:
        """Calibrate on the scores of real images.

        Args:
            real: scores (n,) of each kind of real images (encrypted, and unprotected for a MaLP trained on both). The highest of their
                thresholds is used.
            false_alarm_rate: in (0, 1).
            manipulated: scores (m,) of manipulated images, for `detection_rate`.
            statistic, images, detector: see the class.

        Raises:
            ValueError: as for `conservative_threshold`.
        """
        threshold = max(conservative_threshold(scores, false_alarm_rate) for scores in real)
        found = np.asarray(manipulated, np.float64)
        return cls(
            threshold=threshold,
            false_alarm_rate=false_alarm_rate,
            n=min(len(np.asarray(scores)) for scores in real),
            detection_rate=float((found > threshold).mean()) if len(found) else None,
            n_manipulated=len(found),
            statistic=statistic,
            images=images,
            detector=detector,
        )

    @classmethod
    def read(cls, path: str | Path) -> Calibration:
        """Read a ``detection.json``.

        Raises:
            FileNotFoundError: no such file.
            ValueError: damaged, or of another version.
        """
        from malp_disc.serialization.reading import read_json
        from malp_disc.serialization.typed_json import from_settings

        content = read_json(Path(path), what="a calibration of malp-disc detect")
        fields = {field.name for field in dataclasses.fields(cls)}
        cure = "delete it, and calibrate again with malp-disc detect --calibrate"
        if set(content) - fields or not {"threshold", "false_alarm_rate", "n"} <= set(content):
            raise ValueError(f"{path} is not a calibration of this version; {cure}")
        try:
            found = from_settings(cls, content, str(path))
        except ValueError as error:
            raise ValueError(f"{error}; {cure}") from error
        if not math.isfinite(found.threshold):
            raise ValueError(f"{path} is damaged: expected a finite threshold, got {found.threshold}; {cure}")
        return found

    def write(self, path: str | Path) -> None:
        """Write it as JSON, atomically."""
        write_json(path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """All fields as a dictionary."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        found = "" if self.detection_rate is None else f", which found {self.detection_rate:.1%} of {self.n_manipulated} manipulated ones"
        return f"threshold {self.threshold:.4g} for {self.false_alarm_rate:.2g} false alarms, set on {self.n} {self.images or 'images'}{found}"


def conservative_threshold(scores: ArrayLike, false_alarm_rate: float) -> float:
    """The smallest of the n scores that a new score exceeds with probability at most `false_alarm_rate` (split conformal prediction).

    Of n + 1 exchangeable scores, the last has any rank with equal probability. So it exceeds the k-th smallest of the others with
    probability at most 1 − k / (n + 1), for any distribution. k = ⌈(n + 1)(1 − rate)⌉.

    Raises:
        ValueError: a rate outside (0, 1), scores that aren't finite, or too few of them: n must be at least 1 / rate − 1.
    """
    values = np.sort(np.asarray(scores, np.float64).ravel())
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"expected a false-alarm rate between 0 and 1, got {false_alarm_rate}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} scores are not finite")
    check_enough(len(values), false_alarm_rate)
    rank = math.ceil((len(values) + 1) * (1 - false_alarm_rate) - 1e-9)  # in floating point, 9 · (1 − 1/3) exceeds 6
    return float(values[rank - 1])


def least_images(false_alarm_rate: float) -> int:
    """The number of real images that `conservative_threshold` needs, at least 1 / rate − 1 and at least one."""
    return max(1, math.ceil(1 / false_alarm_rate - 1e-9) - 1)


def check_enough(count: int, false_alarm_rate: float, cure: str = "give more of them, or a higher rate") -> None:
    """Check the number of real images before they are scored.

    Args:
        cure: what to do, for the message.

    Raises:
        ValueError: fewer than `least_images`.
    """
    least = least_images(false_alarm_rate)
    if count < least:
        raise ValueError(f"a false-alarm rate of {false_alarm_rate:g} needs at least {least} real images, got {count}; {cure}")
