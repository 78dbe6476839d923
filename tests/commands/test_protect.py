"""`malp-disc protect`: the template is what MaLP adds, everything else of a file stays, and a repeated run goes on."""

from __future__ import annotations

import errno
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from malp_disc import MaLP
from malp_disc.calibration import Calibration
from malp_disc.commands.batch import LOCK_FILE
from malp_disc.commands.image_file import ImageFile
from malp_disc.data.decoding import decode_image
from tests.commands.conftest import levels

IMAGE_WIDTH, ORIENTATION, ARTIST = 256, 274, 315
EXIF_FOLDER, GPS_FOLDER, INTEROPERABILITY_FOLDER = 34665, 34853, 40965


def protect(command, malp_folder, *arguments):
    return command("protect", "--malp", malp_folder, "--device", "cpu", *arguments)


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_an_image_of_the_training_size_is_encrypted_as_malp_does(command, malp_folder, tmp_path):
    original = levels(32, 32)
    Image.fromarray(original).save(tmp_path / "in.png")
    assert protect(command, malp_folder, tmp_path / "in.png", tmp_path / "out.png", "--template", 2) is None
    images = torch.from_numpy(original).permute(2, 0, 1)[None] / 127.5 - 1
    encrypted, _ = MaLP.from_pretrained(malp_folder).encrypt(images, torch.tensor([2]))
    expected = ((encrypted[0].detach() + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(read(tmp_path / "out.png"), expected)


def test_a_larger_image_gets_the_template_in_tiles(command, malp_folder, tmp_path):
    Image.fromarray(np.full((70, 90, 3), 128, np.uint8)).save(tmp_path / "in.png")
    assert protect(command, malp_folder, tmp_path / "in.png", tmp_path / "out.png", "--template", 0) is None
    out = read(tmp_path / "out.png")
    np.testing.assert_array_equal(out[32:64, :32], out[:32, :32])
    np.testing.assert_array_equal(out[64:, 64:], out[:6, :26])
    assert out[:32, :32].std() > 1


def test_a_folder_keeps_its_names_and_says_what_was_done(command, malp_folder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert protect(command, malp_folder, photos, out, "--json", tmp_path / "all.jsonl") is None
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("[!.]*.*")) == ["a.png", "b.png", "protect.jsonl", "sub/c.png"]
    lines = [json.loads(line) for line in (out / "protect.jsonl").read_text().splitlines()]
    assert lines == [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [line["output"] for line in lines] == ["a.png", "b.png", "sub/c.png"]
    key = MaLP.from_pretrained(malp_folder).key_fingerprint
    for line in lines:
        error = np.square(read(out / line["output"]).astype(float) - read(photos / line["file"])).mean()
        assert line["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)
        assert line["settings"]["key"] == key and 0 <= line["template"] < 3
    printed = capsys.readouterr().out
    assert "sub/c.png: " in printed and f"3 images protected, PSNR {np.mean([line['psnr'] for line in lines]):.1f} dB in the mean, with the key {key}" in printed


def test_a_repeated_run_does_only_what_is_missing(command, malp_folder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    protect(command, malp_folder, photos, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    (out / "b.png").unlink()
    with open(out / "protect.jsonl", "a") as file:
        file.write('{"file": "cut o')  # the process was killed while it wrote
    Image.fromarray(levels(seed=9)).save(photos / "d.png")
    assert protect(command, malp_folder, photos, out) is None
    assert "4 images protected (2 of them in an earlier run)" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path.name != "b.png")
    assert protect(command, malp_folder, photos, out) is None
    assert "(4 of them in an earlier run)" in capsys.readouterr().out


def test_nothing_is_overwritten_unasked(command, malp_folder, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_text("mine")
    message = protect(command, malp_folder, photos, out)
    assert "1 of 3 images failed" in message and "a.png exists; --overwrite" in message
    assert (out / "a.png").read_text() == "mine" and (out / "sub" / "c.png").exists()
    Image.fromarray(levels(seed=5)).save(photos / "b.jpg")
    assert "made from another file or with other settings" in protect(command, malp_folder, photos, out)
    assert protect(command, malp_folder, photos, out, "--overwrite") is None
    assert read(out / "a.png").shape == (40, 56, 3)


def test_a_single_image_is_not_overwritten_either(command, malp_folder, photos, tmp_path):
    assert protect(command, malp_folder, photos / "a.png", tmp_path / "x.png") is None
    assert "x.png exists" in protect(command, malp_folder, photos / "a.png", tmp_path / "x.png")


@pytest.mark.parametrize(("name", "format"), [("x.JPEG", "jpeg"), ("x.jpg", "jpeg"), ("x.tif", "tiff"), ("x.png", "png"), ("x.jpg", "keep")])
def test_a_format_that_the_name_says_too_is_no_contradiction(command, malp_folder, photos, tmp_path, name, format):
    quality = ["--quality", 50] * (name.lower()[2] == "j")
    assert protect(command, malp_folder, photos / "a.png", tmp_path / name, "--format", format, *quality) is None
    with Image.open(tmp_path / name) as image:
        assert image.format == {"p": "PNG", "t": "TIFF", "j": "JPEG"}[name.lower()[2]]


def test_images_of_an_earlier_run_are_checked_too_and_not_made_again(command, malp_folder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert protect(command, malp_folder, photos, tmp_path / "checked", "--check") is None
    expected = {line["output"]: line for line in map(json.loads, (tmp_path / "checked" / "protect.jsonl").read_text().splitlines())}
    assert protect(command, malp_folder, photos, out) is None
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    (photos / "d.png").write_bytes((photos / "a.png").read_bytes())
    capsys.readouterr()
    assert protect(command, malp_folder, photos, out, "--check", "--json", tmp_path / "all.jsonl") is None
    printed = capsys.readouterr().out
    assert printed.count(" as saved") == 4 and "4 images protected (3 of them in an earlier run)" in printed
    assert {path: path.stat().st_mtime_ns for path in before} == before
    lines = {line["output"]: line for line in map(json.loads, (tmp_path / "all.jsonl").read_text().splitlines())}
    assert all(lines[name] == expected[name] for name in expected) and len(lines) == 4
    assert protect(command, malp_folder, photos, out, "--check") is None
    assert " as saved" not in capsys.readouterr().out, "what was checked isn't checked again"


def test_images_that_the_detector_does_not_fit_are_named_by_the_check(command, malp_folder, photos, tmp_path, capsys):
    """All protected images score about 0.5 with this untrained MaLP: three above a threshold for 1 % aren't chance, those of a threshold for 60 % may be. Without --check
    nothing is known."""
    folder = tmp_path / "malp"
    shutil.copytree(malp_folder, folder)
    detector = MaLP.from_pretrained(folder).detector_fingerprint
    for number, (threshold, rate, said) in enumerate(((0.0, 0.01, True), (0.0, 0.6, False), (1.0, 0.01, False))):
        Calibration(threshold=threshold, false_alarm_rate=rate, n=99, detector=detector).write(folder / "detection.json")
        assert protect(command, folder, photos, tmp_path / str(number), "--check") is None
        assert ("would call 3 of the 3 checked images manipulated, though nobody has edited them" in capsys.readouterr().err) == said
    Calibration(threshold=0.0, false_alarm_rate=0.01, n=99, detector=detector).write(folder / "detection.json")
    assert protect(command, folder, photos, tmp_path / "unchecked") is None
    assert "nobody has edited" not in capsys.readouterr().err


def test_without_a_threshold_the_check_says_what_it_cannot_tell(command, malp_folder, photos, tmp_path, capsys):
    for number, flags in enumerate((["--check"], [])):
        assert protect(command, malp_folder, photos, tmp_path / str(number), *flags) is None
        assert ("no threshold, so the fit can't be checked; malp-disc detect --calibrate sets one" in capsys.readouterr().err) == bool(flags)


def test_a_crash_while_saving_leaves_no_half_file(command, malp_folder, photos, tmp_path, monkeypatch):
    def broken(path, content):
        with open(path, "wb") as half:
            half.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", broken)
    assert protect(command, malp_folder, photos, tmp_path / "out") == 130
    assert {path.name for path in (tmp_path / "out").rglob("*")} <= {LOCK_FILE}


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff", "jpg"])
def test_a_full_disk_is_an_error_of_the_disk_in_every_format(tmp_path, largest_file, suffix):
    """libtiff, writing itself, would tell of it only as an error of the encoder, as if the format couldn't hold the image."""
    with pytest.raises(OSError, match=f"a.{suffix}") as raised, largest_file(100):
        ImageFile(levels()).save(tmp_path / f"a.{suffix}", quality=90)
    assert raised.value.errno == errno.EFBIG and not list(tmp_path.iterdir())


def test_a_full_disk_stops_once_and_names_the_file(command, malp_folder, photos, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert protect(command, malp_folder, photos, tmp_path / "out", "--format", "tiff") == f"error: No space left on device: {tmp_path / 'out' / 'a.tiff'}"


def test_images_whose_outputs_would_meet_keep_their_suffix(command, malp_folder, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.jpg", "a.bmp", "b.jpg"):
        Image.fromarray(levels()).save(tmp_path / "in" / name)
    assert protect(command, malp_folder, tmp_path / "in", tmp_path / "out") is None
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.bmp.png", "a.jpg.png", "a.png", "b.png"]


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (("a.jpg", "a.png", "a.jpg.png"), ("a.jpg.2.png", "a.png", "a.jpg.png")),
        (("a.jpg", "a.bmp", "a.jpg.jpg"), ("a.jpg.2.png", "a.bmp.png", "a.jpg.png")),
        (("a.jpg", "a.png", "a.jpg.png", "a.jpg.2.png"), ("a.jpg.3.png", "a.png", "a.jpg.png", "a.jpg.2.png")),
        (("A.jpg", "a.jpg"), ("A.jpg.png", "a.jpg.2.png")),
        (("A.png", "a.png", "A.jpg"), ("A.png", "a.2.png", "A.jpg.png")),
        (("s/a.png", "S/a.jpg"), ("s/a.png", "S/a.jpg.png")),
    ],
)
def test_no_two_images_share_an_output_also_where_case_does_not_count(command, malp_folder, tmp_path, names, outputs):
    for seed, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels(seed=seed)).save(tmp_path / "in" / name)
    out = tmp_path / "out"
    for options in ([], ["--overwrite"], []):
        assert protect(command, malp_folder, tmp_path / "in", out, *options) is None
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == sorted(outputs)
    for name, output in zip(names, outputs):
        assert np.abs(read(out / output).astype(int) - read(tmp_path / "in" / name)).mean() < 10, "the image of that name, with its template"


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_every_lossless_format_keeps_every_pixel(command, malp_folder, tmp_path, suffix, mode):
    source = Image.fromarray(np.dstack([levels(), levels(seed=1)[..., 0]])).convert(mode)
    source.save(tmp_path / "in.png")
    assert protect(command, malp_folder, tmp_path / "in.png", tmp_path / f"out.{suffix}", "--template", 0) is None
    before, after = ImageFile.read(tmp_path / "in.png"), ImageFile.read(tmp_path / f"out.{suffix}")
    assert (before.alpha is None) == (after.alpha is None) and (before.alpha is None or (before.alpha == after.alpha).all())
    change = after.levels.astype(int) - before.levels
    inside = (before.levels > 70) & (before.levels < 185)
    assert mode == "1" or np.abs(change[inside]).max() > 3
    if mode in ("L", "LA", "1"):
        assert after.grey or suffix == "webp"  # WebP knows no grey
        assert (change == change[..., :1]).all()


def test_orientation_is_applied_and_the_rest_of_exif_and_the_profile_stay(command, malp_folder, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION], exif[ARTIST] = 6, "Somebody"
    for suffix in ("jpg", "tif", "png", "webp"):
        Image.fromarray(levels()).save(tmp_path / f"in.{suffix}", exif=exif, icc_profile=b"a profile" * 20)
        name = tmp_path / f"out.{'png' if suffix == 'jpg' else suffix}"
        assert protect(command, malp_folder, tmp_path / f"in.{suffix}", name, "--overwrite") is None
        with Image.open(name) as image:
            assert image.size == (40, 56), "turned"
            assert image.getexif().get(ORIENTATION, 1) == 1 and image.getexif()[ARTIST] == "Somebody"
            assert image.info["icc_profile"] == b"a profile" * 20


def camera_exif() -> Image.Exif:
    """As of a camera, with folders, and with a width of the original that isn't that of the file any more."""
    exif = Image.Exif()
    exif.update({IMAGE_WIDTH: 4000, ORIENTATION: 6, ARTIST: "Somebody"})
    exif[EXIF_FOLDER] = {36867: "2024:01:02 03:04:05", 37500: b"of the maker", INTEROPERABILITY_FOLDER: {1: "R98"}}
    exif[GPS_FOLDER] = {1: "N", 2: (52.0, 31.0, 12.0)}
    return exif


@pytest.mark.parametrize("target", ["png", "webp", "tiff", "jpg"])
@pytest.mark.parametrize("source", ["jpg", "png", "webp", "tiff"])
def test_folders_of_exif_tags_stay_in_every_format(command, malp_folder, tmp_path, source, target):
    options = {"exif": camera_exif().tobytes()}
    if source == "tiff":  # given EXIF data, Pillow would lose the inner folder
        options = {"tiffinfo": ImageFileDirectory_v2()}
        for tag, value in camera_exif().items():
            if tag != IMAGE_WIDTH:
                options["tiffinfo"][tag] = value
    Image.fromarray(levels()).save(tmp_path / f"in.{source}", **options)
    assert protect(command, malp_folder, tmp_path / f"in.{source}", tmp_path / f"out.{target}") is None
    with Image.open(tmp_path / f"out.{target}") as image:
        found = image.getexif()
        assert ORIENTATION not in found and found[ARTIST] == "Somebody"
        folder = found.get_ifd(EXIF_FOLDER)
        assert folder[36867] == "2024:01:02 03:04:05" and folder[37500] == b"of the maker" and found.get_ifd(INTEROPERABILITY_FOLDER) == {1: "R98"}
        assert found.get_ifd(GPS_FOLDER) == {1: "N", 2: (52.0, 31.0, 12.0)}
        assert np.asarray(image).shape == (56, 40, 3), "the size of the pixels, whatever the tags say"


def raw_exif(*tags: tuple[int, int, int, bytes]) -> bytes:
    """EXIF data of tags (number, type, count, four bytes of value), in order and with any type, which Pillow itself wouldn't write."""
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHI4s", *tag) for tag in tags) + bytes(4)


ODD = {
    "orientation as text": (raw_exif((ORIENTATION, 2, 2, b"6"), (ARTIST, 2, 4, b"Me!")), False, ""),
    "negative orientation": (raw_exif((ORIENTATION, 8, 1, b"\xff\xff"), (ARTIST, 2, 4, b"Me!")), False, ""),
    "camera as a float": (raw_exif((271, 11, 1, struct.pack("<f", 1.5)), (ORIENTATION, 3, 1, b"\6"), (ARTIST, 2, 4, b"Me!")), True, "the EXIF tag Make, whose"),
    "width as text": (raw_exif((IMAGE_WIDTH, 2, 4, b"100"), (ORIENTATION, 3, 1, b"\6"), (ARTIST, 2, 4, b"Me!")), True, "the EXIF tag ImageWidth, whose"),
    "title as a number": (raw_exif((269, 3, 1, b"\5"), (ARTIST, 2, 4, b"Me!")), False, ""),
    "GPS folder nowhere": (raw_exif((ORIENTATION, 3, 1, b"\6"), (GPS_FOLDER, 9, 1, struct.pack("<i", -5))), True, "its EXIF data, which are damaged"),
    "not EXIF": (b"Exif\0\0garbage", False, "its EXIF data, which are damaged"),
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("kind", ODD)
def test_an_image_with_damaged_exif_data_is_read(tmp_path, caplog, kind, suffix):
    exif, turned, _ = ODD[kind]
    path = tmp_path / f"in.{suffix}"
    Image.fromarray(levels()).save(path, exif=exif)
    pixels = np.rot90(read(path), -1) if turned else read(path)
    np.testing.assert_array_equal(ImageFile.read(path).levels, pixels)
    np.testing.assert_array_equal(np.asarray(decode_image(path)), pixels)
    assert not caplog.records


@pytest.mark.parametrize("target", ["png", "webp", "tiff", "jpg"])
@pytest.mark.parametrize("kind", ODD)
def test_what_can_be_written_of_damaged_exif_data_stays(command, malp_folder, tmp_path, caplog, kind, target):
    exif, turned, lost = ODD[kind]
    Image.fromarray(levels()).save(tmp_path / "in.png", exif=exif)
    assert protect(command, malp_folder, tmp_path / "in.png", tmp_path / f"out.{target}") is None
    with Image.open(tmp_path / f"out.{target}") as image:
        found = image.getexif()
        assert ORIENTATION not in found and found.get(ARTIST) == (None if "data" in lost else "Me!")
        assert np.asarray(image).shape == ((56, 40, 3) if turned else (40, 56, 3))
    messages = [record.getMessage() for record in caplog.records if "has lost" in record.getMessage()]
    assert len(messages) == bool(lost) and all(f"out.{target} has lost {lost}" in message for message in messages)


def test_of_a_folder_only_the_damaged_tag_is_lost(tmp_path, caplog):
    file = ImageFile(levels())
    file.exif[GPS_FOLDER] = {1: 1.5, 29: "2024:01:02"}
    file.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.getexif().get_ifd(GPS_FOLDER) == {29: "2024:01:02"}
    assert "has lost the EXIF tag GPSLatitudeRef" in caplog.text


def test_an_image_that_libtiff_refuses_does_not_stop_the_others(command, malp_folder, photos, tmp_path, monkeypatch):
    own = Image.Image.save

    def save(self, file, *arguments, **options):
        if self.height == 40:
            raise RuntimeError("Error setting from dictionary")
        own(self, file, *arguments, **options)

    Image.fromarray(levels(50)).save(photos / "d.png")
    monkeypatch.setattr(Image.Image, "save", save)
    message = protect(command, malp_folder, photos, tmp_path / "out", "--format", "tiff")
    assert "3 of 4 images failed" in message and "tiff can't hold this image of 56x40 pixels (Error setting from dictionary)" in message
    assert (tmp_path / "out" / "d.tiff").exists()


def test_jpeg_is_warned_about_with_what_was_measured(command, malp_folder, photos, tmp_path, capsys):
    assert protect(command, malp_folder, photos, tmp_path / "out", "--format", "jpeg", "--quality", 60) is None
    assert "JPEG takes part of the template: similarity" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "out" / "protect.jsonl").read_text().splitlines()]
    assert {line["output"] for line in lines} == {"a.jpg", "b.jpg", "sub/c.jpg"}
    assert all(line["similarity"] != line["similarity_saved"] for line in lines)


def save_16_bit_rgb(path):
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(20 * 6) for _ in range(20)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def bad_image(folder, kind: str):
    path = folder / f"bad.{'png' if kind != 'CMYK' else 'jpg'}"
    if kind == "16 bit grey":
        Image.fromarray(np.zeros((20, 20), np.uint16)).save(path)
    elif kind == "16 bit RGB":
        save_16_bit_rgb(path)
    elif kind == "CMYK":
        Image.new("CMYK", (20, 20)).save(path)
    elif kind == "frames":
        path = folder / "bad.tiff"
        Image.fromarray(levels()).save(path, save_all=True, append_images=[Image.fromarray(levels(seed=1))])
    elif kind == "cut":
        Image.fromarray(levels()).save(path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "small":
        Image.new("RGB", (9, 20)).save(path)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [("16 bit grey", "bad.png has more than 8 bits per channel (mode I;16), expected 8; save it with 8 bits"), ("16 bit RGB", "bad.png has 16 bits per channel, expected 8"), ("CMYK", "expected RGB or grey; convert it to RGB"), ("frames", "2 frames or pages, expected a single image; save each"), ("cut", "can't be decoded"), ("small", "got 9x20")],
)
def test_what_would_lose_something_is_refused_and_the_others_go_on(command, malp_folder, photos, tmp_path, kind, words):
    bad = bad_image(photos, kind)
    message = protect(command, malp_folder, photos, tmp_path / "out")
    assert message.startswith("error: 1 of 4 images failed: bad.") and words in message, message
    assert (tmp_path / "out" / "sub" / "c.png").exists() and not (tmp_path / "out" / bad.name).exists()


def test_a_compressed_tiff_is_read_wherever_its_tags_lie(tmp_path):
    """The compressed pixels come first, so the tags of one of these files lie at an offset with 16 among its digits."""
    offsets = []
    for seed in range(30):
        pixels = levels(20, 20 + seed, seed)
        Image.fromarray(pixels).save(tmp_path / "a.tiff", compression="tiff_deflate")
        with Image.open(tmp_path / "a.tiff") as image:
            offsets.append(str(image.tile[0][3]))
        np.testing.assert_array_equal(ImageFile.read(tmp_path / "a.tiff").levels, pixels)
    assert any("16" in offset for offset in offsets)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "out"], "nothing at nowhere"),
        (["photos", "photos/out"], "lies in IN"),
        (["photos", "photos"], "lies in IN"),
        (["photos", "photos/a.png"], "lies in IN"),
        (["photos/a.png", "out.gif"], "a name that ends in .png"),
        (["photos", "out", "--template", "3"], "expected --template of 0 to 2"),
        (["photos", "out", "--quality", "0"], "expected --quality"),
        (["photos", "out", "--quality", "50"], "--quality 50 is that of JPEG, and no JPEG is written"),
        (["photos/a.png", "out.png", "--quality", "50"], "--quality 50 is that of JPEG, and no JPEG is written"),
        (["photos/a.png", "out.jpg", "--format", "png"], "--format png contradicts the name out.jpg; give a name that ends in .png, or leave --format out"),
        (["photos/a.png", "out.png", "--format", "jpeg"], "--format jpeg contradicts the name out.png; give a name that ends in .jpg"),
        (["photos/a.png", "out.webp", "--format", "tiff"], "--format tiff contradicts the name out.webp"),
        (["photos", "out", "--malp", "nowhere"], "no folder nowhere"),
        (["photos", "out", "--device", "abacus"], "--device abacus"),
        (["transparent.png", "out.jpg"], "JPEG has no alpha channel"),
    ],
)
def test_mistakes_end_in_a_sentence(command, malp_folder, photos, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    Image.new("RGBA", (40, 40)).save("transparent.png")
    message = command("protect", "--malp", malp_folder, *arguments)
    assert message.startswith("error: ") and words in message, message
    assert not list(tmp_path.glob("out*"))


def test_a_passive_detector_has_nothing_to_add(command, photos, tmp_path):
    from tests.tiny import tiny_malp

    tiny_malp(strength=0.0).save_pretrained(tmp_path / "passive")
    assert "no template to add" in command("protect", photos, tmp_path / "out", "--malp", tmp_path / "passive")


def test_an_image_of_black_and_white_alone_is_warned_of_without_a_check(command, malp_folder, tmp_path, capsys):
    """Half of a template of both signs is clipped there; a photograph on white keeps enough of it."""
    (tmp_path / "in").mkdir()
    bits = np.repeat(np.random.default_rng(0).integers(0, 2, (40, 56, 1), np.uint8) * 255, 3, axis=2)
    on_white = np.full((100, 100, 3), 255, np.uint8)
    on_white[:20, :20] = levels(20, 20)
    grey = np.full((40, 56, 3), 128, np.uint8)
    for name, pixels in {"bits": bits, "on_white": on_white, "grey": grey, "photo": levels()}.items():
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    Image.fromarray(bits[..., 0]).convert("1").save(tmp_path / "in" / "one_bit.png")
    assert protect(command, malp_folder, tmp_path / "in", tmp_path / "out") is None
    said = capsys.readouterr().err
    assert "warning: bits.png, one_bit.png: black and white alone, so that half of the template is clipped. MaLP may not find it there" in said
    assert "single colour" not in said, "a template that was learned doesn't depend on the image"
    assert protect(command, malp_folder, tmp_path / "in", tmp_path / "out") is None
    assert "bits.png, one_bit.png" in capsys.readouterr().err, "those of an earlier run too"
