"""Numbers as text: about four digits, differences with a sign, a word where nothing was measured."""

from __future__ import annotations

from typing import Protocol

MISSING = "not measured"


def number(value: float | None, *, missing: str = MISSING, size: float | None = None) -> str:
    """Whole numbers unchanged, others with about four digits; with `size`, as many decimals as a number of that size."""
    if value is None:
        return missing
    if isinstance(value, int):
        return str(value)
    size = abs(value) if size is None else abs(size)
    if size < 0.01 or size >= 1e6:
        return f"{value:.3g}"
    return f"{value:.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3 if size >= 1 else 4}f}"


def signed(value: float, *, size: float | None = None) -> str:
    """As `number`, with a plus or minus sign."""
    return ("+" if value > 0 else "") + number(value, size=size)


def percent(share: float) -> str:
    """A share in [0, 1] in whole per cent."""
    return f"{100 * share:.0f} %"


class Ends(Protocol):
    """An interval."""

    low: float
    high: float


def interval(ends: Ends) -> str:
    """An interval as "-52.1 to -40.2", both ends with the decimals of the larger."""
    size = max(abs(ends.low), abs(ends.high))
    return f"{signed(ends.low, size=size)} to {signed(ends.high, size=size)}"
