"""The measurements of docs/results/survival.md: an ideal detector scores ideally, trivial masks trivially, and attacks are what they say."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from malp_disc.degradations import jpeg, to_8bit
from malp_disc.evaluation.forging import forging, hiding
from malp_disc.evaluation.survival import (
    FAINT,
    SHAPES,
    SQUARES,
    TONES,
    claimed,
    claims,
    detection,
    faint_edits,
    issued_to,
    local_edits,
    protected,
    region_scores,
    scores,
    stripes,
    survival,
    whole_changes,
)
from malp_disc.evaluation.template_copy import agreement, most_similar, steered
from malp_disc.keyed import KeyedMaLP
from malp_disc.keyed.identification import raised_threshold
from malp_disc.keyed.issued import Issued
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
    found = detection(malp, protected(malp, images), images, images, issued_to(images))
    assert found["auc_presence"] == 1 and found["present"] >= 0.8 and found["claimed"] == 0
    assert (found["n"], found["issued"], found["resembling"]) == (6, 6, 1)


@pytest.mark.parametrize("score", [0.9, 0.1])
def test_detections_are_what_detect_says(score, malp, images, monkeypatch):
    """Called manipulated is what scores above the threshold and still has its template; what hasn't is called not protected, and, if it resembles its original, recognised nevertheless."""
    whole, half = protected(malp, images), torch.cat([protected(malp, images)[:3], images[3:]])

    def scored(own, seen, index, *arguments, **options):
        return dataclasses.replace(malp.forward(seen, index, *arguments, **options), score=torch.full((len(seen),), score))

    monkeypatch.setattr(KeyedMaLP, "__call__", scored)
    found = detection(malp, whole, half, images, issued_to(images))
    assert found["found"] == (0.5 if score > 0.5 else 0) and found["gone"] == 0.5 and found["resembling"] == 1
    assert found["alarms"] == (1 if score > 0.5 else 0)


def test_a_claim_takes_the_template_that_was_found_and_more_of_it_among_many(malp, images):
    seen = protected(malp, images)
    found = [trace.found for trace in claims(malp, seen, Issued(tuple(range(40))))]
    held = np.array([one.protected for one in found])
    needed = raised_threshold(5.0, 40)
    assert [one.number for one in found] == list(range(6)) and np.array_equal(held, malp(seen, torch.arange(6)).presence.numpy() > needed) and held.sum() >= 3
    assert not claimed(malp, images, issued_to(images)).any()
    faint = images + 0.6 * (seen - images)
    presence = malp(faint, torch.arange(6)).presence.numpy()
    alike, among_many = (scores(malp, faint, issued) for issued in (issued_to(images), Issued(tuple(range(10**4)))))
    np.testing.assert_allclose(among_many.presence, presence, rtol=1e-5)
    assert np.array_equal(alike.present, presence > 3.5) and np.array_equal(among_many.present, presence > raised_threshold(5.0, 10**4)) and alike.present.sum() > among_many.present.sum()
    assert alike.resembling.all() and not among_many.resembling.any()


def test_every_condition_is_measured_once(malp, images):
    found = list(survival(malp, images[:1], lambda seen: -seen, 0, images[1:]))
    names = [(line["condition"], line["when"]) for line in found]
    assert len(set(names)) == len(names) == 8 + 7 + 4 + 2
    assert all(0 <= line["auc"] <= 1 and line["issued"] == 6 for line in found)


