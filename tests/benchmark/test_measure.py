"""What a localizer is given, what it is compared with, and the baselines beside it."""

import numpy as np
import pytest
import torch

from malp_disc.benchmark.localizer import Localization
from malp_disc.benchmark.measure import measure, scaled
from malp_disc.degradations import gaussian_blur
from malp_disc.fakeness import fakeness_map
from malp_disc.levels import as_images, quantize
from malp_disc.metrics.localization import localization_scores
from tests.tiny import sample_images, with_rectangles

REAL = quantize(sample_images(20))
EDITED = quantize(with_rectangles(sample_images(20)))


class Oracle:
    """Finds the right map by looking the image up among the pairs that it was given."""

    def __init__(self, real, edited):
        self.known = {
            image.numpy().tobytes(): map_
            for images, maps in ((real, torch.zeros(len(real), 1, *real.shape[2:])), (edited, fakeness_map(real, edited)))
            for image, map_ in zip(images, maps)
        }

    def localize(self, images):
        maps = torch.stack([self.known[image.numpy().tobytes()] for image in images])
        return Localization(maps, maps.amax((1, 2, 3)))


class Grey:
    """A fixed function of each image by itself, and a record of what it was given."""

    def __init__(self):
        self.seen = []

    def localize(self, images):
        self.seen.append(images)
        return Localization((images.mean(1, keepdim=True) + 1) / 2, images.mean((1, 2, 3)))


class Detector:
    def localize(self, images):
        return None, images.mean((1, 2, 3))


def test_the_right_map_has_perfect_scores():
    found = measure(Oracle(as_images(REAL), as_images(EDITED)), REAL, REAL, EDITED, threshold=0.1).values
    for name in ("cs", "pearson", "ssim", "f1", "iou", "f1_best", "f1_best_per_image", "pixel_auc"):
        assert np.allclose(found[name], 1), name
    assert found["false_pixels"] == [0] * 20 and np.allclose(found["psnr"], 100)
    assert min(found["score"]) > max(found["score_untouched"])


def test_the_right_map_of_scaled_images_is_perfect_at_that_size():
    real, edited = scaled(REAL, 16), scaled(EDITED, 16)
    found = measure(Oracle(real, edited), REAL, REAL, EDITED, side=16, threshold=0.1)
    assert np.allclose(found.values["cs"], 1) and np.allclose(found.values["f1"], 1)


def test_scaling_down_averages_all_pixels():
    """Bilinear interpolation without antialiasing would see the two white columns of every four alone."""
    columns = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).repeat(16).expand(1, 3, 64, 64)
    assert scaled(columns, 16)[..., 1:-1].abs().amax() <= 1 / 127.5


def test_m_gt_is_the_change_from_the_original_and_not_from_the_published_image():
    """A proactive method's template is part of the change."""
    published = REAL + 4
    found = measure(Oracle(as_images(REAL), as_images(EDITED)), REAL, REAL, EDITED).values
    with pytest.raises(ValueError, match="localize of Oracle failed: KeyError"):
        measure(Oracle(as_images(REAL), as_images(EDITED)), REAL, published, EDITED)
    grey, same = measure(Grey(), REAL, published, EDITED).values, measure(Grey(), REAL, REAL, EDITED).values
    assert grey["cs"] == same["cs"] and grey["score_untouched"] != same["score_untouched"]
    assert found["changed_share"] == grey["changed_share"]


def test_a_degradation_changes_what_the_localizer_gets_and_not_m_gt():
    grey = Grey()
    found = measure(grey, REAL, REAL, EDITED, degradation=lambda images: gaussian_blur(images, 2)).values
    assert torch.equal(grey.seen[0][:16], gaussian_blur(as_images(REAL[:16]), 2)) and torch.equal(
        grey.seen[0][16:], gaussian_blur(as_images(EDITED[:16]), 2)
    )
    assert found["cs_constant"] == measure(Grey(), REAL, REAL, EDITED).values["cs_constant"]


def test_the_mean_map_is_that_of_all_other_images():
    found = measure(Grey(), REAL, REAL, EDITED).values
    truth = fakeness_map(as_images(REAL), as_images(EDITED)).double()
    for i in (0, 7, 19):
        others = torch.cat([truth[:i], truth[i + 1 :]]).mean(0, keepdim=True)
        literal = localization_scores(others.float(), as_images(REAL[i : i + 1]), as_images(EDITED[i : i + 1]))
        assert found["cs_mean_map"][i] == pytest.approx(literal.cs, abs=1e-6)
        assert found["pearson_mean_map"][i] == pytest.approx(literal.pearson, abs=1e-6)
        assert found["cs_official_mean_map"][i] == pytest.approx(literal.cs_official, abs=1e-6)


def test_a_baseline_that_marks_every_pixel_has_the_f1_of_the_changed_share():
    found = measure(Grey(), REAL, REAL, EDITED).values
    share = np.array(found["changed_share"])
    assert np.allclose(found["f1_all"], 2 * share / (1 + share)) and np.allclose(found["iou_all"], share)
    assert (np.array(found["f1_best_per_image"]) >= np.array(found["f1_all"]) - 1e-12).all(), "the lowest threshold marks every pixel"


def test_a_detector_without_a_map_has_scores_alone():
    found = measure(Detector(), REAL, REAL, EDITED)
    assert set(found.values) == {"score", "score_untouched"} and len(found.values["score"]) == 20 and not found.numbers


def test_an_image_that_was_not_changed_has_no_agreement():
    found = measure(Grey(), REAL, REAL, torch.cat([REAL[:1], EDITED[1:]])).values
    assert np.isnan([found[name][0] for name in ("cs", "pearson", "f1", "f1_best", "f1_all", "pixel_auc", "cs_mean_map")]).all()
    assert not np.isnan(found["false_pixels"][0])
