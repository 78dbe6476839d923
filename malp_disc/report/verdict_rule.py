"""The rule of the verdict for one arm: did fine-tuning make better images, and not only weaker edits?

A generator that edits less has a lower Fréchet distance (G(x) = x has the lowest), so a lower distance alone never counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from malp_disc.report.numbers import number, percent, signed
from malp_disc.report.seeds import CONFIDENCE
from malp_disc.report.verdict_case import Case, Deltas, Outcome, Verdict, both_intervals
from malp_disc.report.verdict_tolerances import STANDARD_ERRORS, TOLERATED_FALL, TOLERATED_SHRINKAGE, shrunk, tolerated_fall
from malp_disc.report.verdict_translation import measurements_of, translation_kept
from malp_disc.run_folder.arms import CONTROLS, EDIT_ACCURACY, FURTHER, LEVERAGE, PERFECT_EDIT
from malp_disc.run_folder.measurement import Measurement
from malp_disc.run_folder.teachers import is_teacher

TOLERATED_LEVERAGE = 0.15
"""How far an honest arm's changes may favour the extractor over the second one: the log of a ratio to the control's, see docs/results/metric-alarm.md."""
TOLERATED_NYQUIST = 2.0
NOISE_NYQUIST = 10.0
"""Power at the Nyquist frequency, relative to real images, above which an arm is broken whatever it is compared with."""

NO_FEATURES = "not decided: there are no features to compare it with the control by"

RULE = (
    "An arm counts as improved only if (1) the interval of its Fréchet distance minus the control's lies below zero, and so does that of "
    "its distance minus every further control that was measured (control_2xD, random), (2) its distance is not above the one before "
    "fine-tuning, (3) its edit accuracy, against the control and before, did not fall by more than "
    f"{STANDARD_ERRORS:g} standard errors of the difference between two sets of as many images and never by more than {TOLERATED_FALL:g}, nor did leakage (attributes that changed "
    "without being requested) rise by more (a tolerance: the images are the same, so a smaller fall may be real as well, and the verdict has its interval), (4) its edit strength, mean |x - G(x)|, did not shrink by more than "
    f"{percent(TOLERATED_SHRINKAGE)} of the control's or of the one before, (5) neither the second nor the third extractor shows the opposite, against "
    "the control or before, with an interval above zero, (6) it doesn't look tuned on the extractor: the interval of the second or third extractor lies below zero as well, or "
    f"fine-tuning did not move the extractor's features, relative to the second one's, more than {math.exp(TOLERATED_LEVERAGE):.2f} times as far as the control's did (interval "
    "over images), (7) where the perfect edits are known (drawn faces, drawn again with the requested attributes), its images aren't farther from them than the "
    "control's or those before, with an interval of the mean absolute difference above zero, and (8) its power at the Nyquist frequency is not above "
    f"{TOLERATED_NYQUIST:g} times that of real images and at the same time {TOLERATED_NYQUIST:g} times the control's or the one before (a "
    f"checkerboard), and never above {NOISE_NYQUIST:g} times that of real images (noise). For generators without attributes, such as translation to "
    "another domain, (3) is instead: the generator before fine-tuning is closer to the reference than the unedited inputs, with an interval of the "
    "difference below zero, so that weaker edits can't be what lowers the distance, and the content of the inputs, the agreement of edge "
    f"orientations, against before and against a control that edits no less than before, did not fall by more than the same tolerance. Every arm that is neither a control nor the "
    f"generator before fine-tuning is a candidate. The intervals of (1) have a confidence of 1 - {1 - CONFIDENCE:.2g} / candidates (Bonferroni), so the chance "
    "that luck in the choice of images, and with several seeds luck in the training as well, makes any candidate look better than a control is at most "
    f"{percent(1 - CONFIDENCE)}; one seed says nothing of the latter. All other intervals are {percent(CONFIDENCE)} intervals, because wider ones would "
    "make (5) easier to pass. With several seeds, every interval is two, over seeds (Student's t of the mean) and over images (paired bootstrap): what speaks for an arm needs both "
    "below zero, and what speaks against it, in (5) and (7), one above. Distance, edit accuracy and edit strength must have been measured, also "
    "of the generator before fine-tuning; without attributes, content and the unedited inputs in place of edit accuracy; leakage, second and third extractor and spectrum count where they were measured. Nothing is decided if one of the "
    "extractors is the network that the arm was fine-tuned against (the same architecture or the same weights)."
)


def arm_verdict(
    arm: str,
    arms: Mapping[str, Measurement],
    comparison: Mapping[str, Deltas],
    views: Mapping[str, Mapping[str, Deltas]] | None = None,
    *,
    candidates: int = 1,
) -> Verdict:
    """Apply `RULE` to one arm; the first condition that fails is its verdict.

    Args:
        arms: measurements by arm, ``"control"`` among them.
        comparison: by arm ``{"delta_vs_control": …, "delta_vs_before": …}``, with 95 % intervals.
        views: the same for the other views of the images, by the view's name.
        candidates: how many arms of the run are candidates; the intervals against the controls are corrected for it.
    """
    case = Case(arm, arms, comparison, views or {}, candidates)
    for condition in _CONDITIONS:
        if (refusal := condition(case)) is not None:
            return refusal
    since = comparison[arm]["delta_vs_before"]
    unsure = ", though no different from before fine-tuning" if since.high >= 0 else ""
    where = "; ".join(filter(None, [_further_extractors(case), _structure_or_texture(case), _towards_perfect_edits(case), _effect_of_template(case)]))
    kept = "; ".join(filter(None, [f"{case.numbers}, {_edits_in_words(case)}{unsure}", measurements_of(case), where]))
    return Verdict("improved", kept, where)


def _comparable(case: Case) -> Verdict | None:
    """Finite images, measured in the same way as the control and the generator before, with features to compare."""
    if case.own.diverged:
        return Verdict("not decided", f"not decided: {case.arm} diverged, its images are not finite")
    for arm, measured in ((case.arm, case.own), ("control", case.arms["control"])):
        if measured.steps and (measured.skipped or 0) >= measured.steps:
            return Verdict("not decided", f"not decided: as many updates of {arm} were skipped as it has steps, since they weren't finite")
    for other in _others(case):
        differing = [
            key
            for key in ("label", "n", "extractor", "resize", "reference")
            if getattr(case.own.frechet, key) != getattr(case.arms[other].frechet, key)
        ]
        if differing and not case.arms[other].diverged:
            return Verdict("not decided", f"not decided: {case.arm} and {other} were measured with different {', '.join(differing)}")
    if case.against("control") is None:
        return Verdict("not decided", NO_FEATURES)
    return None


def _extractor_is_not_the_backbone(case: Case) -> Verdict | None:
    """Extractors whose features the arm was not fine-tuned on."""
    for view, words in {"frechet": "the extractor", **FURTHER}.items():
        measured = case.own.distance(view)
        if is_teacher(measured, case.own.teachers):
            return Verdict(
                "not decided",
                f"not decided: {case.arm} was fine-tuned on the features of {measured.backbone}, which is {words} as well ({measured.label}); "
                f"measure it with another network",
            )
    return None


def _better_than_controls(case: Case) -> Verdict | None:
    """(1) A lower distance than every control's."""
    delta = case.against("control")
    if delta.low > 0:
        return Verdict("worse", f"worse than the control ({case.numbers})")
    if delta.high >= 0:
        return Verdict("no difference", f"no difference from the control: interval contains zero ({case.numbers})")
    for other in CONTROLS[1:]:
        if other not in case.arms:
            continue
        further = case.against(other)
        if further is None:
            return Verdict("not decided", f"not decided: lower {case.label}, but it can't be compared with {other} ({case.numbers})")
        if further.high >= 0:
            outcome: Outcome = "worse" if further.low > 0 else "no difference"
            words = "worse than" if further.low > 0 else "no difference from"
            found = f"{signed(further.value)}, interval {both_intervals(further)}"
            return Verdict(outcome, f"lower {case.label}, but {words} {other}, {found} ({case.numbers})")
    return None


