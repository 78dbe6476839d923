"""The verdict: did fine-tuning against MaLP make better images, and not only fewer edits? One stated rule, no judgement calls.

A generator that edits less has a lower Frechet distance (G(x) = x has the lowest), so a lower distance alone never counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from malp_disc.report.numbers import interval, number, percent, signed
from malp_disc.run_folder.arms import CANDIDATES, CONTROLS

STANDARD_ERRORS = 2.0
TOLERATED_FALL = 0.05
TOLERATED_SHRINKAGE = 0.25
TOLERATED_NYQUIST = 2.0

RULE = (
    "An arm counts as improved only if (1) the 95 % interval of its Frechet distance minus the control's lies below zero, and so does that of "
    "its distance minus every further control that was measured (control_d, random), (2) that of its distance minus the one before "
    "fine-tuning does not lie above zero, (3) its edit accuracy, against the control and before, did not fall by more than "
    f"{STANDARD_ERRORS:g} standard errors of the difference and never by more than {TOLERATED_FALL:g}, nor did leakage (attributes that changed "
    "unasked) rise by more, (4) its edit strength, mean |x - G(x)|, did not shrink by more than "
    f"{percent(TOLERATED_SHRINKAGE)} of the control's or of the one before, (5) a second extractor does not say the opposite, with an interval "
    f"above zero, and (6) its power at the Nyquist frequency is not above {TOLERATED_NYQUIST:g} times that of real images and "
    f"{TOLERATED_NYQUIST:g} times the control's (a checkerboard). With several seeds, every interval is two that must agree: over seeds "
    "(Student's t of the mean) and over images (paired bootstrap). Distance, edit accuracy and edit strength must have been measured; "
    "leakage, second extractor and spectrum count where they were. Only where the whole arm before is missing, the controls alone decide."
)

Outcome = Literal[
    "improved", "edits weakened", "edits leak", "extractors disagree", "checkerboard", "no difference", "worse", "not decided"
]
Deltas = Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True)
class Verdict:
    """What the rule says of one arm, and why, as a clause without a full stop; ``where`` says where a gain sits, empty for any other
    outcome."""

    outcome: Outcome
    reason: str
    where: str = ""


def judge_arm(
    arm: str,
    arms: Mapping[str, Mapping[str, Any]],
    comparison: Mapping[str, Deltas],
    views: Mapping[str, Mapping[str, Deltas]] | None = None,
) -> Verdict:
    """Apply `RULE` to one arm.

    Args:
        arms: measurements by arm, each with the keys of `malp_disc.run_folder.schema.MEASUREMENT`; ``"control"`` among them.
        comparison: by arm ``{"delta_vs_control": {"value", "low", "high"} or None, "delta_vs_before": …}``.
        views: the same for the other views of the images, by the view's name.
    """
    frechet, control = arms[arm]["frechet"], arms["control"]["frechet"]
    label = frechet["label"] or "Frechet distance"
    if arms[arm].get("diverged"):
        return Verdict("not decided", f"not decided: {arm} diverged, its images are not finite")
    differing = [key for key in ("label", "n", "extractor", "resize", "reference") if frechet[key] != control[key]]
    if differing:
        return Verdict("not decided", f"not decided: {arm} and control were measured with different {', '.join(differing)}")
    delta = comparison[arm].get("delta_vs_control")
    if delta is None:
        return Verdict("not decided", "not decided: there are no features to compare it with the control by")
    numbers = f"{label} {signed(delta['value'])} against the control, 95 % interval {both_intervals(delta)}, n = {number(frechet['n'])}"
    if delta["low"] > 0:
        return Verdict("worse", f"worse than the control ({numbers})")
    if delta["high"] >= 0:
        return Verdict("no difference", f"no difference from the control: interval contains zero ({numbers})")

    lower = f"lower {label}, but"
    for other in CONTROLS[1:]:
        if other in arms:
            further = comparison[arm].get(f"delta_vs_{other}")
            if further is None:
                return Verdict("not decided", f"not decided: {lower} it can't be compared with {other} ({numbers})")
            if further["high"] >= 0:
                outcome: Outcome = "worse" if further["low"] > 0 else "no difference"
                words = "worse than" if further["low"] > 0 else "no difference from"
                return Verdict(
                    outcome, f"{lower} {words} {other}, {signed(further['value'])}, interval {both_intervals(further)} ({numbers})"
                )
    others = [other for other in ("control", "before") if other in arms]
    unmeasured = [name for key, name in _NAMES.items() if any(arms[side][key] is None for side in (arm, *others))]
    if unmeasured:
        return Verdict("not decided", f"not decided: {lower} {' and '.join(unmeasured)} was not measured ({numbers})")
    weaker = [reason for other in others for reason in _weakened(arms[arm], arms[other], other)]
    if weaker:
        return Verdict("edits weakened", f"{lower} edits weakened: {'; '.join(weaker)} ({numbers})")
    leaks = [reason for other in others for reason in _leaking(arms[arm], arms[other], other)]
    if leaks:
        return Verdict("edits leak", f"{lower} more changes that nobody asked for: {'; '.join(leaks)} ({numbers})")
    since = comparison[arm].get("delta_vs_before")
    if since is None and "before" in arms:
        return Verdict("not decided", f"not decided: {lower} there are no features from before fine-tuning to compare with ({numbers})")
    if since is not None and since["low"] > 0:
        return Verdict(
            "worse",
            f"better than the control, but worse than before fine-tuning, {signed(since['value'])}, interval {both_intervals(since)} "
            f"({numbers})",
        )
    second = _against_control(views, "second", arm)
    if second is not None and second["low"] > 0:
        name = arms[arm]["second"]["label"] or "the second extractor"
        return Verdict(
            "extractors disagree",
            f"{lower} {name} says the opposite, {signed(second['value'])}, interval {both_intervals(second)} ({numbers})",
        )
    ours, theirs = (arms[side].get("spectrum", {}).get("nyquist") for side in (arm, "control"))
    if ours is not None and theirs is not None and ours > TOLERATED_NYQUIST * max(1.0, theirs):
        return Verdict(
            "checkerboard",
            f"{lower} a checkerboard: {number(ours)} times the power of real images at the Nyquist frequency, control {number(theirs)} "
            f"({numbers})",
        )
    unsure = ", though no different from before fine-tuning" if since is not None and since["high"] >= 0 else ""
    where = "; ".join(filter(None, [_seconded(arm, arms, views), _sits(arm, views), _templates_doing(arm, comparison)]))
    return Verdict("improved", f"{numbers}, edits kept{unsure}" + (f"; {where}" if where else ""), where)


def judge_run(
    arms: Mapping[str, Mapping[str, Any]], comparison: Mapping[str, Deltas], views: Mapping[str, Mapping[str, Deltas]] | None = None
) -> tuple[str, dict[str, Verdict]]:
    """One sentence for the whole run, and the verdict on each arm that was fine-tuned against MaLP."""
    candidates = [arm for arm in CANDIDATES if arm in arms]
    if not candidates:
        return f"No verdict: no generator was fine-tuned against MaLP (measured: {', '.join(arms)}).", {}
    if "control" not in arms:
        return "No verdict: there is no control arm, so what fine-tuning does by itself is unknown; run the control arm as well.", {}
    verdicts = {arm: judge_arm(arm, arms, comparison, views) for arm in candidates}
    improved = [f"{arm} improved ({verdict.reason})" for arm, verdict in verdicts.items() if verdict.outcome == "improved"]
    others = [f"{arm}: {verdict.reason}" for arm, verdict in verdicts.items() if verdict.outcome != "improved"]
    sentence = "; ".join(improved + others) + "."
    return sentence if improved else f"No improvement shown: {sentence}", verdicts


def both_intervals(delta: Mapping[str, Any]) -> str:
    """ "-52.1 to -40.2"; of several seeds "-52.1 to -40.2 over 3 seeds and -50.0 to -45.1 over images"."""
    if not delta.get("seeds"):
        return interval(delta)
    return f"{interval(delta['seeds'])} over {delta['count']} seeds and {interval(delta['pictures'])} over images"


def tolerated_fall(p: float, q: float, n: float | None) -> float:
    """How far edit accuracy may fall from p to q, both shares of n images, before it counts: 2 standard errors, at most 0.05.

    The standard error is that of two independent shares. They are paired here (same images), which makes the true one smaller; Agresti
    and Caffo's added success and failure keep it above 0 where a share is 0 or 1. Without n, nothing is tolerated.
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
        reasons.append(
            f"edit strength {number(now)} against {number(was)} ({name}), {percent(1 - now / was)} less, "
            f"tolerated {percent(TOLERATED_SHRINKAGE)}"
        )
    return reasons


