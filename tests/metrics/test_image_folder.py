"""A folder of images: read as the FID packages read it, known by content, and refused with a reason."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc.levels import quantize
from malp_disc.metrics.extractor import MixedSizes
from malp_disc.metrics.image_folder import ImageFolder


def pixels(folder: ImageFolder, batch_size: int = 4, **share: int) -> torch.Tensor:
    return torch.cat(list(folder.batches(batch_size, **share)))


def test_images_come_as_they_are_on_the_8_bit_grid(make_folder, tmp_path):
    folder = ImageFolder.scan(make_folder(tmp_path / "a", 6))
    images = pixels(folder)
    assert (images.shape, folder.sizes, len(folder)) == ((6, 3, 20, 24), ((24, 20),) * 6, 6)
    stored = np.stack([np.asarray(Image.open(path)) for path in folder.paths]).transpose(0, 3, 1, 2)
    assert torch.equal(quantize(images), torch.from_numpy(stored))


def test_copies_under_other_names_are_the_same_set_in_the_same_order(make_folder, tmp_path):
    a = make_folder(tmp_path / "a", 6)
    (tmp_path / "b" / "deeper").mkdir(parents=True)
    for index, path in enumerate(sorted(a.iterdir(), reverse=True)):
        shutil.copy(path, tmp_path / "b" / ("deeper" if index < 2 else "") / f"other{index}.PNG")
    first, second = ImageFolder.scan(a), ImageFolder.scan(tmp_path / "b")
    assert first.digest == second.digest
    assert torch.equal(pixels(first), pixels(second))


def test_one_changed_pixel_is_another_set(make_folder, tmp_path):
    before = ImageFolder.scan(make_folder(tmp_path / "a", 3)).digest
    image = Image.open(tmp_path / "a" / "001.png").convert("RGB")
    red, green, blue = image.getpixel((5, 5))
    image.putpixel((5, 5), (red, green, 255 - blue))
    image.save(tmp_path / "a" / "001.png")
    assert ImageFolder.scan(tmp_path / "a").digest != before


def test_processes_share_the_images_without_gap_or_overlap(make_folder, tmp_path):
    folder = ImageFolder.scan(make_folder(tmp_path / "a", 7))
    whole = pixels(folder)
    for rank in range(3):
        assert torch.equal(pixels(folder, batch_size=2, rank=rank, world=3), whole[rank::3])


def test_copies_are_counted(make_folder, tmp_path):
    a = make_folder(tmp_path / "a", 5)
    for name in ("x.png", "y.png"):
        shutil.copy(a / "000.png", a / name)
    assert ImageFolder.scan(a).copies == 2


def test_hidden_files_and_other_files_are_left_alone(make_folder, tmp_path):
    a = make_folder(tmp_path / "a", 2)
    for name in (".hidden.png", "notes.txt"):
        (a / name).write_text("no image")
    make_folder(a / "__MACOSX", 1, seed=9)
    assert [path.name for path in ImageFolder.scan(a).paths] in (["000.png", "001.png"], ["001.png", "000.png"])


@pytest.mark.parametrize(
    ("count", "fewest", "message"),
    [(0, 2, "no images in .* expected at least 2"), (1, 2, "1 image in"), (5, 8, "5 images in .* expected at least 8")],
)
def test_an_empty_or_tiny_folder_is_refused(make_folder, tmp_path, count, fewest, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder.scan(make_folder(tmp_path / "a", count), fewest=fewest)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder at .*nowhere"):
        ImageFolder.scan(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        ImageFolder.scan(tmp_path / "file")


def test_images_of_mixed_sizes_are_described_and_come_unstacked_in_the_order_of_the_set(make_folder, tmp_path):
    a = make_folder(make_folder(tmp_path / "a", 5) / "odd", 1, seed=7, size=(20, 24)).parent
    folder = ImageFolder.scan(a)
    assert folder.describe_sizes() == "5 of 24x20 (000.png …), 1 of 20x24 (000.png …)"
    (batch,) = folder.batches(6)
    assert isinstance(batch, MixedSizes)
    for image, path in zip(batch, folder.paths):
        np.testing.assert_array_equal(quantize(image).permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty file"), (b"no image at all", "not an image in a format that Pillow supports")])
def test_a_file_that_is_no_image_is_named(make_folder, tmp_path, content, reason):
    a = make_folder(tmp_path / "a", 3)
    (a / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad.png can't be decoded \({reason}\)"):
        ImageFolder.scan(a)


def test_an_image_cut_short_is_named_before_any_feature_is_computed(make_folder, tmp_path):
    a = make_folder(tmp_path / "a", 3)
    (a / "001.png").write_bytes((a / "001.png").read_bytes()[:400])
    with pytest.raises(ValueError, match="001.png can't be decoded"):
        ImageFolder.scan(a)


def test_16_bit_images_are_refused_since_pillow_would_turn_them_white(make_folder, tmp_path):
    a = make_folder(tmp_path / "a", 3)
    Image.fromarray(np.full((20, 24), 40_000, np.uint16)).save(a / "deep.png")
    with pytest.raises(ValueError, match="deep.png has more than 8 bits per channel .mode I;16.*, expected 8; save it with 8 bits$"):
        ImageFolder.scan(a)
