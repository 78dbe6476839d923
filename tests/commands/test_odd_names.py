"""Image files whose names aren't UTF-8, or hold characters that some readers take for line ends: their results are written and found again."""

from __future__ import annotations

import json
import os

import pytest
from PIL import Image

from malp_disc.commands.manifest import Manifest
from malp_disc.serialization.files import write_json
from tests.commands.conftest import levels

ODD = (os.fsdecode(b"caf\xe9.png"), "line\u2028separator.png", "next\x85line.png", "new\nline.png", "日本.png")


@pytest.fixture
def odd_photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate(ODD):
        Image.fromarray(levels(seed=seed)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_protect_and_localize_finish_them_once(command, malp_folder, odd_photos, tmp_path, capsys):
    for name, suffix in (("protect", ""), ("localize", ".map.png")):
        out = tmp_path / name
        for finished in (0, len(ODD)):
            found = tmp_path / "found.jsonl"
            assert command(name, odd_photos, out, "--malp", malp_folder, "--device", "cpu", "--json", found) is None
            assert ("5 of them in an earlier run" in capsys.readouterr().out) == bool(finished)
            assert {line["file"] for line in lines(found.read_text("ascii"))} == set(ODD)
        assert len(lines((out / f"{name}.jsonl").read_text("ascii"))) == len(ODD)
        assert all((out / f"{image}{suffix}").is_file() for image in ODD)


def test_detect_prints_them_as_ascii(command, malp_folder, odd_photos, capsys):
    assert command("detect", odd_photos, "--malp", malp_folder, "--device", "cpu", "--threshold", 0.5, "--json", "-") is None
    printed = capsys.readouterr().out
    assert printed.isascii() and {line["file"] for line in lines(printed)} == set(ODD)


def test_a_calibration_names_a_folder_that_is_not_utf_8(command, odd_photos, tmp_path):
    from tests.tiny import tiny_malp

    tiny_malp().save_pretrained(tmp_path / "malp")
    folder = odd_photos.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    assert command("detect", "--calibrate", folder, "--false-alarm-rate", 0.5, "--malp", tmp_path / "malp", "--device", "cpu") is None
    assert "images of caf" in json.loads((tmp_path / "malp" / "detection.json").read_text("utf-8"))["images"]


def test_json_keeps_names_that_are_not_utf_8_and_readable_those_that_are(tmp_path):
    write_json(tmp_path / "a.json", list(ODD))
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text) == list(ODD) and "日本" in text


def test_lines_of_an_earlier_version_are_read_and_a_character_cut_in_half_is_passed_over(tmp_path):
    path = tmp_path / "m.jsonl"
    whole = "".join(json.dumps({"file": name}, ensure_ascii=False) + "\n" for name in ODD[1:])
    path.write_bytes((whole + '{"file": "é').encode()[:-1])
    manifest = Manifest(path)
    assert set(manifest.records) == set(ODD[1:])
    manifest.append({"file": "z"})
    assert set(Manifest(path).records) == {*ODD[1:], "z"}


def test_an_image_whose_line_cannot_be_written_leaves_no_output_and_is_done_again(command, malp_folder, photos, tmp_path, monkeypatch):
    append = Manifest.append

    def refuse(self, record):
        if record["file"] == "b.jpg":
            raise PermissionError(13, "Permission denied", str(self.path))
        append(self, record)

    monkeypatch.setattr(Manifest, "append", refuse)
    call = ("protect", photos, tmp_path / "out", "--malp", malp_folder, "--device", "cpu")
    assert "1 of 3 images failed: b.jpg" in command(*call)
    assert not (tmp_path / "out" / "b.png").exists() and (tmp_path / "out" / "a.png").exists()
    monkeypatch.setattr(Manifest, "append", append)
    assert command(*call) is None and (tmp_path / "out" / "b.png").exists()


def test_a_line_that_was_written_in_part_spoils_neither_itself_nor_the_next(tmp_path, monkeypatch):
    manifest = Manifest(tmp_path / "m.jsonl")
    manifest.append({"file": "a"})

    def full(*arguments, **options):
        (tmp_path / "m.jsonl").open("a").write('{"file": "b')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", full)
        with pytest.raises(OSError, match="No space"):
            manifest.append({"file": "b"})
    assert set(manifest.records) == {"a"}
    manifest.append({"file": "c"})
    assert set(Manifest(tmp_path / "m.jsonl").records) == {"a", "c"}
