"""What only a GPU can show: the networks give the CPU's results there, and trainings run in every precision, resume, and share their work between GPUs.

    pytest -m gpu -n 0 tests/test_gpu.py
    MALP_DISC_TEST_DEVICE=cpu pytest -m gpu -n 0 tests/test_gpu.py      # that the tests themselves work, without a GPU
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from malp_disc import MaLPDiscriminator
from malp_disc.data.faces import ProceduralFaces
from malp_disc.inspection import inspect_levels, protect_levels
from malp_disc.keyed import KeyedMaLP
from malp_disc.keyed.config import KeyedConfig
from malp_disc.keyed.issued import Issued
from malp_disc.malp import with_pretrained_branch
from malp_disc.metrics.features import create_extractor
from malp_disc.metrics.random_features import RandomExtractor
from malp_disc.runtime.precision import full_float32
from malp_disc.training.finetune import FineTuning
from malp_disc.training.options import FinetuneOptions
from tests.recipes.engine import ToyGenerator, ToyLosses, setups_of_each_kind
from tests.tiny import sample_images, small_generator, tiny_malp, with_rectangles

pytestmark = pytest.mark.gpu
DEVICE = torch.device(os.environ.get("MALP_DISC_TEST_DEVICE", "cuda"))
ROOT = Path(__file__).resolve().parents[1]
FLAGS = "--max-train-steps 4 --train-batch-size 4 --eval-size 8 --reference-size 16 --log-steps 1 --sample-steps 4 --eval-steps 0 --smaller-views"


def finetune(folder: Path, *flags: str, processes: int = 1) -> dict[str, dict[str, float]]:
    """The last line of every arm's curves, after a short fine-tuning of the included generator."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | ({"ACCELERATE_USE_CPU": "1"} if DEVICE.type == "cpu" else {})
    command = [sys.executable, *launcher, "-m", "malp_disc", "finetune", "--output-dir", str(folder), *FLAGS.split(), *flags]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return {path.stem: json.loads(path.read_text().splitlines()[-1]) for path in (folder / "curves").glob("*.jsonl")}


def losses_and_gradients(device: torch.device, *, branch: bool) -> dict[str, torch.Tensor]:
    """What both updates of a training loop give on a device, on the CPU."""
    malp = with_pretrained_branch(tiny_malp(), "squeezenet1_0", side=64) if branch else tiny_malp(branch="vit")
    disc = MaLPDiscriminator(malp.eval() if branch else malp, trainable=True, **({} if branch else {"r1_weight": 1.0, "classifier_weight": 1.0})).to(device)
    disc.malp.eval()  # the transformer's dropout would differ
    images = sample_images(4).to(device)
    encrypted, index = disc.encrypt(images, torch.tensor([0, -1, 0, 0]))
    fake = with_rectangles(sample_images(4)).to(device).requires_grad_(True)
    told = disc.generator_loss(fake, index)
    told.total.backward()
    own = disc.discriminator_loss(images, encrypted, fake, index, features=told.features)
    own.total.backward()
    found = {"generator": told.total, "own": own.total, "image gradient": fake.grad, "encrypted": encrypted}
    found |= {name: parameter.grad for name, parameter in disc.named_parameters() if parameter.grad is not None}
    return {name: value.detach().cpu() for name, value in found.items()}


@pytest.mark.parametrize("branch", [False, True], ids=["transformer and R1", "pretrained branch"])
def test_losses_and_gradients_are_those_of_the_cpu(branch):
    torch.manual_seed(0)
    with full_float32():
        expected = losses_and_gradients(torch.device("cpu"), branch=branch)
        torch.manual_seed(0)
        found = losses_and_gradients(DEVICE, branch=branch)
    assert found.keys() == expected.keys() and len(found) > 10
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3 * float(value.abs().max()) + 1e-7, msg=lambda text, name=name: f"{name}: {text}")


def inspected(device: torch.device, kind: str) -> tuple[torch.Tensor, ...]:
    """The levels of a protected image of 90×130 pixels, and what is found in it, on the CPU."""
    torch.manual_seed(0)
    malp = KeyedMaLP(KeyedConfig(), secret=bytes(range(32))) if kind == "keyed" else tiny_malp()
    malp = malp.eval().to(device)
    levels = sample_images(1, 90, 130)[0].permute(1, 2, 0).add(1).mul(127.5).round().byte().numpy()
    protected = protect_levels(malp, levels, 0)
    found = inspect_levels(malp, protected, issued=Issued((0,)))
    return torch.from_numpy(protected).float(), torch.from_numpy(found.map / 65535), torch.tensor(found.score)


