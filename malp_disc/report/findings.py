"""Findings besides the verdict: whether changes became harder to localize, and cautions about the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from malp_disc.report.numbers import number
from malp_disc.report.results import Record
from malp_disc.report.verdict_rule import TOLERATED_NYQUIST
from malp_disc.run_folder.arms import VIEWS
from malp_disc.run_folder.measurement import Measurement

PEARSON = 0.02
"""The smallest fall of Pearson's correlation that counts."""
IDENTITY = 0.05
"""The smallest fall of the cosine of face embeddings that gets a caution."""
_PER_DIMENSION = 5  # images per feature for a usable estimate of the covariance, roughly


def localization_finding(arm: str, arms: Mapping[str, Measurement]) -> str | None:
    """Whether an arm is harder to localize or only fools one network, as a clause; None where nothing was measured.

    Compared with the control, which trained as long (the control itself, and any arm of a run without one, with before), by two detectors: the
    MaLP that fine-tuning started with, and one trained from scratch against each generator. A fall of Pearson's correlation by 0.02 counts, and
    the MaLP trained from scratch must show at least half of it.
    """
    if arm == "before":
        return None
    other = "control" if arm != "control" and _pearson(arms, "control", "localization") is not None else "before"
    base, found = (_pearson(arms, side, "localization") for side in (other, arm))
    if base is None or found is None:
        return None
    fall = base - found
    known = f"Pearson {number(found)} by the MaLP it started with, {other} {number(base)}"
    if fall < PEARSON:
        return f"no harder to localize ({known})"
    fresh_base, fresh = (_pearson(arms, side, "localization_fresh") for side in (other, arm))
    if fresh is None or fresh_base is None:
        lacking = "no MaLP was trained from scratch" + ("" if fresh is None else f" against {other}")
        return f"harder to localize for the MaLP it started with ({known}); {lacking}, so it may have learned to fool this one only"
    measured = f"{known}; {number(fresh)} by one trained from scratch, {other} {number(fresh_base)}"
    if fresh_base - fresh >= max(PEARSON, fall / 2):
        return f"really harder to localize ({measured})"
    return f"it learned to fool one network: a MaLP trained from scratch still finds the changes ({measured})"


def cautions(record: Record) -> list[str]:
    """Everything that limits what the numbers show, as clauses without a full stop."""
    arms = record.arms
    return [
        *(
            f"{arm} diverged: its images are not finite, nothing was measured"
            for arm, measured in arms.items()
            if measured.diverged
        ),
        *(
            f"{arm}: {number(measured.skipped)} updates were skipped, since a gradient or an image wasn't finite, so it learned less than its {number(measured.steps)} steps suggest"
            for arm, measured in arms.items()
            if measured.skipped and not measured.diverged
        ),
        *_one_seed(record),
        *_stale_features(record),
        *_different_seeds(record.seeds_of),
        *_few_images(arms),
        *_seen_references(arms),
        *_control_unchanged(arms),
        *_kernel_says_otherwise(record),
        *_checkerboards(arms),
        *_changed_identities(arms),
    ]


def _pearson(arms: Mapping[str, Measurement], arm: str, by: str) -> float | None:
    return getattr(arms[arm], by).pearson if arm in arms else None


def _stale_features(record: Record) -> list[str]:
    """Features that don't belong to the measurement, as in a folder that two runs wrote to."""
    notes = []
    for seed, run in record.per_seed.items():
        for arm, again in run.from_features.items():
            value = run.arms[arm].frechet.value
            if value is not None and abs(again - value) > 0.01 * max(abs(again), abs(value)) + 1e-3:
                which = arm if len(record.seeds) == 1 else f"{arm}, seed {seed}"
                notes.append(
                    f"{which}: the saved features give {number(again)}, the measurement has {number(value)}; they are not of the same "
                    "images"
                )
    return notes


def _one_seed(record: Record) -> list[str]:
    """A single training run of each arm."""
    if len(record.seeds) > 1 or not record.verdicts:
        return []
    return ["one seed: the intervals cover the choice of images, and another training run may differ by more; several (--seeds 0 1 2) show how much is chance"]


