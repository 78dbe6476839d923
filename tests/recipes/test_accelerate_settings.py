"""Every setting of Accelerate's configuration is honoured or refused, and what ran is recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from malp_disc.metrics.random_features import RandomExtractor
from malp_disc.runtime.precision import full_float32, is_nondeterminism_error
from malp_disc.training.accelerate_settings import check_launcher, check_tracker, resolve_mixed_precision
from malp_disc.training.curves import Curves
from tests.recipes.conftest import TINY
from tests.recipes.in_process import ROOT, run_in_process


@pytest.mark.parametrize(
    "flag, launcher, resolved", [(None, None, "no"), (None, "no", "no"), (None, "bf16", "bf16"), ("bf16", "no", "bf16"), ("bf16", "BF16", "bf16"), ("no", None, "no")]
)
def test_the_flag_or_the_launcher_sets_the_precision(flag, launcher, resolved):
    environment = {} if launcher is None else {"ACCELERATE_MIXED_PRECISION": launcher}
    assert resolve_mixed_precision(flag, environment, cuda=False) == resolved


@pytest.mark.parametrize("flag, launcher, said", [("no", "bf16", "bf16"), ("bf16", "fp16", "fp16"), (None, "fp8", "fp8"), ("fp16", "no", "GPU"), (None, "fp16", "GPU")])
def test_a_precision_that_cannot_be_had_is_refused(flag, launcher, said):
    with pytest.raises(ValueError, match=said):
        resolve_mixed_precision(flag, {"ACCELERATE_MIXED_PRECISION": launcher}, cuda=False)


@pytest.mark.parametrize("flag, cpu, cuda, warned", [("bf16", "AVX2", False, True), ("bf16", "AVX512", False, False), ("no", "AVX2", False, False), ("bf16", "AVX2", True, False)])
def test_bf16_on_a_cpu_without_it_is_slow_and_says_so(monkeypatch, caplog, flag, cpu, cuda, warned):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    assert resolve_mixed_precision(flag, {}, cuda=cuda) == flag
    assert ("no instructions for bf16" in caplog.text) == warned


def test_fp16_is_taken_where_there_is_a_gpu():
    assert resolve_mixed_precision("fp16", {}, cuda=True) == "fp16"


@pytest.mark.parametrize(
    "variable, value",
    [
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
        ("ACCELERATE_USE_FSDP", "true"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_USE_MEGATRON_LM", "true"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_GRADIENT_CLIPPING", "1.0"),
    ],
)
def test_what_the_recipes_cannot_do_is_refused(variable, value):
    with pytest.raises(ValueError, match="Accelerate's configuration"):
        check_launcher({variable: value})


def test_a_device_that_cant_compute_is_refused():
    with pytest.raises(ValueError, match="ACCELERATE_TORCH_DEVICE names, meta"):
        check_launcher({"ACCELERATE_TORCH_DEVICE": "meta"})
    check_launcher({"ACCELERATE_TORCH_DEVICE": "cpu"})


def test_what_accelerate_sets_by_default_is_taken():
    check_launcher({"ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_FSDP": "false", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"})


@pytest.mark.parametrize("name, said", [("wandb", "isn't installed"), ("tensorbord", "out of")])
def test_a_tracker_that_is_not_there_is_an_error(monkeypatch, name, said):
    monkeypatch.setattr("malp_disc.training.accelerate_settings.get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match=said):
        check_tracker(name)


def test_features_are_taken_in_full_float32_and_the_settings_come_back(monkeypatch):
    def settings() -> tuple[object, object]:
        if hasattr(torch.backends.cudnn, "conv"):
            return torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    extractor, seen, before = RandomExtractor(), [], settings()
    features = extractor._features
    monkeypatch.setattr(extractor, "_features", lambda levels: seen.append(settings()) or features(levels))
    extractor(torch.zeros(1, 3, 32, 32))
    assert seen[0] in [("ieee", "ieee"), (False, False)]
    assert settings() == before
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert settings() == before


def test_torchs_refusal_of_a_kernel_is_told_from_other_errors():
    said = "upsample_bilinear2d_backward_out_cuda does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'."
    assert is_nondeterminism_error(RuntimeError(said)) and not is_nondeterminism_error(RuntimeError("out of memory"))


class Tracker:
    """Stands in for one of Accelerate's."""

    def __init__(self, name: str) -> None:
        self.name, self.tracker, self.logged, self.axes = name, self, [], []

    def log(self, values, step=None):
        self.logged.append((step, values))

    def define_metric(self, name, step_metric):
        self.axes.append((name, step_metric))


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_each_arm_has_curves_of_its_own_in_a_tracker(tmp_path, kind):
    class Accelerator:
        is_main_process, trackers = True, [Tracker(kind)]

    for run in ("control/seed0", "cotrain/seed0"):
        curves = Curves(tmp_path / f"{run.replace('/', '-')}.jsonl", Accelerator(), start=0, run=run)
        for step in (1, 2):
            curves.log(step, {"G/total": torch.tensor(float(step))})
    (tracker,) = Accelerator.trackers
    names = [next(iter(values)) for _, values in tracker.logged]
    assert names == ["control/seed0/G/total"] * 2 + ["cotrain/seed0/G/total"] * 2
    if kind == "wandb":  # refuses steps that go back
        assert all(step is None for step, _ in tracker.logged) and tracker.logged[2][1]["cotrain/seed0/step"] == 1
        assert tracker.axes == [("control/seed0/*", "control/seed0/step"), ("cotrain/seed0/*", "cotrain/seed0/step")]
    else:
        assert [step for step, _ in tracker.logged] == [1, 2, 1, 2]


