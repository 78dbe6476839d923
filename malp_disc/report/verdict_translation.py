"""The rule of the verdict for generators without attributes, such as translation to another domain: was the edit kept, and the content?

Without attributes there is no edit accuracy that would tell a better edit from a weaker one. What takes its place: where the unedited inputs
are farther from the reference than the generator's images, a weaker edit can't lower the distance.
"""

from __future__ import annotations

from collections.abc import Sequence

from malp_disc.report.numbers import number, signed
from malp_disc.report.verdict_case import Case, Verdict, both_intervals
from malp_disc.report.verdict_tolerances import shrunk, tolerated_fall_of_mean
from malp_disc.run_folder.measurement import Measurement


def translation_kept(case: Case, others: Sequence[str]) -> Verdict | None:
    """Unedited inputs farther from the reference than before, and edit strength and content not below those of `others`; None if all hold.

    Content isn't compared with a control that edits less than the generator before: an image that isn't edited keeps all of it, so its content is no standard.
    """
    sides = [case.arms[side] for side in (case.arm, *others)]
    unmeasured = ["edit strength"] * any(side.identity_l1 is None for side in sides)
    unmeasured += ["content"] * any(None in (side.content.value, side.content.std) for side in sides)
    if unmeasured:
        return Verdict("not decided", f"not decided: lower {case.label}, but {' and '.join(unmeasured)} was not measured ({case.numbers})")
    since = case.comparison.get("before", {}).get("delta_vs_unedited")
    if since is None:
        return Verdict(
            "not decided",
            f"not decided: lower {case.label}, but it was not measured whether the unedited inputs are farther from the reference than the generator "
            f"before fine-tuning ({case.numbers})",
        )
    if since.high >= 0:
        return Verdict(
            "not decided",
            f"not decided: the unedited inputs aren't farther from the reference than the generator before fine-tuning ({case.label} of before minus "
            f"theirs {signed(since.value)}, interval {both_intervals(since)}), so weaker edits alone would lower it ({case.numbers})",
        )
    weaker = [reason for other in others for reason in shrunk(case.own, case.arms[other], other)]
    if weaker:
        return Verdict("edits weakened", f"lower {case.label}, but edits weakened: {'; '.join(weaker)} ({case.numbers})")
    lost = [reason for other in others if not _edits_less(case, other) for reason in _lost(case.own, case.arms[other], other)]
    if lost:
        return Verdict("content lost", f"lower {case.label}, but less of the inputs' content is left: {'; '.join(lost)} ({case.numbers})")
    return None


def measurements_of(case: Case) -> str:
    """What the rule read of a generator without attributes, for the sentence of an improved arm; empty with attributes."""
    if not case.without_attributes:
        return ""
    sides = [side for side in (case.arm, "control", "before") if side in case.arms]
    content = ", ".join(f"{side} {number(case.arms[side].content.value)}" for side in sides)
    strength = ", ".join(f"{side} {number(case.arms[side].identity_l1)}" for side in sides)
    since = case.comparison["before"]["delta_vs_unedited"]
    return f"content kept ({content}), edit strength {strength}; the unedited inputs are farther, before minus theirs {signed(since.value)}, {both_intervals(since)}"


def _edits_less(case: Case, other: str) -> bool:
    """Whether this arm's mean |x - G(x)| is below that of the generator before."""
    before, measured = case.arms.get("before"), case.arms[other].identity_l1
    return before is not None and measured is not None and before.identity_l1 is not None and measured < before.identity_l1


def _lost(arm: Measurement, other: Measurement, name: str) -> list[str]:
    """Why `arm` keeps less of the content than `other`; empty if it doesn't."""
    was, now = other.content.value, arm.content.value
    tolerated = tolerated_fall_of_mean(other.content.std, arm.content.std, arm.frechet.n)
    return [f"edge agreement {number(now)} against {number(was)} ({name}), tolerated fall {number(tolerated)}"] if was - now > tolerated else []
