"""Numbers as text: about four digits, differences with a sign, a word where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping

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


def interval(delta: Mapping[str, float]) -> str:
    """``{"low": …, "high": …}`` as "-52.1 to -40.2", both ends with the decimals of the larger."""
    size = max(abs(delta["low"]), abs(delta["high"]))
    return f"{signed(delta['low'], size=size)} to {signed(delta['high'], size=size)}"
