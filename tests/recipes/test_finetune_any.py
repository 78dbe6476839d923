"""`recipes/finetune.py` takes any generator: one of the zoo, one's own with its own losses, with attributes or without, with references or without."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import timm
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from generators import create_generator
from malp_disc import MaLP, MaLPConfig
from malp_disc.data.faces import ProceduralFaces
from malp_disc.experiment.arms import ArmOptions
from malp_disc.experiment.plan import make_plan
from malp_disc.training.checkpoints import save_training
from recipes import finetune
from tests.recipes.in_process import ROOT
from tests.recipes.test_bad_input import run
from tests.tiny import tiny_malp

# Features without downloaded weights, and few images.
SMALL = ["--image-size", 32, "--train-batch-size", 4, "--max-train-steps", 3, "--log-steps", 1, "--test-size", 12, "--eval-size", 12, "--reference-size", 12,
         "--extractor", "faces", "--second-extractor", "none", "--smaller-views", "--arms", "control", "cotrain", "--eval-steps", 0]  # fmt: skip


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    """Photos without labels, references, a MaLP, and a user's module with a generator and its losses."""
    folder = tmp_path_factory.mktemp("material")
    generator = torch.Generator().manual_seed(0)
    for name in ("photos", "frames"):
        (folder / name).mkdir()
        for i in range(40):
            noise = torch.rand(3, 4, 4, generator=generator)
            pixels = torch.nn.functional.interpolate(noise[None], (36, 36), mode="bilinear")[0]
            Image.fromarray((255 * pixels).byte().permute(1, 2, 0).numpy()).save(folder / name / f"{i:02d}.png")
    torch.manual_seed(0)
    MaLP(MaLPConfig(image_size=32, width=4, branch=None)).save_pretrained(folder / "malp")
    (folder / "my_generators.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "import torch\nfrom torch import nn\n"
        "from generators.example_losses import PatchAdversary\n\n"
        "class Painter(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1))\n"
        "    def manipulate(self, images, target):\n"
        "        assert target.shape == (len(images), 0)\n"
        "        return (images + 0.3 * self.net(images)).clamp(-1, 1)\n\n"
        "def make():\n    torch.manual_seed(1)\n    return Painter()\n\n"
        "def losses():\n    torch.manual_seed(2)\n    return PatchAdversary(width=4)\n\n"
        "def broken():\n    return nn.Linear(1, 1)\n"
    )
    return folder


def report_of(folder: Path) -> dict:
    report = json.loads((folder / "report.json").read_text())
    assert set(report["arms"]) == {"before", "control", "cotrain"}
    assert (folder / "samples" / "cotrain" / "000000.png").exists() and (folder / "report.html").exists()
    return report


def test_ones_own_generator_with_its_losses_and_references(launch, material, tmp_path):
    result = launch("finetune.py", *SMALL, "--generator", "my_generators:make", "--losses", "my_generators:losses", "--data", "images", "--data-root", material / "photos",
                    "--reference-root", material / "frames", "--random-crop", 24, "--malp", material / "malp", "--output-dir", tmp_path,
                    "--content-weight", 2, "--backbone", "test_efficientnet", "--backbone-weights", "random", cwd=material)  # fmt: skip
    report = report_of(tmp_path)
    assert report["arms"]["cotrain"]["edit_accuracy"] is None and "No improvement shown" in report["verdict"], result.stdout
    assert "frames test split, 12 images" in report["arms"]["cotrain"]["frechet"]["reference"], "--reference-size of them were held out"
    assert report["arms"]["cotrain"]["attributes"] == 0 and report["arms"]["cotrain"]["content"]["value"] is not None
    assert report["comparison"]["before"]["delta_vs_unedited"] is not None and "edit accuracy was not measured" not in report["verdict"]
    lines = [json.loads(line) for line in (tmp_path / "curves" / "cotrain.jsonl").read_text().splitlines()]
    assert set(lines[0]) >= {"D/real", "D/fake", "G/adversarial", "G/self_similarity", "G/malp", "MaLP/total"} and "G/keep" not in lines[0]
    tuned = {arm: load_file(tmp_path / f"G-{arm}.safetensors")["net.0.weight"] for arm in ("control", "cotrain")}
    assert not torch.equal(tuned["control"], tuned["cotrain"])


