"""Image files of every mode: for a distance as the packages decode them, for training upright and on white; damaged ones by name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from malp_disc.data import BrokenImageError
from malp_disc.data.decoding import count_frames, decode_image, read_header

RED, BLUE = (255, 0, 0), (0, 0, 255)


def noise(mode: str) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    levels = np.random.default_rng(0).integers(0, 256, (20, 24, channels), np.uint8)
    return Image.fromarray(levels[:, :, 0] if channels == 1 else levels, mode="L" if channels == 1 else mode).convert(mode)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_that_of_pillow(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise("RGB").save(tmp_path / f"x{suffix}", exif=exif)
    with Image.open(tmp_path / f"x{suffix}") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(np.asarray(decode_image(tmp_path / f"x{suffix}")), expected)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", ".png"), ("RGBA", ".png"), ("LA", ".png"), ("L", ".jpg"), ("1", ".png"), ("CMYK", ".jpg"), ("RGBA", ".webp"), ("P", ".gif"), ("RGBA", ".tif")],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter")
def test_as_stored_is_what_both_packages_read(tmp_path, mode, suffix):
    path = tmp_path / f"x{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(mode).save(path, **({"exif": exif} if suffix in (".jpg", ".png") else {}))
    np.testing.assert_array_equal(decode_image(path, as_stored=True), Image.open(path).convert("RGB"))
    if suffix == ".jpg":
        assert decode_image(path).size == (20, 24), "turned upright for training"


def test_what_is_transparent_is_white_for_training_and_as_stored_for_a_distance(tmp_path):
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([*RED, *BLUE])
    palette.save(tmp_path / "palette.png", transparency=0)
    Image.new("LA", (16, 16), (0, 0)).save(tmp_path / "grey.png")
    Image.new("RGBA", (16, 16), (*RED, 0)).save(tmp_path / "colour.png")
    for name, stored in (("palette", RED), ("grey", (0, 0, 0)), ("colour", RED)):
        assert decode_image(tmp_path / f"{name}.png").getpixel((3, 3)) == (255, 255, 255)
        assert decode_image(tmp_path / f"{name}.png", as_stored=True).getpixel((3, 3)) == stored


@pytest.mark.parametrize("shape", [(20, 24), (20, 24, 1), (20, 24, 3)])
def test_an_array_holds_its_levels(tmp_path, shape):
    levels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "x.npy", levels)
    for as_stored in (False, True):
        decoded = np.asarray(decode_image(tmp_path / "x.npy", as_stored=as_stored))
        np.testing.assert_array_equal(decoded, np.broadcast_to(levels.reshape(20, 24, -1), (20, 24, 3)))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(levels))
    np.testing.assert_array_equal(decode_image(tmp_path / "fortran.npy"), decoded)


def damaged(folder) -> dict[str, str]:
    """File name -> what must be said of it."""
    good, array = folder / "good.png", folder / "good.npy"
    noise("RGB").save(good)
    np.save(array, np.zeros((64, 64, 3), np.uint8))
    noise("RGB").save(folder / "good.jpg")
    contents = {
        "empty.png": (b"", "empty file"),
        "empty.npy": (b"", "empty file"),
        "page.jpg": (b"<html>404</html>", "not an image in a format"),
        "cut.png": (good.read_bytes()[:200], "cut.png can't be decoded"),
        "cut.jpg": ((folder / "good.jpg").read_bytes()[:-200], "truncated"),
        "cut.npy": (array.read_bytes()[:-9], "cut.npy can't be decoded"),
        "head.npy": (array.read_bytes()[:9], "head.npy can't be decoded"),
        "image.npy": (good.read_bytes(), "image.npy can't be decoded"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    Image.fromarray(np.full((20, 24), 40_000, np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.full((20, 24), 0.5, np.float32)).save(folder / "float.tif")
    np.save(folder / "float.npy", np.zeros((20, 24, 3), np.float32))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    more = {"deep.png": "more than 8 bits", "float.tif": "more than 8 bits", "float.npy": "float32 of shape .20, 24, 3., expected uint8", "objects.npy": "object"}
    return {name: words for name, (_, words) in contents.items()} | more


def test_each_damage_is_named_with_its_file(tmp_path):
    for name, words in damaged(tmp_path).items():
        with pytest.raises(BrokenImageError, match=words) as training:
            decode_image(tmp_path / name)
        with pytest.raises(BrokenImageError, match=words) as distance:
            decode_image(tmp_path / name, as_stored=True)
        assert name in str(training.value) and "--on-broken skip" in str(training.value)
        assert name in str(distance.value) and "--on-broken" not in str(distance.value)


def test_an_image_too_large_for_pillow_says_so(tmp_path, monkeypatch):
    noise("RGB").save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BrokenImageError, match="x.png can.t be decoded .more than 200 pixels"):
        decode_image(tmp_path / "x.png")


def test_what_is_not_the_files_fault_is_passed_on(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.png"):
        decode_image(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match="gone.npy"):
        decode_image(tmp_path / "gone.npy")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match="folder.png"):
        decode_image(tmp_path / "folder.png")


def test_an_animation_shows_its_first_frame_and_a_plain_image_has_one(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    for name in ("x.gif", "x.webp", "x.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if name.endswith("webp") else {}))
        assert decode_image(tmp_path / name).getpixel((3, 3)) == RED
        assert count_frames(read_header(tmp_path / name)) == 2
    frames[0].save(tmp_path / "x.png")
    assert count_frames(read_header(tmp_path / "x.png")) == 1
