"""The fine-tuning loop gives one result: on one process or two, in one pass or several, killed or not, whatever went wrong on the way."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from malp_disc.training.finetune import keep_best
from malp_disc.training.options import FinetuneOptions, learning_rate_factor
from tests.recipes.in_process import run_in_process
from tests.recipes.own_process import OwnProcesses

ENGINE = Path(__file__).parent / "engine.py"
ARMS = ("control", "control_2xD", "frozen", "cotrain")
DEFAULTS = ("--train-batch-size", 4, "--log-steps", 1, "--checkpointing-steps", 2, "--template-dropout", 0.5)


def start(folder: Path, *arguments: object, processes: int = 1) -> OwnProcesses:
    return OwnProcesses(
        ENGINE, *DEFAULTS, "--output-dir", folder, *arguments, processes=processes, log=folder.with_name(f"{folder.name}-{time.monotonic_ns()}.log")
    )


def run(folder: Path, *arguments: object, processes: int = 1, status: int = 0) -> str:
    """What the run printed and logged. Only several processes, or one that kills itself, are started outside this one."""
    if processes == 1 and status >= 0:
        done = run_in_process(ENGINE, *DEFAULTS, "--output-dir", folder, *arguments)
        code, said = done.returncode, done.stdout + done.stderr
    else:
        code, said = start(folder, *arguments, processes=processes).wait()
    assert code == status, said[-4000:]
    return said


def files_of(folder: Path) -> dict[str, bytes]:
    """All that a run leaves, but for its description and what a killed save left lying."""
    kept = [path for path in folder.rglob("*") if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in kept if not path.name.startswith(("config", "environment", "hashes", "run.lock", "seconds"))
    }


# --- one result, however the step is divided -----------------------------------------------------------------------------------------

# Adam turns a gradient of rounding noise into a full step, unless its epsilon is larger than that noise.
EXACT = ["--max-train-steps", 4, "--adam-epsilon", 1e-3, "--template-weight", 0.5, "--gradient-share", 0.5, "--r1-weight", 0.1, "--max-grad-norm", 1.0]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    run(folder, *EXACT, "--train-batch-size", 8, "--checkpointing-steps", 4)
    return folder


@pytest.mark.parametrize(("processes", "batch", "accumulation"), [(1, 2, 4), (2, 4, 1), (2, 2, 2)])
def test_processes_and_accumulated_passes_do_what_one_large_batch_does(one_process, tmp_path, processes, batch, accumulation):
    run(tmp_path, *EXACT, "--train-batch-size", batch, "--gradient-accumulation-steps", accumulation, "--checkpointing-steps", 4, processes=processes)
    for arm in ARMS:
        for name in ("G", "G_average", "D", *(["malp"] if arm in ("frozen", "cotrain") else [])):
            one, other = (load_file(folder / "arms" / arm / "checkpoint-4" / f"{name}.safetensors") for folder in (one_process, tmp_path))
            for key, value in one.items():
                assert torch.allclose(value, other[key], rtol=1e-5, atol=2e-6), f"{arm} {name} {key}: {(value - other[key]).abs().max()}"
        curves = [[json.loads(line) for line in (folder / "curves" / f"{arm}.jsonl").read_text().splitlines()] for folder in (one_process, tmp_path)]
        assert curves[1] == [pytest.approx(line, rel=1e-4, abs=1e-6) for line in curves[0]], arm
    if processes == 2:
        first, second = (json.loads((tmp_path / f"hashes-{rank}.json").read_text()) for rank in (0, 1))
        assert first == second and set(first) == set(ARMS)  # every parameter to the bit


def test_where_malps_update_takes_its_map_from_the_generators_the_division_of_a_step_changes_nothing_either(tmp_path):
    """Without templates the map is taken over, except with several micro-batches; with a gradient balance it is differentiated twice before."""
    exact = ["--max-train-steps", 4, "--adam-epsilon", 1e-3, "--gradient-share", 0.5, "--max-grad-norm", 1.0, "--template-dropout", 1, "--checkpointing-steps", 4, "--toy-arms", "cotrain"]
    weights = []
    for processes, batch, accumulation in ((1, 8, 1), (1, 2, 4), (2, 4, 1)):
        folder = tmp_path / f"{processes}-{batch}"
        run(folder, *exact, "--train-batch-size", batch, "--gradient-accumulation-steps", accumulation, processes=processes)
        weights.append({name: load_file(folder / "arms" / "cotrain" / "checkpoint-4" / f"{name}.safetensors") for name in ("G", "D", "malp")})
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-5, atol=2e-6)
    first, second = (json.loads((folder / f"hashes-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and first


def test_every_arm_moves_what_it_should_and_nothing_else(one_process, tmp_path):
    run(tmp_path, *EXACT, "--train-batch-size", 8, "--max-train-steps", 1, "--learning-rate", 1e-12, "--discriminator-learning-rate", 1e-12)
    begun = {arm: {name: load_file(tmp_path / "arms" / arm / "checkpoint-1" / f"{name}.safetensors") for name in ("G", "D")} for arm in ARMS}
    for arm in ARMS:
        folder = one_process / "arms" / arm / "checkpoint-4"
        moved = {
            name: {key for key, value in load_file(folder / f"{name}.safetensors").items() if (value - begun[arm][name][key]).abs().max() > 1e-6}
            for name in ("G", "D")
        }
        assert moved["G"] == {f"{layer}.{kind}" for layer in ("first", "last") for kind in ("weight", "bias")}, arm
        assert moved["D"] == {f"discriminator.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}, arm
    frozen, cotrained = (load_file(one_process / "arms" / arm / "checkpoint-4" / "malp.safetensors") for arm in ("frozen", "cotrain"))
    start = load_file(tmp_path / "arms" / "frozen" / "checkpoint-1" / "malp.safetensors")
    assert all(torch.equal(frozen[key], start[key]) for key in start)
    assert all(not torch.equal(cotrained[key], start[key]) for key in start if key != "scale")


def test_an_arm_alone_gives_what_it_gives_among_others_and_without_own_losses_it_stays_near_the_start(tmp_path, one_process):
    run(tmp_path / "alone", *EXACT, "--train-batch-size", 8, "--checkpointing-steps", 4, "--toy-arms", "cotrain")
    assert (tmp_path / "alone" / "G-cotrain.safetensors").read_bytes() == (one_process / "G-cotrain.safetensors").read_bytes()
    said = run(tmp_path / "kept", "--no-losses", "--keep-weight", 10, "--toy-arms", "cotrain", "--max-train-steps", 4, "--mixed-precision", "bf16")
    lines = [json.loads(line) for line in (tmp_path / "kept" / "curves" / "cotrain.jsonl").read_text().splitlines()]
    assert lines[0]["G/keep"] == 0 < lines[-1]["G/keep"] < 0.5 and "D/adversarial" not in lines[0], said
    assert lines[0]["G/malp"] == pytest.approx(1.0, abs=0.02), "MaLP's loss is relative to its first value"


# --- killed and resumed ----------------------------------------------------------------------------------------------------------------

LONG = ["--max-train-steps", 24, "--toy-arms", "control", "cotrain", "--augmentation", "color"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[int, dict[str, bytes]]:
    folders = {processes: tmp_path_factory.mktemp(f"undisturbed-{processes}") for processes in (1, 2)}
    for processes, folder in folders.items():
        run(folder, *LONG, processes=processes)
    return {processes: files_of(folder) for processes, folder in folders.items()}


def lines_of(folder: Path) -> int:
    """How many lines of curves there are."""
    return sum((folder / "curves" / f"{arm}.jsonl").read_text().count("\n") for arm in ARMS if (folder / "curves" / f"{arm}.jsonl").exists())


def killed_at_random(folder: Path, times: int, seed: int, processes: int) -> int:
    """Run to the end, killed by SIGKILL `times` times at random moments of its training; how often it was hit before it was done."""
    dice, hit = random.Random(seed), 0
    for _ in range(times):
        running, before = start(folder, *LONG, "--resume-from-checkpoint", "latest", processes=processes), lines_of(folder)
        while not running.ended() and lines_of(folder) in (0, before):
            time.sleep(0.01)  # until it trains
        time.sleep(dice.uniform(0, 0.4))
        if not running.ended():
            hit += 1
            running.kill()
        running.wait()
    run(folder, *LONG, "--resume-from-checkpoint", "latest", processes=processes)
    return hit


@pytest.mark.parametrize(("processes", "times"), [(1, 2), (2, 1), pytest.param(1, 12, marks=pytest.mark.slow), pytest.param(2, 8, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(undisturbed, tmp_path, processes, times):
    hit = killed_at_random(tmp_path, times, seed=times, processes=processes)
    assert hit > 0, "it was never hit, so nothing was tested"
    assert files_of(tmp_path) == undisturbed[processes]
    assert not list(tmp_path.rglob(".*")), "what killed saves left is swept away"


def test_killed_while_a_checkpoint_is_written_it_ends_with_the_same_bytes(undisturbed, tmp_path):
    run(tmp_path, *LONG, "--kill-at", 3, status=-signal.SIGKILL)
    arm = tmp_path / "arms" / "control"
    assert sorted(path.name for path in arm.glob("*checkpoint*")) == [".checkpoint-6.partial", "checkpoint-2", "checkpoint-4"]
    run(tmp_path, *LONG, "--resume-from-checkpoint", "latest")
    assert files_of(tmp_path) == undisturbed[1]
    assert not list(tmp_path.rglob(".*")), "what the killed save left is swept away"


def test_interrupted_it_saves_and_goes_on_to_the_same_bytes(undisturbed, tmp_path):
    said = run(tmp_path, *LONG, "--interrupt-at", 5, "--sample-steps", 5, status=130)
    assert "current step is finished and saved" in said and "--resume-from-checkpoint latest" in said and "Traceback" not in said
    assert (tmp_path / "arms" / "control" / "checkpoint-5").exists()
    run(tmp_path, *LONG, "--resume-from-checkpoint", tmp_path / "arms" / "control" / "checkpoint-5")
    assert files_of(tmp_path) == undisturbed[1]


def test_interrupted_in_the_last_step_of_an_arm_it_doesnt_begin_the_next(tmp_path):
    """The last step takes long where it is followed by a measurement, and a scheduler waits for seconds only."""
    flags = ["--toy-arms", "control", "cotrain", "--max-train-steps", 3]
    run(tmp_path, *flags, "--interrupt-at", 3, "--sample-steps", 3, status=130)
    assert (tmp_path / "arms" / "control" / "checkpoint-3").exists() and not (tmp_path / "arms" / "cotrain").exists()
    run(tmp_path, *flags, "--resume-from-checkpoint", "latest")
    run(tmp_path / "whole", *flags)
    for arm in ("control", "cotrain"):
        assert (tmp_path / f"G-{arm}.safetensors").read_bytes() == (tmp_path / "whole" / f"G-{arm}.safetensors").read_bytes()


def test_with_dropout_in_the_users_losses_a_resumed_run_and_an_arm_alone_still_give_the_same_bytes(tmp_path):
    flags = ["--dropout", 0.3, "--max-train-steps", 6]
    run(tmp_path / "whole", *flags, "--toy-arms", "control", "cotrain", "control_2xD")
    for arm in ("cotrain", "control_2xD"):  # the latter has a second stream of images
        alone = [*flags, "--toy-arms", arm]
        run(tmp_path / "parts", *alone, "--interrupt-at", 3, "--sample-steps", 3, status=130)
        run(tmp_path / "parts", *alone, "--resume-from-checkpoint", "latest")
        run(tmp_path / "without", *alone, "--dropout", 0)
        whole, parts, without = ((tmp_path / name / f"G-{arm}.safetensors").read_bytes() for name in ("whole", "parts", "without"))
        assert whole == parts != without


def test_another_number_of_processes_is_told_and_other_settings_are_refused(tmp_path):
    control = ["--toy-arms", "control", "--max-train-steps", 4]
    run(tmp_path, *control, "--kill-at", 2, status=-signal.SIGKILL)
    refused = run(tmp_path, *control, "--learning-rate", 1e-3, "--resume-from-checkpoint", "latest", status=1)
    assert "error: " in refused and "--learning-rate was 0.0001, is 0.001" in refused and "Traceback" not in refused
    said = run(tmp_path, *control, "--train-batch-size", 2, "--resume-from-checkpoint", "latest", processes=2)
    assert "4 images x 1 micro-batches x 1 processes, this run has 2 images x 1 micro-batches x 2 processes" in " ".join(said.split())
    assert (tmp_path / "arms" / "control" / "checkpoint-4").exists()


# --- guards ------------------------------------------------------------------------------------------------------------------------------


def test_a_nan_is_named_and_skipped_and_the_run_goes_on(tmp_path):
    said = run(tmp_path, "--toy-arms", "control", "--max-train-steps", 4, "--broken", 2)
    assert "step 2: the gradient of the generator isn't finite (G/adversarial = nan); it is skipped, 1 of at most 10" in said
    weights = load_file(tmp_path / "G-control.safetensors")
    assert all(value.isfinite().all() for value in weights.values())
    assert json.loads((tmp_path / "arms" / "control" / "checkpoint-4" / "state.json").read_text())["skipped"] == 1


def test_too_many_end_the_run_and_the_last_good_checkpoint_stays(tmp_path):
    said = run(tmp_path, "--toy-arms", "control", "--max-train-steps", 9, "--broken", 3, 4, 5, "--max-skipped-steps", 2, status=1)
    assert "error: step 5: the gradient of the generator isn't finite" in said and "which is the limit" in said and "Traceback" not in said
    kept = load_file(tmp_path / "arms" / "control" / "checkpoint-4" / "G.safetensors")
    assert all(value.isfinite().all() for value in kept.values())
    assert not (tmp_path / "G-control.safetensors").exists()


# --- the best on the way -----------------------------------------------------------------------------------------------------------------


def test_the_best_by_distance_is_kept_and_no_other(tmp_path):
    layer = torch.nn.Linear(1, 1)
    for step, (distance, weight) in enumerate([(float("inf"), 0.0), (5.0, 1.0), (3.0, 2.0), (3.0, 3.0), (4.0, 4.0)]):
        torch.nn.init.constant_(layer.weight, weight)
        keep_best(tmp_path, step, distance, layer)
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 2, "frechet": 3.0}
    assert load_file(tmp_path / "best.safetensors")["weight"] == 2.0


# --- rates and flags -----------------------------------------------------------------------------------------------------------------------


def test_rates_rise_and_fall_as_their_schedules_say():
    config = FinetuneOptions(output_dir=Path("x"), max_train_steps=12, lr_warmup_steps=2, lr_scheduler="linear", cotrain_lr_scheduler="cosine")
    assert [learning_rate_factor(config, "G", step) for step in (0, 1, 2, 7, 11)] == pytest.approx([1 / 3, 2 / 3, 1, 0.5, 0.1])
    assert [learning_rate_factor(config, "MaLP", step) for step in (2, 7)] == pytest.approx([1, 0.5])
    assert learning_rate_factor(FinetuneOptions(output_dir=Path("x")), "D", 200) == 1


@pytest.mark.parametrize(("steps", "warm_up"), [(10_000, 50), (150, 50), (90, 30), (2, 0)])
def test_by_default_the_warm_up_is_short_and_at_most_a_third_of_the_run(steps, warm_up):
    config = FinetuneOptions(output_dir=Path("x"), max_train_steps=steps)
    config.check()
    factors = [learning_rate_factor(config, "G", step) for step in range(steps)]
    assert factors[: warm_up + 1] == pytest.approx([(step + 1) / (warm_up + 1) for step in range(warm_up + 1)])
    assert set(factors[warm_up:]) == {1.0}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"learning_rate": 0.0}, "--learning-rate above 0, got 0.0"),
        ({"ema_decay": 1.0}, r"--ema-decay in \[0, 1\), got 1.0"),
        ({"gradient_share": 0.0}, "--gradient-share above 0, got 0.0; leave it out"),
        ({"augmentation": ("blur",)}, r"augmentations out of \('color', 'translation'\), got \['blur'\]"),
        ({"augmentation": ("translation",), "template_dropout": 0.5}, "use it with --template-dropout 1"),
    ],
)
def test_flags_that_cant_be_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        FinetuneOptions(output_dir=Path("x"), **flags).check()
