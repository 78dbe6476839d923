"""One folder holds one experiment, one run at a time, and what can't be is said before any work: no training here."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import nn
from torchvision.models import squeezenet1_0

from malp_disc.data import DataOptions
from malp_disc.data.faces import ProceduralFaces
from malp_disc.evaluation.evaluation_models import EvaluationOptions
from malp_disc.evaluation.evaluator import evaluation_sets
from malp_disc.experiment.arms import ArmOptions
from malp_disc.run_folder.experiment import arms_of, content_of, differences, experiment_of, not_compared, role_of, training_settings
from malp_disc.run_folder.lock import LOCK_FILE, is_locked, lock_folder, release_locks
from malp_disc.shipped import FACES_GENERATOR, FACES_MALP
from malp_disc.training.checkpoints import save_training
from malp_disc.training.launch import check_images_per_step, open_folder
from malp_disc.training.options import FinetuneOptions
from malp_disc.training.output_folder import PREVIOUS, check_folder, find_resume, set_aside, write_experiment
from malp_disc.training.preflight import check_forward_pass
from malp_disc.training.train_options import TrainOptions
from recipes import evaluate, finetune, finetune_stargan, pretrain_malp, train_stargan
from recipes.research import ablate_malp, probe_malp, search_finetuning
from tests.recipes.test_bad_input import run as message_of
from tests.tiny import tiny_malp


@dataclass(kw_only=True)
class Own(FinetuneOptions, EvaluationOptions, DataOptions):
    output_dir: Path = Path("runs/own")
    log_steps: int = 3
    debug: bool = not_compared(False)
    file: Path | None = None


def options(**changed) -> ArmOptions:
    return ArmOptions(**{"output_dir": Path("x"), **changed})


@pytest.fixture(autouse=True)
def _no_locks_left():
    yield
    release_locks()


# --- what an experiment is -------------------------------------------------------------------------------------------------------------


def test_every_option_is_compared_unless_it_is_declared_otherwise():
    recipes = (finetune, finetune_stargan, pretrain_malp, train_stargan, ablate_malp, search_finetuning, evaluate, probe_malp)
    free = {field.name for recipe in recipes for field in dataclasses.fields(recipe.Config) if role_of(recipe.Config, field.name) == "not compared"}
    assert free == {
        *("output_dir", "resume_from_checkpoint", "report_to", "log_steps", "sample_steps", "checkpointing_steps", "checkpoints_total_limit", "dry_run", "device"),
        *("detection_false_alarm_rate", "dataloader_num_workers", "deterministic", "eval_steps", "max_skipped_steps", "save_precision", "save_generators"),
        *("train_batch_size", "gradient_accumulation_steps"),  # their product with the number of processes is compared
    }


def test_an_exemption_survives_another_default_in_a_subclass():
    assert role_of(Own, "output_dir") == role_of(Own, "log_steps") == role_of(Own, "debug") == "not compared"
    assert (role_of(Own, "file"), role_of(Own, "eval_size"), role_of(search_finetuning.Config, "eval_size")) == ("training", "evaluation", "evaluation")
    assert arms_of(Own, "cotrain_weight") == ("cotrain", "no_template", "from_scratch", "joint") and arms_of(Own, "learning_rate") == ()


def test_differences_name_the_options_and_both_values():
    was = experiment_of(options(learning_rate=1e-4, train_batch_size=8))
    now = experiment_of(options(learning_rate=2e-4, train_batch_size=8, eval_size=40, r1_weight=0.5, output_dir=Path("y"), log_steps=1))
    assert differences(was, now) == ["--eval-size was 1000, is 40", "--learning-rate was 0.0001, is 0.0002", "--r1-weight was 0.0, is 0.5"]
    assert differences(was, experiment_of(pretrain_malp.Config())) == ["the recipe was arms, is pretrain"]


def test_images_per_step_count_however_they_are_divided():
    was = experiment_of(options(train_batch_size=8))
    assert differences(was, experiment_of(options(train_batch_size=2, gradient_accumulation_steps=2), processes=2)) == []
    assert "was 8 images per step, is 16" in differences(was, experiment_of(options(train_batch_size=8), processes=2))[0]


def test_an_option_of_other_arms_is_no_difference():
    was, now = experiment_of(options()), experiment_of(options(cotrain_weight=3.0, frozen_weight=1.0))
    assert len(differences(was, now, options=ArmOptions)) == 2
    assert differences(was, now, options=ArmOptions, arms={"control", "frozen"}) == ["--frozen-weight was 0.2, is 1.0"]
    assert training_settings(options(), "control") == training_settings(options(cotrain_weight=3.0), "control")
    assert training_settings(options(), "cotrain") != training_settings(options(cotrain_weight=3.0), "cotrain")
    assert "eval_size" not in training_settings(options())


def test_files_and_folders_count_by_their_content(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(b"one")
    shutil.copy(tmp_path / "a.bin", tmp_path / "b.bin")
    shutil.copytree(FACES_MALP, tmp_path / "malp")
    monkeypatch.chdir(tmp_path)
    assert content_of(tmp_path / "a.bin") == content_of(Path("b.bin"))
    assert content_of(Path("malp")) == content_of(FACES_MALP)
    (tmp_path / "b.bin").write_bytes(b"another")
    (tmp_path / "malp" / "config.json").write_text("{}")
    assert content_of(tmp_path / "a.bin") != content_of(Path("b.bin")) and content_of(Path("malp")) != content_of(FACES_MALP)
    for folder, names in (("photos", "xy"), ("moved", "xy"), ("more", "xyz")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.png").write_bytes(b"")
    assert content_of(Path("photos")) == content_of(Path("moved")) != content_of(Path("more"))
    (tmp_path / "model-500.index").write_bytes(b"a checkpoint of several files, named by what they begin with")
    assert content_of(Path("model-500")).startswith("sha256") and content_of(Path("owner/name")) == "owner/name"


# --- one folder, one experiment ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run of arm control that was measured."""
    write_experiment(tmp_path, experiment_of(options()))
    (tmp_path / "measurements.jsonl").write_text('{"seed": 0, "arm": "control"}\n')
    layer = nn.Linear(1, 1)
    for step in (250, 500):
        save_training(tmp_path / "arms" / "control", step, networks={"G": layer}, optimizers={"G": torch.optim.Adam(layer.parameters())}, state={})
    return tmp_path


