"""Pairs of photographs for `probe_malp.py --overlays`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from recipes.research.probe_malp import overlays


def test_pairs_are_images_of_one_name_in_both_folders_and_links_count(tmp_path):
    probe = SimpleNamespace(malp=SimpleNamespace(encrypt=lambda images, index: (images, None)))
    (tmp_path / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("0.png", "1.png"):
        Image.new("RGB", (16, 16), "red").save(tmp_path / "real" / name)
    with pytest.raises(FileNotFoundError, match="no folder at .*manipulated"):
        overlays(probe, tmp_path, 16, 4)
    (tmp_path / "manipulated").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="no pairs in .* found 2 in real/ and 0 in manipulated/"):
        overlays(probe, tmp_path, 16, 4)
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "elsewhere" / "0.png").symlink_to("gone.png")
    seen = overlays(probe, tmp_path, 16, 4)
    assert len(seen.images) == 1
    assert torch.equal(seen.manipulated[0, :, 8, 8], torch.tensor([-1.0, -1.0, 1.0]))
