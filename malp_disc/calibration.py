"""The threshold above which a score means "manipulated", set for a false-alarm rate on images that nobody has manipulated."""

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
    """A threshold, and what it rests on. Saved beside the MaLP that it belongs to, as ``detection.json``.

    Attributes:
        threshold: a score *above* it counts as manipulated.
        false_alarm_rate: what it was set for: a further image like the `n` exceeds it with at most this probability.
        n: images that it was set on (of each kind, where there were several).
        detection_rate: share of manipulated images above it, or None if none were at hand.
        n_manipulated: how many these were.
        statistic: "image" for the mean score over an image's windows, "window" for the highest.
        images: what kind of images.
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
        """The threshold for scores of real images.

        Args:
            real: scores (n,) for each kind of image that is to pass as real (encrypted; unprotected as well, for a MaLP that learned such). The highest of
                their thresholds holds for all of them.
            false_alarm_rate: in (0, 1).
            manipulated: scores (m,) of manipulated images.

        Raises:
            ValueError: as `conservative_threshold`.
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
        """Raises:
        ValueError: damaged, or of another version.
        """
        from malp_disc.serialization.reading import read_json

        content = read_json(Path(path), what="a calibration of malp-disc detect")
        fields = {field.name for field in dataclasses.fields(cls)}
        number = content.get("threshold")
        if set(content) - fields or not {"threshold", "false_alarm_rate", "n"} <= set(content) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ValueError(f"{path} is no calibration of this version; delete it, and calibrate again with malp-disc detect --calibrate")
        return cls(**content)

    def write(self, path: str | Path) -> None:
        """Write it as JSON, atomically."""
        write_json(path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """All fields, in their order."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        found = "" if self.detection_rate is None else f", which found {self.detection_rate:.1%} of {self.n_manipulated} manipulated ones"
        return f"threshold {self.threshold:.4g} for {self.false_alarm_rate:.2g} false alarms, set on {self.n} {self.images or 'images'}{found}"


def conservative_threshold(scores: ArrayLike, false_alarm_rate: float) -> float:
    """The lowest of the n scores that a further one exceeds with a probability of at most `false_alarm_rate`.

    Of n + 1 exchangeable scores the last is equally likely to have any rank, so it exceeds the k-th smallest of the others with a probability of at most
    1 − k / (n + 1), whatever their distribution. k = ⌈(n + 1)(1 − rate)⌉.

    Raises:
        ValueError: a rate outside (0, 1), scores that aren't finite, or too few of them: n must be at least 1 / rate − 1.
    """
    values = np.sort(np.asarray(scores, np.float64).ravel())
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"expected a false-alarm rate between 0 and 1, got {false_alarm_rate}")
    if not np.isfinite(values).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} scores are not finite")
    rank = math.ceil((len(values) + 1) * (1 - false_alarm_rate) - 1e-9)  # 100 · (1 − 0.01) is a little above 99 in floats
    if rank > len(values):
        least = math.ceil(1 / false_alarm_rate - 1e-9) - 1
        raise ValueError(f"a false-alarm rate of {false_alarm_rate:g} needs at least {least} real images, got {len(values)}; give more of them, or a higher rate")
    return float(values[rank - 1])