def checked(folder: Path, *, resumes: bool = False, accumulates: bool = False, **changed) -> bool:
    return check_folder(folder, experiment_of(options(**changed)), ArmOptions, resumes=resumes, accumulates=accumulates)


@pytest.mark.parametrize("ways", [{}, {"resumes": True}, {"accumulates": True}])
@pytest.mark.parametrize("changed", [{"learning_rate": 2e-4}, {"max_train_steps": 9}, {"eval_size": 40}, {"extractor": "squeezenet"}, {"seed": 1}, {"train_size": 99}])
def test_a_folder_with_another_experiment_is_refused(folder, ways, changed):
    name, value = next(iter(changed.items()))
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} was .*, is {value}.* choose another --output-dir"):
        checked(folder, **ways, **changed)


def test_work_may_be_added_and_another_arm_may_bring_its_own_options(folder):
    more = {"arms": ("control", "vision_aided"), "seeds": (0, 1), "backbone_weights": FACES_GENERATOR, "checkpointing_steps": 7}
    assert not checked(folder, resumes=True, **more)
    save_training(folder / "arms" / "1" / "vision_aided", 1, networks={}, optimizers={}, state={})
    with pytest.raises(ValueError, match="--backbone-weights was not given, is sha256"):
        checked(folder, resumes=True, **more)


def test_the_same_experiment_starts_over_without_its_old_results(folder, caplog):
    (folder / "notes.txt").write_text("mine")
    (folder / "malp").mkdir()
    (folder / "config.json").write_text("{}")
    assert checked(folder) and not checked(folder, resumes=True) and not checked(folder, accumulates=True)
    with caplog.at_level(logging.WARNING, logger="malp_disc"):
        set_aside(folder, [folder / "malp"])
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "malp", "config.json", "experiment.json", PREVIOUS}
    assert (folder / PREVIOUS / "arms" / "control" / "checkpoint-500").is_dir() and "--resume-from-checkpoint latest" in caplog.text
    assert find_resume(folder, "latest") == "latest" and not checked(folder)
    (folder / "measurements.jsonl").write_text("{}\n")
    set_aside(folder)
    assert {path.name for path in (folder / PREVIOUS).iterdir()} == {"measurements.jsonl", "malp"}, "one earlier run is kept, not a heap of them"


