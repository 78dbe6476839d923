"""Which cells a benchmark has, and what makes a cell be measured again: everything that its scores depend on, and nothing else."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from malp_disc.benchmark import run
from malp_disc.benchmark.measure import ImageScores
from malp_disc.benchmark.run import Competitor, Settings, run_generators
from malp_disc.benchmark.suite import generator_entry
from malp_disc.data import DataOptions
from malp_disc.degradations import DEGRADATIONS

DEGRADED = sum(len(degradation.levels) for degradation in DEGRADATIONS.values())
GENERATOR = "class Darker:\n    def manipulate(self, images, target):\n        return images - 0.25 + 0.01 * target[:, 3:4, None, None]\n\ndef make():\n    return Darker()\n"


def brighter(images):
    return (images + 0.1).clamp(-1, 1)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """The lines of a benchmark of one generator, and the cells that were measured for them, without measuring anything."""
    calls = []

    def measure(localizer, real, published, edited, **how):
        calls.append({"real": real, "published": published, "edited": edited, **how})
        return ImageScores({"score": [0.6] * len(real), "score_untouched": [0.2] * len(real)}, {})

    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(run, "save_sample", lambda *arguments: None)
    (tmp_path / "darker.py").write_text(GENERATOR)

    def make(*, competitor: dict | None = None, edits: tuple[str, ...] = (), protect=None, **settings):
        calls.clear()
        entry = generator_entry(f"{tmp_path / 'darker.py'}:make", name="darker", data=DataOptions(image_size=32, test_size=6), target="labels", edits=edits)
        localizer = SimpleNamespace(localize=lambda images: None, name="mine", **({"protect": protect} if protect else {}))
        all_settings = Settings(**{"folder": tmp_path / "run", "images": 6, "side": 16, "robustness": ("darker",), **settings})
        return run_generators([entry], [Competitor(localizer, "mine", **(competitor or {}))], all_settings, show=False), list(calls)

    return make


def test_a_generator_is_measured_scaled_unscaled_and_degraded_and_single_attributes_scaled_alone(measured):
    lines, calls = measured(edits=("Smiling",))
    assert [call["side"] for call in calls] == [16, None] + [16] * DEGRADED + [16]
    assert [call["degradation"] is None for call in calls] == [True, True] + [False] * DEGRADED + [True]
    places = [(line.attribute, line.scale, line.size, line.degradation) for line in lines]
    assert places[:2] + places[-1:] == [(None, "sc.", 16, None), (None, "no sc.", 32, None), ("Smiling", "sc.", 16, None)]
    assert {place[:3] for place in places[2:-1]} == {(None, "sc.", 16)} and {place[3] for place in places[2:-1]} == set(DEGRADATIONS)
    assert len({line.cell for line in lines}) == len(lines) == len(calls)
    assert all(line.scores["auc"][0] == line.scores["accuracy"][0] == 1 for line in lines), "edited images score higher"
    lines, _ = measured(side=32, robustness=())
    assert [(line.scale, line.size) for line in lines] == [("sc.", 32)], "unscaled images are the same"


def test_nothing_is_measured_twice_and_each_setting_makes_those_cells_new_that_depend_on_it(measured):
    first, _ = measured()
    again, calls = measured()
    assert not calls and [line.cell for line in again] == [line.cell for line in first]
    assert len(measured(competitor={"threshold": 0.25})[1]) == DEGRADED + 2
    assert not measured(competitor={"score_threshold": 0.7})[1], "it is applied to the scores that are kept"
    _, calls = measured(side=24)
    assert [call["side"] for call in calls] == [24] * (DEGRADED + 1), "unscaled images don't depend on it"
    _, calls = measured(seed=1)
    assert len(calls) == DEGRADED and all(call["degradation"] is not None for call in calls), "all images are drawn whatever the seed, and only the noise depends on it"
    assert len(measured(images=4)[1]) == DEGRADED + 2


def test_the_thresholds_and_the_noise_are_the_given_ones(measured, tmp_path):
    lines, calls = measured(competitor={"threshold": 0.25, "score_threshold": 0.7})
    assert {call["threshold"] for call in calls} == {0.25} and {(line.threshold, line.score_threshold) for line in lines} == {(0.25, 0.7)}
    assert lines[0].scores["accuracy"][0] == 0.5, "scores of 0.6 and 0.2 are both below"
    (strong,) = (i for i, line in enumerate(lines) if (line.degradation, line.level) == ("noise", "40"))
    images, noisy = torch.zeros(1, 3, 8, 8), []
    for number, seed in enumerate((1, 1, 2)):
        _, calls = measured(seed=seed, folder=tmp_path / str(number))
        noisy.append(calls[strong]["degradation"](images))
    assert torch.equal(noisy[0], noisy[1]) and not torch.equal(noisy[0], noisy[2])


def test_a_proactive_localizers_images_are_edited_as_it_publishes_them(measured):
    lines, calls = measured(robustness=(), protect=brighter)
    (scaled, _) = calls
    assert lines[0].family == "proactive" and lines[0].published_psnr == pytest.approx(20 * torch.log10(torch.tensor(2 / 0.1)).item(), abs=0.3)
    assert not torch.equal(scaled["published"], scaled["real"])
    expected = ((scaled["published"].float() / 127.5 - 1 - 0.25).clamp(-1, 1) + 1) * 127.5
    assert (scaled["edited"].float() - expected).abs().max() < 2, "and not of the originals, which are 13 levels darker"
    passive, calls = measured(robustness=())
    assert passive[0].published_psnr is None and torch.equal(calls[0]["published"], calls[0]["real"])


def test_other_originals_are_another_cell_even_if_what_is_published_and_edited_is_the_same():
    real, published, edited = (torch.full((1, 3, 4, 4), level, dtype=torch.uint8) for level in (1, 2, 3))
    versions = run.Versions(real, published, edited)
    others = [dataclasses.replace(versions, **{name: torch.zeros_like(real)}) for name in ("real", "published", "edited")]
    assert len({version.identity for version in (versions, *others)}) == 4
