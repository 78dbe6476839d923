"""A stopped run of a recipe goes on as if it had not been stopped. (Processes, kills, interrupts: test_finetuning.py.)"""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.recipes.conftest import TINY


def test_six_steps_are_three_and_three_by_bytes(launch, stargan, tmp_path):
    shutil.copytree(stargan / "checkpoint-3", tmp_path / "checkpoint-3")
    shutil.copy(stargan / "curves.jsonl", tmp_path / "curves.jsonl")  # holds later lines too: a killed run logs past its checkpoint
    launch("train_stargan.py", *TINY, "--output-dir", tmp_path, "--max-train-steps", 6, "--conv-dim", 4, "--warmup-steps", 2, "--identity-share", 0.25,
           "--checkpointing-steps", 3, "--sample-steps", 3, "--resume-from-checkpoint", "latest")  # fmt: skip
    for name in ("G_raw.safetensors", "D.safetensors", "G_average.safetensors"):
        assert (tmp_path / "checkpoint-6" / name).read_bytes() == (stargan / "checkpoint-6" / name).read_bytes(), name
    assert (tmp_path / "curves.jsonl").read_text() == (stargan / "curves.jsonl").read_text()


def test_training_with_the_second_branch_resumes_to_the_same_bytes(launch, tmp_path):
    def train(folder, *more):
        launch("train_stargan.py", *TINY, "--output-dir", tmp_path / folder, "--max-train-steps", 4, "--conv-dim", 4, "--warmup-steps", 0, "--n-critic", 1,
               "--realness-weight", 1, "--backbone", "test_efficientnet", "--backbone-weights", "random", "--backbone-side", 32,
               "--checkpointing-steps", 2, "--sample-steps", 100, *more)  # fmt: skip

    train("whole")
    (tmp_path / "part").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "part" / "checkpoint-2")
    shutil.copy(tmp_path / "whole" / "curves.jsonl", tmp_path / "part" / "curves.jsonl")
    train("part", "--resume-from-checkpoint", "latest")
    for name in ("G_raw.safetensors", "D.safetensors", "branch.safetensors"):
        assert (tmp_path / "part" / "checkpoint-4" / name).read_bytes() == (tmp_path / "whole" / "checkpoint-4" / name).read_bytes(), name


def finetune(launch, stargan, malp, folder, *more, **options):
    dropout = ["--template-dropout", 0.5] if "cotrain" in more else []
    return launch("finetune_stargan.py", *TINY, "--test-size", 16, "--eval-size", 16, "--reference-size", 16, "--output-dir", folder, "--max-train-steps", 4,
           "--generator-checkpoint", stargan / "G.safetensors", "--discriminator-checkpoint", stargan / "D.safetensors", "--malp", malp / "malp",
           "--checkpointing-steps", 2, "--eval-steps", 0, *dropout, *more, charts=False, **options)  # fmt: skip


@pytest.fixture(scope="module")
def whole(launch, stargan, malp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finetune(launch, stargan, malp, folder, "--arms", "cotrain")
    return folder


def test_a_finetuning_killed_in_an_arm_goes_on_to_the_same_bytes(launch, stargan, malp, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "arms" / "cotrain" / "checkpoint-4")
    (tmp_path / "run" / "G-cotrain.safetensors").unlink()
    kept = [line for line in (tmp_path / "run" / "measurements.jsonl").read_text().splitlines() if json.loads(line)["arm"] == "before"]
    (tmp_path / "run" / "measurements.jsonl").write_text("\n".join(kept) + "\n")
    finetune(launch, stargan, malp, tmp_path / "run", "--arms", "cotrain", "--resume-from-checkpoint", "latest")
    for name in ("G.safetensors", "D.safetensors", "malp.safetensors"):
        path = f"arms/cotrain/checkpoint-4/{name}"
        assert (tmp_path / "run" / path).read_bytes() == (whole / path).read_bytes(), name
    assert (tmp_path / "run" / "G-cotrain.safetensors").read_bytes() == (whole / "G-cotrain.safetensors").read_bytes()


def test_a_finished_arm_with_other_settings_is_refused(launch, stargan, malp, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    arguments = ["--arms", "cotrain", "--resume-from-checkpoint", "latest", "--cotrain-weight", 0.5, "--reconstruction-weight", 3]
    refused = finetune(launch, stargan, malp, tmp_path / "run", *arguments, check=False)
    assert refused.returncode == 1 and "choose another --output-dir" in refused.stderr
    assert "--cotrain-weight was 1.0, is 0.5" in refused.stderr and "--reconstruction-weight was not given, is 3.0" in refused.stderr


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")  # `accelerate launch --cpu --num_processes 2` starts one process


@pytest.mark.parametrize(
    "start", [{"processes": 2}, pytest.param({"starter": TORCHRUN}, marks=pytest.mark.slow)], ids=["torchrun's environment", "torchrun"]
)
def test_the_recipe_on_two_processes_does_what_it_does_on_one(launch, stargan, malp, whole, tmp_path, start):
    """From data to report. test_finetuning.py tests how exact it is; here Adam's usual epsilon lets rounding noise grow."""
    said = finetune(launch, stargan, malp, tmp_path, "--arms", "cotrain", "--train-batch-size", 2, **start).stdout
    assert said.count("4 images: 2 x 1 micro-batches x 2 processes") == 1 and said.count("report:") == 1, "told once, by the main process"
    before = load_file(stargan / "G.safetensors")
    one, two = (load_file(folder / "G-cotrain.safetensors") for folder in (whole, tmp_path))
    keys = [key for key in before if before[key].is_floating_point()]
    way = torch.cat([(one[key] - before[key]).flatten() for key in keys])
    apart = torch.cat([(one[key] - two[key]).flatten() for key in keys])
    assert way.abs().max() > 2e-5 and apart.norm() < 0.1 * way.norm(), f"{apart.norm() / way.norm():.3f}"


def test_seeds_are_runs_of_their_own_in_one_report(launch, stargan, malp, tmp_path):
    """An interrupted run of two seeds: the first seed's arm isn't done again, the second's files lie apart, the report has both."""
    finetune(launch, stargan, malp, tmp_path, "--arms", "control")
    first = (tmp_path / "G-control.safetensors").read_bytes()
    finetune(launch, stargan, malp, tmp_path, "--arms", "control", "cotrain", "--seeds", 0, 3, "--resume-from-checkpoint", "latest")
    assert (tmp_path / "G-control.safetensors").read_bytes() == first
    assert (tmp_path / "G-control-seed3.safetensors").read_bytes() != first
    for place in ("arms/cotrain", "arms/3/cotrain"):
        assert (tmp_path / place / "checkpoint-4" / "state.json").exists()
    assert (tmp_path / "curves" / "3" / "control.jsonl").exists()
    lines = [json.loads(line) for line in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    assert {(line["arm"], line["seed"]) for line in lines} == {("before", 0), ("control", 0), ("control", 3), ("cotrain", 0), ("cotrain", 3)}
    report = json.loads((tmp_path / "report.json").read_text())
    values = [line["frechet"]["value"] for line in lines if line["arm"] == "cotrain"]
    assert report["arms"]["cotrain"]["frechet"]["value"] == pytest.approx(sum(values) / 2)
