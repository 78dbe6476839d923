"""protect, localize and detect with keyed templates: image files of any size, crops, and images of somebody else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc.keyed import KeyedConfig, KeyedMaLP
from tests.keyed.conftest import natural_images


@pytest.fixture(scope="module")
def keyed_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keyed")
    torch.manual_seed(0)
    KeyedMaLP(KeyedConfig(image_size=128, width=4), secret=b"c" * 32).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for i, (height, width) in enumerate([(128, 128), (180, 120), (150, 200)]):
        image = natural_images(1, height, width, seed=i)[0]
        Image.fromarray(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_protected_files_are_recognised_after_jpeg_and_others_are_not(command, keyed_folder, photos, tmp_path):
    assert command("protect", photos, tmp_path / "protected", "--malp", keyed_folder, "--format", "jpeg", "--quality", 80) is None
    for record in lines(tmp_path / "protected" / "protect.jsonl"):
        assert record["psnr"] == pytest.approx(38.5, abs=0.3)
        assert record["similarity_saved"] > 0.1
    for folder, protected in (("protected", True), ("photos", False)):
        out = tmp_path / f"{folder}.jsonl"
        assert command("detect", tmp_path / folder, "--malp", keyed_folder, "--threshold", 0.99, "--json", out) is None
        assert [record["protected"] for record in lines(out)] == [protected] * 3
    assert command("detect", photos, "--malp", keyed_folder, "--threshold", 0, "--json", out) is None
    assert not any(record["manipulated"] for record in lines(out))  # whatever their score: they were never protected


def test_the_map_is_the_probability_of_an_edited_region_at_the_images_size(command, keyed_folder, photos, tmp_path):
    assert command("localize", photos, tmp_path / "maps", "--malp", keyed_folder) is None
    found = np.array(Image.open(tmp_path / "maps" / "2.png.map.png"))
    assert found.shape == (150, 200)
    image = torch.from_numpy(np.array(Image.open(photos / "2.png"))).permute(2, 0, 1)[None].float() / 127.5 - 1
    expected = KeyedMaLP.from_pretrained(keyed_folder).eval()(image).edited[0, 0].detach().numpy()
    np.testing.assert_allclose(found / 65535, expected, atol=1e-4)


def test_there_is_one_template_only(command, keyed_folder, photos, tmp_path):
    assert "--template of 0 to 0, got 1" in str(command("protect", photos, tmp_path / "out", "--malp", keyed_folder, "--template", 1))
