"""protect, localize and detect with keyed templates: image files of any size, crops, and images of somebody else."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from malp_disc.commands import calibrating
from malp_disc.inspection import arrivals, inspect_levels, protect_levels
from malp_disc.keyed import KeyedConfig, KeyedMaLP, saving
from malp_disc.keyed.issued import Issued
from malp_disc.keyed.secret import save_secret
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


@pytest.fixture
def own(command, keyed_folder, tmp_path):
    """A folder with a key of its own."""
    assert command("key", tmp_path / "own", "--malp", keyed_folder) is None
    return tmp_path / "own"


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines_of(path, number: int) -> str:
    return path.read_text().splitlines(keepends=True)[number]


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


def test_the_map_is_the_probability_of_an_edited_region_at_the_images_size(command, own, photos, tmp_path):
    assert command("protect", photos, tmp_path / "out", "--malp", own) is None
    assert command("localize", tmp_path / "out", tmp_path / "maps", "--malp", own) is None
    found = np.array(Image.open(tmp_path / "maps" / "2.png.map.png"))
    assert found.shape == (150, 200)
    image = torch.from_numpy(np.array(Image.open(tmp_path / "out" / "2.png"))).permute(2, 0, 1)[None].float() / 127.5 - 1
    expected = KeyedMaLP.from_pretrained(own).eval()(image, lines(own / "issued.jsonl")[2]["template"]).edited[0, 0].detach().numpy()
    np.testing.assert_allclose(found / 65535, expected, atol=1e-4)


def test_what_was_never_protected_is_called_so_by_localize_too(command, own, photos, tmp_path, capsys):
    assert command("protect", photos / "0.png", photos / "own.png", "--malp", own) is None
    capsys.readouterr()
    assert command("localize", photos, tmp_path / "maps", "--malp", own) is None
    printed = capsys.readouterr().out.splitlines()
    for line in printed[:3]:
        assert line[1:].startswith(".png: not protected with this key, or no template left, P(manipulated) ") and "changed" not in line
    assert printed[3].startswith("own.png: P(manipulated) ") and printed[3].endswith(" of the pixels changed, protected as 0.png")
    assert printed[0].endswith(", resembles 0.png"), "the original of the protected one"
    assert printed[5] == "3 of 4 images not protected with this key, or without any of its template left (1 of them resembles an image that was); their maps mean nothing"


def test_no_template_is_given_out_twice(command, keyed_folder, photos, tmp_path, own):
    assert command("protect", photos, tmp_path / "out", "--malp", own) is None
    assert command("protect", photos, tmp_path / "out", "--malp", own) is None  # finished: none is issued
    assert command("protect", photos, tmp_path / "out", "--malp", own, "--overwrite") is None
    issued = lines(own / "issued.jsonl")
    assert [line["file"] for line in issued] == [f"{i % 3}.png" for i in range(6)] and len({line["template"] for line in issued}) == 6
    assert [record["template"] for record in lines(tmp_path / "out" / "protect.jsonl")[-3:]] == [line["template"] for line in issued[3:]]
    Image.new("RGB", (40, 40), (90, 120, 60)).save(photos / "small.png")  # refused, and so not issued
    assert command("protect", photos / "small.png", tmp_path / "small.png", "--malp", own) is not None and len(lines(own / "issued.jsonl")) == 6
    assert "gives every image a template of its own" in str(command("protect", photos, tmp_path / "other", "--malp", own, "--template", 1))


def test_the_original_of_an_image_is_named(command, photos, tmp_path, own, capsys):
    assert command("protect", photos, tmp_path / "out", "--malp", own) is None
    Image.open(tmp_path / "out" / "1.png").save(tmp_path / "found.png")
    capsys.readouterr()
    assert command("detect", tmp_path / "found.png", "--malp", own, "--threshold", 0.99, "--json", "-") is None
    record = json.loads(capsys.readouterr().out)
    assert record["protected"] and record["original"] == record["resembles"] == "1.png" and record["tried"] == 3
    assert record["template"] == lines(own / "issued.jsonl")[1]["template"]
    assert command("detect", photos / "1.png", "--malp", own, "--threshold", 0.99) is None
    printed = capsys.readouterr().out
    assert "1.png: not protected with this key, or no template left, P(manipulated) " in printed and printed.splitlines()[0].endswith(", resembles 1.png")
    assert "1 of 1 image not protected with this key, or without any of its template left (1 of them resembles an image that was)" in printed


def test_templates_are_looked_for_among_those_that_were_issued(command, photos, tmp_path, own):
    found, out = tmp_path / "found.jsonl", tmp_path / "out"
    assert "there is no list of the templates that were issued with this key" in str(command("detect", photos, "--malp", own, "--threshold", 0.5))
    assert command("protect", photos, out, "--malp", own) is None
    (own / "issued.jsonl").rename(tmp_path / "kept.jsonl")
    assert "as --issued FILE" in str(command("localize", out, tmp_path / "maps", "--malp", own))
    for listed in (tmp_path / "kept.jsonl", out / "protect.jsonl"):
        assert command("detect", out, "--malp", own, "--threshold", 0.99, "--issued", listed, "--json", found) is None
        assert [(record["protected"], record["original"], record["resembles"]) for record in lines(found)] == [(True, f"{i}.png", f"{i}.png") for i in range(3)]
    (tmp_path / "one.jsonl").write_text(lines_of(tmp_path / "kept.jsonl", 1))
    assert command("detect", out, "--malp", own, "--threshold", 0.99, "--issued", tmp_path / "one.jsonl", "--json", found) is None
    assert [record["protected"] for record in lines(found)] == [False, True, False]
    (tmp_path / "empty.jsonl").write_text("{}\n")
    assert "lists no template" in str(command("detect", out, "--malp", own, "--threshold", 0.5, "--issued", tmp_path / "empty.jsonl"))


def test_learned_templates_have_no_list(command, malp_folder, photos, tmp_path):
    (tmp_path / "list.jsonl").write_text("")
    assert "has learned ones, which are all tried; leave it out" in str(command("detect", photos, "--malp", malp_folder, "--threshold", 0.5, "--issued", tmp_path / "list.jsonl"))


def test_images_without_a_template_are_localized_again_when_others_were_issued(command, photos, tmp_path, own):
    assert command("protect", photos / "0.png", tmp_path / "0.png", "--malp", own) is None
    assert command("protect", photos / "1.png", tmp_path / "seen.png", "--malp", own) is None
    rest = (own / "issued.jsonl").read_text().splitlines(keepends=True)
    (own / "issued.jsonl").write_text(rest[0])
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen.png").rename(tmp_path / "seen" / "seen.png")
    (tmp_path / "0.png").rename(tmp_path / "seen" / "0.png")
    for expected in ([True, False], [True, True]):
        assert command("localize", tmp_path / "seen", tmp_path / "maps", "--malp", own, "--json", tmp_path / "found.jsonl") is None
        assert [record["protected"] for record in lines(tmp_path / "found.jsonl")] == expected
        (own / "issued.jsonl").write_text("".join(rest))
    assert command("key", tmp_path / "other", "--malp", own) is None
    assert "lists templates of the key" in str(command("localize", tmp_path / "seen", tmp_path / "maps2", "--malp", tmp_path / "other", "--issued", own / "issued.jsonl"))


def test_maps_of_a_former_version_are_made_anew(command, photos, tmp_path, own):
    """It knew no mirrored images, no stretched ones and no changes of tone, and said that these weren't protected, or were edited."""
    assert command("protect", photos, tmp_path / "out", "--malp", own) is None
    (tmp_path / "seen").mkdir()
    Image.open(tmp_path / "out" / "0.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "seen" / "0.png")
    assert command("localize", tmp_path / "seen", tmp_path / "maps", "--malp", own) is None
    (now,) = lines(tmp_path / "maps" / "localize.jsonl")
    assert now["protected"] and now["mirrored"]
    former = {name: value for name, value in now.items() if name not in ("mirrored", "stretched", "tone")} | {"protected": False, "original": None}
    for record in (former, former | {"protected": True}):
        (tmp_path / "maps" / "localize.jsonl").write_text(json.dumps(record) + "\n")
        (tmp_path / "maps" / "0.png.map.png").write_bytes(b"of the former version")
        assert command("localize", tmp_path / "seen", tmp_path / "maps", "--malp", own, "--json", tmp_path / "found.jsonl") is None
        assert lines(tmp_path / "found.jsonl") == [now]
        assert Image.open(tmp_path / "maps" / "0.png.map.png").size == (128, 128)


def test_a_key_that_cannot_be_saved_leaves_nothing_in_the_way_of_the_next_try(command, keyed_folder, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_tensors", full)
        assert command("key", tmp_path / "own", "--malp", keyed_folder) == "error: No space left on device: model.safetensors"
    assert not list((tmp_path / "own").iterdir())
    assert command("key", tmp_path / "own", "--malp", keyed_folder) is None


def test_a_keyed_malp_isnt_exported_and_its_key_isnt_asked_for(command, keyed_folder, tmp_path):
    published = tmp_path / "published"
    published.mkdir()
    for name in ("config.json", "model.safetensors"):
        (published / name).write_bytes((keyed_folder / name).read_bytes())
    assert "is a MaLP of the preset survive, whose detector needs the template of every image and can't be exported" in command("export", published, tmp_path / "m.onnx")


def test_a_published_detector_gets_a_key_of_ones_own(command, keyed_folder, photos, tmp_path, capsys):
    published = tmp_path / "published"
    published.mkdir()
    for name in ("model.safetensors", "config.json"):
        (published / name).write_bytes((keyed_folder / name).read_bytes())
    assert "malp-disc key OUT" in str(command("protect", photos, tmp_path / "out", "--malp", published))
    assert command("key", tmp_path / "own", "--malp", published) is None
    own = KeyedMaLP.from_pretrained(tmp_path / "own")
    assert own.key_fingerprint in capsys.readouterr().out
    assert own.secret != KeyedMaLP.from_pretrained(keyed_folder).secret
    assert command("protect", photos, tmp_path / "protected", "--malp", tmp_path / "own") is None
    for folder, protected in ((tmp_path / "own", True), (keyed_folder, False)):
        assert command("detect", tmp_path / "protected", "--malp", folder, "--threshold", 0.99, "--json", tmp_path / "found.jsonl") is None
        assert [record["protected"] for record in lines(tmp_path / "found.jsonl")] == [protected] * 3


def test_a_key_is_never_replaced_and_belongs_to_keyed_templates(command, keyed_folder, malp_folder, tmp_path):
    assert command("key", tmp_path / "own", "--malp", keyed_folder) is None
    key = (tmp_path / "own" / "secret.safetensors").read_bytes()
    assert "exists already; give a new folder" in str(command("key", tmp_path / "own", "--malp", keyed_folder))
    assert (tmp_path / "own" / "secret.safetensors").read_bytes() == key
    assert "is not a MaLP with keyed templates" in str(command("key", tmp_path / "other", "--malp", malp_folder))
    assert not (tmp_path / "other").exists()


def test_images_too_small_for_the_grid_are_not_protected(command, keyed_folder, tmp_path):
    (tmp_path / "in").mkdir()
    for side in (48, 80):
        Image.new("RGB", (side, side), (90, 120, 60)).save(tmp_path / "in" / f"{side}.png")
    assert command("protect", tmp_path / "in", tmp_path / "out", "--malp", keyed_folder) is not None
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["80.png"]


def test_the_reference_grid_is_chosen_with_the_key(command, keyed_folder, tmp_path):
    assert command("key", tmp_path / "own", "--malp", keyed_folder, "--reference-size", 192) is None
    assert KeyedMaLP.from_pretrained(tmp_path / "own").config == KeyedConfig(image_size=192, width=4)
    assert "reference grid of at least 32 pixels, got 8" in str(command("key", tmp_path / "small", "--malp", keyed_folder, "--reference-size", 8))
    assert not (tmp_path / "small").exists()


def test_a_keyed_malp_is_found_on_the_hub(command, keyed_folder, photos, tmp_path, monkeypatch):
    def download(repo_id: str, filename: str = "", **_: object) -> str:
        assert repo_id == "owner/survive"
        return str(keyed_folder / filename)

    for module in ("huggingface_hub.hub_mixin", "malp_disc.hub"):
        monkeypatch.setattr(f"{module}.hf_hub_download", download)
    assert command("protect", photos, tmp_path / "protected", "--malp", "owner/survive", "--key", keyed_folder / "secret.safetensors") is None
    assert len(lines(tmp_path / "protected" / "protect.jsonl")) == 3
    assert command("key", tmp_path / "own", "--malp", "owner/survive") is None


def test_the_threshold_also_holds_for_images_that_were_degraded(command, keyed_folder, photos, tmp_path):
    folder = tmp_path / "own"
    assert command("key", folder, "--malp", keyed_folder) is None
    assert command("detect", "--calibrate", photos, "--false-alarm-rate", 0.3, "--malp", folder) is None
    found = json.loads((folder / "detection.json").read_text())
    assert found["images"] == "images of photos, protected, as they are and degraded"
    malp = KeyedMaLP.from_pretrained(folder).eval()
    scores = [[inspect_levels(malp, kind, with_map=False, issued=calibrating._own(malp, np.array(Image.open(path)), number)).score for kind in arrivals(malp, protect_levels(malp, np.array(Image.open(path)), number), number)] for number, path in enumerate(sorted(photos.iterdir()))]
    assert found["threshold"] == pytest.approx(max(max(kind) for kind in zip(*scores)), abs=1e-6)
    assert any(untouched != degraded for untouched, degraded in scores)


def test_copies_that_lost_their_template_dont_raise_the_threshold(command, keyed_folder, photos, tmp_path, monkeypatch):
    """detect never calls them manipulated, so their high scores raise no alarm."""
    folder, untouched = tmp_path / "own", []

    def lost(malp, levels, number):
        untouched.append(inspect_levels(malp, levels, issued=Issued((number,))).score)
        white = np.full_like(levels, 255)
        assert inspect_levels(malp, white, issued=Issued((number,))).score > untouched[-1]
        return [levels, white]

    monkeypatch.setattr(calibrating, "arrivals", lost)
    assert command("key", folder, "--malp", keyed_folder) is None
    assert command("detect", "--calibrate", photos, "--false-alarm-rate", 0.3, "--malp", folder) is None
    assert KeyedMaLP.from_pretrained(folder).detection.threshold == pytest.approx(max(untouched), abs=1e-6)


@pytest.fixture(scope="module")
def twenty(command, keyed_folder, tmp_path_factory):
    """A folder with a key of its own, and twenty images that are protected with it. Nobody may write to it."""
    folder = tmp_path_factory.mktemp("twenty")
    (folder / "originals").mkdir()
    for i in range(20):
        image = natural_images(1, 96, 96, seed=i)[0]
        Image.fromarray(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(folder / "originals" / f"{i:02}.png")
    assert command("key", folder / "own", "--malp", keyed_folder) is None
    assert command("protect", folder / "originals", folder / "protected", "--malp", folder / "own") is None
    (folder / "protected" / "protect.jsonl").unlink()
    return folder


@pytest.fixture
def many(twenty, tmp_path):
    """A copy of it."""
    return shutil.copytree(twenty, tmp_path, dirs_exist_ok=True)


def test_no_threshold_is_set_on_images_that_are_not_protected_with_this_key(command, keyed_folder, many, photos):
    calibrate = ("detect", "--calibrate-as-is", "--false-alarm-rate", 0.3, "--malp", many / "own")
    before = KeyedMaLP.from_pretrained(many / "own").key_fingerprint
    message = command(*calibrate, "--calibrate", photos)
    assert f"3 of 3 images in {photos} aren't protected with this key ({before})" in message and "leave out --calibrate-as-is" in message
    (many / "few").mkdir()
    for name in ("00.png", "01.png", "02.png"):
        (many / "few" / name).write_bytes((many / "protected" / name).read_bytes())
    stranger = command(*calibrate, "--calibrate", many / "few", "--key", keyed_folder / "secret.safetensors")
    assert "3 of 3 images" in stranger and KeyedMaLP.from_pretrained(keyed_folder).key_fingerprint in stranger
    for name in ("03.png", "07.png"):
        (many / "protected" / name).write_bytes((many / "originals" / name).read_bytes())
    assert "2 of 20 images" in command(*calibrate, "--calibrate", many / "protected")
    assert not (many / "own" / "detection.json").exists()


def test_one_unprotected_image_in_twenty_does_not_move_the_threshold(command, many, capsys):
    (many / "protected" / "03.png").write_bytes((many / "originals" / "03.png").read_bytes())
    assert command("detect", "--calibrate", many / "protected", "--calibrate-as-is", "--false-alarm-rate", 0.05, "--malp", many / "own") is None
    assert "set on 19 images of protected, as they are; left out of 20 images: 1 not protected with this key" in capsys.readouterr().out
    malp, issued = KeyedMaLP.from_pretrained(many / "own").eval(), Issued.read(many / "own" / "issued.jsonl")
    scores = [inspect_levels(malp, np.array(Image.open(path)), with_map=False, issued=issued).score for path in sorted((many / "protected").glob("*.png")) if path.name != "03.png"]
    assert malp.detection.threshold == pytest.approx(max(scores), abs=1e-6) and malp.detection.n == 19


def test_images_that_take_no_template_set_no_threshold_either(command, many, tmp_path):
    (tmp_path / "black").mkdir()
    for i in range(3):
        Image.new("RGB", (96, 96)).save(tmp_path / "black" / f"{i}.png")
    message = command("detect", "--calibrate", tmp_path / "black", "--false-alarm-rate", 0.3, "--malp", many / "own")
    assert "3 of 3 images" in message and "take too little of the template" in message and not (many / "own" / "detection.json").exists()


def test_a_detector_that_needs_the_template_of_every_image_is_not_exported(command, keyed_folder, tmp_path):
    assert "preset survive" in str(command("export", keyed_folder, tmp_path / "model.onnx")) and not (tmp_path / "model.onnx").exists()


def test_another_owners_key_has_a_threshold_of_its_own(command, keyed_folder, photos, tmp_path):
    own, theirs = tmp_path / "own", tmp_path / "theirs"
    for folder in (own, theirs):
        assert command("key", folder, "--malp", keyed_folder) is None
    calibrate = ("detect", "--calibrate", photos, "--false-alarm-rate", 0.3, "--malp", own)
    assert command(*calibrate) is None
    before = (own / "detection.json").read_bytes()
    assert command(*calibrate, "--key", theirs / "secret.safetensors") is None
    assert (own / "detection.json").read_bytes() == before
    detections = [KeyedMaLP.from_pretrained(own, key=key).detection for key in (None, theirs / "secret.safetensors")]
    assert all(detections) and detections[0] != detections[1], "each finds its own"


def test_the_same_key_with_another_grid_is_another_protection(command, keyed_folder, photos, tmp_path):
    assert command("key", tmp_path / "fine", "--malp", keyed_folder, "--reference-size", 64) is None
    key = tmp_path / "fine" / "secret.safetensors"
    assert "reference grid of 64x64" in str(command("protect", photos, tmp_path / "out", "--malp", keyed_folder, "--key", key))
    save_secret(key, b"k" * 32)  # as earlier versions wrote it, without the grid
    assert command("protect", photos, tmp_path / "out", "--malp", keyed_folder, "--key", key) is None
    assert command("protect", photos, tmp_path / "out", "--malp", tmp_path / "fine") is not None, "the files there have another template"


def test_an_image_of_one_colour_is_warned_of(command, own, tmp_path, capsys):
    Image.new("RGB", (64, 64), (200, 30, 40)).save(tmp_path / "red.png")
    assert command("protect", tmp_path / "red.png", tmp_path / "out.png", "--malp", own, "--device", "cpu") is None
    assert "out.png: a single colour, from which no template follows. MaLP may not find it there" in capsys.readouterr().err
