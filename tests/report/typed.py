"""The rule of the verdict on measurements and differences that tests change as plain dicts."""

from __future__ import annotations

from typing import Any

from malp_disc.report import verdict, verdict_rule
from malp_disc.report.seeds import Delta
from malp_disc.report.verdict_case import Verdict
from malp_disc.run_folder.measurement import Measurement
from malp_disc.serialization.typed_json import from_json

Json = dict[str, Any]

LOWER, ZERO, HIGHER = ({"value": v, "low": v - 6, "high": v + 6} for v in (-46.5, -2.2, 9.7))
"""Differences with their intervals: clearly lower, no different, clearly higher."""


def full(value: float, low: float, high: float, **more: Any) -> Json:
    return {"value": value, "low": low, "high": high, **more}


def measurements(arms: Json) -> dict[str, Measurement]:
    return {arm: from_json(Measurement, measured, arm) for arm, measured in arms.items()}


def deltas(comparison: Json) -> dict[str, dict[str, Delta | None]]:
    return {
        arm: {name: None if entry is None else from_json(Delta, entry, name) for name, entry in entries.items()}
        for arm, entries in comparison.items()
    }


def arm_verdict(arm: str, arms: Json, comparison: Json, views: Json | None = None) -> Verdict:
    return verdict_rule.arm_verdict(arm, measurements(arms), deltas(comparison), {name: deltas(view) for name, view in (views or {}).items()})


def run_verdict(arms: Json, comparison: Json, views: Json | None = None) -> tuple[str, dict[str, Verdict]]:
    return verdict.run_verdict(measurements(arms), deltas(comparison), {name: deltas(view) for name, view in (views or {}).items()})