def _not_worse_than_before(case: Case) -> Verdict | None:
    """(2) A distance that isn't above the one before fine-tuning.

    The value counts, not only the interval: where fine-tuning ruins the generator, in the control as well, the intervals of a few seeds are
    so wide that they contain zero.
    """
    if "before" not in case.arms:
        return Verdict(
            "not decided",
            "not decided: the generator before fine-tuning was not measured, so the control may have become worse; measure before as well "
            f"({case.numbers})",
        )
    since = case.comparison[case.arm].get("delta_vs_before")
    if since is None:
        return Verdict(
            "not decided", f"not decided: lower {case.label}, but there are no features from before fine-tuning to compare with ({case.numbers})"
        )
    found = f"{signed(since.value)}, interval {both_intervals(since)}"
    if since.low > 0:
        return Verdict("worse", f"better than the control, but worse than before fine-tuning, {found} ({case.numbers})")
    if since.value > 0:
        return Verdict(
            "not decided",
            f"not decided: better than the control, but its {case.label} is above the one before fine-tuning, {found} ({case.numbers})",
        )
    return None


def _edits_kept(case: Case) -> Verdict | None:
    """(3), (4): edit accuracy, edit strength and leakage against the control and before."""
    if case.without_attributes:
        return translation_kept(case, _others(case))
    others = _others(case)
    unmeasured = [name for key, name in _NAMES.items() if any(getattr(case.arms[side], key) is None for side in (case.arm, *others))]
    if unmeasured:
        return Verdict("not decided", f"not decided: lower {case.label}, but {' and '.join(unmeasured)} was not measured ({case.numbers})")
    weaker = [reason for other in others for reason in _weakened(case.own, case.arms[other], other)]
    if weaker:
        return Verdict("edits weakened", f"lower {case.label}, but edits weakened: {'; '.join(weaker)} ({case.numbers})")
    leaks = [reason for other in others for reason in _leaking(case.own, case.arms[other], other)]
    if leaks:
        return Verdict("edits leak", f"lower {case.label}, but more attributes change without being requested: {'; '.join(leaks)} ({case.numbers})")
    return None


