"""The rule, case by case: what it calls improved, and each of its refusals."""

from __future__ import annotations

import copy
import math

import pytest

from malp_disc.report import verdict_rule
from malp_disc.report.seeds import Delta, Interval, bonferroni_interval
from malp_disc.report.verdict_rule import NOISE_NYQUIST, RULE
from malp_disc.report.verdict_tolerances import TOLERATED_SHRINKAGE, tolerated_fall
from malp_disc.run_folder.arms import ARMS, CANDIDATES, CONTROLS
from tests.report.typed import HIGHER, LOWER, ZERO, arm_verdict, deltas, full, measurements, run_verdict


def test_lower_distance_with_edits_kept_is_improved_and_says_by_how_much(arms, comparison):
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == "improved"
    assert "FD-faces -46.50" in verdict.reason
    assert "-52.50 to -40.50" in verdict.reason
    assert "n = 120" in verdict.reason


# What is changed in the cotrain arm (or in the one named), the outcome, and words of the reason.
REFUSALS = [
    ({"delta_vs_control": ZERO}, "no difference", "interval contains zero"),
    ({"delta_vs_control": HIGHER}, "worse", "worse than the control"),
    ({"delta_vs_control": None}, "not decided", "no features"),
    ({"delta_vs_before": None}, "not decided", "no features from before"),
    ({"delta_vs_before": HIGHER}, "worse", "worse than before fine-tuning"),
    ({"edit_accuracy": 0.85}, "edits weakened", "edit accuracy 0.8500 against 0.9500 (control)"),
    ({"edit_accuracy": None}, "not decided", "edit accuracy was not measured"),
    ({"control.edit_accuracy": None}, "not decided", "edit accuracy was not measured"),
    ({"before.edit_accuracy": None}, "not decided", "edit accuracy was not measured"),
    ({"control.edit_accuracy": 0.8, "edit_accuracy": 0.8}, "edits weakened", "against 0.9500 (before)"),
    ({"identity_l1": 0.06}, "edits weakened", "edit strength 0.0600 against 0.1200 (control), 50 % less"),
    ({"control.identity_l1": 0.06, "identity_l1": 0.06}, "edits weakened", "(before), 50 % less"),
    ({"identity_l1": None}, "not decided", "edit strength was not measured"),
    ({"n": 60}, "not decided", "different n"),
]


@pytest.mark.parametrize(("change", "outcome", "words"), REFUSALS, ids=[f"{next(iter(c))}-{o}" for c, o, _ in REFUSALS])
def test_refusals_name_their_reason_and_never_say_improved(arms, comparison, change, outcome, words):
    for key, value in change.items():
        arm, _, name = key.rpartition(".")
        target = arms[arm or "cotrain"]
        target = comparison["cotrain"] if name.startswith("delta") else target["frechet"] if name == "n" else target
        target[name] = value
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == outcome
    assert words in verdict.reason
    assert "improved" not in verdict.reason
    assert run_verdict(arms, comparison)[0].startswith("No improvement shown: ")


@pytest.mark.parametrize("key", ["label", "n", "extractor", "resize", "reference"])
@pytest.mark.parametrize("other", ["control", "before"])
def test_distances_that_were_measured_otherwise_do_not_compare_unless_one_diverged(arms, comparison, key, other):
    arms[other]["frechet"][key] = 60 if key == "n" else "another"
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == "not decided" and f"cotrain and {other} were measured with different {key}" in verdict.reason
    arms[other] |= {"diverged": True}
    assert "were measured with different" not in arm_verdict("cotrain", arms, comparison).reason


def test_a_diverged_arm_and_one_whose_updates_were_all_skipped_are_not_decided_on(arms, comparison):
    for arm in ("cotrain", "control"):
        for skipped, outcome in ((249, "improved"), (250, "not decided")):
            changed = {**arms, arm: {**arms[arm], "skipped": skipped}}
            verdict = arm_verdict("cotrain", changed, comparison)
            assert verdict.outcome == outcome and (f"as many updates of {arm} were skipped" in verdict.reason) == (outcome == "not decided")
    verdict = arm_verdict("cotrain", {**arms, "cotrain": {**arms["cotrain"], "diverged": True}}, comparison)
    assert (verdict.outcome, verdict.reason) == ("not decided", "not decided: cotrain diverged, its images are not finite")


def test_only_an_interval_makes_an_arm_worse_than_a_control(arms, comparison):
    unsure = {"value": 2.0, "low": -4.0, "high": 8.0}
    assert arm_verdict("cotrain", arms, {**comparison, "cotrain": {**comparison["cotrain"], "delta_vs_control": unsure}}).outcome == "no difference"
    arms["random"] = arms["control"]
    for delta, outcome in ((unsure, "no difference"), (HIGHER, "worse"), (LOWER, "improved")):
        assert arm_verdict("cotrain", arms, {**comparison, "cotrain": {**comparison["cotrain"], "delta_vs_random": delta}}).outcome == outcome


