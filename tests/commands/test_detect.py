"""`malp-disc detect`: verdicts at a threshold that somebody answers for."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc import MaLP
from malp_disc.commands.detect import FOUND_STATUS
from malp_disc.commands.image_file import ImageFile
from malp_disc.data.faces import draw_faces
from malp_disc.levels import quantize
from malp_disc.shipped import FACES_MALP
from malp_disc.tiling import inspect_levels, protect_levels
from tests.commands.conftest import levels
from tests.tiny import SIZE, tiny_malp


@pytest.fixture
def malp(tmp_path):
    """A folder of its own, since calibrating writes into it."""
    tiny_malp(set_size=2).save_pretrained(tmp_path / "malp")
    return tmp_path / "malp"


@pytest.fixture
def real(tmp_path):
    """Twelve originals of the training size."""
    (tmp_path / "real").mkdir()
    for seed in range(12):
        Image.fromarray(levels(SIZE, SIZE, seed=seed)).save(tmp_path / "real" / f"{seed:02}.png")
    return tmp_path / "real"


def detect(command, malp, *arguments):
    return command("detect", "--malp", malp, "--device", "cpu", *arguments)


def test_scores_and_verdicts_are_malps(command, malp, photos, capsys):
    network = MaLP.from_pretrained(malp).eval()
    expected = {name: inspect_levels(network, ImageFile.read(photos / name).levels) for name in ("a.png", "b.jpg", "sub/c.png")}
    middle = sorted(found.score for found in expected.values())[1]
    assert detect(command, malp, photos, "--threshold", middle, "--json", "-") is None
    lines = {line["file"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert sum(line["manipulated"] for line in lines.values()) == 1, "a score at the threshold isn't above it"
    for name, found in expected.items():
        assert lines[name]["score"] == pytest.approx(found.score, abs=1e-5) and lines[name]["manipulated"] == (found.score > middle)
        assert lines[name]["windows_above"] == sum(window.score > middle for window in found.windows)


def test_calibrating_keeps_the_promise_on_its_own_images_and_serves_later_runs(command, malp, real, photos, capsys):
    assert detect(command, malp, "--calibrate", real, "--false-alarm-rate", "0.2") is None
    fitted = MaLP.from_pretrained(malp).detection
    assert fitted.n == 12 and fitted.statistic == "image" and "real, protected" in fitted.images
    network = MaLP.from_pretrained(malp).eval()
    scores = [inspect_levels(network, protect_levels(network, levels(SIZE, SIZE, seed=seed), seed % 2)).score for seed in range(12)]
    assert fitted.threshold == pytest.approx(np.sort(scores)[10], abs=1e-6), "⌈13 · 0.8⌉ = 11th of 12"
    assert detect(command, malp, photos) is None
    assert "0.2 false alarms on 12 images of real, protected" in capsys.readouterr().out


def test_images_can_be_calibrated_on_as_they_are(command, malp, real):
    assert detect(command, malp, "--calibrate", real, "--calibrate-as-is", "--false-alarm-rate", "0.5") is None
    network = MaLP.from_pretrained(malp).eval()
    scores = [inspect_levels(network, levels(SIZE, SIZE, seed=seed)).score for seed in range(12)]
    assert network.detection.threshold == pytest.approx(np.sort(scores)[6], abs=1e-6)


def test_the_status_tells_of_manipulation_only_if_asked(command, malp, photos):
    assert detect(command, malp, photos, "--threshold", "0") is None
    assert detect(command, malp, photos, "--threshold", "0", "--fail-on-found") == FOUND_STATUS
    assert detect(command, malp, photos, "--threshold", "1", "--fail-on-found") is None


def test_a_small_edit_shows_in_a_window(command, malp, tmp_path, capsys, monkeypatch):
    class Pointwise(torch.nn.Module):
        def forward(self, images):
            return (images[:, :1] + 1) / 2, images.sum(1, keepdim=True)

    def load(*arguments, **options):
        network = tiny_malp(set_size=2).eval()
        network.cnn = Pointwise()
        return network

    monkeypatch.setattr("malp_disc.commands.detect.load_malp", load)
    image = protect_levels(load(), np.full((96, 128, 3), 127, np.uint8), 0)
    image[60:90, 90:120] = 127
    Image.fromarray(image).save(tmp_path / "edited.png")
    verdicts = {}
    for by in ("image", "window"):
        found = inspect_levels(load(), image)
        threshold = (found.score + found.worst.score) / 2
        detect(command, malp, tmp_path / "edited.png", "--threshold", threshold, "--by", by, "--json", "-")
        verdicts[by] = json.loads(capsys.readouterr().out)["manipulated"]
    assert verdicts == {"image": False, "window": True}


def test_a_threshold_is_not_lent_to_another_statistic(command, malp, real, photos):
    detect(command, malp, "--calibrate", real, "--false-alarm-rate", "0.5", "--by", "window")
    assert "set with --by window, and doesn't hold for --by image" in detect(command, malp, photos)
    assert detect(command, malp, photos, "--by", "window") is None


def test_a_broken_image_does_not_stop_the_others(command, malp, photos, capsys):
    (photos / "broken.png").write_text("no image")
    message = detect(command, malp, photos, "--threshold", "0.5")
    assert "1 of 4 images failed: broken.png" in message and "of 3 images manipulated" in capsys.readouterr().out


def test_a_broken_image_is_left_out_of_the_calibration_and_told_by_the_status(command, malp, real, photos, capsys):
    assert detect(command, malp, "--calibrate", real, "--false-alarm-rate", "0.2") is None
    path = malp / "detection.json"
    whole = json.loads(path.read_text())
    (real / "12.png").write_text("no image")
    for images in ([], [photos]):
        path.unlink()
        message = detect(command, malp, *images, "--calibrate", real, "--false-alarm-rate", "0.2")
        assert message.startswith("error: 1 of 13 images of --calibrate failed: 12.png: "), message
        printed = capsys.readouterr()
        assert "set on 12 images of real, protected; left out of 13 images: 1 that failed" in printed.out and "failed: 12.png" in printed.err
        assert ("of 3 images manipulated" in printed.out) == bool(images)
        assert json.loads(path.read_text()) == whole


def test_too_few_readable_images_set_no_threshold(command, malp, real):
    for name in ("03.png", "07.png"):
        (real / name).write_text("no image")
    message = detect(command, malp, "--calibrate", real, "--false-alarm-rate", "0.08")
    assert "needs at least 12 real images, got 10" in message and "2 of 12 images failed: 03.png: " in message
    assert not (malp / "detection.json").exists()


def test_a_template_that_is_not_recognised_in_the_images_is_warned_of(command, tmp_path, capsys):
    """Black and white stripes drown the template of drawn faces; once they have set the threshold, they also count as unmanipulated without it."""
    shutil.copytree(FACES_MALP, tmp_path / "faces-malp")
    faces, stripes = tmp_path / "faces", tmp_path / "stripes"
    for folder in (faces, stripes):
        folder.mkdir()
    for number, image in enumerate(quantize(draw_faces(range(12), 64)[0])):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(faces / f"{number:02}.png")
        Image.fromarray(np.tile(((np.arange(number, number + 64) // 4) % 2 * 255).astype(np.uint8), (64, 1))).save(stripes / f"{number:02}.png")
    calibrate = ("--false-alarm-rate", "0.08", "--calibrate")
    assert detect(command, tmp_path / "faces-malp", *calibrate, faces) is None
    assert "warning" not in capsys.readouterr().err
    assert detect(command, tmp_path / "faces-malp", *calibrate, stripes) is None
    said = capsys.readouterr().err
    assert f"warning: 12 of 12 images in {stripes} take too little of the template to be recognised (similarity of at most 0.2)" in said
    assert detect(command, tmp_path / "faces-malp", stripes) is None
    assert "0 of 12 images manipulated" in capsys.readouterr().out
    assert detect(command, tmp_path / "faces-malp", "--calibrate-as-is", *calibrate, faces) is None
    said = capsys.readouterr().err
    assert f"warning: 12 of 12 images in {faces} have too little of the template left" in said and "leave out --calibrate-as-is" in said


def test_a_passive_malp_has_no_template_to_recognise(command, real, tmp_path, capsys):
    tiny_malp(strength=0.0).save_pretrained(tmp_path / "passive")
    assert detect(command, tmp_path / "passive", "--calibrate", real, "--false-alarm-rate", "0.2") is None
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos", "--threshold", "nan"], "expected --threshold in [0, 1], got nan"),
        (["photos", "--threshold", "7"], "expected --threshold in [0, 1], got 7.0"),
        (["nowhere", "--threshold", "-0.1"], "expected --threshold in [0, 1], got -0.1"),
        (["photos"], "--calibrate FOLDER_OF_REAL_IMAGES"),
        ([], "nothing to do"),
        (["photos", "--calibrate-as-is"], "give --calibrate FOLDER as well"),
        (["photos", "--false-alarm-rate", "0.2", "--threshold", "0.5"], "give --calibrate FOLDER as well"),
        (["nowhere", "--threshold", "0.5"], "nothing at nowhere"),
        (["--calibrate", "photos"], "needs at least 99 real images, got 3; give a --calibrate folder with more of them, or a higher --false-alarm-rate"),
        (["--calibrate", "photos", "--false-alarm-rate", "2"], "between 0 and 1"),
        (["--calibrate", "photos", "--threshold", "0.5"], "leave one of them out"),
        (["--calibrate", "photos", "--malp", "owner/name"], "save the MaLP to a folder"),
    ],
)
def test_mistakes_end_in_a_sentence(command, malp, photos, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    message = detect(command, malp, *arguments)
    assert message.startswith("error: ") and words in message