def _extractors_agree(case: Case) -> Verdict | None:
    """(5) No second or third extractor with an interval above zero, against the control or before."""
    for other, words in (("control", ""), ("before", " against the generator before fine-tuning")):
        for view in FURTHER:
            delta = case.view(view, other)
            if delta is not None and delta.anywhere_above_zero:
                found = f"{signed(delta.value)}, interval {both_intervals(delta)}"
                return Verdict("extractors disagree", f"lower {case.label}, but {_name_of(case, view)} shows the opposite{words}, {found} ({case.numbers})")
    return None


def _not_overfitted_to_the_extractor(case: Case) -> Verdict | None:
    """(6) A gain that the second or third extractor sees too, or changes that show in the extractor's features no more than in the second one's, compared
    with the control's changes."""
    found, further = case.view(LEVERAGE, "control"), [case.view(view, "control") for view in FURTHER]
    images = None if found is None else found.images or found
    if images is None or images.low <= TOLERATED_LEVERAGE or any(delta is not None and delta.high < 0 for delta in further):
        return None
    second = _name_of(case, "second")
    value, low, high = (number(math.exp(log)) for log in (found.value, images.low, images.high))
    return Verdict(
        "overfitted to the extractor",
        f"lower {case.label}, but it looks overfitted to it: {second} shows no gain, and relative to it fine-tuning moved the features of {case.label} {value} times "
        f"({low} to {high}) as far as the control's did; use another extractor ({case.numbers})",
    )


def _not_farther_from_perfect_edits(case: Case) -> Verdict | None:
    """(7) No mean absolute difference from the perfect edits with an interval above the control's or the one before."""
    for other, words in (("control", "the control"), ("before", "the generator before fine-tuning")):
        farther = case.view(PERFECT_EDIT, other)
        if farther is not None and farther.anywhere_above_zero:
            found = f"mean absolute difference {signed(farther.value)}, interval {both_intervals(farther)}"
            return Verdict("farther from the perfect edits", f"lower {case.label}, but farther from the perfect edits than {words}, {found} ({case.numbers})")
    return None


def _no_checkerboard(case: Case) -> Verdict | None:
    """(8) Power at the Nyquist frequency: neither a new checkerboard nor noise."""
    power = {side: case.arms[side].spectrum.nyquist for side in (case.arm, *_others(case))}
    own = power.pop(case.arm)
    if own is None:
        return None
    found = f"{number(own)} times the power of real images at the Nyquist frequency"
    for other, theirs in power.items():
        if theirs is not None and own > TOLERATED_NYQUIST * max(1.0, theirs):
            return Verdict("checkerboard", f"lower {case.label}, but a checkerboard: {found}, {other} {number(theirs)} ({case.numbers})")
    if own > NOISE_NYQUIST:
        return Verdict("not decided", f"not decided: lower {case.label}, but the images are noise or a checkerboard: {found} ({case.numbers})")
    return None


