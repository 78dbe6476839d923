"""The record: all results of a run as one object, from which every rendering is made; as JSON it is ``report.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from malp_disc.report.seeds import Delta
from malp_disc.report.verdict_case import Verdict
from malp_disc.run_folder.measurement import Measurement, ReferencePoints

Deltas = dict[str, Delta | None]


@dataclass(frozen=True)
class SeedResults:
    """One seed alone: measurements by arm, differences as in `Record`, and the distances computed from the saved features."""

    arms: dict[str, Measurement]
    comparison: dict[str, Deltas]
    views: dict[str, dict[str, Deltas]]
    from_features: dict[str, float]


@dataclass(frozen=True)
class Bootstrap:
    """How the intervals were computed."""

    resamples: int
    seed: int
    confidence: float


@dataclass(frozen=True)
class Record:
    """All results of a run; None where something was not measured.

    Attributes:
        verdict, verdict_rule, verdicts: one sentence, the rule behind it, and its outcome by candidate.
        verdict_confidence: that of the intervals against the controls, corrected for the number of candidates.
        arms: means over seeds by arm.
        half_widths: half their 95 % intervals (Student's t), in the same shape.
        comparison: by arm ``{"delta_vs_control": …, "delta_vs_before": …, …}``, its Frechet distance minus the other's;
            "before" has ``delta_vs_unedited`` as well, its distance minus that of the unedited inputs; None with attributes, where nothing reads it.
        views: the same for the other scores, by their name.
        localization_findings: by arm, whether its changes are harder to localize.
        seeds, seeds_of, per_seed: all seeds, those of each arm, and the results of each.
        notes: cautions about the numbers.
    """

    verdict: str
    verdict_rule: str
    verdict_confidence: float
    verdicts: dict[str, Verdict]
    arms: dict[str, Measurement]
    half_widths: dict[str, Measurement]
    reference_points: ReferencePoints
    comparison: dict[str, Deltas]
    views: dict[str, dict[str, Deltas]]
    localization_findings: dict[str, str]
    seeds: tuple[int, ...]
    seeds_of: dict[str, tuple[int, ...]]
    per_seed: dict[str, SeedResults]
    bootstrap: Bootstrap
    notes: tuple[str, ...]
    config: dict[str, Any] | None
    environment: dict[str, Any]

    def delta(self, arm: str, other: str = "control", score: str = "frechet") -> Delta | None:
        """The difference between two arms in a score out of `malp_disc.run_folder.arms.SCORES`."""
        return _entry(self.comparison if score == "frechet" else self.views.get(score, {}), arm, other)

    def delta_of_seed(self, seed: int | str, arm: str, other: str = "control") -> Delta | None:
        """The difference of the Frechet distances in one seed."""
        return _entry(self.per_seed[str(seed)].comparison, arm, other)


def _entry(comparison: Mapping[str, Deltas], arm: str, other: str) -> Delta | None:
    return comparison.get(arm, {}).get(f"delta_vs_{other}")
