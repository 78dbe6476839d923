"""The study of a published translation: links to both domains, and a plan; tests/recipes/test_finetune_any.py runs one like it."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from generators import create_generator
from recipes.research import horse2zebra_figure
from recipes.research.horse2zebra import DOMAINS, link_domain
from tests.recipes.test_bad_input import run as message_of

SMALL = ["--image-size", 32, "--random-crop", 24, "--train-batch-size", 2, "--max-train-steps", 1, "--test-size", 6, "--eval-size", 6, "--reference-test-size", 8,
         "--reference-size", 8, "--extractor", "faces", "--second-extractor", "none", "--malp-pretrain-steps", 1, "--malp-width", 4, "--arms", "control", "cotrain"]  # fmt: skip


@pytest.fixture
def dataset(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in sum(DOMAINS.values(), ()):
        (tmp_path / "horse2zebra" / name).mkdir(parents=True)
        for i in range(8):
            pixels = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4, generator=generator), (32, 32), mode="bilinear")[0]
            Image.fromarray((255 * pixels).byte().permute(1, 2, 0).numpy()).save(tmp_path / "horse2zebra" / name / f"{i}.png")
    return tmp_path / "horse2zebra"


def test_its_plan_trains_on_both_folders_of_a_domain_without_what_is_held_out(launch, dataset, tmp_path):
    torch.manual_seed(0)
    torch.save(create_generator("cyclegan_compressed", channels=(2, 1, 1, 1, 1, 1, 1, 2)).state_dict(), tmp_path / "latest_net_G.pth")
    said = launch("horse2zebra.py", *SMALL, "--dataset", dataset, "--generator-checkpoint", tmp_path / "latest_net_G.pth", "--domains", tmp_path / "domains",
                  "--output-dir", tmp_path / "run", "--dry-run", cwd=tmp_path).stdout  # fmt: skip
    assert "horses train split, 10 images" in said and "unpaired references of zebras (8 images)" in said
    assert "arm        cotrain: seeds 0" in said


@pytest.mark.parametrize("row", [6, -1])
def test_a_figure_names_the_rows_that_there_are(monkeypatch, dataset, tmp_path, row):
    flags = ["--run", tmp_path, "--before", tmp_path / "latest_net_G.pth", "--horses", dataset / "trainA", "--image-size", 32, "--test-size", 6, "--rows", 0, row]
    message = message_of(monkeypatch, horse2zebra_figure, *flags)
    assert f"expected --rows from 0 to 5, of the 6 held-out images of {dataset / 'trainA'}, got 0 {row}" in message


def test_a_missing_folder_is_named(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*trainC; expected --dataset to be the CycleGAN data set with trainA, testA, trainB, testB"):
        link_domain(dataset, ("trainC",), tmp_path / "domains")
    assert link_domain(dataset, ("trainA",), tmp_path / "domains") == link_domain(dataset, ("trainA",), tmp_path / "domains")


def test_a_link_that_is_right_stays_for_those_who_read_through_it(dataset, tmp_path):
    """Other processes of the launch and other commands read the images while this one starts."""
    link = link_domain(dataset, ("trainA",), tmp_path / "domains") / "trainA"
    before = link.lstat()
    link_domain(dataset, ("trainA",), tmp_path / "domains")
    assert (link.lstat().st_ino, link.lstat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    dataset.rename(tmp_path / "moved")
    link_domain(tmp_path / "moved", ("trainA",), tmp_path / "domains")
    assert link.resolve() == (tmp_path / "moved" / "trainA").resolve() and [path.name for path in link.parent.iterdir()] == ["trainA"]