PRETRAIN = [str(ROOT / "recipes" / "pretrain_malp.py"), *TINY, "--malp-width", "4", "--test-size", "16"]


def launcher(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "accelerate.commands.launch", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd="/", start_new_session=True)


def test_a_recipe_starts_with_a_shipped_file_and_the_launchers_precision_is_taken_and_recorded(tmp_path):
    shipped = str(ROOT / "recipes" / "accelerate" / "one_gpu.yaml")
    started = launcher("--config_file", shipped, "--mixed_precision", "bf16", *PRETRAIN, "--max-train-steps", "1", "--deterministic", "--output-dir", str(tmp_path / "run"))
    said, _ = started.communicate(timeout=300)
    assert started.returncode == 0, said[-2000:]
    environment, config = (json.loads((tmp_path / "run" / f"{name}.json").read_text()) for name in ("environment", "config"))
    assert environment["mixed_precision"] == config["mixed_precision"] == "bf16"
    assert environment["device"] == "cpu" and environment["processes"] == 1 and config["gradient_accumulation_steps"] == 1


def test_the_launchers_dynamo_is_refused_before_any_work(tmp_path, monkeypatch):
    """In the environment that `accelerate launch` gives its script."""
    script, *arguments = PRETRAIN
    asked = launch_command_parser().parse_args(["--cpu", "--dynamo_backend", "inductor", script])
    validated, *_ = _validate_launch_command(asked)
    for name, value in prepare_simple_launcher_cmd_env(validated)[1].items():
        monkeypatch.setenv(name, value)
    refused = run_in_process(Path(script), *arguments, "--output-dir", tmp_path / "compiled")
    assert refused.returncode == 1 and "dynamo_backend" in refused.stderr and "error:" in refused.stderr and not (tmp_path / "compiled").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of a POSIX system")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_training_whose_launcher_alone_is_killed_saves_and_ends(tmp_path, number):
    process = launcher("--cpu", "--num_processes", "1", "--num_machines", "1", *PRETRAIN, "--max-train-steps", "100000", "--output-dir", str(tmp_path / "run"))
    curve = tmp_path / "run" / "curves" / "malp.jsonl"
    deadline = time.monotonic() + 120
    while not (curve.exists() and curve.read_text()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert curve.exists(), "the training never began"
    process.send_signal(number)
    process.communicate(timeout=60)  # ends when the training, which holds the pipe, has ended too
    assert list((tmp_path / "run" / "malp-training").glob("checkpoint-*/*.json"))
