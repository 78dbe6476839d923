"""Really harder to localize, or one net fooled? And every caution, with the numbers that bring it about."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from malp_disc.report import build_record
from malp_disc.report.findings import localization_finding
from malp_disc.report.verdict_rule import NO_FEATURES
from malp_disc.run_folder.measurement import Localization, Measurement


def arms(base: float | None, found: float | None, fresh: float | None = None, fresh_base: float | None = None, other: str = "control"):
    def one(known, new):
        return Measurement(localization=Localization(pearson=known), localization_fresh=Localization(pearson=new))

    return {"before": one(0.99, 0.99), other: one(base, fresh_base), "cotrain": one(found, fresh)}


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0.69, 0.68), "no harder to localize"),
        ((0.69, 0.75), "no harder to localize"),
        ((0.69, 0.40), "no MaLP was trained from scratch, so it may have learned to fool this one only"),
        ((0.69, 0.40, 0.50), "no MaLP was trained from scratch against control, so it may have learned"),
        ((0.69, 0.40, 0.68, 0.70), "it learned to fool one network: a MaLP trained from scratch still finds the changes"),
        ((0.69, 0.40, 0.60, 0.70), "it learned to fool one network"),  # a third of the fall
        ((0.69, 0.40, 0.50, 0.70), "really harder to localize .*0.5000 by one trained from scratch, control 0.7000"),
        ((0.69, 0.66, 0.68, 0.695), "it learned to fool one network"),  # half the fall, but within what doesn't count
    ],
)
def test_localization_is_measured_by_two_malps_against_the_control(numbers, words):
    assert re.search(words, localization_finding("cotrain", arms(*numbers)))


def test_without_a_control_before_has_to_do_and_the_control_is_compared_with_before():
    assert "before 0.6900" in localization_finding("cotrain", arms(0.69, 0.40, 0.5, 0.7, other="before"))
    assert localization_finding("control", arms(0.69, 0.40)).startswith("harder to localize")
    assert "before 0.9900" in localization_finding("control", arms(0.69, 0.40))


def test_nothing_is_found_where_nothing_was_measured():
    assert localization_finding("cotrain", arms(0.69, None)) is None
    assert localization_finding("before", arms(0.69, 0.4)) is None


def notes(folder) -> str:
    return "\n".join(build_record(folder, resamples=20).notes)


def test_a_run_with_enough_images_and_nothing_odd_has_no_caution(make_full_run):
    assert notes(make_full_run()) == ""


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        (120, r"no more images than features in FD-random \(120 features, n = 120\)"),
        (25, r"fewer than 5 images for each feature in FD-random \(25"),
        (24, None),
    ],
)
def test_too_few_images_for_the_extractors_dimension_are_warned_of(make_full_run, dims, words):
    found = notes(make_full_run(change=lambda line: line["second"].update(dims=dims)))
    assert found == "" if words is None else re.search(words, found)


def test_training_images_as_the_reference_are_named(make_full_run):
    def change(line):
        line["frechet"]["reference"] = "photos train split, 300 images, n = 150"

    assert "compared with training images, which discriminators saw as real; a larger --test-size" in notes(make_full_run(change=change))


def test_a_control_that_never_moved_is_no_control(make_full_run):
    values = {}

    def change(line):
        if line["arm"] == "before":
            values["before"] = line["frechet"]["value"]
        elif line["arm"] == "control":
            line["frechet"]["value"] = values["before"]

    assert "the control is still the generator before fine-tuning, as its losses asked for no change" in notes(make_full_run(change=change))


def test_a_checkerboard_a_stranger_and_other_seeds_are_named(make_full_run):
    def change(line):
        if line["arm"] == "frozen":
            line["spectrum"]["nyquist"] = 22.0
        if line["arm"] == "cotrain":
            line["identity"]["value"] = 0.7
        if line["arm"] == "random" and line["seed"] == 2:
            line["arm"] = "control"  # a later line of the same seed: random has two seeds only

    found = notes(make_full_run(change=change))
    assert "at the Nyquist frequency, a checkerboard or noise: frozen 22.00" in found
    assert "cotrain preserves identity less: 0.7000 against the control's 0.8100" in found
    assert "not every arm has the same seeds" in found and "random 0 1" in found


def test_skipped_updates_are_named_and_where_all_were_skipped_nothing_is_decided(make_full_run):
    def change(line):
        if line["arm"] in ("cotrain", "frozen"):
            line["skipped"] = {"cotrain": 3, "frozen": 250}[line["arm"]]

    record = build_record(make_full_run(change=change), resamples=20)
    assert any(note.startswith("cotrain: 3 updates were skipped") and "its 250 steps" in note for note in record.notes)
    assert record.verdicts["cotrain"].outcome != "not decided"
    assert record.verdicts["frozen"].reason == "not decided: as many updates of frozen were skipped as it has steps, since they weren't finite"


def test_an_arm_that_diverged_in_one_seed_is_named_and_has_no_mean(make_full_run):
    def change(line):
        if (line["arm"], line["seed"]) == ("cotrain", 1):
            line.clear()
            line.update(seed=1, arm="cotrain", diverged=True)

    folder = make_full_run(change=change)
    (folder / "features" / "1" / "cotrain.npy").unlink()
    record = build_record(folder, resamples=20)
    assert record.arms["cotrain"].frechet.value is None
    assert record.verdicts["cotrain"].outcome == "not decided"
    assert "cotrain diverged, its images are not finite" in record.verdict
    assert any(note.startswith("cotrain diverged") for note in record.notes)


@pytest.mark.parametrize(("lacking", "words"), [((1,), "seed 1"), ((0, 2), "seeds 0 2")])
def test_a_seed_that_the_control_lacks_is_named_and_no_caution_promises_its_difference(make_full_run, lacking, words):
    """The features are all there, so it can't be these that are missing."""
    folder = make_full_run()
    lines = [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]
    kept = [line for line in lines if not (line["arm"] == "control" and line["seed"] in lacking)]
    (folder / "measurements.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    record = build_record(folder, resamples=4)
    assert record.verdicts["cotrain"].reason == f"not decided: the control was not measured for {words}; measure it for every seed of cotrain"
    assert f"cotrain: {record.verdicts['cotrain'].reason}" in record.verdict and "no features" not in record.verdict
    (caution,) = [note for note in record.notes if "the same seeds" in note]
    assert "there are none from an arm that lacks one of the seeds" in caution
    shutil.rmtree(folder / "features")
    (folder / "measurements.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert build_record(folder, resamples=4).verdicts["cotrain"].reason == NO_FEATURES