def test_results_of_unknown_origin_are_refused_and_a_folder_without_results_is_free(folder, tmp_path_factory):
    (folder / "experiment.json").unlink()
    with pytest.raises(ValueError, match="holds results of a run without experiment.json"):
        checked(folder)
    assert not checked(folder, resumes=True), "the checkpoints tell what they were made with"
    begun = tmp_path_factory.mktemp("begun")
    write_experiment(begun, experiment_of(options(learning_rate=1.0)))
    assert not checked(begun), "stopped before it had anything"


# --- where a run goes on -------------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_named_as_diffusers_names_it_or_by_its_path(folder, monkeypatch):
    place = folder / "arms" / "control" / "checkpoint-250"
    assert find_resume(folder, None) is None and find_resume(folder / "absent", "latest") == "latest"
    monkeypatch.chdir(folder.parent)
    for spelled in ("checkpoint-250", "checkpoint-250/", f"{folder.name}/checkpoint-250", str(folder / "checkpoint-250")):
        assert find_resume(folder, spelled) == "checkpoint-250"
    for spelled in (str(place), f"{folder.name}/arms/control/checkpoint-250", "arms/control/checkpoint-250"):
        assert find_resume(folder, spelled) == str(place.resolve())


def test_a_checkpoint_that_is_not_there_is_answered_with_those_that_are(folder, tmp_path_factory):
    with pytest.raises(ValueError, match="no complete checkpoint checkpoint-300 in .*there are arms/control/checkpoint-250, arms/control/checkpoint-500; or give latest"):
        find_resume(folder, "checkpoint-300")
    (folder / "arms" / "control" / "checkpoint-250" / "state.json").unlink()
    with pytest.raises(ValueError, match="no complete checkpoint"):
        find_resume(folder, "checkpoint-250")
    other = tmp_path_factory.mktemp("other")
    save_training(other, 500, networks={}, optimizers={}, state={})
    with pytest.raises(ValueError, match="is not in this run's folder .*give the --output-dir of the run that it belongs to"):
        find_resume(folder, str(other / "checkpoint-500"))
    with pytest.raises(ValueError, match="there are none, leave --resume-from-checkpoint out"):
        find_resume(folder / "absent", "checkpoint-1")


def test_training_goes_on_from_the_name_where_there_is_one_and_else_from_the_latest(folder):
    from malp_disc.training.checkpoints import CheckpointManager

    accelerator = type("One", (), {"scaler": None, "num_processes": 1})()

    def first(arm: str, wanted: str) -> int:
        layer = nn.Linear(1, 1)
        training = CheckpointManager(folder / "arms" / arm, networks={"G": layer}, optimizers={"G": torch.optim.Adam(layer.parameters())}, settings={})
        return training.resume(options(output_dir=folder, resume_from_checkpoint=wanted), accelerator)["step"]

    path = str((folder / "arms" / "control" / "checkpoint-250").resolve())
    assert [first("control", wanted) for wanted in ("latest", "checkpoint-250", path)] == [500, 250, 250]
    shutil.move(folder / "arms" / "control" / "checkpoint-250", folder / "arms" / "frozen" / "checkpoint-250")
    assert (first("control", "checkpoint-250"), first("frozen", "checkpoint-250"), first("cotrain", "checkpoint-250")) == (500, 250, 0)


# --- one run at a time -----------------------------------------------------------------------------------------------------------------------

_HOLD = "import sys, time\nfrom malp_disc.run_folder.lock import lock_folder\nlock_folder(sys.argv[1])\nprint('held', flush=True)\ntime.sleep(60)\n"