def _leaking(arm: Mapping[str, Any], other: Mapping[str, Any], name: str) -> list[str]:
    """Why `arm` counts as changing more unasked than `other`; empty if it doesn't, or where it wasn't measured."""
    was, now = other.get("leakage"), arm.get("leakage")
    if was is None or now is None:
        return []
    tolerated = tolerated_fall(1 - was, 1 - now, arm["frechet"]["n"])
    return [f"leakage {number(now)} against {number(was)} ({name}), tolerated rise {number(tolerated)}"] if now - was > tolerated else []


def _against_control(views: Mapping[str, Mapping[str, Deltas]] | None, view: str, arm: str) -> Mapping[str, Any] | None:
    return ((views or {}).get(view) or {}).get(arm, {}).get("delta_vs_control")


def _seconded(arm: str, arms: Mapping[str, Mapping[str, Any]], views: Mapping[str, Mapping[str, Deltas]] | None) -> str:
    second = _against_control(views, "second", arm)
    if second is None:
        return "no second extractor was asked"
    name = arms[arm]["second"]["label"] or "the second extractor"
    words = "agrees" if second["high"] < 0 else "sees no difference"
    return f"{name} {words} ({signed(second['value'])}, {both_intervals(second)})"


def _sits(arm: str, views: Mapping[str, Mapping[str, Deltas]] | None) -> str:
    """Texture or structure: whether the gain is still there in smaller images."""
    half = _against_control(views, "frechet_2x", arm)
    if half is None:
        return ""
    seen = f"at half the size {signed(half['value'])}, {both_intervals(half)}"
    return f"the gain is in structure too ({seen})" if half["high"] < 0 else f"the gain sits in fine texture only ({seen})"


def _templates_doing(arm: str, comparison: Mapping[str, Deltas]) -> str:
    """Whether the same network without a template does as well."""
    passive = comparison[arm].get("delta_vs_passive")
    if passive is None:
        return ""
    if passive["high"] < 0:
        return f"better than the passive network by {number(-passive['value'])}"
    seen = f"{signed(passive['value'])}, {both_intervals(passive)}"
    return f"not better than the same network without a template ({seen}), so the template is not what helps"
