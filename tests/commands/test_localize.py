"""`malp-disc localize`: maps of full resolution, overlays that follow them, and a line of JSON per image."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from PIL import Image

from malp_disc import MaLP
from malp_disc.commands.batch import LOCK_FILE
from malp_disc.commands.image_file import ImageFile
from malp_disc.commands.overlay import overlay
from malp_disc.tiling import inspect_levels
from tests.commands.conftest import levels
from tests.tiny import tiny_malp


def localize(command, malp_folder, *arguments):
    return command("localize", "--malp", malp_folder, "--device", "cpu", *arguments)


def test_a_folder_gets_maps_overlays_and_lines(command, malp_folder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert localize(command, malp_folder, photos, out) is None
    lines = [json.loads(line) for line in (out / "localize.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["a.png", "b.jpg", "sub/c.png"]
    malp = MaLP.from_pretrained(malp_folder).eval()
    for line in lines:
        found = inspect_levels(malp, ImageFile.read(photos / line["file"]).levels)
        with Image.open(out / f"{line['file']}.map.png") as image:
            assert image.mode == "I;16" and image.size == (56, 40)
            np.testing.assert_array_equal(np.asarray(image), found.map)
        assert line["score"] == pytest.approx(found.score, abs=1e-5) and line["similarity"] == pytest.approx(found.similarity, abs=1e-5)
        assert line["changed_share"] == pytest.approx((found.map / 65535 > 0.03).mean(), abs=1e-5)
        assert line["windows"] == 4 and line["worst_window"]["score"] >= line["score"]
        with Image.open(out / line["overlay"]) as image:
            assert image.size == (56, 40) and image.mode == "RGB"
    assert "sub/c.png: P(manipulated)" in capsys.readouterr().out


def test_a_repeated_run_does_only_what_is_missing(command, malp_folder, photos, tmp_path, capsys):
    out = tmp_path / "out"
    localize(command, malp_folder, photos, out)
    (out / "a.png.overlay.png").unlink()
    assert localize(command, malp_folder, photos, out) is None
    assert "3 images localized (2 of them in an earlier run)" in capsys.readouterr().out
    assert localize(command, malp_folder, photos, out) is None
    assert "3 images localized (3 of them in an earlier run)" in capsys.readouterr().out
    assert "other settings" in localize(command, malp_folder, photos, out, "--changed-above", "0.2")


def test_a_run_killed_between_map_and_overlay_goes_on(command, malp_folder, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:  # as SIGKILL: nothing is cleaned up
        patch.setattr("malp_disc.commands.image_file.ImageFile.save", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr("malp_disc.commands.manifest.Manifest.end", lambda self: None)
        patch.setattr("malp_disc.commands.batch._removed_on_failure", lambda paths: contextlib.nullcontext())
        assert localize(command, malp_folder, photos, out) == 130
    assert (out / "a.png.map.png").exists() and not (out / "a.png.overlay.png").exists()
    assert localize(command, malp_folder, photos, out) is None
    assert "3 images localized; " in capsys.readouterr().out and not {path.name for path in out.glob(".*")} - {LOCK_FILE}


def test_ctrl_c_between_map_and_overlay_leaves_neither(command, malp_folder, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("malp_disc.commands.image_file.ImageFile.save", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    assert localize(command, malp_folder, photos, tmp_path / "out") == 130
    assert {path.name for path in (tmp_path / "out").rglob("*")} <= {LOCK_FILE}


def test_json_on_standard_output_is_nothing_but_json(command, malp_folder, photos, tmp_path, capsys):
    assert localize(command, malp_folder, photos, tmp_path / "out", "--json", "-") is None
    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == ["a.png", "b.jpg", "sub/c.png"]


def test_a_passive_detector_has_no_similarity(command, photos, tmp_path):
    tiny_malp(strength=0.0).save_pretrained(tmp_path / "passive")
    assert localize(command, tmp_path / "passive", photos / "a.png", tmp_path / "out") is None
    assert json.loads((tmp_path / "out" / "localize.jsonl").read_text())["similarity"] is None


def test_an_overlay_is_grey_where_nothing_changed_and_coloured_where_something_did():
    image, fakeness = levels(300, 20), np.zeros((300, 20), np.uint16)
    fakeness[270:, 10:] = 65535 // 2
    page = overlay(image, fakeness, full=0.5)
    untouched = page[:270]
    assert (untouched == untouched[..., :1]).all() and np.abs(untouched[..., 0] - image[:270] @ [0.299, 0.587, 0.114]).max() <= 1
    assert (page[270:, 10:].max(-1) - page[270:, 10:].min(-1)).min() > 50


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "out"], "nothing at nowhere"),
        (["photos", "photos/maps"], "lies in IN"),
        (["photos/a.png", "photos/b.jpg"], "is a file"),
        (["photos", "out", "--changed-above", "1"], "--changed-above"),
        (["photos", "out", "--overlay-full", "0"], "--overlay-full"),
    ],
)
def test_mistakes_end_in_a_sentence(command, malp_folder, photos, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    message = localize(command, malp_folder, *arguments)
    assert message.startswith("error: ") and words in message and not (tmp_path / "out").exists()
