"""The lines of a benchmark by their place in the tables: over seeds, and with the reasons of gaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from malp_disc.benchmark.intervals import Estimate, over_seeds
from malp_disc.benchmark.results import SCALED, UNSCALED, Line


class Cells:
    """The lines of a benchmark by their place in the tables."""

    def __init__(self, lines: Iterable[Line], speeds: Mapping[str, Mapping[str, float]] | None = None) -> None:
        """`speeds`: images per second by localizer, then by device."""
        self.lines = list(lines)
        self.speeds = speeds or {}
        self.measured = [line for line in self.lines if line.gap is None]
        self._by_place: dict[tuple[str | None, ...], list[Line]] = {}
        for line in self.measured:
            self._by_place.setdefault((line.localizer, line.generator, line.attribute, line.degradation, line.level), []).append(line)
        self._scaled_down = {line.generator for line in self.lines if line.scale == UNSCALED}
        self.localizers = list(dict.fromkeys(line.localizer for line in self.lines if line.localizer is not None))
        self.generators = list(dict.fromkeys(line.generator for line in self.lines))

    def of(
        self,
        localizer: str,
        generator: str,
        *,
        attribute: str | None = None,
        scale: str = SCALED,
        degradation: str | None = None,
        level: str | None = None,
    ) -> list[Line]:
        """The lines of all seeds of one localizer. For "no sc.", those of "sc." where the images have that size anyway."""
        found = self._by_place.get((localizer, generator, attribute, degradation, level), [])
        own = [line for line in found if line.scale == scale]
        return own or (found if scale == UNSCALED and generator not in self._scaled_down else [])

    def estimate(self, score: str, localizer: str, generator: str, **where: str | None) -> Estimate | None:
        """A score over seeds, or with the interval over images of the only one."""
        return over_seeds([line.estimate(score) for line in self.of(localizer, generator, **where)])

    def seen(self, generator: str) -> bool:
        """Whether the localizers were trained on it."""
        return any(line.trained_on for line in self.lines if line.generator == generator)

    def gap(self, generator: str) -> str | None:
        """Why a generator has no numbers, None if it has some."""
        own = [line for line in self.lines if line.generator == generator]
        return None if any(line.gap is None for line in own) else next((line.gap for line in own), "not in this benchmark")

    def method(self, localizer: str) -> str | None:
        """The method's name in the paper's tables."""
        return next((line.method for line in self.lines if line.localizer == localizer), None)

    def attributes(self, generator: str) -> list[str]:
        """The attributes that were edited one by one."""
        return list(dict.fromkeys(line.attribute for line in self.measured if line.generator == generator and line.attribute is not None))
