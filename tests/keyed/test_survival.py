"""The measurements of docs/results/survival.md: an ideal detector scores ideally, trivial masks trivially, and attacks are what they say."""

from __future__ import annotations

import pytest
import torch

from malp_disc.evaluation.forging import forging, leak
from malp_disc.evaluation.survival import detection, local_edits, region_scores, survival
from malp_disc.keyed.template import carrier
from malp_disc.metrics.degradations import to_8bit
from malp_disc.plotting.survival_gallery import survival_gallery
from recipes import evaluate_survival
from tests.keyed.conftest import natural_images


def test_scores_of_the_true_and_of_trivial_regions():
    regions = torch.zeros(2, 1, 10, 10, dtype=torch.bool)
    regions[:, :, :5, :4] = True  # a fifth of the image
    exact = region_scores(regions.float(), regions, 0.5)
    assert (exact["f1"], exact["iou"], exact["auc"]) == (1, 1, 1)
    assert exact["f1_all"] == pytest.approx(region_scores(torch.ones(2, 1, 10, 10), regions, 0.5)["f1"])  # 2 s / (1 + s)
    assert exact["f1_all"] == pytest.approx(0.4 / 1.2)
    assert exact["f1_none"] == region_scores(torch.zeros(2, 1, 10, 10), regions, 0.5)["f1"] == 0
    assert exact["f1_random"] == pytest.approx(2 * 0.5 * 0.2 / (0.2 + 0.5))  # precision s, recall one half


def test_the_presence_separates_protected_from_unprotected_images(malp, images):
    found = detection(malp, to_8bit(malp.encrypt(images)[0]), images, images)
    assert found["auc_presence"] == 1 and found["present"] >= 0.8 and found["claimed"] == 0
    assert found["n"] == 6


def test_every_condition_is_measured_once(malp, images):
    found = list(survival(malp, images[:2], lambda seen: -seen, seed=0))
    names = [(line["condition"], line["when"]) for line in found]
    assert len(set(names)) == len(names) == 8 + 7 + 4 + 2
    assert all(0 <= line["auc"] <= 1 for line in found)


def test_local_edits_are_all_measured_under_every_degradation(malp, images):
    found = list(local_edits(malp, images[:3], lambda seen: -seen, 0, {"none": to_8bit}))
    assert [line["edit"] for line in found][:4] == ["copy_move", "splice", "inpaint", "generated"]
    assert len({line["f1_all"] for line in found}) == 1  # the same regions for all


def test_the_exact_template_of_one_image_neither_forges_nor_removes_that_of_others(malp):
    originals = natural_images(12, seed=4)
    protected = malp.encrypt(originals)[0]
    added = (protected - originals).mean(1, keepdim=True)
    *_, exact = forging(malp, to_8bit(protected), added, natural_images(8, seed=6), (1, 10))
    assert exact["attacker"] == "exact"
    assert exact["claimed"] == exact["forged"] == 0
    assert abs(exact["cosine"]) < 0.1


def test_the_leak_of_an_unbound_carrier_would_be_found(malp):
    """The attack works where all images have the same template, and doesn't where each has its own."""
    originals = natural_images(30, seed=2)
    fixed = to_8bit((originals + 0.05 * carrier(malp.secret, 64)[0, :64, :64]).clamp(-1, 1))
    broken = max(line["cosine"] for line in leak(malp, fixed, originals.mean(0), (30,), 0))
    kept = max(line["cosine"] for line in leak(malp, to_8bit(malp.encrypt(originals)[0]), originals.mean(0), (30,), 0))
    assert broken > 0.7
    assert kept < 0.2


def test_the_leak_is_measured_pixel_by_pixel_of_the_grid(malp):
    with pytest.raises(ValueError, match="on the reference grid, 64x64, got 32x32"):
        list(leak(malp, torch.zeros(4, 3, 32, 32), torch.zeros(3, 32, 32), (1,), 0))


@pytest.mark.parametrize(
    ("options", "training", "said"),
    [({"published": (1, 1000)}, 900, "--published of at most 890"), ({"published": (1,), "image_size": 32}, 900, "give --image-size 64")],
)
def test_too_few_images_and_another_size_are_said_before_work(options, training, said):
    with pytest.raises(ValueError, match=said):
        evaluate_survival.check_attack(evaluate_survival.Config(**{"image_size": 64, **options}), training, 64)
    evaluate_survival.check_attack(evaluate_survival.Config(parts=("local",), **options), training, 64)


@pytest.mark.parametrize(("eval_size", "held_out"), [(1, 40), (48, 1)])
def test_a_splice_needs_another_image(eval_size, held_out):
    with pytest.raises(ValueError, match="splices from another image: expected an --eval-size and held-back images of at least 2, got 1; or leave it out with --parts"):
        evaluate_survival.check_splices(evaluate_survival.Config(eval_size=eval_size), held_out)
    evaluate_survival.check_splices(evaluate_survival.Config(eval_size=eval_size, parts=("detection",)), held_out)
    evaluate_survival.check_splices(evaluate_survival.Config(eval_size=2), 2)


def test_the_gallery_is_an_image_with_a_row_for_each(malp, images, tmp_path):
    survival_gallery(malp, images[:2], lambda seen: -seen, tmp_path / "gallery.png")
    from PIL import Image

    assert Image.open(tmp_path / "gallery.png").size == (6 * 66 + 2, 2 * 66 + 2)
