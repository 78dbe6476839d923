"""A stopped run goes on as if it had not been stopped, and two processes do what one does."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from malp_disc import MaLP, MaLPConfig
from tests.recipes.conftest import TINY


def test_six_steps_are_three_and_three_by_bytes(launch, stargan, tmp_path):
    shutil.copytree(stargan / "checkpoint-3", tmp_path / "checkpoint-3")
    shutil.copy(stargan / "curves.jsonl", tmp_path / "curves.jsonl")  # holds later lines too: a killed run logs past its checkpoint
    launch("train_stargan.py", *TINY, "--output-dir", tmp_path, "--max-train-steps", 6, "--conv-dim", 4, "--warmup-steps", 2, "--identity-share", 0.25,
           "--checkpointing-steps", 3, "--sample-steps", 3, "--resume-from-checkpoint", "latest")  # fmt: skip
    for name in ("G_raw.safetensors", "D.safetensors", "G_average.safetensors"):
        assert (tmp_path / "checkpoint-6" / name).read_bytes() == (stargan / "checkpoint-6" / name).read_bytes(), name
    assert (tmp_path / "curves.jsonl").read_text() == (stargan / "curves.jsonl").read_text()


def finetune(launch, stargan, malp, folder, *more, processes=1, batch=4):
    arguments = [argument for argument in TINY if argument != "4"]
    arguments.insert(arguments.index("--train-batch-size") + 1, str(batch))
    launch("finetune_stargan.py", *arguments, "--test-size", 16, "--eval-size", 16, "--reference-size", 16, "--output-dir", folder, "--max-train-steps", 4,
           "--generator-checkpoint", stargan / "G.safetensors", "--discriminator-checkpoint", stargan / "D.safetensors", "--malp", malp / "malp",
           "--checkpointing-steps", 2, "--eval-steps", 0, "--template-dropout", 0.5, *more, processes=processes)  # fmt: skip


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
    # The header of a file with metadata has no fixed order, so here the tensors are compared.
    again, once = (load_file(folder / "G-cotrain.safetensors") for folder in (tmp_path / "run", whole))
    assert again.keys() == once.keys() and all(torch.equal(again[key], once[key]) for key in once)


def test_two_processes_with_half_the_batch_do_what_one_does(launch, stargan, tmp_path):
    # Without the transformer branch: its dropout is drawn per process.
    MaLP(MaLPConfig(image_size=32, width=4, transformer=False)).save_pretrained(tmp_path / "malp")
    for name, processes, batch in (("one", 1, 4), ("two", 2, 2)):
        finetune(launch, stargan, tmp_path, tmp_path / name, "--arms", "cotrain", processes=processes, batch=batch)
    # Adam turns a gradient that is zero up to rounding into a full step, so single weights may differ; the way the network went may not.
    for name in ("G", "D"):
        before = load_file(stargan / f"{name}.safetensors")
        one, two = (load_file(tmp_path / run / "arms" / "cotrain" / "checkpoint-4" / f"{name}.safetensors") for run in ("one", "two"))
        keys = [key for key in before if before[key].is_floating_point()]
        way = torch.cat([(one[key] - before[key]).flatten() for key in keys])
        apart = torch.cat([(one[key] - two[key]).flatten() for key in keys])
        assert way.abs().max() > 3e-4, f"{name} learned nothing, so nothing was compared"
        assert apart.norm() < 0.1 * way.norm(), f"{name}: {apart.norm() / way.norm():.3f}"
