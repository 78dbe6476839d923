"""Means over the seeds of a run with Student's t intervals, and the correction of intervals for several tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """The ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Delta:
    """A difference with its interval; ``low`` and ``high`` enclose those over images and over seeds, see `delta_over_seeds`."""

    value: float
    low: float
    high: float
    images: Interval | None = None
    seeds: Interval | None = None
    count: int = 1

    @property
    def anywhere_above_zero(self) -> bool:
        """Whether one of its intervals, over images or over seeds, lies above zero. Two seeds alone have so wide an interval that it never would."""
        return any(ends.low > 0 for ends in (self, self.images, self.seeds) if ends is not None)


def mean_and_half_width(values: Sequence[float], *, confidence: float = CONFIDENCE) -> tuple[float, float | None]:
    """Mean over seeds and half the width of its interval by Student's t, None for a single seed."""
    from scipy.stats import t  # late: takes a second to import

    if len(values) < 2:
        return float(np.mean(values)), None
    if all(value == values[0] for value in values):  # rounding of the mean would give a tiny deviation
        return float(values[0]), 0.0
    mean = float(np.mean(values))
    return mean, float(t.ppf((1 + confidence) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


def mean_over_seeds(values: Sequence[Any], where: str = "") -> Any:
    """The mean of nested values of the same shape, number by number.

    A number that one seed lacks is None in the mean: a generator that diverged must not drop out of its arm's average.

    Args:
        where: name of the value, for the error message.

    Raises:
        ValueError: text that differs between seeds, such as another extractor.
    """
    first = values[0]
    if len(values) == 1:
        return first
    if any(isinstance(value, Mapping) for value in values):
        keys = dict.fromkeys(key for value in values for key in value or {})
        return {key: mean_over_seeds([(value or {}).get(key) for value in values], f"{where} {key}".strip()) for key in keys}
    if any(value is None for value in values):
        return None
    if all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        return [mean_over_seeds(entries, where) for entries in zip(*values)]
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        if where.split(" ")[-1] in ("file", "sha256"):  # differ from seed to seed
            return None
        if any(value != first for value in values):
            raise ValueError(
                f"{where} differs between seeds ({', '.join(dict.fromkeys(map(str, values)))}): means need one setting; measure the seeds "
                "again"
            )
        return first
    return first if all(value == first for value in values) else float(np.mean(values))


def half_widths(values: Sequence[Any]) -> Any:
    """Half the 95 % interval of every number that `mean_over_seeds` averages, in the same nested shape; None elsewhere."""
    if any(isinstance(value, Mapping) for value in values):
        keys = dict.fromkeys(key for value in values for key in value or {})
        return {key: half_widths([(value or {}).get(key) for value in values]) for key in keys}
    if len(values) < 2 or any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        return None
    return mean_and_half_width(values)[1]


def delta_over_seeds(deltas: Sequence[Delta | None]) -> Delta | None:
    """One difference from those of every seed, with both intervals; None if any seed lacks it.

    ``images``: the mean of the seeds' bootstrap intervals. All seeds edit the same images, so their sampling error is shared and
    doesn't average out; the spread of a mean is at most the mean of the spreads. ``seeds``: Student's t over the seeds, None for a single one.
    ``low`` and ``high`` enclose both, so below zero means that both are.
    """
    if not deltas or any(delta is None for delta in deltas):
        return None
    value, half = mean_and_half_width([delta.value for delta in deltas])
    images = Interval(float(np.mean([delta.low for delta in deltas])), float(np.mean([delta.high for delta in deltas])))
    return _enclosing(Delta(value, 0.0, 0.0, images, None if half is None else Interval(value - half, value + half), len(deltas)))


def _enclosing(delta: Delta) -> Delta:
    """With the interval that encloses both of a difference's."""
    both = [ends for ends in (delta.images, delta.seeds) if ends is not None]
    return replace(delta, low=min(ends.low for ends in both), high=max(ends.high for ends in both))


def bonferroni_confidence(tests: int) -> float:
    """The confidence of each of `tests` intervals that all hold together with at least 95 %: 1 - 0.05 / tests."""
    return 1 - (1 - CONFIDENCE) / tests


def bonferroni_interval(delta: Delta, tests: int) -> Delta:
    """A difference of `delta_over_seeds` with its 95 % intervals widened to `bonferroni_confidence`.

    The ends move away from the value by the ratio of the quantiles: Student's t over seeds, where it is exact, and the normal
    distribution's over images, as the bootstrap intervals are made. So features that were deleted since aren't needed.
    """
    if tests == 1:
        return delta
    from scipy.stats import t  # late: takes a second to import

    tails = [(1 + confidence) / 2 for confidence in (bonferroni_confidence(tests), CONFIDENCE)]
    images = _widened(delta.value, delta.images or delta, NormalDist().inv_cdf(tails[0]) / NormalDist().inv_cdf(tails[1]))
    seeds = None
    if delta.seeds is not None:
        wide, usual = t.ppf(tails, delta.count - 1)
        seeds = _widened(delta.value, delta.seeds, float(wide / usual))
    return _enclosing(replace(delta, images=images, seeds=seeds))


def _widened(value: float, ends: Interval | Delta, ratio: float) -> Interval:
    return Interval(value + ratio * (ends.low - value), value + ratio * (ends.high - value))