def test_the_interval_against_every_control_is_corrected_for_the_candidates(arms, comparison):
    """One that just excludes zero for a single candidate contains it for two."""
    arms["random"] = arms["control"]
    comparison["cotrain"]["delta_vs_random"] = {"value": -6.0, "low": -11.9, "high": -0.1}
    typed = measurements(arms), deltas(comparison)
    assert [verdict_rule.arm_verdict("cotrain", *typed, candidates=count).outcome for count in (1, 2)] == ["improved", "no difference"]


def test_an_interval_that_only_touches_zero_contains_it(arms, comparison):
    comparison["cotrain"]["delta_vs_control"] = {"value": -3.0, "low": -6.0, "high": 0.0}
    assert arm_verdict("cotrain", arms, comparison).outcome == "no difference"


def test_weakened_edits_are_refused_exactly_beyond_the_stated_share(arms, comparison):
    arms["before"]["identity_l1"] = arms["control"]["identity_l1"] = 0.125
    for l1, outcome in ((1 - TOLERATED_SHRINKAGE, "improved"), (1 - TOLERATED_SHRINKAGE - 0.01, "edits weakened")):
        arms["cotrain"]["identity_l1"] = l1 * 0.125
        assert arm_verdict("cotrain", arms, comparison).outcome == outcome


def test_stronger_edits_are_no_reason_to_refuse(arms, comparison):
    arms["cotrain"] |= {"identity_l1": 0.3, "edit_accuracy": 1.0}
    assert arm_verdict("cotrain", arms, comparison).outcome == "improved"


def test_no_difference_from_before_is_said_beside_an_improvement_on_the_control(arms, comparison):
    comparison["cotrain"]["delta_vs_before"] = ZERO
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == "improved"
    assert "no different from before" in verdict.reason


def test_a_fall_within_sampling_noise_is_tolerated_and_the_same_fall_of_many_images_is_not(arms, comparison):
    """0.95 to 0.93: 2 standard errors are 0.049 at n = 180, and 0.0067 at n = 10000."""
    arms["cotrain"]["edit_accuracy"] = 0.93
    for n, outcome in ((180, "improved"), (10_000, "edits weakened")):
        for measured in arms.values():
            measured["frechet"]["n"] = n
        assert arm_verdict("cotrain", arms, comparison).outcome == outcome


def test_the_tolerance_is_two_standard_errors_of_the_difference_for_many_images():
    n, p, q = 50_000, 0.95, 0.94
    by_hand = 2 * math.sqrt((p * (1 - p) + q * (1 - q)) / n)
    assert tolerated_fall(p, q, n) == pytest.approx(by_hand, rel=1e-3)


def test_the_tolerance_has_a_cap_few_images_buy_no_indulgence():
    assert tolerated_fall(0.9, 0.8, 20) == 0.05
    assert tolerated_fall(0.9, 0.8, None) == 0


def test_one_image_of_many_may_fail_where_all_succeeded_before():
    assert tolerated_fall(1.0, 0.999, 1000) > 0.001


def test_the_run_names_the_improved_arm_first_and_the_other_ones_reason(arms, comparison):
    sentence, verdicts = run_verdict(arms, comparison)
    assert sentence.startswith("cotrain improved (")
    assert "frozen: no difference from the control" in sentence
    assert {arm: verdict.outcome for arm, verdict in verdicts.items()} == {"frozen": "no difference", "cotrain": "improved"}


def test_every_arm_but_before_and_the_controls_is_a_candidate():
    assert set(CANDIDATES) == set(ARMS) - {"before", *CONTROLS}


@pytest.mark.parametrize("arm", CANDIDATES)
def test_any_candidate_can_be_called_improved(arms, comparison, arm):
    """Whatever it was trained against: the largest gain must not go unmentioned."""
    measured = {"before": arms["before"], "control": arms["control"], arm: arms["cotrain"]}
    sentence, verdicts = run_verdict(measured, {arm: comparison["cotrain"]})
    assert sentence.startswith(f"{arm} improved (") and set(verdicts) == {arm}


def test_the_best_candidate_stands_first_with_its_reason_and_the_others_without_numbers(arms, comparison):
    for arm, shift in (("vision_aided", -80), ("joint", -60)):
        arms[arm] = copy.deepcopy(arms["cotrain"])
        comparison[arm] = {"delta_vs_control": full(shift, shift - 6, shift + 6), "delta_vs_before": LOWER}
    sentence, _ = run_verdict(arms, comparison)
    assert sentence.startswith("vision_aided improved (FD-faces -80 against the control, 98.8 % interval (Bonferroni, 4 candidates) ")
    assert sentence.endswith("; joint, cotrain improved as well; frozen: no difference from the control: interval contains zero.")


