"""Differences from features, and from what an earlier report kept of them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from malp_disc.evaluation.evaluator import save_features
from malp_disc.report import build_record, write_report
from malp_disc.report import compare as module
from malp_disc.report.compare import compare_arms
from malp_disc.run_folder.measurement import Difference
from malp_disc.run_folder.schema import features_path, read_measurements
from malp_disc.serialization.typed_json import to_json
from tests.charts import without_charts


def lines_of(folder, **options):
    return compare_arms(folder, read_measurements(folder), resamples=20, **options)


def find(lines, **wanted):
    found = [line for line in lines if all(getattr(line, key) == value for key, value in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def test_every_arm_of_every_seed_is_compared_with_all_it_has_to_beat_in_every_score(make_full_run):
    lines = lines_of(make_full_run(seeds=(0, 1)))
    others = ("control", "control_2xD", "random", "no_template", "before")
    for score in ("frechet", "second", "frechet_2x", "frechet_4x", "kid"):
        for seed in (0, 1):
            assert {line.against for line in lines if (line.score, line.seed, line.arm) == (score, seed, "cotrain")} == {
                None,
                *others,
            }
    assert len({(line.seed, line.score, line.arm, line.against) for line in lines}) == len(lines)


def test_the_gain_is_found_where_it_was_put(make_full_run):
    """Shifts by 2 and 1 in full size, by a tenth of that more than 1 at half the size, by none at a quarter."""
    folder = make_full_run(seeds=(0,))
    deltas = {
        score: find(lines_of(folder), seed=0, score=score, arm="cotrain", against="control")
        for score in ("frechet", "second", "frechet_2x", "frechet_4x")
    }
    assert deltas["frechet"].high < -1
    assert deltas["second"].high < -1
    assert deltas["frechet_4x"].low < 0 < deltas["frechet_4x"].high


@pytest.mark.parametrize("score", ["perfect_edit", "edit_accuracy", "content"])
def test_scores_of_single_images_are_compared_image_by_image(make_full_run, score):
    """Against the control and before where both were measured; a run without features keeps what it has."""
    folder = make_full_run(seeds=(0,))
    assert not [line for line in lines_of(folder) if line.score == score]
    image = np.random.default_rng(0).uniform(0.05, 0.1, (150, 1))
    for arm, offset in (("control", 0.0), ("before", 0.02), ("cotrain", -0.01)):
        save_features(features_path(folder, arm, seed=0, view=score), image + offset)
    for _ in range(2):
        lines = lines_of(folder)
        for other, difference in (("control", -0.01), ("before", -0.03)):
            found = find(lines, seed=0, score=score, arm="cotrain", against=other)
            assert (found.value, found.low, found.high) == pytest.approx((difference,) * 3, abs=1e-6)
        assert {(line.arm, line.against) for line in lines if line.score == score} == {
            ("cotrain", "control"), ("cotrain", "before"), ("control", "before"), ("before", "control"),
        }  # fmt: skip
        record = build_record(folder, resamples=20)
        assert record.delta("cotrain", score=score).value == pytest.approx(-0.01)
        (folder / "bootstrap.jsonl").write_text("".join(json.dumps(to_json(line)) + "\n" for line in lines))
        shutil.rmtree(folder / "features", ignore_errors=True)


def test_before_has_no_seed_and_every_seed_is_compared_with_it(make_full_run):
    folder = make_full_run(seeds=(3, 4))
    lines = lines_of(folder)
    assert find(lines, seed=4, score="frechet", arm="control", against="before").high < 0
    record = build_record(folder, resamples=20)
    mirrored = record.delta("before")
    assert mirrored.count == 2
    values = [find(lines, seed=seed, score="frechet", arm="control", against="before").value for seed in (3, 4)]
    assert mirrored.value == pytest.approx(-np.mean(values))


def test_without_its_features_a_run_gives_the_same_report_to_the_byte(full_report, tmp_path):
    folder, bare = full_report[0], tmp_path / "bare"
    made = ("report.json", "report.md", "report.html", "comparison.png", "spectrum.png", "curves.png", "samples.png", "fakeness.png")
    shutil.copytree(folder, bare, ignore=lambda _, names: {"features", *made} & set(names))
    write_report(bare, resamples=50, seed=1)  # what is read keeps how it was made
    for name in (*made, "bootstrap.jsonl"):
        assert (bare / name).read_bytes() == (folder / name).read_bytes(), name


def test_lines_of_the_same_features_are_not_made_again_and_others_are(make_full_run, monkeypatch):
    folder = make_full_run(seeds=(0,))

    def again(**options):
        lines = lines_of(folder, **options)
        (folder / "bootstrap.jsonl").write_text("".join(json.dumps(to_json(line)) + "\n" for line in lines))
        return find(lines, seed=0, score="frechet", arm="cotrain", against="control")

    made, resampled, resample = [], [], module._resample

    def watched(reference, features, score, *more):
        made.append(score)
        resampled.append(set(features))
        return resample(reference, features, score, *more)

    monkeypatch.setattr(module, "_resample", watched)
    before = again()
    assert made == ["frechet", "second", "frechet_2x", "frechet_4x", "kid"]
    assert again() == before and len(made) == 5
    path = folder / "features" / "0" / "cotrain.npy"
    np.save(path, np.load(path) + 0.5)
    assert again().value > before.value + 0.5
    assert made[5:] == ["frechet", "kid"] and "cotrain" in resampled[5] and not resampled[5] & {"frozen", "unedited"}
    kept = lines_of(folder)
    again(seed=1)
    assert len(made) == 7 + 5
    again()
    assert lines_of(folder) == kept, "made alone or with others, a line is the same"


def test_a_handful_of_images_has_no_kernel_distance_and_no_error(make_run):
    folder = make_run()
    for path in (folder / "features").rglob("*.npy"):
        np.save(path, np.load(path)[:3])
    assert {line.score for line in lines_of(folder)} == {"frechet"}


def test_a_damaged_line_of_the_kept_differences_is_named(make_full_run):
    folder = make_full_run(seeds=(0,))
    (folder / "bootstrap.jsonl").write_text('{"seed": 0, "score": "kid", "arm": "cotrain", "value": "x"}\n')
    with pytest.raises(ValueError, match="bootstrap.jsonl, line 1: against, low, high, features, resamples, bootstrap_seed, confidence missing"):
        lines_of(folder)
    whole = to_json(Difference(0, "kid", "cotrain", None, 1.0, None, None, "", 20, 0, 0.95))
    (folder / "bootstrap.jsonl").write_text(json.dumps({**whole, "value": "x"}) + "\n")
    with pytest.raises(ValueError, match="bootstrap.jsonl, line 1, value: expected a number, got 'x'"):
        lines_of(folder)


def test_the_leverage_of_an_arm_needs_the_features_of_both_extractors_and_outlives_them(make_full_run):
    folder = make_full_run(seeds=(0, 1))
    lines = [line for line in lines_of(folder) if line.score == "leverage"]
    assert [(line.seed, line.arm, line.against) for line in lines[:5]] == [(0, arm, "control") for arm in ("control_2xD", "random", "frozen", "cotrain", "no_template")]
    with without_charts():
        record = write_report(folder, resamples=20)
    found = record.delta("cotrain", score="leverage")
    assert found.count == 2 and found.value == pytest.approx(np.mean([line.value for line in lines if line.arm == "cotrain"]), abs=1e-6)
    assert "Overfitted to the extractor?" in (folder / "report.md").read_text()
    shutil.rmtree(folder / "features")
    assert build_record(folder).delta("cotrain", score="leverage") == found


def test_without_a_second_extractor_there_is_no_leverage(make_full_run):
    folder = make_full_run(seeds=(0,))
    for path in (folder / "features").rglob("*.second.npy"):
        path.unlink()
    assert not [line for line in lines_of(folder) if line.score == "leverage"]