def _different_seeds(seeds_of: Mapping[str, Sequence[int]]) -> list[str]:
    """Arms with different seeds, whose means aren't comparable; "before" has no seed."""
    found = {arm: tuple(seeds) for arm, seeds in seeds_of.items() if arm != "before"}
    if len(set(found.values())) < 2:
        return []
    listed = ", ".join(f"{arm} {' '.join(map(str, seeds))}" for arm, seeds in found.items())
    return [f"not every arm has the same seeds ({listed}), so their means are not quite comparable; differences are taken seed by seed, and there are none from an arm that lacks one of the seeds"]


def _seen_references(arms: Mapping[str, Measurement]) -> list[str]:
    """Generators that are compared with training images."""
    if not any(" train split" in (measured.frechet.reference or "") for arm, measured in arms.items() if arm != "before"):
        return []
    return ["compared with training images, which discriminators saw as real; a larger --test-size holds out enough images to compare with (--reference-split)"]


def _control_unchanged(arms: Mapping[str, Measurement]) -> list[str]:
    """A control that is the generator before fine-tuning: without losses that ask for something, training changes nothing."""
    values = [arms[arm].frechet.value for arm in ("before", "control") if arm in arms]
    if len(values) < 2 or None in values or abs(values[1] - values[0]) > 1e-9 * abs(values[0]):
        return []
    return ["the control is still the generator before fine-tuning, as its losses asked for no change (--losses): it doesn't show what training for longer does"]


def _few_images(arms: Mapping[str, Measurement]) -> list[str]:
    """Distances with too few images to estimate the covariance of their features."""
    short: dict[str, None] = {}
    few: dict[str, None] = {}
    for distance in (measured.distance(view) for measured in arms.values() for view in VIEWS):
        dims, sizes = distance.dims, [size for size in (distance.n, distance.reference_n) if size is not None]
        if dims is None or not sizes:
            continue
        text = f"{distance.label} ({number(dims)} features, n = {number(min(sizes))})"
        if min(sizes) <= dims:
            short[text] = None
        elif min(sizes) < _PER_DIMENSION * dims:
            few[text] = None
    notes = []
    if short:
        notes.append(
            f"no more images than features in {', '.join(short)}: the covariance is rank-deficient and most of the value is bias; compare "
            "equal n only, and don't expect the intervals to hold for larger sets"
        )
    if few:
        notes.append(
            f"fewer than {_PER_DIMENSION} images for each feature in {', '.join(few)}: the values are biased upward; compare equal n only"
        )
    return notes


def _kernel_says_otherwise(record: Record) -> list[str]:
    """Arms for which KID contradicts a Fréchet interval that excludes zero."""
    notes = []
    for arm in record.comparison:
        delta, kids = record.delta(arm), [record.arms[side].kid.value for side in (arm, "control") if side in record.arms]
        if delta is None or None in kids or delta.low <= 0 <= delta.high:
            continue
        if (kids[0] - kids[1]) * delta.value < 0:
            ours, control = map(number, kids)
            notes.append(
                f"{arm}: KID shows the opposite of the Fréchet distance, {ours} against the control's {control}; look at the images"
            )
    return notes


def _checkerboards(arms: Mapping[str, Measurement]) -> list[str]:
    powers = {arm: measured.spectrum.nyquist for arm, measured in arms.items()}
    high = ", ".join(f"{arm} {number(power)}" for arm, power in powers.items() if power is not None and power > TOLERATED_NYQUIST)
    limit = f"more than {TOLERATED_NYQUIST:g} times the power of real images at the Nyquist frequency, a checkerboard or noise"
    return [f"{limit}: {high}"] if high else []


def _changed_identities(arms: Mapping[str, Measurement]) -> list[str]:
    control = arms["control"].identity.value if "control" in arms else None
    found = {arm: measured.identity.value for arm, measured in arms.items()}
    return [
        f"{arm} preserves identity less: {number(value)} against the control's {number(control)} (cosine of face embeddings)"
        for arm, value in found.items()
        if value is not None and control is not None and control - value > IDENTITY
    ]
