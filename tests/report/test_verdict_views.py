"""The rule with further controls, seeds, extractors and views: what they add to a verdict, and when they refuse."""

from __future__ import annotations

import copy

import pytest

from malp_disc.report.verdict_rule import TOLERATED_LEVERAGE
from tests.report.typed import HIGHER, LOWER, ZERO, arm_verdict, full, run_verdict


@pytest.mark.parametrize("other", ["control_2xD", "random"])
@pytest.mark.parametrize(
    ("delta", "outcome", "words"),
    [
        (LOWER, "improved", "edits kept"),
        (ZERO, "no difference", "no difference from {}"),
        (HIGHER, "worse", "worse than {}"),
        (None, "not decided", "can't be compared with {}"),
    ],
)
def test_every_further_control_that_was_measured_has_to_be_beaten(arms, comparison, other, delta, outcome, words):
    arms[other] = copy.deepcopy(arms["control"])
    comparison["cotrain"][f"delta_vs_{other}"] = delta
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == outcome
    assert words.format(other) in verdict.reason


def test_over_seeds_both_intervals_have_to_lie_below_zero(arms, comparison):
    for seeds, images, outcome in (
        ((-9, -2), (-8, -3), "improved"),
        ((-14, 3), (-8, -3), "no difference"),
        ((-9, -2), (-12, 1), "no difference"),
    ):
        ends = {"seeds": dict(zip(("low", "high"), seeds)), "images": dict(zip(("low", "high"), images)), "count": 3}
        comparison["cotrain"]["delta_vs_control"] = full(-5.5, min(seeds[0], images[0]), max(seeds[1], images[1]), **ends)
        verdict = arm_verdict("cotrain", arms, comparison)
        assert verdict.outcome == outcome
        assert "over 3 seeds and" in verdict.reason and "over images" in verdict.reason


def test_more_leakage_than_before_is_refused_too(arms, comparison):
    for arm, measured in arms.items():
        measured["frechet"]["n"], measured["leakage"] = 10_000, 0.02 if arm == "before" else 0.05
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == "edits leak" and "(before)" in verdict.reason


def test_more_leakage_is_refused_beyond_sampling_noise_and_where_it_was_not_measured_it_is_not(arms, comparison):
    """0.02 to 0.05 of 10,000 images is far beyond two standard errors, of 100 it is not."""
    for n, outcome in ((10_000, "edits leak"), (100, "improved")):
        for arm, measured in arms.items():
            measured["frechet"]["n"], measured["leakage"] = n, 0.05 if arm == "cotrain" else 0.02
        verdict = arm_verdict("cotrain", arms, comparison)
        assert verdict.outcome == outcome
    arms["cotrain"]["leakage"] = None
    assert arm_verdict("cotrain", arms, comparison).outcome == "improved"


@pytest.mark.parametrize(
    ("second", "outcome", "words"),
    [
        (HIGHER, "extractors disagree", "FD-random shows the opposite"),
        (ZERO, "improved", "FD-random shows no difference"),
        (LOWER, "improved", "FD-random agrees"),
    ],
)
@pytest.mark.parametrize("view", ["second", "third"])
def test_a_further_extractor_may_refuse_and_is_always_heard(arms, comparison, view, second, outcome, words):
    arms["cotrain"][view] = {"label": "FD-random"}
    verdict = arm_verdict("cotrain", arms, comparison, {view: {"cotrain": {"delta_vs_control": second}}})
    assert verdict.outcome == outcome
    assert words in verdict.reason


def test_two_further_extractors_are_both_heard_and_one_is_enough_to_refuse(arms, comparison):
    arms["cotrain"] |= {"second": {"label": "FD-random"}, "third": {"label": "FD-faces"}}
    views = {"second": {"cotrain": {"delta_vs_control": ZERO}}, "third": {"cotrain": {"delta_vs_control": LOWER}}}
    reason = arm_verdict("cotrain", arms, comparison, views).reason
    assert "FD-random shows no difference" in reason and "; FD-faces agrees" in reason
    views["third"]["cotrain"]["delta_vs_control"] = HIGHER
    verdict = arm_verdict("cotrain", arms, comparison, views)
    assert verdict.outcome == "extractors disagree" and "FD-faces shows the opposite" in verdict.reason


def test_without_a_second_extractor_the_sentence_says_so(arms, comparison):
    assert "no second extractor was used" in arm_verdict("cotrain", arms, comparison).reason


@pytest.mark.parametrize(("half", "words"), [(LOWER, "the gain is in structure too"), (ZERO, "the gain is in fine texture only")])
def test_the_sentence_says_where_a_gain_sits(arms, comparison, half, words):
    verdict = arm_verdict("cotrain", arms, comparison, {"frechet_2x": {"cotrain": {"delta_vs_control": half}}})
    assert verdict.outcome == "improved"
    assert words in verdict.where and words in verdict.reason


@pytest.mark.parametrize(
    ("ours", "control", "outcome"), [(2.1, 0.9, "checkerboard"), (1.9, 0.5, "improved"), (2.5, 1.5, "improved"), (3.1, 1.5, "checkerboard")]
)
def test_a_checkerboard_is_refused_above_twice_real_images_and_twice_the_control(arms, comparison, ours, control, outcome):
    for arm, measured in arms.items():
        measured["spectrum"] = {"nyquist": ours if arm == "cotrain" else control}
    assert arm_verdict("cotrain", arms, comparison).outcome == outcome


