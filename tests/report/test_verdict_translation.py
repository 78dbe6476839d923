"""The rule for generators without attributes: what takes the place of edit accuracy, and each of its refusals."""

from __future__ import annotations

import math

import pytest

from malp_disc.report.verdict_rule import RULE
from malp_disc.report.verdict_tolerances import TOLERATED_FALL, tolerated_fall_of_mean
from tests.report.typed import arm_verdict, run_verdict

FARTHER, SAME, NEARER = ({"value": v, "low": v - 4, "high": v + 4} for v in (-30.0, -1.0, 12.0))


@pytest.fixture
def translated(arms):
    """The arms as measured on images without attributes: horses to zebras."""
    for measured in arms.values():
        measured |= {"attributes": 0, "edit_accuracy": None, "content": {"value": 0.89, "std": 0.035}}
    return arms


@pytest.fixture
def compared(comparison):
    comparison["before"]["delta_vs_unedited"] = FARTHER
    return comparison


def test_a_translation_is_improved_without_edit_accuracy_and_the_sentence_has_what_was_measured(translated, compared):
    translated["cotrain"] |= {"identity_l1": 0.13, "content": {"value": 0.885, "std": 0.035}}
    verdict = arm_verdict("cotrain", translated, compared)
    assert verdict.outcome == "improved"
    assert "content kept (cotrain 0.8850, control 0.8900, before 0.8900), edit strength cotrain 0.1300, control 0.1200, before 0.1200" in verdict.reason
    assert "the unedited inputs are farther, before minus theirs -30.00, -34.00 to -26.00" in verdict.reason
    assert run_verdict(translated, compared)[0].startswith("cotrain improved (")


REFUSALS = {
    "edit strength shrunk": ({"identity_l1": 0.06}, "edits weakened", "edit strength 0.0600 against 0.1200 (control), 50 % less"),
    "shrunk as the control's": ({"identity_l1": 0.06, "control.identity_l1": 0.06}, "edits weakened", "(before), 50 % less"),
    "content lost": ({"content": {"value": 0.80, "std": 0.035}}, "content lost", "edge agreement 0.8000 against 0.8900 (control)"),
    "content lost as the control's": (
        {"content": {"value": 0.80, "std": 0.035}, "control.content": {"value": 0.80, "std": 0.035}},
        "content lost",
        "edge agreement 0.8000 against 0.8900 (before)",
    ),
    "content not measured": ({"content": {"value": None, "std": None}}, "not decided", "content was not measured"),
    "content of before not measured": ({"before.content": None}, "not decided", "content was not measured"),
    "edit strength not measured": ({"identity_l1": None}, "not decided", "edit strength was not measured"),
    "unedited no farther": ({"before.delta_vs_unedited": SAME}, "not decided", "the unedited inputs aren't farther"),
    "unedited nearer": ({"before.delta_vs_unedited": NEARER}, "not decided", "weaker edits alone would lower it"),
    "unedited not measured": ({"before.delta_vs_unedited": None}, "not decided", "was not measured whether the unedited inputs are farther"),
    "worse than before": ({"delta_vs_before": NEARER}, "worse", "worse than before fine-tuning"),
    "no better than the control": ({"delta_vs_control": SAME}, "no difference", "interval contains zero"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_their_reason_and_never_say_improved(translated, compared, name):
    change, outcome, words = REFUSALS[name]
    for key, value in change.items():
        arm, _, entry = key.rpartition(".")
        (compared if entry.startswith("delta") else translated)[arm or "cotrain"][entry] = value
    verdict = arm_verdict("cotrain", translated, compared)
    assert verdict.outcome == outcome
    assert words in verdict.reason and "improved" not in verdict.reason


def test_labelled_data_still_need_edit_accuracy(translated, compared):
    """Neither a missing classifier nor a line of an earlier version makes the rule ask for less."""
    for attributes in (5, None):
        for measured in translated.values():
            measured["attributes"] = attributes
        verdict = arm_verdict("cotrain", translated, compared)
        assert verdict.outcome == "not decided" and "edit accuracy was not measured" in verdict.reason


def test_content_may_fall_by_two_standard_errors_and_never_by_more_than_the_cap(translated, compared):
    n, tolerated = translated["cotrain"]["frechet"]["n"], tolerated_fall_of_mean(0.035, 0.035, 120)
    assert n == 120 and tolerated == pytest.approx(2 * math.sqrt(2 * 0.035**2 / 120))
    for factor, outcome in ((0.9, "improved"), (1.1, "content lost")):
        translated["cotrain"]["content"] = {"value": 0.89 - factor * tolerated, "std": 0.035}
        assert arm_verdict("cotrain", translated, compared).outcome == outcome
    assert tolerated_fall_of_mean(0.5, 0.5, 10) == TOLERATED_FALL and tolerated_fall_of_mean(0.1, 0.1, None) == 0


@pytest.mark.parametrize(("strength", "outcome"), [(0.119, "improved"), (0.12, "content lost"), (0.13, "content lost")])
def test_the_content_of_a_control_that_edits_less_than_before_is_no_standard(translated, compared, strength, outcome):
    translated["control"] |= {"identity_l1": strength, "content": {"value": 0.95, "std": 0.035}}
    assert arm_verdict("cotrain", translated, compared).outcome == outcome
    translated["cotrain"]["content"] = {"value": 0.80, "std": 0.035}
    assert arm_verdict("cotrain", translated, compared).outcome == "content lost", "that of the generator before always is"


def test_the_printed_rule_has_the_case():
    assert "For generators without attributes" in RULE and "unedited inputs" in RULE
