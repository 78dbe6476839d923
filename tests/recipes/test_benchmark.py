"""The benchmark as users run it, at toy size: its files, its gaps, other localizers, resuming, and several processes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from malp_disc.commands import benchmark
from tests.recipes.test_bad_input import run as message_of
from tests.tiny import tiny_malp

SMALL = ["--image-size", 32, "--test-size", 16, "--images", 3]
LOCALIZER = """
class Brightness:
    name = "brightness"

    def localize(self, images):
        grey = (images.mean(1, keepdim=True) + 1) / 2
        return grey, grey.mean((1, 2, 3))

def make():
    return Brightness()
"""
GENERATOR = """
class Darker:
    def manipulate(self, images, target):
        images = images.clone()
        images[:, :, :10, :20] -= 0.4
        return images.clamp(-1, 1)

def make():
    return Darker()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A MaLP, a user's localizer and generator, and a suite of them."""
    folder = tmp_path_factory.mktemp("suite")
    tiny_malp(strength=0.2).save_pretrained(folder / "malp")
    tiny_malp(seed=1, strength=0.0).save_pretrained(folder / "passive")
    (folder / "my_localizer.py").write_text(LOCALIZER)
    (folder / "my_generator.py").write_text(GENERATOR)
    (folder / "suite.toml").write_text(
        f"""
        images = 3
        scaled_size = 32
        data = {{ image_size = 32, test_size = 16 }}
        localizers = [
            {{ localizer = "malp" }}, {{ localizer = "malp_dm=malp" }}, {{ localizer = "passive", name = "passive", threshold = 0.1 }},
            {{ localizer = "{folder}/my_localizer.py:make" }}
        ]
        generators = [
            {{ generator = "{folder}/my_generator.py:make", name = "darker", trained_on = true, edits = ["Smiling"] }},
            {{ generator = "{folder}/my_generator.py:make", name = "larger", image_size = 64 }},
            {{ generator = "sean", checkpoint = "sean.pth" }}
        ]
        """
    )
    return folder


@pytest.fixture(scope="module")
def finished(launch, folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    launch("benchmark.py", "--suite", folder / "suite.toml", "--output-dir", out)
    return out


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "benchmark.jsonl").read_text().splitlines()]


def test_every_localizer_is_measured_on_every_generator(finished):
    lines = lines_of(finished)
    plain = {
        (line["generator"], line["localizer"], line["attribute"], line["scale"])
        for line in lines
        if line["degradation"] is None and line["gap"] is None
    }
    names = ("malp", "malp_dm", "passive", "brightness")
    assert {("darker", name, attribute, "sc.") for name in names for attribute in (None, "Smiling")} <= plain
    assert {("larger", name, None, scale) for name in names for scale in ("sc.", "no sc.")} <= plain
    assert len(plain) == 16
    degraded = [line for line in lines if line["degradation"] is not None]
    assert {line["generator"] for line in degraded} == {"darker"} and len({(line["degradation"], line["level"]) for line in degraded}) == 29
    assert all(len(score) == 3 for line in lines for score in line["scores"].values())


def test_a_missing_checkpoint_is_a_gap_and_no_error(finished, folder):
    (gap,) = [line for line in lines_of(finished) if line["gap"] is not None]
    assert gap["generator"] == "SEAN" and gap["gap"] == f"no file {folder / 'sean.pth'}"
    assert f"- SEAN: {gap['gap']}" in (finished / "benchmark.md").read_text()


def test_a_proactive_localizer_is_measured_on_what_it_encrypted(finished):
    by_name = {
        line["localizer"]: line
        for line in lines_of(finished)
        if line["generator"] == "darker" and line["attribute"] is line["degradation"] is None
    }
    assert by_name["malp"]["family"] == "proactive" and 20 < by_name["malp"]["published_psnr"] < 50
    assert by_name["passive"]["family"] == "passive" and by_name["passive"]["published_psnr"] is None
    assert by_name["malp"]["method"] == "malp" and by_name["passive"]["method"] is None, "the paper prints nothing for a passive MaLP"
    assert by_name["malp_dm"]["scores"].keys() == {"accuracy", "eer", "auc", "average_precision", "false_images"}
    assert (by_name["passive"]["threshold"], by_name["brightness"]["threshold"]) == (0.1, 0.5)


def test_the_page_has_tables_and_figures_and_needs_no_network(finished):
    page = (finished / "benchmark.html").read_text()
    assert all(f"Table {number}" in page for number in (2, 3, 4, 6, 7)) and "paper 0.8718" in page and "Proactive against passive" in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=\"?https?:", page) and "{{" not in page
    for name in ("samples.png", "robustness.png"):
        assert min(Image.open(finished / name).size) > 200


def test_a_run_that_was_killed_goes_on_with_the_same_bytes(launch, finished, folder, tmp_path):
    """Without half of the cells and edits, with a temporary file that a killed write left."""
    out = tmp_path / "resumed"
    shutil.copytree(finished, out)
    for name in ("cells", "edits"):
        for path in sorted((out / name).iterdir())[::2]:
            path.unlink()
    (out / "benchmark.jsonl").unlink()
    left = out / "cells" / ".key.json.abcdefgh.partial.json"
    left.write_text("{")
    kept = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("[!.]*")}
    launch("benchmark.py", "--suite", folder / "suite.toml", "--output-dir", out)
    for name in ("benchmark.jsonl", "samples.png", "robustness.png"):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name
    assert {path: path.stat().st_mtime_ns for path in kept} == kept and not left.exists()
    assert {path.name for path in (out / "cells").iterdir()} == {path.name for path in (finished / "cells").iterdir()}


def test_two_processes_share_the_generators_and_agree_with_one(launch, finished, folder, tmp_path):
    launch("benchmark.py", "--suite", folder / "suite.toml", "--output-dir", tmp_path, processes=2)
    assert (tmp_path / "benchmark.jsonl").read_bytes() == (finished / "benchmark.jsonl").read_bytes()


def test_flags_name_localizers_and_generators(launch, folder, tmp_path):
    flags = [
        "--localizers",
        folder / "malp",
        f"PGD={folder / 'malp'}",
        "--generators",
        f"{folder}/my_generator.py:make",
        "cartoongan",
        "--degradations",
        "none",
    ]
    result = launch("benchmark.py", *SMALL, *flags, "--output-dir", tmp_path)
    lines = lines_of(tmp_path)
    assert [(line["generator"], line["localizer"], line["method"]) for line in lines[:2]] == [
        ("my_generator.py:make", "malp", "malp"),
        ("my_generator.py:make", "PGD", "pgd"),
    ]
    assert lines[2]["gap"] == "no checkpoint given" and "gap: cartoongan: no checkpoint given" in result.stdout
    assert not (tmp_path / "robustness.png").exists()


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--images", 1], "expected --images of at least 2, got 1"),
        (["--generators", "stargan", "stargan"], "two generators are called StarGAN in the tables"),
        (["--trained-on", "stargna"], "--trained-on stargna is none of the generators: stargan; its edits would count as unseen"),
        (["--edits", "Bald"], "StarGAN: no attribute Bald to edit; its images have Black_Hair"),
        (["--localizers", "malpp"], "no localizer 'malpp'"),
        (["--suite", "nowhere.toml"], "--suite nowhere.toml is no file"),
        (["--suite", "/"], "--suite / is a folder; give the TOML file of a suite, which docs/benchmark.md describes"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(monkeypatch, tmp_path, flags, said):
    assert said in message_of(monkeypatch, benchmark, *SMALL, *flags, "--output-dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()