_CONDITIONS: Sequence[Callable[[Case], Verdict | None]] = (
    _comparable,
    _extractor_is_not_the_backbone,
    _better_than_controls,
    _not_worse_than_before,
    _edits_kept,
    _extractors_agree,
    _not_overfitted_to_the_extractor,
    _not_farther_from_perfect_edits,
    _no_checkerboard,
)
_NAMES = {"edit_accuracy": "edit accuracy", "identity_l1": "edit strength"}


def _others(case: Case) -> list[str]:
    """The control and the generator before fine-tuning, as far as measured."""
    return [other for other in ("control", "before") if other in case.arms]


def _weakened(arm: Measurement, other: Measurement, name: str) -> list[str]:
    """Why the edits of `arm` count as weaker than those of `other`, both measured; empty if they don't."""
    reasons = []
    was, now = other.edit_accuracy, arm.edit_accuracy
    tolerated = tolerated_fall(was, now, arm.frechet.n)
    if was - now > tolerated:
        reasons.append(f"edit accuracy {number(now)} against {number(was)} ({name}), tolerated fall {number(tolerated)}")
    return reasons + shrunk(arm, other, name)


def _leaking(arm: Measurement, other: Measurement, name: str) -> list[str]:
    """Why `arm` leaks more than `other`; empty if it doesn't, or where leakage wasn't measured."""
    was, now = other.leakage, arm.leakage
    if was is None or now is None:
        return []
    tolerated = tolerated_fall(1 - was, 1 - now, arm.frechet.n)
    return [f"leakage {number(now)} against {number(was)} ({name}), tolerated rise {number(tolerated)}"] if now - was > tolerated else []


def _name_of(case: Case, view: str) -> str:
    return case.own.distance(view).label or FURTHER[view]


def _further_extractors(case: Case) -> str:
    """What the second and the third extractor show against the control."""
    found = []
    for view in FURTHER:
        if (delta := case.view(view, "control")) is not None:
            words = "agrees" if delta.high < 0 else "shows no difference"
            found.append(f"{_name_of(case, view)} {words} ({signed(delta.value)}, {both_intervals(delta)})")
    return "; ".join(found) or "no second extractor was used"


def _structure_or_texture(case: Case) -> str:
    """Whether the gain remains in images of half the size."""
    half = case.view("frechet_2x", "control")
    if half is None:
        return ""
    found = f"at half the size {signed(half.value)}, {both_intervals(half)}"
    return f"the gain is in structure too ({found})" if half.high < 0 else f"the gain is in fine texture only ({found})"


def _towards_perfect_edits(case: Case) -> str:
    """Whether the images are nearer to the perfect edits than the control's; empty where those aren't known."""
    delta = case.view(PERFECT_EDIT, "control")
    if delta is None:
        return ""
    return f"the images are {'nearer to' if delta.high < 0 else 'as far from'} the perfect edits ({signed(delta.value)}, {both_intervals(delta)})"


def _edits_in_words(case: Case) -> str:
    """That the edits were kept, and the difference of edit accuracy from the control's, where single images were measured."""
    delta = None if case.without_attributes else case.view(EDIT_ACCURACY, "control")
    if delta is None:
        return "edits kept"
    words = "edits kept" if delta.high >= 0 else "edits a little weaker, within the tolerance"
    return f"{words} (edit accuracy {signed(delta.value)} against the control, {both_intervals(delta)})"


def _effect_of_template(case: Case) -> str:
    """Whether a MaLP that never had a template does as well; empty for arms but cotrain, which differ from no_template in more than that."""
    delta = case.comparison[case.arm].get("delta_vs_no_template")
    if delta is None or case.arm != "cotrain":
        return ""
    if delta.high < 0:
        return f"better than no_template, whose MaLP never had a template, by {number(-delta.value)}"
    found = f"{signed(delta.value)}, {both_intervals(delta)}"
    return f"not better than no_template, whose MaLP never had a template ({found}), so the template is not what helps"
