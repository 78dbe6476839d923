"""Numbers as a reader wants them: four digits, a sign where it is a difference, a word where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping

MISSING = "not measured"


def number(value: float | None, *, missing: str = MISSING) -> str:
    """Four significant digits, without an exponent between 0.001 and a million."""
    if value is None:
        return missing
    if 1000 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.4g}"


def signed(value: float | None, *, missing: str = MISSING) -> str:
    """As `number`, with a plus or a minus before it."""
    if value is None:
        return missing
    return ("+" if value > 0 else "") + number(value)


def percent(share: float) -> str:
    """A share in [0, 1] as whole per cent, for people."""
    return f"{100 * share:.0f} %"


def interval(delta: Mapping[str, float | None]) -> str:
    """``{"low": …, "high": …}`` as "-52.1 to -40.2"."""
    return f"{signed(delta['low'])} to {signed(delta['high'])}"