def test_each_condition_degrades_before_or_after_the_edit_and_the_unprotected_images_alike(malp, images, monkeypatch):
    """What the measurement compares, and among which templates an image's own has to be found."""

    def told(_, untouched, edited, unprotected, issued, *, crops=False):
        return {"images": (untouched, edited, unprotected), "issued": len(issued.numbers), "crops": crops}

    def edit(seen):
        return (0.5 * seen).flip(3)

    monkeypatch.setattr("malp_disc.evaluation.survival.detection", told)
    few, others = images[:2], images[2:]
    lines = {(line["condition"], line["when"]): line for line in survival(malp, few, edit, 3, others)}
    assert {line["issued"] for line in lines.values()} == {6} and [name for (name, _), line in lines.items() if line["crops"]] == ["crop to 2/3"]
    published, edited = protected(malp, few), to_8bit(edit(protected(malp, few)))
    compressed = jpeg(published, quality=50)
    expected = {
        ("none", "after the edit"): (published, edited, to_8bit(few)),
        ("JPEG 50", "after the edit"): (compressed, jpeg(edited, quality=50), jpeg(few, quality=50)),
        ("JPEG 50", "before the edit"): (compressed, to_8bit(edit(compressed)), jpeg(few, quality=50)),
    }
    for place, wanted in expected.items():
        assert all(map(torch.equal, lines[place]["images"], wanted)), place
    for name, side in (("0.5 times the size", 32), ("4 times the size", 256), ("crop to 2/3", 43)):
        assert [tuple(part.shape) for part in lines[name, "after the edit"]["images"]] == [(2, 3, side, side)] * 3, name
    wide = few[:, :, :40]
    untouched, changed, unprotected = lines["aspect 8:5", "before the edit"]["images"]
    assert torch.equal(untouched, protected(malp, wide)) and torch.equal(changed, to_8bit(edit(untouched))) and torch.equal(unprotected, to_8bit(wide))
    noise = [lines["noise 0.02", "after the edit"]["images"][0] - published for lines in (lines, {(line["condition"], line["when"]): line for line in survival(malp, few, edit, 4, others)})]
    assert noise[0].std().item() == pytest.approx(0.04, rel=0.05) and not torch.equal(*noise), "0.02 of the range 0 … 1, by the seed"


GREY = {
    "none": 0.2, "5 levels brighter": 0.2 + 5 / 127.5, "10 levels brighter": 0.2 + 10 / 127.5, "20 levels brighter": 0.2 + 20 / 127.5, "40 levels brighter": 0.2 + 40 / 127.5,
    "40 levels darker": 0.2 - 40 / 127.5, "0.8 times the contrast": 0.16, "half the contrast": 0.1, "1.3 times the contrast": 0.26, "gamma 0.8": 2 * 0.6**0.8 - 1,
    "gamma 1.25": 2 * 0.6**1.25 - 1, "gamma 0.8, then JPEG 75": 2 * 0.6**0.8 - 1, "half the saturation": 0.2, "colour removed": 0.2,
    "red 5 % stronger, blue 5 % weaker": [0.26, 0.2, 0.14], "red 10 % stronger, blue 10 % weaker": [0.32, 0.2, 0.08],
}  # fmt: skip
"""A grey of 0.2 after each change."""


def test_changes_of_tone_are_what_their_names_say():
    assert list(GREY) == list(TONES)
    for name, expected in GREY.items():
        changed = TONES[name](torch.full((1, 3, 16, 16), 0.2))
        torch.testing.assert_close(changed.mean((0, 2, 3)), torch.tensor(expected).expand(3), atol=0.01 if "JPEG" in name else 1e-6, rtol=0, msg=name)
    red = torch.tensor([0.6, 0.0, 0.0]).view(1, 3, 1, 1)
    assert TONES["half the saturation"](red).flatten().tolist() == pytest.approx([0.4, 0.1, 0.1])
    brighter = SHAPES["mirrored, 20 levels brighter"]
    assert brighter(red)[0, 0].item() == pytest.approx(0.6 + 20 / 127.5) and not brighter(torch.zeros(1, 1, 4, 4)).any(), "a mask is only mirrored"


def test_local_edits_are_all_measured_under_every_degradation(malp, images):
    found = list(local_edits(malp, images[:2], lambda seen: -seen, 0, {"none": to_8bit}))
    assert [line["edit"] for line in found][:4] == ["copy_move", "splice", "inpaint", "generated"]
    assert len({line["f1_all"] for line in found}) == 1  # the same regions for all


@pytest.fixture
def seen(malp, images, monkeypatch):
    """What the detector is shown, in place of one: it marks the pixels that differ from the published images, calls every image untouched, and finds the template of all but the first."""
    shown, published = [], protected(malp, images[:3])

    def ideal(_, given, issued, *, crops=False):
        shown.append(given)
        for number, image in enumerate(given.split(1)):
            edited = (image != published[number]).any(1, keepdim=True).float()
            yield SimpleNamespace(found=SimpleNamespace(protected=number > 0)), SimpleNamespace(edited=edited, score=torch.zeros(1))

    monkeypatch.setattr("malp_disc.evaluation.survival.traced", ideal)
    return shown


