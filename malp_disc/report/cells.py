"""Tables, and the text of their cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from malp_disc.report.numbers import MISSING, interval, number, signed
from malp_disc.report.results import Record
from malp_disc.report.seeds import Delta
from malp_disc.run_folder.measurement import Measurement

NONE = "–"


@dataclass(frozen=True)
class Table:
    """Text cells of one or more lines; the first column names the row. ``quiet``: rows with reference points instead of results."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    quiet: frozenset[int] = frozenset()

    @property
    def empty(self) -> bool:
        """Whether nothing in it was measured."""
        return all(cell in (NONE, "") for row in self.rows for cell in row[1:])

    @property
    def note(self) -> str:
        """What a dash means, if there is one."""
        return f"{NONE}: {MISSING}, or not defined." if any(NONE in row for row in self.rows) else ""


def label_of(record: Record, view: str = "frechet") -> str:
    """Name of the run's Fréchet distance: FID for Inception's 2048 features only."""
    return next((label for m in record.arms.values() if (label := m.distance(view).label)), "Frechet distance")


def value(record: Record, arm: str, pick: Callable[[Measurement], float | None]) -> str:
    """The number of an arm that `pick` takes from its measurement; over several seeds ± half the interval of its mean."""
    found, half = pick(record.arms[arm]), pick(record.half_widths[arm])
    if found is None or not half:
        return plain(found)
    return f"{number(found)} ± {number(half, size=max(abs(half), 0.1 * abs(found)))}"


def delta_text(delta: Delta | None) -> str:
    """A difference with its interval; over several seeds with both intervals."""
    if delta is None:
        return NONE
    if delta.seeds is not None:
        return f"{signed(delta.value)}\nseeds {interval(delta.seeds)}\nimages {interval(delta.images)}"
    return f"{signed(delta.value)} ({interval(delta)})"


def plain(found: float | None) -> str:
    """A number, or a dash."""
    return number(found, missing=NONE)


def sample_count(record: Record, view: str = "frechet") -> str:
    """The end of a heading, ``, n = 1000``, if n is the same for all arms."""
    sizes = {n for m in record.arms.values() if (n := m.distance(view).n) is not None}
    return f", n = {number(sizes.pop())}" if len(sizes) == 1 else ""
