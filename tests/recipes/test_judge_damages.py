"""The study of extractors: damages that are what they say, the rule by which extractors are compared, and a small run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from malp_disc.data.faces import draw_faces
from malp_disc.evaluation.evaluation_models import EvaluationConfig, make_evaluation_models
from malp_disc.metrics.spectrum import power_spectrum
from recipes.research import judge_damages
from recipes.research.damages import DAMAGES, MODERATE, checkerboard, colour_cast, dots, haze, without_detail
from recipes.research.judge_report import MARGIN, follows, follows_repair, ranked, sees, sees_errors, study_tables

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return draw_faces(range(50_000_000, 50_000_006), 32)[0]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_strength_changes_an_image_more_than_the_one_before(faces, kind):
    damage = DAMAGES[kind]
    assert len(damage.levels) == 5 and MODERATE == 2
    damaged = [damage(faces, level, generator()) for level in damage.levels]
    errors = [(images - faces).square().mean().item() for images in damaged]
    assert errors == sorted(errors) and errors[-1] > 2 * errors[0]
    for images in damaged:
        assert images.shape == faces.shape and images.min() >= -1 and images.max() <= 1
        assert ((images + 1) * 127.5 - ((images + 1) * 127.5).round()).abs().max() < 1e-3, "on the 8-bit grid"


def test_dots_are_a_share_of_the_pixels_all_channels_alike():
    grey = torch.zeros(20, 3, 32, 32)
    changed = dots(grey, 0.04, generator()) - grey
    hit = changed.abs() > 0.1
    assert torch.equal(hit[:, 0], hit[:, 1]) and torch.equal(hit[:, 0], hit[:, 2])
    assert hit.float().mean().item() == pytest.approx(0.04, abs=5 * (0.04 * 0.96 / (20 * 32 * 32)) ** 0.5)
    assert changed[hit].abs().mean().item() == pytest.approx(0.5, abs=0.01)


def test_a_checkerboard_has_all_its_power_at_the_highest_frequency():
    power = power_spectrum([checkerboard(torch.zeros(2, 3, 32, 32), 8, generator())])
    assert power[15:18, 15:18].sum() > 0.99 * power.sum()


def test_colours_haze_and_detail_by_hand():
    grey = torch.full((1, 3, 8, 8), 51 / 127.5 - 1)
    assert ((colour_cast(grey, 10, generator()) + 1) * 127.5)[0, :, 0, 0].round().tolist() == [61, 51, 41]
    assert haze(grey, 0.5, generator())[0, 0, 0, 0].item() == pytest.approx(0.5 * (51 / 127.5 - 1) + 0.15, abs=1 / 127.5)
    line = grey.clone()
    line[:, :, :, 4] = 1  # a line, one pixel wide, goes; an edge stays
    edge = grey.clone()
    edge[:, :, :, 4:] = 1
    torch.testing.assert_close(without_detail(line, 1.0, generator()), grey)
    torch.testing.assert_close(without_detail(edge, 1.0, generator()), edge)


def lines_of(values, *, seed=0, extractor="J", width=0.5):
    """Lines of one damage: `values` from undamaged to strongest, with intervals of ± `width`."""
    before = [values[0], *values]
    return [
        {"judge": extractor, "seed": seed, "part": "damages", "damage": "blur", "strength": i, "value": value,
         "excess": (value - values[0], value - values[0] - width, value - values[0] + width),
         "step": (value - before[i], value - before[i] - width, value - before[i] + width)}
        for i, value in enumerate(values)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "followed", "seen"),
    [
        ([10, 11, 12, 13, 20, 40], True, True),
        ([10, 11, 12, 10 * MARGIN - 0.01, 20, 40], True, False),  # rises, but not by enough at the moderate strength
        ([10, 9.8, 12, 13, 20, 40], True, True),  # a fall within the interval
        ([10, 9, 12, 13, 20, 40], False, True),  # a fall
        ([10, 11, 12, 13, 20, 19.8], False, True),  # the strongest isn't the furthest
    ],
)
def test_the_rule_of_following_and_seeing(values, followed, seen):
    assert (follows(lines_of(values), "J", "blur"), sees(lines_of(values), "J", "blur")) == (followed, seen)


def test_one_seed_that_fails_is_enough():
    lines = lines_of([10, 11, 12, 13, 20, 40]) + lines_of([10, 9, 10, 11, 20, 40], seed=1)
    assert not follows(lines, "J", "blur") and not sees(lines, "J", "blur")


@pytest.fixture
def two_damages():
    """The study with two damages only; afterwards all are there again, in their order."""
    everything = dict(DAMAGES)
    for kind in set(DAMAGES) - {"blur", "haze"}:
        del DAMAGES[kind]
    yield
    DAMAGES.clear()
    DAMAGES.update(everything)


def test_a_small_study_is_measured_once_and_its_table_names_every_damage(two_damages, tmp_path, monkeypatch, capsys):
    config = judge_damages.Config(extractors=("untrained=random",), size=24, reference_size=24, resamples=2, output_dir=tmp_path)
    judge_damages.main(config)
    lines = [json.loads(line) for line in (tmp_path / "damages.jsonl").read_text().splitlines()]
    assert {line["part"] for line in lines} == {"damages", "wrong edits", "cleaner", "repair"}
    assert [line["edit_accuracy"] for line in lines if line["part"] == "wrong edits"][-1] < 0.2
    table = (tmp_path / "judges.md").read_text()
    assert all(kind in table for kind in DAMAGES) and table == study_tables(lines) and (tmp_path / "damages.png").stat().st_size > 10_000
    monkeypatch.setattr(judge_damages, "measure", None)  # would fail if it were called
    judge_damages.main(config)
    assert [json.loads(line) for line in (tmp_path / "damages.jsonl").read_text().splitlines()] == lines
    measured = []
    monkeypatch.setattr(judge_damages, "measure", lambda extractor, config, parts, **about: measured.append((config.size, config.resamples, parts)) or [])
    for change in ({"resamples": 3}, {"size": 25}):
        (tmp_path / "damages.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        judge_damages.main(dataclasses.replace(config, parts=("cleaner",), **change))
    assert measured == [(24, 3, ["cleaner"]), (25, 2, ["cleaner"])], "with other settings it is measured again"
    with pytest.raises(ValueError, match="has untrained with another network, untrained convolutions .*, now AttributeNet faces_features .*; give it another label"):
        judge_damages.main(dataclasses.replace(config, extractors=("untrained=faces",)))


@pytest.mark.parametrize(
    ("values", "rising", "followed", "seen"),
    [([40, 30, 20, 12, 10], False, True, True), ([40, 43, 20, 12, 10], True, False, True), ([40, 40.1, 20, 12, 10], False, False, True), ([12, 11.5, 11, 10.5, 10], False, True, False)],
)
def test_an_extractor_has_to_follow_the_repair_of_a_generator(values, rising, followed, seen):
    cases = ["as edited", "25% repaired", "50% repaired", "75% repaired", "100% repaired"]
    lines = [{"judge": "J", "seed": 0, "part": "repair", "case": case, "value": value, "step": (0, 0.1 if rising and i == 1 else -0.1, 0.2)} for i, (case, value) in enumerate(zip(cases, values))]
    lines.append({"judge": "J", "seed": 0, "part": "repair", "case": "coarse errors repaired", "value": 99.0, "step": (9, 8, 10)})
    assert (follows_repair(lines, "J"), sees_errors(lines, "J")) == (followed, seen)


def study() -> list[dict]:
    return [json.loads(line) for line in (RESULTS / "judges" / "damages.jsonl").read_text().splitlines()]


def test_the_default_extractors_are_the_first_two_of_the_study():
    models = make_evaluation_models(EvaluationConfig(), ("Smiling",), torch.device("cpu"))
    assert ranked(study())[:2] == [models.extractor.label, models.second.label]
    assert len({(line["judge"], line["seed"]) for line in study()}) == 6, "three extractors, two seeds"


def test_the_page_shows_the_tables_of_the_measurements():
    page = (RESULTS / "judges.md").read_text()
    missing = [table for table in study_tables(study()).strip().split("\n\n") if table not in page]
    assert missing == []


@pytest.mark.parametrize(("changed", "message"), [({"extractors": ("faces",)}, "LABEL=NAME"), ({"size": 2}, "at least 24 images"), ({"extractors": ("A=nothing",)}, "choose from faces")])
def test_wrong_flags_are_refused(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        judge_damages.main(judge_damages.Config(output_dir=tmp_path / "run", **changed))
    assert not (tmp_path / "run").exists()
