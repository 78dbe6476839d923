"""Localization scores by hand, on images whose fakeness map is chosen."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from malp_disc.fakeness import fakeness_map
from malp_disc.metrics.localization import localization_scores
from tests.golden.authors_arithmetic import ground_truth, map_metric
from tests.golden.seeded import image

GOLDENS = Path(__file__).resolve().parents[1] / "golden" / "data"
SIZE = 12


def pair_with_map(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose M_GT is `values` (B, 1, H, W) in [0, 1]: black, and grey of that brightness."""
    real = -torch.ones(len(values), 3, *values.shape[-2:])
    return real, real + 2 * values


def pattern(*shares: tuple[float, float]) -> torch.Tensor:
    """One map per (left, right): a constant left half and a constant right half."""
    maps = torch.zeros(len(shares), 1, SIZE, SIZE)
    for i, (left, right) in enumerate(shares):
        maps[i, :, :, : SIZE // 2], maps[i, :, :, SIZE // 2 :] = left, right
    return maps


def scores(predicted: torch.Tensor, truth: torch.Tensor):
    return localization_scores(predicted, *pair_with_map(truth))


def test_the_right_map_has_the_best_scores():
    truth = torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    result = scores(truth, truth)
    assert (result.cs, result.cs_official, result.pearson, result.ssim) == pytest.approx((1, 1, 1, 1), abs=1e-5)
    assert result.psnr == pytest.approx(100)  # the cap
    assert (result.images, result.unchanged) == (3, 0)


def test_halves_by_hand():
    """M_GT (0.2 | 0.4), M̂ (0.6 | 0.3), n pixels each half.

    cos = (0.2·0.6 + 0.4·0.3) / (√(0.2² + 0.4²)·√(0.6² + 0.3²)) = 0.24 / (√0.2·√0.45) = 0.8.
    Pearson: centred (−, +) against (+, −): −1. Official: min-max (0 | 1) against (1 | 0): 0.
    MSE = (0.4² + 0.1²)/2 = 0.085, PSNR = 10 log₁₀(1/0.085).
    """
    result = scores(pattern((0.6, 0.3)), pattern((0.2, 0.4)))
    assert result.cs == pytest.approx(0.8, abs=1e-6)
    assert result.pearson == pytest.approx(-1)
    assert result.cs_official == pytest.approx(0, abs=1e-6)
    assert result.cs_constant == pytest.approx(0.6 / math.sqrt(0.4), abs=1e-6)  # whatever the map
    assert result.psnr == pytest.approx(10 * math.log10(1 / 0.085), abs=1e-4)


def test_the_constant_map_baselines_by_hand():
    """cos((a | b), 1) = (a + b)/√(2(a² + b²)): for (0.2 | 0.4) 0.6/√0.4; min-max makes it (0 | 1): 1/√2. The flatter, the nearer to 1."""
    result = scores(pattern((0.5, 0.5)), pattern((0.2, 0.4)))
    assert result.cs_constant == result.cs == pytest.approx(0.6 / math.sqrt(0.4), abs=1e-6)
    assert result.cs_official_constant == result.cs_official == pytest.approx(1 / math.sqrt(2), abs=1e-6)
    assert result.pearson == 0
    assert scores(pattern((0.5, 0.5)), pattern((0.49, 0.51))).cs_constant > 0.999


def test_the_official_score_takes_the_sign_where_eq_5_does_not():
    """Left darker, right brighter by the same: |M| is constant, the signed map is (−|+) and min-max gives (0 | 1)."""
    real = torch.zeros(1, 3, SIZE, SIZE)
    manipulated = real + 2 * pattern((-0.25, 0.25))
    result = localization_scores(pattern((0.0, 0.5)), real, manipulated)
    assert result.cs_official == pytest.approx(1)
    assert result.cs == pytest.approx(1 / math.sqrt(2), abs=1e-6)
    assert result.pearson is None  # M_GT has no contrast to correlate with


def test_scores_are_means_over_images_not_over_pixels():
    truth, predicted = pattern((0.2, 0.4), (0.0, 1.0)), pattern((0.6, 0.3), (1.0, 0.0))
    together = scores(predicted, truth)
    apart = [scores(predicted[i : i + 1], truth[i : i + 1]) for i in range(2)]
    for name in ("cs", "cs_constant", "cs_official", "pearson", "psnr", "ssim"):
        assert getattr(together, name) == pytest.approx(sum(getattr(one, name) for one in apart) / 2)


def test_an_image_nobody_changed_is_counted_and_left_out_of_the_cosines():
    changed = scores(pattern((0.6, 0.3)), pattern((0.2, 0.4)))
    both = scores(pattern((0.6, 0.3), (0.6, 0.3)), pattern((0.2, 0.4), (0.0, 0.0)))
    assert (both.images, both.unchanged) == (2, 1)
    assert (both.cs, both.pearson, both.cs_official) == (changed.cs, changed.pearson, changed.cs_official)
    assert both.psnr != changed.psnr  # PSNR and SSIM are defined there, and a map of nothing costs


def test_nothing_changed_at_all_gives_none_and_not_a_number_made_of_epsilon():
    result = scores(pattern((0.6, 0.3)), pattern((0.0, 0.0)))
    assert (result.cs, result.cs_constant, result.cs_official, result.cs_official_constant, result.pearson) == (None,) * 5


def test_an_empty_prediction_scores_zero():
    result = scores(pattern((0.0, 0.0)), pattern((0.2, 0.4)))
    assert (result.cs, result.pearson) == (0, 0)
    assert result.cs_official == result.cs_official_constant  # min-max knows no level: any flat map is the constant map


def test_a_tiny_map_has_the_cosine_of_its_shape():
    """1e-6 of the brightness range: an epsilon of 1e-8 added to norms or products would already show."""
    result = scores(pattern((6e-6, 3e-6)), pattern((0.2, 0.4)))
    assert result.cs == pytest.approx(0.8, abs=1e-5)


def test_ssim_is_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    truth, predicted = torch.rand(3, 1, 16, 20, generator=generator), torch.rand(3, 1, 16, 20, generator=generator)
    real, manipulated = pair_with_map(truth)
    expected = structural_similarity_index_measure(predicted, fakeness_map(real, manipulated), data_range=1.0)
    assert localization_scores(predicted, real, manipulated).ssim == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize(("seed", "height", "width"), [(0, 128, 128), (1, 48, 64), (2, 33, 17)])
def test_equal_to_the_authors_own_metric(seed, height, width):
    """Column 0 of their dist_fake_enc, as the reference of their arithmetic has it (which reproduces their numbers, see tests/golden).

    Their maps are unbounded; min-max makes the scale irrelevant, so ours are divided by their maximum.
    """
    real, manipulated, drawn = (image(name, (3, channels, height, width), seed) for name, channels in (("x", 3), ("g", 3), ("map_fake", 1)))
    predicted = (0.5 * drawn + 0.1).relu()
    theirs = map_metric(ground_truth(real, manipulated), predicted, predicted)[:, 0].double().mean()
    assert localization_scores(predicted / predicted.max(), real, manipulated).cs_official == pytest.approx(theirs.item(), rel=1e-5)


def test_equal_to_the_authors_own_metric_on_their_record():
    record = np.load(GOLDENS / "official_losses.npz")["b4_set1/released/dist_fake_enc"]
    real, manipulated, drawn = (image(name, (4, channels, 128, 128)) for name, channels in (("x", 3), ("g", 3), ("map_fake", 1)))
    predicted = (0.5 * drawn + 0.1).relu()
    assert localization_scores(predicted / predicted.max(), real, manipulated).cs_official == pytest.approx(record[:, 0].mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("predicted", "size", "message"),
    [
        (torch.zeros(1, 3, 16, 16), 16, r"of shape \(1, 1, 16, 16\) like the images"),
        (torch.full((1, 1, 16, 16), 1.5), 16, r"maps in \[0, 1\], got min 1.5 max 1.5"),
        (torch.full((1, 1, 16, 16), torch.nan), 16, "got min nan"),
        (torch.zeros(1, 1, 8, 8), 8, "at least 11x11"),
    ],
)
def test_what_is_no_map_is_refused(predicted, size, message):
    with pytest.raises(ValueError, match=message):
        localization_scores(predicted, torch.zeros(1, 3, size, size), torch.zeros(1, 3, size, size))