def test_a_local_edit_pastes_from_another_image_or_from_the_generators_of_the_published_ones_and_is_degraded_then(malp, images, seen):
    few, published = images[:3], protected(malp, images[:3])
    lines = list(local_edits(malp, few, lambda given: -given, 0, {"none": to_8bit, "mirrored": lambda given: given.flip(3)}))
    shown = {(line["edit"], line["degradation"]): given for line, given in zip(lines, seen, strict=True)}
    for kind, source in (("splice", to_8bit(few.roll(1, 0))), ("generated", to_8bit(-published))):
        edited = shown[kind, "none"]
        changed = (edited != published).any(1, keepdim=True)
        assert changed.any((1, 2, 3)).all() and torch.equal(torch.where(changed, edited, source), source), kind
        assert torch.equal(shown[kind, "mirrored"], edited.flip(3))
    assert all(line["f1"] > 0.95 for line in lines if line["degradation"] == "none" and line["edit"] in ("splice", "generated"))


def test_a_faint_edit_is_one_of_its_region_alone_and_counts_as_untouched_where_the_template_is_found(malp, images, seen):
    published = protected(malp, images[:3])
    lines = {line["edit"]: (line, given) for line, given in zip(faint_edits(malp, images[:3], 0), seen, strict=True)}
    assert all(line["untouched"] == pytest.approx(2 / 3) for line, _ in lines.values())
    line, given = lines["20 levels brighter"]
    changed = (given != published).any(1, keepdim=True)
    assert line["f1"] > 0.95 and 0 < changed.float().mean() < 0.9
    expected = (published + 20 / 127.5).clamp(max=1).expand_as(given)[changed.expand_as(given)]
    torch.testing.assert_close(given[changed.expand_as(given)], expected, atol=1e-5, rtol=0)
    square = lines["black square, 12% of the side"][1]
    assert lines["black square, 12% of the side"][0]["f1"] == 1 and square[:, :, 28:36, 28:36].max() < -0.85
    assert torch.equal(square[:, :, :28], published[:, :, :28]) and torch.equal(square[..., 36:], published[..., 36:])


def test_attackers_forge_nothing_from_images_with_a_template_each(malp, monkeypatch):
    monkeypatch.setattr("malp_disc.evaluation.forging.FEW", 2)  # of the attackers who steer, nothing is asserted
    lines = list(forging(malp, natural_images(12, seed=4), natural_images(8, seed=6), (1, 10)))
    assert len({(line["attacker"], line["images"]) for line in lines}) == len(lines) == 4 + 5 + 2
    assert all(line["claimed"] == line["forged"] == 0 for line in lines if line["attacker"] in ("residuals", "weighted residuals", "copy of the most similar", "search for the key"))


def test_a_copy_of_the_template_of_the_image_itself_is_found(malp):
    """What the measurement would say of an attacker who succeeds: of a victim that resembles a published image in everything, the copy fits."""
    originals = natural_images(4, seed=4)
    line = next(line for line in forging(malp, originals, originals, (4,)) if line["attacker"] == "copy, its original known")
    assert line["claimed"] == 1 and line["cosine"] > 0.9
    torch.testing.assert_close(agreement(originals, originals), torch.ones(4, 1, 64, 64), atol=0.01, rtol=0)
    assert most_similar(originals[[2, 0]], originals).tolist() == [2, 0]
    assert agreement(originals, originals.roll(1, 0)).abs().mean() < 0.3


def test_steering_makes_phases_agree_by_low_frequencies_at_the_given_psnr():
    victims, published = natural_images(2, seed=4), natural_images(2, seed=5)
    change = steered(victims, published, 26.0)
    psnr = -10 * torch.log10(change.square().mean((1, 2, 3)) / 4)
    torch.testing.assert_close(psnr, torch.full((2,), 26.0), atol=0.3, rtol=0)
    spectrum = torch.fft.rfft2(change).abs().square()
    assert spectrum[..., :16, 16:].sum() < 0.02 * spectrum.sum()
    assert agreement(victims + change, published).mean() > agreement(victims, published).mean() + 0.05


def test_hidden_edits_are_measured_on_the_same_regions(malp, images):
    lines = list(hiding(malp, images[:2], 0))
    assert [line["copied"] for line in lines] == ["nothing", "residual", "residual, turned", "template, turned"]
    assert all(0 <= line["f1"] <= 1 for line in lines)