def test_a_gain_that_only_an_uncorrected_interval_shows_is_no_improvement_among_several_candidates(arms, comparison):
    """-6.5 ± 6 excludes zero at 95 %; for two candidates it is ± 6 · 2.2414 / 1.9600 = 6.86."""
    comparison["cotrain"]["delta_vs_control"] = full(-6.5, -12.5, -0.5)
    assert arm_verdict("cotrain", arms, comparison).outcome == "improved"
    sentence, verdicts = run_verdict(arms, comparison)
    assert verdicts["cotrain"].outcome == "no difference" and "97.5 % interval (Bonferroni, 2 candidates)" in sentence


def test_the_corrected_interval_by_hand():
    """z(0.9875) / z(0.975) = 2.2414 / 1.9600 over images; t(0.9875, 2) / t(0.975, 2) = 6.2053 / 4.3027 over three seeds."""
    delta = Delta(-10, -14, -6, images=Interval(-12, -9), seeds=Interval(-14, -6), count=3)
    wide = bonferroni_interval(delta, 2)
    assert wide.images == Interval(pytest.approx(-10 - 2 * 1.14358, abs=1e-4), pytest.approx(-10 + 1.14358, abs=1e-4))
    assert wide.seeds == Interval(pytest.approx(-10 - 4 * 1.44221, abs=1e-4), pytest.approx(-10 + 4 * 1.44221, abs=1e-4))
    assert (wide.low, wide.high) == (wide.seeds.low, wide.seeds.high)
    assert bonferroni_interval(delta, 1) == delta


def test_noise_is_not_improved_because_the_control_is_as_broken(arms, comparison):
    """Both seeds are far above before, but two seeds have so wide an interval (t = 12.7) that it contains zero."""
    since = full(22.4, -8.0, 52.8, seeds={"low": -8.0, "high": 52.8}, images={"low": 21.0, "high": 23.8}, count=2)
    comparison["cotrain"]["delta_vs_before"] = since
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == "not decided"
    assert "above the one before fine-tuning, +22.40" in verdict.reason and "over 2 seeds" in verdict.reason


def test_broken_images_are_not_improved_when_the_generator_before_was_broken_too(arms, comparison):
    for nyquist, outcome in ((20 * NOISE_NYQUIST, "not decided"), (0.9 * NOISE_NYQUIST, "improved")):
        for measured in arms.values():
            measured["spectrum"] = {"nyquist": nyquist}
        assert arm_verdict("cotrain", arms, comparison).outcome == outcome


def test_a_checkerboard_that_the_control_shares_is_refused_against_before(arms, comparison):
    for arm, power in (("before", 1.0), ("control", 5.0), ("frozen", 5.0), ("cotrain", 5.0)):
        arms[arm]["spectrum"] = {"nyquist": power}
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == "checkerboard" and "before 1.000" in verdict.reason


def test_a_second_extractor_that_sees_a_loss_against_before_refuses(arms, comparison):
    arms["cotrain"]["second"] = {"label": "FD-random"}
    views = {"second": {"cotrain": {"delta_vs_control": LOWER, "delta_vs_before": HIGHER}}}
    verdict = arm_verdict("cotrain", arms, comparison, views)
    assert verdict.outcome == "extractors disagree" and "against the generator before fine-tuning" in verdict.reason


def test_a_generator_before_that_was_measured_otherwise_decides_nothing(arms, comparison):
    arms["before"]["frechet"]["n"] = 60
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == "not decided" and "cotrain and before were measured with different n" in verdict.reason


def test_without_a_control_there_is_no_verdict(arms, comparison):
    del arms["control"]
    sentence, verdicts = run_verdict(arms, comparison)
    assert sentence.startswith("No verdict: there is no control arm")
    assert verdicts == {}


def test_without_a_fine_tuned_arm_there_is_no_verdict(arms, comparison):
    sentence, verdicts = run_verdict({arm: arms[arm] for arm in ("before", "control")}, comparison)
    assert sentence.startswith("No verdict: no generator was fine-tuned")
    assert verdicts == {}


def test_without_the_arm_before_nothing_is_decided_because_the_control_may_be_broken(arms, comparison):
    del arms["before"]
    comparison["cotrain"]["delta_vs_before"] = None
    verdict = arm_verdict("cotrain", arms, comparison)
    assert verdict.outcome == "not decided" and "measure before" in verdict.reason


def test_the_rule_states_its_numbers():
    for words in (
        "below zero",
        "2 standard errors",
        "0.05",
        "25 %",
        "control_2xD, random",
        "second nor the third extractor",
        "2 times the control's",
        "Student's t",
    ):
        assert words in RULE
    assert "{" not in RULE
