"""recipes/research/probe_backbones.py: a probe tells what differs, doesn't tell what doesn't, and is written down once for each backbone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc.backbones import create_backbone
from recipes.research import probe_backbones
from recipes.research.probe_backbones import Config, means, probe


def test_a_probe_scores_images_it_was_not_fitted_to():
    rng = np.random.default_rng(0)
    real, same, other = (rng.standard_normal((60, 40)) for _ in range(3))
    other[:, 0] += 8
    assert probe(real, other)["accuracy"] > 0.9
    blind = probe(real, same)  # 40 numbers for 120 images: on its own images a probe would be right about most
    assert 0.3 < blind["accuracy"] < 0.7 and blind["cross_entropy"] > 0.6


def test_the_means_of_all_feature_maps():
    backbone = create_backbone("tf_efficientnet_lite0", "random", depths=2)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    found = means(backbone, images, 32)
    assert found.shape == (3, sum(backbone.channels))
    np.testing.assert_allclose(found[1:2], means(backbone, images[1:2], 32), atol=1e-5)


def test_every_backbone_and_number_of_depths_leaves_a_line(tmp_path, capsys):
    config = Config(output_dir=tmp_path, size=10, image_size=32, backbone_side=32, backbones=("tf_efficientnet_lite0", "tf_efficientnet_lite0=random"), depths=(1, 2))
    probe_backbones.main(config)
    lines = [json.loads(line) for line in (tmp_path / "probe.jsonl").read_text().splitlines()]
    assert [(line["backbone"], line["depths"]) for line in lines] == [(name, depths) for name in config.backbones for depths in (1, 2)]
    assert all(line["n"] == [10, 10] and 0 <= line["accuracy"] <= 1 for line in lines)
    assert capsys.readouterr().out.count("accuracy") == 4


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--size of at least 10, got 9"):
        Config(size=9)
    with pytest.raises(ValueError, match="--size 10 takes 20 training images, 10 to edit and 10 others, got 15"):
        probe_backbones.main(Config(output_dir=tmp_path / "run", size=10, train_size=15, image_size=32, depths=(1,)))
    for number in range(12):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{number}.png")
    folders = {"data": "images", "data_root": tmp_path, "reference_root": tmp_path, "test_size": 4, "image_size": 32}
    with pytest.raises(ValueError, match="--size 10 takes 10 training images, got 8 in"):
        probe_backbones.main(Config(output_dir=tmp_path / "run", size=10, generator="generators.example_losses:super_resolution", **folders))
    assert not (tmp_path / "run").exists()
