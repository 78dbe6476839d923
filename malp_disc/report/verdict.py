"""The verdict: did fine-tuning against MaLP make better pictures, and not only fewer edits? One stated rule, no judgement calls.

A generator that edits less has a lower Frechet distance (G(x) = x has the lowest), so a lower distance alone never counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from malp_disc.report.numbers import interval, number, percent, signed

STANDARD_ERRORS = 2.0
TOLERATED_FALL = 0.05
TOLERATED_SHRINKAGE = 0.25
CANDIDATES = ("frozen", "cotrain")

RULE = (
    "An arm counts as improved only if (1) the 95 % interval of its Frechet distance minus the control's lies below zero, (2) that of its distance minus "
    "the one before fine-tuning does not lie above zero, (3) its edit accuracy, against the control and before, did not fall by more than "
    f"{STANDARD_ERRORS:g} standard errors of the difference and never by more than {TOLERATED_FALL:g}, and (4) its edit strength, mean |x - G(x)|, did not "
    f"shrink by more than {percent(TOLERATED_SHRINKAGE)} of the control's or of the one before. What was not measured does not count as passed; only "
    "where the whole arm before is missing, the control alone decides."
)

Outcome = Literal["improved", "edits weakened", "no difference", "worse", "not decided"]


@dataclass(frozen=True)
class Verdict:
    """What the rule says of one arm, and why, as a clause without a full stop."""

    outcome: Outcome
    reason: str


def judge_arm(arm: str, arms: Mapping[str, Mapping[str, Any]], comparison: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Apply `RULE` to one arm.

    Args:
        arms: measurements by arm, each with the keys of `malp_disc.report.folder.MEASUREMENT`; ``"control"`` among them.
        comparison: by arm ``{"delta_vs_control": {"value", "low", "high"} or None, "delta_vs_before": …}``.
    """
    frechet, control = arms[arm]["frechet"], arms["control"]["frechet"]
    label = frechet["label"] or "Frechet distance"
    differing = [key for key in ("label", "n", "extractor", "resize", "reference") if frechet[key] != control[key]]
    if differing:
        return Verdict("not decided", f"not decided: {arm} and control were measured with different {', '.join(differing)}")
    delta = comparison[arm].get("delta_vs_control")
    if delta is None:
        return Verdict("not decided", "not decided: there are no features to compare it with the control by")
    numbers = f"{label} {signed(delta['value'])} against the control, 95 % interval {interval(delta)}, n = {number(frechet['n'])}"
    if delta["low"] > 0:
        return Verdict("worse", f"worse than the control ({numbers})")
    if delta["high"] >= 0:
        return Verdict("no difference", f"no difference from the control: interval contains zero ({numbers})")

    lower = f"lower {label}, but"
    others = [other for other in ("control", "before") if other in arms]
    unmeasured = [name for key, name in _NAMES.items() if any(arms[side][key] is None for side in (arm, *others))]
    if unmeasured:
        return Verdict("not decided", f"not decided: {lower} {' and '.join(unmeasured)} was not measured ({numbers})")
    weaker = [reason for other in others for reason in _weakened(arms[arm], arms[other], other)]
    if weaker:
        return Verdict("edits weakened", f"{lower} edits weakened: {'; '.join(weaker)} ({numbers})")
    since = comparison[arm].get("delta_vs_before")
    if since is None and "before" in arms:
        return Verdict("not decided", f"not decided: {lower} there are no features from before fine-tuning to compare with ({numbers})")
    if since is not None and since["low"] > 0:
        return Verdict("worse", f"better than the control, but worse than before fine-tuning, {signed(since['value'])}, interval {interval(since)} ({numbers})")
    unsure = ", though no different from before fine-tuning" if since is not None and since["high"] >= 0 else ""
    return Verdict("improved", f"{numbers}, edits kept{unsure}")


def judge_run(arms: Mapping[str, Mapping[str, Any]], comparison: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Verdict]]:
    """One sentence for the whole run, and the verdict on each arm that was fine-tuned against MaLP."""
    candidates = [arm for arm in CANDIDATES if arm in arms]
    if not candidates:
        return f"No verdict: no generator was fine-tuned against MaLP (measured: {', '.join(arms)}).", {}
    if "control" not in arms:
        return "No verdict: there is no control arm, so what fine-tuning does by itself is unknown; run the control arm as well.", {}
    verdicts = {arm: judge_arm(arm, arms, comparison) for arm in candidates}
    improved = [f"{arm} improved ({verdict.reason})" for arm, verdict in verdicts.items() if verdict.outcome == "improved"]
    others = [f"{arm}: {verdict.reason}" for arm, verdict in verdicts.items() if verdict.outcome != "improved"]
    sentence = "; ".join(improved + others) + "."
    return sentence if improved else f"No improvement shown: {sentence}", verdicts


def tolerated_fall(p: float, q: float, n: float | None) -> float:
    """How far edit accuracy may fall from p to q, both shares of n pictures, before it counts: 2 standard errors, at most 0.05.

    The standard error is that of two independent shares. They are paired here (same pictures), which makes the true one smaller; Agresti and
    Caffo's added success and failure keep it above 0 where a share is 0 or 1. Without n, nothing is tolerated.
    """
    if not n:
        return 0.0
    variance = sum(share * (1 - share) for share in ((p * n + 1) / (n + 2), (q * n + 1) / (n + 2))) / (n + 2)
    return min(STANDARD_ERRORS * math.sqrt(variance), TOLERATED_FALL)


_NAMES = {"edit_accuracy": "edit accuracy", "identity_l1": "edit strength"}


def _weakened(arm: Mapping[str, Any], other: Mapping[str, Any], name: str) -> list[str]:
    """Why the edits of `arm` count as weaker than those of `other`, both measured; empty if they don't."""
    reasons = []
    was, now = other["edit_accuracy"], arm["edit_accuracy"]
    tolerated = tolerated_fall(was, now, arm["frechet"]["n"])
    if was - now > tolerated:
        reasons.append(f"edit accuracy {number(now)} against {number(was)} ({name}), tolerated fall {number(tolerated)}")
    was, now = other["identity_l1"], arm["identity_l1"]
    if now < (1 - TOLERATED_SHRINKAGE) * was:
        reasons.append(f"edit strength {number(now)} against {number(was)} ({name}), {percent(1 - now / was)} less, tolerated {percent(TOLERATED_SHRINKAGE)}")
    return reasons