def test_a_second_run_is_refused_by_the_firsts_name_and_a_killed_one_holds_nothing(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        assert holder.stdout.readline() == "held\n" and is_locked(tmp_path)
        with pytest.raises(ValueError, match=f"process {holder.pid} on .* is working in .*choose another folder"):
            lock_folder(tmp_path, wait=0.2)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    lock_folder(tmp_path)
    lock_folder(tmp_path)  # its own
    assert not is_locked(tmp_path) and json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_a_dry_run_also_says_that_the_folder_cant_be_used(tmp_path):
    (tmp_path / "notes.txt").write_text("a file")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("notes.txt", "notes.txt/run", "gone"):
        with pytest.raises(ValueError, match="can't write to .*choose another --output-dir"):
            open_folder(options(output_dir=tmp_path / name), dry=True)
    open_folder(options(output_dir=tmp_path / "new" / "run"), dry=True)
    assert not (tmp_path / "new").exists()
    (tmp_path / LOCK_FILE).touch()
    with FileLock(str(tmp_path / LOCK_FILE)):
        for dry in (True, False):
            began = time.monotonic()
            with pytest.raises(ValueError, match="is working in"):
                open_folder(options(output_dir=tmp_path), dry=dry)
            assert time.monotonic() - began < 5, "only a resumed run waits"


def test_a_recipe_leaves_a_folder_alone_in_which_another_run_works(monkeypatch, tmp_path):
    """Another process, as far as a lock knows: a second file object."""
    other = FileLock(str(tmp_path / LOCK_FILE), thread_local=False)
    other.acquire()
    (tmp_path / LOCK_FILE).write_text('{"pid": 7, "host": "node3"}')
    monkeypatch.setattr("malp_disc.run_folder.lock._WAIT", 0.1)
    try:
        for recipe, flags in ((train_stargan, []), (pretrain_malp, []), (finetune_stargan, ["--resume-from-checkpoint", "latest"]), (evaluate, SMALL[2:])):
            message = message_of(monkeypatch, recipe, "--output-dir", tmp_path, *flags)
            assert f"process 7 on node3 is working in {tmp_path}" in message
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
    finally:
        other.release()


# --- what can be known before work ---------------------------------------------------------------------------------------------------------------


def test_a_step_that_needs_more_images_than_there_are(tmp_path):
    two = TrainOptions(output_dir=tmp_path, max_train_steps=1, train_batch_size=4, gradient_accumulation_steps=2)
    check_images_per_step(two, 8, 1)
    with pytest.raises(ValueError, match="4 x 2 x 2 images, but the data set has 8"):
        check_images_per_step(two, 8, 2)


SMALL = ["--train-size", 40, "--test-size", 12, "--eval-size", 12, "--reference-size", 12, "--second-extractor", "none", "--smaller-views"]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--train-batch-size", 41], "41 x 1 images, but the data set has 40"),
        (["--arms", "control", "no_template", "--passive-malp", "nowhere"], "no folder nowhere"),
        (["--arms", "control", "no_template", "--passive-malp", FACES_MALP], "adds a template"),
        (["--arms", "vision_aided", "--backbone-weights", "nowhere.pth"], "nowhere.pth"),
        (["--malp", "./nowhere"], "no folder nowhere"),
        (["--generator-checkpoint", "G.pth", "--discriminator-checkpoint", "D.pth"], "G.pth"),
        (["--generator-checkpoint", FACES_GENERATOR, "--discriminator-checkpoint", "D.pth"], "D.pth"),
        (["--second-extractor", "squeezenet", "--second-weights", "nowhere.pth"], "nowhere.pth"),
        (["--fid-weights", "nowhere.pth"], "nowhere.pth"),
        (["--attribute-classifier", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--face-embedding", "nowhere.ckpt"], "nowhere.ckpt"),
        (["--eval-size", 1], "--eval-size of at least 2 images, got 1 of 12"),
        (["--reference-size", 3], "--reference-size of at least 4 images"),
        (["--seeds", -1], "seeds from 0 to"),
        (["--resume-from-checkpoint", "checkpoint-5"], "no complete checkpoint checkpoint-5"),
        (["--report-to", "nobody"], "'nobody'"),
        (["--fresh-malp-steps", 5, "--malp-width", 2], "width of at least 4"),
        (["--fresh-malp-steps", 5, "--malp-attribute", "Halo"], "--malp-attribute out of"),
        (["--fresh-malp-steps", 5, "--malp-least-psnr", -1], "--malp-least-psnr of 0 or more"),
        (["--learning-rate", "inf"], "finite number for --learning-rate"),
        (["--cotrain-weight", "nan"], "finite number for --cotrain-weight"),
        (["--checkpoints-total-limit", 0], "--checkpoints-total-limit of at least 1"),
        (["--dataloader-num-workers", -1], "--dataloader-num-workers of 0 or more"),
        (["--image-size", 36], "image_size is 64 in the file and 36 was asked for"),
    ],
)
def test_it_is_said_before_work_and_by_a_dry_run(monkeypatch, tmp_path, dry, wrong, words):
    assert words in message_of(monkeypatch, finetune_stargan, *SMALL, "--output-dir", tmp_path / "run", *wrong, *dry)
    left = {path.name for path in (tmp_path / "run").rglob("*")} if (tmp_path / "run").exists() else set()
    assert left <= {"config.json", "environment.json", "experiment.json", LOCK_FILE} and not (dry and left), "nothing was measured or trained"


def test_missing_references_are_said_by_their_own_flag(monkeypatch, tmp_path):
    assert "--reference-root must name" in message_of(monkeypatch, finetune, *SMALL, "--output-dir", tmp_path / "run", "--reference-root", "nowhere", "--dry-run")


def test_a_dry_run_refuses_a_folder_with_another_experiment_and_leaves_it_alone(monkeypatch, tmp_path):
    write_experiment(tmp_path, experiment_of(finetune_stargan.Config(mixed_precision="no")))
    (tmp_path / "measurements.jsonl").write_text("{}\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*")}
    message = message_of(monkeypatch, finetune_stargan, *SMALL, "--output-dir", tmp_path, "--dry-run", "--malp", FACES_MALP)
    assert "--train-size was not given, is 40" in message and {path: path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_fewer_images_than_asked_for_are_told(caplog):
    with caplog.at_level(logging.WARNING, logger="malp_disc"):
        sets = evaluation_sets(EvaluationOptions(eval_size=30, reference_size=40), DataOptions(image_size=32, train_size=40, test_size=12))
    assert len(sets.held_out) == 12 and "--eval-size 30: there are only 12 images" in caplog.text and "reference-size" not in caplog.text


class Halver(nn.Module):
    """Takes sides that are multiples of 8, as a network with skip connections does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.learns = True

    def manipulate(self, images, target):
        small = nn.functional.max_pool2d(images, 8)
        edited = self.weight * images + nn.functional.interpolate(small, scale_factor=8)
        return edited if self.learns else edited.detach()


def test_networks_are_tried_on_images_of_the_size(tmp_path):
    generator, config, cpu = Halver(), options(output_dir=tmp_path), torch.device("cpu")
    state = torch.get_rng_state()
    check_forward_pass(generator, None, [tiny_malp()], ProceduralFaces(4, image_size=32), config, cpu)
    with pytest.raises(ValueError, match="the generator can't work with images of 36x36 .*--image-size"):
        check_forward_pass(generator, None, [], ProceduralFaces(4, image_size=36), config, cpu)
    generator.learns = False
    with pytest.raises(ValueError, match="no gradient reaches the generator"):
        check_forward_pass(generator, None, [], ProceduralFaces(4, image_size=32), config, cpu)
    assert torch.equal(torch.get_rng_state(), state), "a run draws the same numbers with and without"


def test_an_arm_measured_from_another_file_is_refused(tmp_path):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    old.write_bytes(b"old"), new.write_bytes(b"new")
    lines = [{"seed": 0, "arm": arm, "weights": {"file": old.name, "sha256": evaluate.file_sha256(old)}} for arm in ("control", "cotrain")]
    (tmp_path / "measurements.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluate.check_measured(tmp_path, 0, {"control": old, "frozen": new})
    evaluate.check_measured(tmp_path, 0, {"control": new, "cotrain": new})
    evaluate.check_measured(tmp_path, 1, {"control": new})
    with pytest.raises(ValueError, match="has control of seed 0 from another file than .*new.safetensors, and beside it cotrain"):
        evaluate.check_measured(tmp_path, 0, {"control": new, "frozen": new})


def test_the_network_that_teaches_an_arm_is_refused_as_its_judge_before_work(monkeypatch, tmp_path):
    torch.save(squeezenet1_0(weights=None).state_dict(), tmp_path / "teacher.pth")
    torch.save(squeezenet1_0(weights=None).half().state_dict(), tmp_path / "judge.pth")  # another training of the same architecture
    arms = ["--arms", "control", "vision_aided", "--backbone", "squeezenet1_0", "--backbone-weights", tmp_path / "teacher.pth", "--extractor", "faces", "--second-extractor", "squeezenet", "--second-weights", tmp_path / "judge.pth"]
    message = message_of(monkeypatch, finetune_stargan, *SMALL[:8], *SMALL[10:], "--output-dir", tmp_path / "run", *arms, "--dry-run")
    assert "--second-extractor is SqueezeNet" in message and "the network that teaches vision_aided" in message