def test_a_network_without_templates_that_does_as_well_takes_the_credit_from_the_template(arms, comparison):
    comparison["cotrain"]["delta_vs_no_template"] = ZERO
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == "improved"
    assert "so the template is not what helps" in verdict.reason
    for arm in ("vision_aided", "frozen"):
        arms[arm], comparison[arm] = arms["cotrain"], comparison["cotrain"]
        assert "template" not in arm_verdict(arm, arms, comparison).reason, f"{arm} differs from no_template in more than the template"
    comparison["cotrain"]["delta_vs_no_template"] = LOWER
    assert "better than no_template, whose MaLP never had a template, by 46.50" in arm_verdict("cotrain", arms, comparison).reason


def leverage_of(low: float, high: float) -> dict:
    """Views with a leverage of cotrain, over images."""
    return {"leverage": {"cotrain": {"delta_vs_control": {"value": (low + high) / 2, "low": -1.0, "high": 3.0, "images": {"low": low, "high": high}}}}}


def test_a_generator_that_looks_overfitted_to_the_extractor_is_not_improved(arms, comparison):
    verdict = arm_verdict("cotrain", arms, comparison, leverage_of(TOLERATED_LEVERAGE + 0.01, 0.5))
    assert verdict.outcome == "overfitted to the extractor"
    assert "the second extractor shows no gain, and relative to it fine-tuning moved the features of FD-faces 1.391 times (1.174 to 1.649) as far as" in verdict.reason
    assert run_verdict(arms, comparison, leverage_of(0.4, 0.5))[0].startswith("No improvement shown: cotrain: lower FD-faces, but it looks overfitted to it")


def test_a_leverage_that_may_be_chance_or_favours_the_second_extractor_is_no_alarm(arms, comparison):
    for low, high in ((TOLERATED_LEVERAGE, 0.9), (-0.1, 0.6), (-0.9, -0.5)):
        assert arm_verdict("cotrain", arms, comparison, leverage_of(low, high)).outcome == "improved"
    comparison["cotrain"]["delta_vs_control"] = ZERO
    assert arm_verdict("cotrain", arms, comparison, leverage_of(0.4, 0.5)).outcome == "no difference"


@pytest.mark.parametrize(("view", "outcome"), [("second", "extractors disagree"), ("third", "extractors disagree"), ("perfect_edit", "farther from the perfect edits")])
@pytest.mark.parametrize("other", ["control", "before"])
def test_what_two_seeds_show_alike_against_an_arm_isnt_lost_in_the_width_of_their_interval(arms, comparison, view, outcome, other):
    """By Student's t, +0.5 and +0.8 have an interval from -1.3 to 2.6, whatever each seed shows of itself."""
    over_images, over_seeds = {"low": 0.5, "high": 0.8}, {"low": -1.26, "high": 2.56}
    for images, seeds, count in ((over_images, over_seeds, 2), (over_seeds, over_images, 6)):
        delta = full(0.65, -1.26, 2.56, images=images, seeds=seeds, count=count)
        assert arm_verdict("cotrain", arms, comparison, {view: {"cotrain": {f"delta_vs_{other}": delta}}}).outcome == outcome


def test_a_verdict_of_one_seed_says_so_and_how_much_the_edit_accuracy_changed(arms, comparison):
    for high, words in ((0.002, "edits kept"), (-0.002, "edits a little weaker, within the tolerance")):
        accuracy = {"edit_accuracy": {"cotrain": {"delta_vs_control": full(-0.008, -0.014, high)}}}
        reason = arm_verdict("cotrain", arms, comparison, accuracy).reason
        assert f", one seed, {words} (edit accuracy -0.008 against the control, -0.0140 to " in reason
    assert ", one seed, edits kept; " in arm_verdict("cotrain", arms, comparison).reason


@pytest.mark.parametrize("view", ["second", "third"])
@pytest.mark.parametrize(("second", "outcome"), [(LOWER, "improved"), (ZERO, "overfitted to the extractor")])
def test_a_gain_that_a_further_extractor_sees_too_is_no_alarm(arms, comparison, view, second, outcome):
    views = leverage_of(0.4, 0.5) | {view: {"cotrain": {"delta_vs_control": second, "delta_vs_before": second}}}
    assert arm_verdict("cotrain", arms, comparison, views).outcome == outcome


@pytest.mark.parametrize(
    ("other", "delta", "outcome", "words"),
    [
        ("control", HIGHER, "farther from the perfect edits", "farther from the perfect edits than the control"),
        ("before", HIGHER, "farther from the perfect edits", "farther from the perfect edits than the generator before fine-tuning"),
        ("control", ZERO, "improved", "the images are as far from the perfect edits"),
        ("control", {"value": 2.2, "low": -3.8, "high": 8.2}, "improved", "the images are as far from the perfect edits"),
        ("control", LOWER, "improved", "the images are nearer to the perfect edits"),
    ],
)
def test_images_farther_from_the_perfect_edits_are_no_gain(arms, comparison, other, delta, outcome, words):
    verdict = arm_verdict("cotrain", arms, comparison, {"perfect_edit": {"cotrain": {f"delta_vs_{other}": delta}}})
    assert verdict.outcome == outcome and words in verdict.reason


def test_where_perfect_edits_are_not_known_nothing_is_said_of_them(arms, comparison):
    assert "perfect" not in arm_verdict("cotrain", arms, comparison).reason
