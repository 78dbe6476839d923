"""Strips of images: written, read back exactly, chosen by what the detector said."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc.data.faces import ProceduralFaces
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.evaluation.gallery import draw_arm, rows_of
from malp_disc.evaluation.localize import ManipulatedImages, Predictions
from malp_disc.evaluation.measure import Evidence
from malp_disc.report.grids import fakeness_figure, samples_figure
from malp_disc.run_folder.strips import read_strips, write_strips
from tests.tiny import sample_images, tiny_malp, with_rectangles


def inputs(count: int = 12, size: int = 32) -> EvalSet:
    labels = torch.tensor([[1.0, 0.0]]).repeat(count, 1)
    targets = labels.clone()
    targets[:, 1] = 1
    return EvalSet(sample_images(count, size, size), labels, targets, torch.ones(count, dtype=torch.long), ("Young", "Smiling"))


def test_images_and_maps_come_back_to_the_8_bit_level(tmp_path):
    images, maps = sample_images(4), torch.rand(4, 1, 32, 32)
    write_strips(tmp_path, "cotrain", {"edited": (images, ["a", None, "c", "d"]), "map": (maps, [None] * 4)}, seed=3)
    edited, map_ = read_strips(tmp_path)
    assert (edited.kind, edited.arm, edited.seed, edited.captions) == ("edited", "cotrain", 3, ["a", None, "c", "d"])
    assert edited.images.transpose(0, 3, 1, 2) == pytest.approx((images.numpy() + 1) * 127.5, abs=0.51)
    assert map_.images == pytest.approx(maps[:, 0].numpy() * 255, abs=0.51)


def test_a_strip_is_replaced_and_the_first_seed_is_shown_with_before(tmp_path):
    for seed, arm in ((0, "before"), (2, "cotrain"), (1, "cotrain"), (1, "cotrain")):
        write_strips(tmp_path, arm, {"edited": (sample_images(2), [None] * 2)}, seed=seed)
    assert len((tmp_path / "gallery.jsonl").read_text().splitlines()) == 3
    assert [(strip.arm, strip.seed) for strip in read_strips(tmp_path, seed=1)] == [("before", 0), ("cotrain", 1)]
    assert [strip.seed for strip in read_strips(tmp_path)] == [0, 1], "the first seed with a fine-tuned generator"
    (tmp_path / "gallery" / "0" / "before-edited.png").unlink()
    assert [(strip.arm, strip.seed) for strip in read_strips(tmp_path)] == [("cotrain", 1)], "missing files are left out"


@pytest.mark.parametrize("file", ["../secret.png", "gallery/../../secret.png", "/etc/secret.png", "secret.png"])
def test_a_line_that_points_out_of_the_gallery_is_refused(tmp_path, file):
    Image.new("RGB", (4, 8)).save(tmp_path / "secret.png")
    (tmp_path / "gallery.jsonl").write_text(json.dumps({"seed": 0, "arm": "before", "kind": "edited", "file": file, "count": 2, "captions": ["", ""]}) + "\n")
    with pytest.raises(ValueError, match="gallery.jsonl, line 1: expected a file in gallery/"):
        read_strips(tmp_path)


def test_an_image_of_another_height_is_named(tmp_path):
    write_strips(tmp_path, "before", {"edited": (sample_images(3), [None] * 3)})
    Image.new("RGB", (32, 97)).save(tmp_path / "gallery" / "0" / "before-edited.png")
    with pytest.raises(ValueError, match="is 97 pixels high, which 3 images of one height don't fill"):
        read_strips(tmp_path)
    (tmp_path / "gallery.jsonl").write_text((tmp_path / "gallery.jsonl").read_text().replace('"count": 3', '"count": 0'))
    with pytest.raises(ValueError, match="which 0 images of one height don't fill"):
        read_strips(tmp_path)


def test_an_arm_is_drawn_with_its_maps_and_the_extremes_of_the_detectors_score():
    given = inputs()
    manipulated = with_rectangles(given.images)
    looked = Predictions(torch.rand(12, 1, 32, 32), torch.tensor([0.5] * 10 + [0.9, 0.1]), torch.zeros(12))
    seen = ManipulatedImages(given.images, given.images, manipulated, torch.zeros(12, dtype=torch.long))
    strips = draw_arm(lambda x, _: with_rectangles(x), given, tiny_malp(), evidence=Evidence(manipulated, {}, seen, looked))
    assert set(strips) == {"real", "edited", "encrypted", "map_encrypted", "manipulated", "truth", "map", "worst", "best"}
    assert torch.equal(strips["edited"][0], manipulated[:10])
    worst, best = (strips[kind] for kind in ("worst", "best"))
    assert torch.equal(worst[0][0], manipulated[10]) and worst[1][0] == "+ Smiling: 0.900"
    assert torch.equal(best[0][0], manipulated[11]) and best[1][0] == "+ Smiling: 0.100"


def test_the_perfect_edits_are_drawn_once_as_the_last_column(tmp_path):
    given = EvalSet.take(ProceduralFaces(12, image_size=32), 12)
    for arm in ("before", "control"):
        write_strips(tmp_path, arm, draw_arm(lambda x, _: x, given, None))
    strips = read_strips(tmp_path)
    (perfect,) = (strip for strip in strips if strip.kind == "perfect")
    assert perfect.arm is None and np.array_equal(perfect.images[3], ((given.perfect[3] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    assert samples_figure(strips, tmp_path / "with.png")
    assert samples_figure([strip for strip in strips if strip.kind != "perfect"], tmp_path / "without.png")
    assert Image.open(tmp_path / "with.png").width > Image.open(tmp_path / "without.png").width


def test_scores_that_float32_cant_tell_apart_are_ranked_by_the_map():
    given = inputs(3)
    maps = torch.stack([torch.full((1, 32, 32), v) for v in (0.2, 0.8, 0.5)])
    looked = Predictions(maps, torch.ones(3), torch.zeros(3))
    evidence = Evidence(given.images, {}, ManipulatedImages(given.images, given.images, given.images, torch.zeros(3, dtype=torch.long)), looked)
    strips = draw_arm(lambda x, _: x, given, tiny_malp(), evidence=evidence)
    assert torch.equal(strips["worst"][0], given.images[[1, 2]])
    assert torch.equal(strips["best"][0], given.images[[0, 2]])


def test_large_images_get_fewer_rows():
    assert [rows_of(inputs(12, size)) for size in (32, 96, 128, 256)] == [10, 10, 5, 4]
    assert rows_of(inputs(2)) == 2


def test_the_grids_show_the_strips_pixel_by_pixel(tmp_path):
    """`sample_grid` is tested to place images; here that every strip becomes a column of it, in the order of the arms."""
    for i, arm in enumerate(("cotrain", "before")):
        images = torch.full((2, 3, 64, 64), float(i) - 0.5)
        strips = {
            "real": (-images, ["a", "b"]),
            "edited": (images, ["a", "b"]),
            "encrypted": (-images, ["a", "b"]),
            "manipulated": (images, ["a", "b"]),
        }
        maps = torch.full((2, 1, 64, 64), 0.5)
        write_strips(tmp_path, arm, strips | {kind: (maps, ["a", "b"]) for kind in ("truth", "map", "map_encrypted")})
    strips = read_strips(tmp_path)
    assert samples_figure(strips, tmp_path / "samples.png") and fakeness_figure(strips, tmp_path / "fakeness.png")
    row = np.asarray(Image.open(tmp_path / "samples.png").convert("RGB"))[100]
    runs = [value for value, before in zip(row[1:, 0], row[:-1, 0]) if value != before]
    assert [value for value in runs if value in (64, 191)] == [64, 64, 191, 64]  # real, encrypted, before, cotrain
    assert (np.asarray(Image.open(tmp_path / "fakeness.png").convert("RGB"))[100] == 255).all(
        -1
    ).sum() > 3 * 128  # maps at the end of the scale


def test_without_strips_nothing_is_drawn(tmp_path):
    assert not samples_figure([], tmp_path / "a.png") and not fakeness_figure([], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