def test_faint_edits_keep_the_mean_of_the_colours_or_the_details(malp, images):
    published = protected(malp, images)
    assert torch.allclose(FAINT["red and blue exchanged"](published).mean(1), published.mean(1), atol=1e-6)
    assert torch.allclose(FAINT["colour removed"](published).mean(1), published.mean(1), atol=1e-6)
    assert stripes(images, 4).sum(1).abs().max() < 1e-6 and stripes(images, 4)[0, 0, 0, :5].tolist() == pytest.approx([40 / 127.5, 0, -40 / 127.5, 0, 40 / 127.5], abs=1e-6)
    lines = list(faint_edits(malp, images[:2], 0))
    assert [line["edit"] for line in lines] == [*FAINT, *(f"black square, {share:.0%} of the side" for share in SQUARES)]
    assert all(0 <= line["f1"] <= 1 and 0 <= line["untouched"] <= 1 for line in lines)


def test_changes_of_the_whole_image_are_undone(malp, images, monkeypatch):
    for name in TONES.keys() - {"none", "5 levels brighter", "20 levels brighter", "half the contrast", "colour removed"}:
        monkeypatch.delitem(TONES, name)
    lines = {line["change"]: line for line in whole_changes(malp, images[:2], natural_images(6, seed=9), 0)}
    assert list(lines) == [*TONES, *SHAPES]
    assert lines["none"]["gone"] == lines["5 levels brighter"]["gone"] == lines["mirrored"]["gone"] == 0 and lines["none"]["resembling"] == 1
    assert lines["20 levels brighter"]["presence"] > 0.75 * lines["none"]["presence"] and lines["mirrored"]["presence"] == pytest.approx(lines["none"]["presence"])
    assert lines["mirrored"]["f1"] == pytest.approx(lines["none"]["f1"])
    assert all(line["kept"] + line["manipulated"] + line["gone"] == pytest.approx(1) for line in lines.values()) and any(line["gone"] for line in lines.values())


def test_changes_of_the_whole_image_keep_its_levels_and_size(images):
    for name, change in TONES.items():
        assert change(images).shape == images.shape and -1.4 < change(images).min() and change(images).max() < 1.4, name
    for name, change in SHAPES.items():
        mask = torch.zeros(1, 1, 64, 64)
        mask[..., :32] = 1
        assert change(mask).mean() == 0.5 and change(mask).shape[2:] == change(images).shape[2:], name


def test_attacks_work_pixel_by_pixel_of_the_grid(malp):
    with pytest.raises(ValueError, match="on the reference grid, 64x64, got 32x32"):
        list(forging(malp, torch.zeros(4, 3, 32, 32), torch.zeros(2, 3, 32, 32), (1,)))


@pytest.mark.parametrize(
    ("options", "training", "said"),
    [({"published": (1, 1000)}, 900, "--published of at most 900"), ({"published": (1,), "image_size": 32}, 900, "give --image-size 64")],
)
def test_too_few_images_and_another_size_are_said_before_work(options, training, said):
    with pytest.raises(ValueError, match=said):
        evaluate_survival.check_attack(evaluate_survival.Config(**{"image_size": 64, **options}), training, 64)
    evaluate_survival.check_attack(evaluate_survival.Config(parts=("local",), **options), training, 64)


@pytest.mark.parametrize(("eval_size", "held_out"), [(1, 40), (48, 1)])
def test_a_splice_needs_another_image(eval_size, held_out):
    with pytest.raises(ValueError, match="splices from another image: expected an --eval-size and held-out images of at least 2, got 1; or leave it out with --parts"):
        evaluate_survival.check_splices(evaluate_survival.Config(eval_size=eval_size), held_out)
    evaluate_survival.check_splices(evaluate_survival.Config(eval_size=eval_size, parts=("detection",)), held_out)
    evaluate_survival.check_splices(evaluate_survival.Config(eval_size=2), 2)


def test_the_gallery_is_an_image_with_a_row_for_each(malp, images, tmp_path):
    survival_gallery(malp, images[:2], lambda seen: -seen, tmp_path / "gallery.png")
    from PIL import Image

    assert Image.open(tmp_path / "gallery.png").size == (6 * 66 + 2, 2 * 66 + 2)