@pytest.mark.parametrize("own", [["--losses", "generators.example_losses:super_resolution"], ["--content-weight", 2, "--backbone", "test_efficientnet", "--backbone-weights", "random"]])
def test_with_losses_that_have_no_parameters_it_resumes(launch, material, tmp_path, own):
    arguments = [*SMALL, "--generator", "my_generators:make", *own, "--data", "images", "--data-root", material / "photos", "--arms", "control", "--output-dir", tmp_path]
    launch("finetune.py", *arguments, charts=False, cwd=material)
    tuned = tmp_path / "G-control.safetensors"
    before = tuned.read_bytes()
    tuned.unlink()
    launch("finetune.py", *arguments, "--resume-from-checkpoint", "latest", charts=False, cwd=material)
    assert tuned.read_bytes() == before


def test_a_malp_that_was_pretrained_with_a_backbone_of_a_file_is_found_again_by_a_resumed_run(launch, material, tmp_path):
    torch.manual_seed(4)
    torch.save(timm.create_model("test_efficientnet", pretrained=False).state_dict(), tmp_path / "own.pth")
    arguments = [*SMALL, "--generator", "my_generators:make", "--data", "images", "--data-root", material / "photos", "--arms", "frozen", "--malp-branch", "test_efficientnet",
                 "--malp-backbone-weights", tmp_path / "own.pth", "--malp-pretrain-steps", 1, "--malp-width", 4, "--output-dir", tmp_path / "run"]  # fmt: skip
    launch("finetune.py", *arguments, charts=False, cwd=material)
    launch("finetune.py", *arguments, "--resume-from-checkpoint", "latest", charts=False, cwd=material)


def test_a_generator_of_the_zoo_with_published_looking_weights(launch, material, tmp_path):
    torch.manual_seed(3)
    torch.save(create_generator("fast_srgan", n_filters=8, n_layers=1).state_dict(), tmp_path / "model.pt")
    launch("finetune.py", *SMALL, "--generator", "fast_srgan", "--generator-checkpoint", tmp_path / "model.pt", "--losses", "generators.example_losses:super_resolution",
           "--data", "images", "--data-root", material / "photos", "--malp", material / "malp", "--output-dir", tmp_path / "run", charts=False, cwd=ROOT)  # fmt: skip
    report_of(tmp_path / "run")
    loaded = create_generator("fast_srgan", tmp_path / "run" / "G-cotrain.safetensors")
    assert loaded.config == {"n_filters": 8, "n_layers": 1}


def test_without_losses_it_is_held_near_what_it_was_and_malp_is_pretrained(launch, material, tmp_path):
    said = launch("finetune.py", *SMALL, "--generator", "my_generators:make", "--data", "images", "--data-root", material / "photos", "--malp-pretrain-steps", 2,
                  "--malp-width", 4, "--output-dir", tmp_path, charts=False, cwd=material).stderr  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "curves" / "cotrain.jsonl").read_text().splitlines()]
    assert lines[0]["G/keep"] == 0 < lines[-1]["G/keep"] and "D/real" not in lines[0]
    assert (tmp_path / "malp" / "config.json").exists()
    assert "Give more --malp-pretrain-steps than 2" in said


def test_a_dry_run_tells_the_plan_and_writes_nothing(launch, material, tmp_path):
    said = launch("finetune.py", *SMALL, "--generator", "my_generators:make", "--data", "images", "--data-root", material / "photos", "--dry-run",
                  "--gradient-accumulation-steps", 3, "--output-dir", tmp_path / "run", cwd=material).stdout  # fmt: skip
    assert "step       12 images: 4 x 3 micro-batches x 1 processes" in said and "none given: 1000 steps of pretraining first" in said
    assert "arm        cotrain: seeds 0, weight of MaLP 1, 1 checkpoints of" in said and "disk       about" in said
    assert not (tmp_path / "run").exists()


