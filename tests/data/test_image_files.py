from __future__ import annotations

import logging
import os
import traceback

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import functional as tv

from malp_disc.data import BrokenImageError, ImageFiles, intact, load_image
from malp_disc.data.images import find_broken
from malp_disc.data.intact import check_whole, looks_whole
from malp_disc.data.listing import list_images


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def broken_files(folder):
    """One of each way to be broken, by name."""
    good = folder / "good.jpg"
    Image.fromarray(noise(64, 64)).save(good)
    png = folder / "good.png"
    Image.fromarray(noise(64, 64)).save(png)
    contents = {
        "half.jpg": good.read_bytes()[: good.stat().st_size // 2],
        "half.png": png.read_bytes()[: png.stat().st_size // 2],
        "empty.jpg": b"",
        "page.jpg": b"<html>404 not found</html>",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(folder / "deep.png")
    good.unlink()
    png.unlink()
    return [*contents, "deep.png"]


def dataset(paths, **options) -> ImageFiles:
    return ImageFiles(paths, torch.zeros(len(paths), 1), attribute_names=("A",), image_size=16, **options)


def test_black_and_white_are_minus_one_and_one(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :, 1] = 255
    Image.fromarray(pixels).save(tmp_path / "green.png")
    image = load_image(tmp_path / "green.png", image_size=16)
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.tensor([-1.0, 1.0, -1.0]).view(3, 1, 1).expand(3, 16, 16))


def test_an_image_of_the_right_size_is_kept_to_the_pixel(tmp_path):
    pixels = noise(16, 16)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    levels = (load_image(tmp_path / "x.png", image_size=16) + 1) * 127.5
    assert torch.equal(levels.round().to(torch.uint8), torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize(("height", "width", "crop"), [(218, 178, 178), (109, 89, 89), (50, 41, 32), (40, 40, 17), (37, 60, None)])
def test_crop_and_resize_are_torchvisions(tmp_path, height, width, crop):
    """StarGAN's own loader: CenterCrop, then Resize of a PIL image."""
    pixels = noise(height, width)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    expected = tv.resize(tv.center_crop(Image.fromarray(pixels), [crop or min(height, width)] * 2), [24, 24])
    ours = load_image(tmp_path / "x.png", image_size=24, crop_size=crop)
    assert (ours - (tv.to_tensor(expected) * 2 - 1)).abs().max() < 1e-5


def test_downscaling_is_antialiased(tmp_path):
    """A one-pixel checkerboard shrunk fourfold is grey; without antialiasing it would stay black and white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(np.stack([board] * 3, -1)).save(tmp_path / "x.png")
    assert load_image(tmp_path / "x.png", image_size=16).abs().max() < 0.1


def test_grey_palette_and_transparent_images_become_rgb(tmp_path):
    Image.new("L", (16, 16), 255).save(tmp_path / "grey.png")
    Image.new("RGB", (16, 16), (255, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    colours = {name: load_image(tmp_path / f"{name}.png", image_size=16)[:, 3, 3].tolist() for name in ("grey", "palette", "clear")}
    assert colours == {"grey": [1, 1, 1], "palette": [1, -1, -1], "clear": [1, 1, 1]}


def test_a_camera_image_is_turned_upright(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[0] = 255  # the top row
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    image = load_image(tmp_path / "x.png", image_size=16)
    assert image[:, 15].min() == 1
    assert image[:, :15].max() == -1


def test_a_broken_image_raises_its_name_when_it_is_met(tmp_path):
    for name in broken_files(tmp_path):
        with pytest.raises(BrokenImageError, match=name):
            load_image(tmp_path / name, image_size=16)


def test_the_name_reaches_the_user_through_the_loaders_workers(tmp_path, make_image):
    paths = [make_image(tmp_path / f"{i}.png") for i in range(8)] + [make_image(tmp_path / "damaged.png", width=64, height=64)]
    content = bytearray(paths[-1].read_bytes())
    content[4000:4100] = bytes(100)  # its first and last bytes, which are read at the start, are whole
    paths[-1].write_bytes(content)
    loader = DataLoader(dataset(paths), batch_size=4, num_workers=1)
    with pytest.raises(ValueError, match="damaged.png can't be decoded") as error:
        list(loader)
    traceback.clear_frames(error.value.__traceback__)  # or the loader lives until the garbage collection, and its workers five seconds longer


def test_raise_finds_every_damaged_file_at_the_start(tmp_path, make_image):
    paths = [make_image(tmp_path / f"{i}.png") for i in range(40)]
    bad = broken_files(tmp_path)
    with pytest.raises(BrokenImageError, match=r"^5 of 45 images: .*; replace or delete them, or drop all such images with --on-broken skip$") as error:
        dataset([*paths[:17], *(tmp_path / name for name in bad), *paths[17:]])
    assert all(name in str(error.value) for name in bad)


def test_raise_decodes_only_what_looks_damaged(tmp_path, make_image, monkeypatch):
    paths = [make_image(tmp_path / f"{i}.png") for i in range(40)]
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or original(path))
    dataset(paths)
    assert 2 <= len(opened) <= 8, "headers, for the crop"


def test_a_slow_disk_is_checked_for_a_minute_only(tmp_path, make_image, monkeypatch, caplog):
    paths = [make_image(tmp_path / f"{i}.png") for i in range(3)] + [tmp_path / name for name in broken_files(tmp_path)]
    monkeypatch.setattr(intact, "_LIMIT", -1.0)
    with caplog.at_level(logging.INFO):
        check_whole(paths)
        check_whole(paths)
    assert caplog.text.count("checked 0 of 8 images") == 1, "not for a minute more with the next data set of the same files"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tif", ".ppm", ".npy"])
def test_files_of_every_format_look_whole_or_are_decoded_and_cut_ones_are_found(tmp_path, suffix):
    pixels, path = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8), tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    assert looks_whole(path) == (suffix not in (".tif", ".ppm", ".npy"))
    check_whole([path])
    for missing in (1, 8, 200, path.stat().st_size):
        cut = tmp_path / f"cut{missing}{suffix}"
        cut.write_bytes(path.read_bytes()[:-missing])
        assert not looks_whole(cut)
    with pytest.raises(BrokenImageError, match=f"cut200{suffix} can't be decoded"):
        check_whole([path, tmp_path / f"cut200{suffix}"])
    trailing = tmp_path / f"trailing{suffix}"
    trailing.write_bytes(path.read_bytes() + b"the video of a phone's photo")
    check_whole([trailing])


def test_16_bits_that_training_would_refuse_are_found(tmp_path):
    Image.fromarray(np.zeros((20, 20), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(BrokenImageError, match="more than 8 bits per channel"):
        check_whole([tmp_path / "deep.png"])


def test_skip_drops_broken_images_with_their_labels_and_names_them(tmp_path, make_image, caplog):
    bad = broken_files(tmp_path)
    good = [make_image(tmp_path / f"fine{i}.png") for i in range(3)]
    paths = [tmp_path / bad[0], good[0], tmp_path / bad[1], tmp_path / bad[2], good[1], good[2], *(tmp_path / name for name in bad[3:])]
    labels = torch.arange(float(len(paths)))[:, None]
    with caplog.at_level(logging.WARNING):
        images = ImageFiles(paths, labels, attribute_names=("A",), image_size=16, on_broken="skip")
    assert images.paths == [str(path) for path in good]
    assert images.labels.flatten().tolist() == [1, 4, 5]
    assert set(images.dropped) == {str(tmp_path / name) for name in bad}
    assert "dropped 5 of 8" in caplog.text
    assert all(name in caplog.text for name in bad)
    assert "--on-broken" not in caplog.text, "advice to give the flag that was given"


def test_skip_with_nothing_broken_changes_nothing(tmp_path, make_image, caplog):
    paths = [make_image(tmp_path / f"{i}.png") for i in range(3)]
    with caplog.at_level(logging.WARNING):
        assert len(dataset(paths, on_broken="skip")) == 3
    assert not caplog.records


def test_skip_with_everything_broken_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="none of the 5 images"):
        dataset([tmp_path / name for name in broken_files(tmp_path)], on_broken="skip")


@pytest.mark.parametrize("on_broken", ["raise", "skip"])
def test_a_missing_file_is_no_broken_image(tmp_path, make_image, on_broken):
    """A network drive that went away must not look like 200,000 broken images."""
    with pytest.raises(FileNotFoundError, match="gone.png"):
        dataset([make_image(tmp_path / "here.png"), tmp_path / "gone.png"], on_broken=on_broken)


def test_find_broken_keeps_the_order_of_the_paths(tmp_path, make_image):
    bad = [str(tmp_path / name) for name in broken_files(tmp_path)]
    assert list(find_broken([str(make_image(tmp_path / "fine.png")), *reversed(bad)])) == list(reversed(bad))


@pytest.mark.parametrize("on_broken", ["raise", "skip"])
def test_a_crop_larger_than_the_images_is_refused_at_the_start(tmp_path, make_image, on_broken):
    path = make_image(tmp_path / "small.png", width=20, height=24)
    with pytest.raises(ValueError, match=r"small.png, which is 20x24; give --crop-size 20"):
        dataset([path], crop_size=21, on_broken=on_broken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 30}, "divisible by 4, got 30"),
        ({"image_size": 8}, "at least 16"),
        ({"crop_size": 0}, "at least 1"),
        ({"on_broken": "ignore"}, "'ignore'"),
        ({"attribute_names": ("A", "B")}, r"\(1, 2\), images by attributes, got \(1, 1\)"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, make_image, options, message):
    with pytest.raises(ValueError, match=message):
        ImageFiles([make_image(tmp_path / "x.png")], torch.zeros(1, 1), **{"attribute_names": ("A",), "image_size": 16, **options})


def test_no_images_and_an_index_outside_are_refused(tmp_path, make_image):
    with pytest.raises(ValueError, match="no images"):
        dataset([])
    images = dataset([make_image(tmp_path / "x.png")])
    assert len(list(images)) == 1  # iteration ends, by IndexError
    with pytest.raises(IndexError, match=r"outside 0\.\.0"):
        images[1]


def test_listing_is_sorted_recursive_and_takes_images_only(tmp_path, make_image):
    names = ["b/2.JPG", "b/1.png", "a/deep/er/x.webp", "top.bmp", "z.jpeg"]
    for name in reversed(names):
        make_image(tmp_path / name)
    for name in ["._top.bmp", ".cache/x.png", "__MACOSX/b/1.png"]:
        make_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert list(list_images(tmp_path).names) == sorted(names)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_listing_follows_links_and_survives_a_circle(tmp_path, make_image):
    make_image(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "A").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "root")
    assert list(list_images(tmp_path / "root").names) == ["A/x.png"]


def test_listing_a_missing_folder_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list_images(tmp_path / "nowhere")
