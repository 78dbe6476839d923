"""Means over the seeds of a run with Student's t intervals, and the correction of intervals for several tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

CONFIDENCE = 0.95


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


def delta_over_seeds(deltas: Sequence[Mapping[str, float] | None]) -> dict[str, Any] | None:
    """One difference from those of every seed, with both intervals; None if any seed lacks it.

    ``images``: the mean of the seeds' bootstrap intervals. All seeds edit the same images, so their sampling error is shared and
    doesn't average out; the spread of a mean is at most the mean of the spreads. ``seeds``: Student's t over the seeds, None for a single one.
    ``low`` and ``high`` enclose both, so below zero means that both are.
    """
    if not deltas or any(delta is None for delta in deltas):
        return None
    value, half = mean_and_half_width([delta["value"] for delta in deltas])
    images = {end: float(np.mean([delta[end] for delta in deltas])) for end in ("low", "high")}
    seeds = None if half is None else {"low": value - half, "high": value + half}
    low, high = (images[end] if seeds is None else pick(images[end], seeds[end]) for end, pick in (("low", min), ("high", max)))
    return {"value": value, "low": low, "high": high, "images": images, "seeds": seeds, "count": len(deltas)}


def bonferroni_confidence(tests: int) -> float:
    """The confidence of each of `tests` intervals that all hold together with at least 95 %: 1 - 0.05 / tests."""
    return 1 - (1 - CONFIDENCE) / tests


def bonferroni_interval(delta: Mapping[str, Any], tests: int) -> dict[str, Any]:
    """A difference of `delta_over_seeds` with its 95 % intervals widened to `bonferroni_confidence`.

    The ends move away from the value by the ratio of the quantiles: Student's t over seeds, where it is exact, and the normal
    distribution's over images, as the bootstrap intervals are made. So features that were deleted since aren't needed.
    """
    if tests == 1:
        return dict(delta)
    from scipy.stats import t  # late: takes a second to import

    tails = [(1 + confidence) / 2 for confidence in (bonferroni_confidence(tests), CONFIDENCE)]
    ratio = NormalDist().inv_cdf(tails[0]) / NormalDist().inv_cdf(tails[1])
    images = _widened(delta["value"], delta.get("images") or delta, ratio)
    seeds = delta.get("seeds")
    if seeds:
        wide, usual = t.ppf(tails, delta["count"] - 1)
        seeds = _widened(delta["value"], seeds, float(wide / usual))
    low, high = (images[end] if not seeds else pick(images[end], seeds[end]) for end, pick in (("low", min), ("high", max)))
    return {**delta, "low": low, "high": high, "images": images, "seeds": seeds}


def _widened(value: float, ends: Mapping[str, float], ratio: float) -> dict[str, float]:
    return {end: value + ratio * (ends[end] - value) for end in ("low", "high")}