def test_a_plans_disk_space_is_that_of_all_arms_and_seeds_and_of_what_a_resumed_run_has_not_written(material, tmp_path):
    dataset = ProceduralFaces(8, image_size=32)
    generator = create_generator("fast_srgan", n_filters=8, n_layers=1)
    config = ArmOptions(output_dir=tmp_path, image_size=32, arms=("control", "cotrain"), seeds=(0, 1), max_train_steps=30, checkpointing_steps=10, checkpoints_total_limit=1)
    plan = make_plan(config, generator, None, tiny_malp(), dataset, Accelerator(cpu=True))
    weights = sum(value.numel() * value.element_size() for value in generator.state_dict().values())
    assert plan.disk > 2 * 2 * 2 * 2 * weights, "2 arms x 2 seeds x 2 checkpoints of G and its average"
    for arm in ("control", "cotrain"):
        save_training(tmp_path / "arms" / arm, 30, networks={}, optimizers={}, state={})
    resumed = make_plan(dataclasses.replace(config, resume_from_checkpoint="latest"), generator, None, tiny_malp(), dataset, Accelerator(cpu=True))
    assert resumed.disk == plan.disk / 2, "seed 0 is finished"
    assert "3 checkpoints of" in plan.lines[-2] and "1 kept" in plan.lines[-2]


def test_a_dry_run_names_the_share_that_replaces_the_weight(launch, material, tmp_path):
    said = launch("finetune.py", *SMALL, "--generator", "my_generators:make", "--data", "images", "--data-root", material / "photos", "--dry-run",
                  "--gradient-share", 0.5, "--output-dir", tmp_path / "run", cwd=material).stdout  # fmt: skip
    assert "arm        cotrain: seeds 0, MaLP's gradient 0.5 of the generator's own, 1 checkpoints of" in said
    assert "arm        control: seeds 0, weight of MaLP 0, " in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--generator", "nobody"], ["unknown generator 'nobody'", "stargan"]),
        (["--generator", "my_generators"], ["stargan", "or give MODULE:FUNCTION; there is a module my_generators: name its function too, my_generators:FUNCTION"]),
        (["--generator", "cyclegan"], ["cyclegan needs --generator-checkpoint"]),
        (["--generator", "nobody:make"], ["no module 'nobody'"]),
        (["--generator", "my_generators:broken"], ["Linear without manipulate"]),
        (["--generator", "my_generators:make", "--losses", "my_generators:broken"], ["Linear; expected an nn.Module with generator_loss"]),
        (["--generator", "my_generators:make", "--generator-checkpoint", "x.pth"], ["loads its weights itself"]),
        (["--generator", "my_generators:make", "--paired"], ["--paired needs --reference-root"]),
        (["--generator", "my_generators:make", "--reference-test-size", 5], ["--reference-test-size is for an unpaired --reference-root"]),
        (["--generator", "my_generators:make", "--reference-root", "x", "--reference-split", "held-out"], ["--reference-split has no effect with --reference-root"]),
        (["--generator", "my_generators:make", "--random-crop", 64], ["--random-crop 64 is larger than the images; --image-size is 32"]),
        (["--generator", "my_generators:make", "--arms", "control", "control"], ["expected different arms"]),
        (["--generator", "my_generators:make", "--attributes", "t.csv"], ["--attributes has no effect with --data images"]),
    ],
)
def test_what_cant_be_is_told_before_any_work(monkeypatch, material, tmp_path, arguments, words):
    monkeypatch.syspath_prepend(str(material))
    message = run(monkeypatch, finetune, *SMALL, "--data", "images", "--data-root", material / "photos", "--output-dir", tmp_path / "run", *arguments)
    assert all(word in message for word in words), message


def test_a_full_disk_is_told_before_training(monkeypatch, material, tmp_path):
    monkeypatch.syspath_prepend(str(material))
    monkeypatch.setattr("malp_disc.training.checkpoints.shutil.disk_usage", lambda path: type("Usage", (), {"free": 100 * 2**20})())
    message = run(monkeypatch, finetune, *SMALL, "--generator", "my_generators:make", "--data", "images", "--data-root", material / "photos",
                  "--malp", material / "malp", "--output-dir", tmp_path / "run")  # fmt: skip
    assert "100 MiB are free" in message and "--checkpoints-total-limit" in message
    assert not list((tmp_path / "run").glob("arms/*"))
