"""What an experiment is: which options are compared, and how files count."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from malp_disc.data import DataOptions
from malp_disc.evaluation.evaluation_models import EvaluationOptions
from malp_disc.experiment.arms import ArmOptions
from malp_disc.run_folder.experiment import arms_of, content_of, differences, experiment_of, not_compared, role_of, training_settings
from malp_disc.shipped import FACES_MALP
from malp_disc.training.options import FinetuneOptions
from recipes import evaluate, finetune, finetune_stargan, pretrain_malp, train_stargan
from recipes.research import ablate_malp, probe_malp, search_finetuning
from tests.recipes.small_runs import options


@dataclass(kw_only=True)
class Own(FinetuneOptions, EvaluationOptions, DataOptions):
    output_dir: Path = Path("runs/own")
    log_steps: int = 3
    debug: bool = not_compared(False)
    file: Path | None = None


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