@pytest.mark.parametrize("kind", ["learned", "keyed"])
def test_protection_and_inspection_are_those_of_the_cpu(kind):
    with full_float32():
        pairs = zip(inspected(DEVICE, kind), inspected(torch.device("cpu"), kind), strict=True)
    for (found, expected), tolerance in zip(pairs, (1, 2e-3, 2e-3)):  # of levels, which may be rounded the other way
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["faces", "squeezenet-128", "random"])
def test_features_are_those_of_the_cpu(name):
    def features(device: torch.device) -> torch.Tensor:
        torch.manual_seed(0)
        return (RandomExtractor().eval().to(device) if name == "random" else create_extractor(name, device=device))(images.to(device)).cpu()

    images = sample_images(4, 64, 64)
    expected = features(torch.device("cpu"))
    assert (features(DEVICE) - expected).abs().max() < 1e-3 * expected.abs().max()


def test_a_generator_in_half_precision_gets_gradients_in_its_dtype():
    disc = MaLPDiscriminator(tiny_malp()).to(DEVICE)
    generator = small_generator().to(DEVICE)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        fake = generator(sample_images(2).to(DEVICE))
        loss = disc.generator_loss(fake, torch.zeros(2, dtype=torch.long)).total
    loss.backward()
    assert fake.dtype == torch.bfloat16 and loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0 for parameter in generator.parameters())


@pytest.mark.skipif(DEVICE.type != "cuda", reason="nothing to wait for")
@pytest.mark.parametrize("arm", ["control", "cotrain", "joint"])
def test_a_training_step_waits_for_the_gpu_a_few_times_only(arm, tmp_path):
    config = FinetuneOptions(output_dir=tmp_path, train_batch_size=2, max_train_steps=4, log_steps=10, mixed_precision="no")
    training = FineTuning(arm, setups_of_each_kind()[arm], ToyGenerator().eval(), ToyLosses(), ProceduralFaces(16, image_size=16), config, Accelerator())
    plain, waits = training.train_step, []

    def watched(number, batches, more=None):
        torch.cuda.set_sync_debug_mode("warn" if number > 2 else "default")
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            terms = plain(number, batches, more)
        torch.cuda.set_sync_debug_mode("default")
        if number > 2:
            waits.append([str(warning.message) for warning in found if "synchronizing" in str(warning.message)])
        return terms

    training.train_step = watched
    training.run()
    # G's images, the norm of each network's gradient, and the moving average's count
    assert len(waits) == 2 and all(len(found) <= 2 + len(training.networks.trained) for found in waits), waits


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory):
    return finetune(tmp_path_factory.mktemp("no"), "--arms", "control", "frozen", "cotrain", "joint")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_in_half_precision_the_curves_stay_close_to_those_in_float32(in_float32, tmp_path, precision):
    if precision == "fp16" and DEVICE.type == "cpu":
        pytest.skip("fp16 needs a GPU")
    half = finetune(tmp_path, "--arms", "control", "frozen", "cotrain", "joint", "--mixed-precision", precision)
    assert half.keys() == in_float32.keys() and len(half) == 4
    for arm, line in in_float32.items():
        assert half[arm]["step"] == line["step"]
        assert half[arm]["G/reconstruction"] == pytest.approx(line["G/reconstruction"], rel=0.1)
        assert half[arm]["G/edit_strength"] == pytest.approx(line["G/edit_strength"], rel=0.1)


def test_deterministic_it_resumes_to_the_same_bytes(tmp_path):
    flags = ("--arms", "vision_aided", "--deterministic", "--checkpointing-steps", "2", "--checkpoints-total-limit", "9")
    finetune(tmp_path / "whole", *flags)
    finetune(tmp_path / "parts", *flags)
    (tmp_path / "parts" / "G-vision_aided.safetensors").unlink()
    finetune(tmp_path / "parts", *flags, "--resume-from-checkpoint", "checkpoint-2")
    whole, parts = (load_file(tmp_path / name / "G-vision_aided.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_pretraining_resumes_on_its_device(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | ({"ACCELERATE_USE_CPU": "1"} if DEVICE.type == "cpu" else {})
    flags = "--train-batch-size 4 --checkpointing-steps 2 --mixed-precision no".split()
    for steps, more in ((4, ()), (4, ("--resume-from-checkpoint", "checkpoint-2"))):
        command = [sys.executable, "-m", "malp_disc", "pretrain", "--output-dir", str(tmp_path), "--max-train-steps", str(steps), *flags, *more]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr[-4000:]


@pytest.mark.skipif(DEVICE.type == "cuda" and torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_do_what_one_does(tmp_path):
    flags = ("--arms", "cotrain", "--mixed-precision", "no")
    alone = finetune(tmp_path / "one", *flags)["cotrain"]
    shared = finetune(tmp_path / "two", *flags, "--train-batch-size", "2", processes=2)["cotrain"]
    assert shared.keys() == alone.keys()
    for name, value in alone.items():
        assert shared[name] == pytest.approx(value, rel=2e-2, abs=1e-4), name
