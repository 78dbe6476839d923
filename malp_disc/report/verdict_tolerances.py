"""How far a share, a score or the strength of edits may fall before the rule of the verdict refuses."""

from __future__ import annotations

import math

from malp_disc.report.numbers import number, percent
from malp_disc.run_folder.measurement import Measurement

STANDARD_ERRORS = 2.0
TOLERATED_FALL = 0.05
TOLERATED_SHRINKAGE = 0.25


def tolerated_fall(p: float, q: float, n: float | None) -> float:
    """How far edit accuracy may fall from p to q, both shares of n images: 2 standard errors of the difference, at most 0.05.

    The standard error is that of two independent shares. They are paired here (same images), which makes the true one smaller: this is a tolerance for falls that a user
    would accept, and no test of whether there is one. Agresti and Caffo's added success and failure keep it above 0 where a share is 0 or 1. Without n, nothing is tolerated.
    """
    if not n:
        return 0.0
    variance = sum(share * (1 - share) for share in ((p * n + 1) / (n + 2), (q * n + 1) / (n + 2))) / (n + 2)
    return min(STANDARD_ERRORS * math.sqrt(variance), TOLERATED_FALL)


def tolerated_fall_of_mean(s: float, t: float, n: float | None) -> float:
    """The same for a mean over n images, with standard deviations s and t over the images."""
    return min(STANDARD_ERRORS * math.sqrt((s**2 + t**2) / n), TOLERATED_FALL) if n else 0.0


def shrunk(arm: Measurement, other: Measurement, name: str) -> list[str]:
    """Why the edit strength of `arm`, mean |x - G(x)|, is too far below that of `other`; empty if it isn't."""
    was, now = other.identity_l1, arm.identity_l1
    if now >= (1 - TOLERATED_SHRINKAGE) * was:
        return []
    return [f"edit strength {number(now)} against {number(was)} ({name}), {percent(1 - now / was)} less, tolerated {percent(TOLERATED_SHRINKAGE)}"]
