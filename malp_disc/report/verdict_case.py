"""What the rule of the verdict is applied to: one arm with its measurements and intervals, and the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from malp_disc.report.numbers import interval, number, signed
from malp_disc.report.seeds import Delta, bonferroni_confidence, bonferroni_interval
from malp_disc.run_folder.measurement import Measurement

Outcome = Literal["improved", "edits weakened", "edits leak", "content lost", "extractors disagree", "overfitted to the extractor", "farther from the perfect edits", "checkerboard", "no difference", "worse", "not decided"]


Deltas = Mapping[str, Delta | None]


@dataclass(frozen=True)
class Verdict:
    """The rule's outcome for one arm with its reason, a clause without a full stop; ``where`` locates a gain (structure or texture), and is
    empty for any other outcome."""

    outcome: Outcome
    reason: str
    where: str = ""


@dataclass(frozen=True)
class Case:
    """Everything that the rule reads about one arm; the arguments of `arm_verdict`."""

    arm: str
    arms: Mapping[str, Measurement]
    comparison: Mapping[str, Deltas]
    views: Mapping[str, Mapping[str, Deltas]]
    candidates: int

    @property
    def own(self) -> Measurement:
        """The arm's measurements."""
        return self.arms[self.arm]

    @property
    def label(self) -> str:
        return self.own.frechet.label or "Frechet distance"

    @property
    def numbers(self) -> str:
        """The difference from the control with its interval and n."""
        delta = self.against("control")
        level = bonferroni_confidence(self.candidates)
        correction = f" (Bonferroni, {self.candidates} candidates)" if self.candidates > 1 else ""
        alone = ", one seed" if delta.seeds is None else ""
        return (
            f"{self.label} {signed(delta.value)} against the control, {100 * level:.3g} % interval{correction} {both_intervals(delta)}, "
            f"n = {number(self.own.frechet.n)}{alone}"
        )

    @property
    def without_attributes(self) -> bool:
        """Whether the generator edits no attributes (it translates images to another domain, say), so that there is no edit accuracy to ask for.

        Measurements that don't tell count as ones with attributes, for which the rule asks more.
        """
        return self.own.attributes == 0

    def against(self, control: str) -> Delta | None:
        """The difference of the distances from a control's, with the interval corrected for the number of candidates."""
        delta = self.comparison[self.arm].get(f"delta_vs_{control}")
        return None if delta is None else bonferroni_interval(delta, self.candidates)

    def view(self, name: str, other: str) -> Delta | None:
        """The difference from `other` in another view of the images, None where it wasn't measured."""
        return (self.views.get(name) or {}).get(self.arm, {}).get(f"delta_vs_{other}")


def both_intervals(delta: Delta) -> str:
    """ "-52.1 to -40.2"; of several seeds "-52.1 to -40.2 over 3 seeds and -50.0 to -45.1 over images"."""
    if delta.seeds is None:
        return interval(delta)
    return f"{interval(delta.seeds)} over {delta.count} seeds and {interval(delta.images)} over images"
