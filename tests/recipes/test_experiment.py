"""What an experiment is: which options are compared, and how files count."""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
import torch

from malp_disc.data import DataOptions
from malp_disc.evaluation.evaluation_models import EvaluationOptions
from malp_disc.experiment.arms import Arm, ArmOptions, arm_setup
from malp_disc.run_folder.experiment import (
    arms_of,
    content_of,
    differences,
    experiment_of,
    not_compared,
    role_of,
    shared_hash,
    training_settings,
)
from malp_disc.serialization.state_dicts import fingerprint
from malp_disc.shipped import FACES_MALP
from malp_disc.training.finetune import make_discriminator
from malp_disc.training.options import FinetuneOptions, learning_rate_factor, make_optimizer
from recipes import evaluate, finetune, finetune_stargan, pretrain_malp, train_stargan
from recipes.research import ablate_malp, probe_malp, search_finetuning
from tests.recipes.small_runs import options
from tests.tiny import tiny_malp


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
    (tmp_path / "b.bin").write_bytes(b"two")  # of the same size
    os.utime(tmp_path / "b.bin", ns=(0, (tmp_path / "a.bin").stat().st_mtime_ns + 1))
    (tmp_path / "malp" / "config.json").write_text("{}")
    assert content_of(tmp_path / "a.bin") != content_of(Path("b.bin")) and content_of(Path("malp")) != content_of(FACES_MALP)
    shutil.copy(FACES_MALP / "config.json", tmp_path / "malp")
    assert content_of(Path("malp")) == content_of(FACES_MALP)
    with open(tmp_path / "malp" / "model.safetensors", "ab") as weights:
        weights.write(b"other")
    assert content_of(Path("malp")) != content_of(FACES_MALP)
    for folder, names in (("photos", "xy"), ("moved", "xy"), ("more", "xyz")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.png").write_bytes(b"")
    assert content_of(Path("photos")) == content_of(Path("moved")) != content_of(Path("more"))
    (tmp_path / "model-500.index").write_bytes(b"a checkpoint of several files, named by what they begin with")
    assert content_of(Path("model-500")).startswith("sha256") and content_of(Path("owner/name")) == "owner/name"


OF_ARMS = {
    "map_weight": 0.5, "classifier_weight": 0.5, "template_weight": 0.5, "frozen_weight": 3.0, "cotrain_weight": 3.0, "backbone_side": 64, "backbone_depths": 1,
    "conditional_realness": False, "realness_weight": 3.0, "branch_map_weight": 3.0, "branch_learning_rate": 1e-2, "gradient_share": 0.5, "cotrain_learning_rate": 1e-2,
    "cotrain_lr_scheduler": "linear", "cotrain_losses": ("pretraining", "light"), "template_dropout": 0.5, "r1_weight": 0.5, "augmentation": ("color",),
}  # fmt: skip
"""Another value than the default, of every option of some arms; two where one of them is the default of an arm. Those that name files and networks are compared below."""


@pytest.fixture(scope="module")
def malps():
    torch.manual_seed(0)
    return {name: tiny_malp() for name in ("malp", "passive")}


def what_an_arm_is(arm: str, malps: dict, config: ArmOptions) -> object:
    """All that the training of an arm takes from the options of some arms: setup, weights, optimizer, schedule, and what the step reads itself where there is a MaLP."""
    setup = arm_setup(arm, malps, config, attributes=3)
    if setup.malp is None:
        return setup
    disc = make_discriminator(setup, config)
    plain = {name: getattr(disc, name) for name in ("weights", "loss_weights", "r1_weight", "template_dropout", "train_cnn", "train_branch_map", "train_template")}
    of_network = (fingerprint(disc.state_dict()), disc.malp.config)
    groups = [(group["lr"], sum(p.numel() for p in group["params"])) for group in make_optimizer("MaLP", disc, config).param_groups] if setup.trainable else None
    schedule = learning_rate_factor(config, "MaLP", 100) if setup.trainable else None
    return dataclasses.replace(setup, malp=None), plain, of_network, groups, schedule, config.gradient_share, config.augmentation


def test_an_arm_that_is_not_declared_does_not_depend_on_an_option(malps):
    """Otherwise a run would resume with another value of it, unnoticed."""
    given = {"backbone": "squeezenet1_0", "image_size": 32, "malp_width": 8}
    own = {field.name for field in dataclasses.fields(ArmOptions) if arms_of(ArmOptions, field.name)}
    assert own - set(OF_ARMS) == {"backbone", "backbone_weights", "passive_malp"}
    for arm in get_args(Arm):
        usual = what_an_arm_is(arm, malps, options(**given))
        for name, values in OF_ARMS.items():
            for value in values if name == "cotrain_losses" else (values,):
                changed = what_an_arm_is(arm, malps, options(**given, **{name: value})) != usual
                assert not changed or arm in arms_of(ArmOptions, name), f"{arm} depends on {name}"


def test_with_a_content_loss_every_arm_depends_on_its_backbone():
    def settings(**changed):
        return training_settings(finetune.Config(**changed), "control")

    assert settings() == settings(backbone="resnet18", backbone_side=64)
    assert settings(content_weight=1.0) != settings(content_weight=1.0, backbone_side=64)
    assert settings(content_weight=1.0) != settings(content_weight=1.0, backbone="resnet18")
    was, now = (experiment_of(finetune.Config(content_weight=1.0, backbone_side=side)) for side in (128, 64))
    assert differences(was, now, options=finetune.Config, arms={"control"}) == ["--backbone-side was 128, is 64"]


def test_the_hash_of_an_experiment_covers_what_all_arms_depend_on_and_an_earlier_versions_stays():
    plain, content = finetune.Config(), finetune.Config(content_weight=1.0)
    assert shared_hash(plain) == shared_hash(dataclasses.replace(plain, backbone_side=64, gradient_share=0.5, seed=3))
    other = dataclasses.replace(content, backbone_side=64)
    assert shared_hash(content) != shared_hash(other) != shared_hash(dataclasses.replace(other, backbone_side=32))
    assert shared_hash(dataclasses.replace(plain, reference_split="training")) != shared_hash(plain), "its default alone is left out, as it was added later"
    earlier = shared_hash(content)  # which left the backbone's side out
    assert shared_hash(other, recorded=earlier) == earlier
    assert shared_hash(dataclasses.replace(other, learning_rate=1.0), recorded=earlier) != earlier
