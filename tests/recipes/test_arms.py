"""What an arm is made of, and what is said before any work: no training here."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torchvision.models import squeezenet1_0

from malp_disc.commands.finetune import Config as FinetuneConfig
from malp_disc.data.faces import draw_faces
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.experiment import run as experiment_run
from malp_disc.experiment.arms import Arm, ArmOptions, arm_setup, load_given_malps
from malp_disc.experiment.run import check_finished, pretrained, warn_if_uninformative
from malp_disc.losses import COTRAIN_WEIGHTS
from malp_disc.malp import with_pretrained_branch
from malp_disc.run_folder.arms import ARM_TABLE, CANDIDATES, ON_BACKBONE
from malp_disc.run_folder.experiment import training_settings
from malp_disc.serialization.state_dicts import fingerprint, save_tensors
from malp_disc.training.finetune import ArmSetup, make_discriminator
from recipes import evaluate
from tests.report.test_clean import Localizer, half_darker
from tests.tiny import tiny_malp


def options(**changed) -> ArmOptions:
    return ArmOptions(**{"output_dir": Path("x"), **changed})


class HalfDarker(nn.Module):
    manipulate = staticmethod(half_darker)


@pytest.fixture
def inputs() -> EvalSet:
    images, labels = draw_faces(range(40), 32)[:2]
    labels = labels[:, :2].float()
    return EvalSet(images, labels, labels, torch.zeros(40, dtype=torch.long), ("a", "b"))


def test_flags_and_docs_name_the_arms_of_the_table_in_its_order():
    assert get_args(Arm) == tuple(arm for arm, spec in ARM_TABLE.items() if spec.in_short is not None)
    assert [field.name for field in dataclasses.fields(evaluate.Config) if field.name in ARM_TABLE] == list(ARM_TABLE)
    docs = Path(__file__).resolve().parents[2] / "docs"
    for page, arms in (("evidence.md", list(ARM_TABLE)), ("fine-tuning.md", list(get_args(Arm)))):
        first_cells = re.findall(r"^\| ([^|]+) \|", (docs / page).read_text(), flags=re.M)
        assert [arm for cell in first_cells for arm in cell.replace("`", "").split(", ") if arm in ARM_TABLE] == arms, page
    assert f"isn't a control is a *candidate*: {', '.join(CANDIDATES)}." in (docs / "evidence.md").read_text()


@pytest.mark.parametrize("arm", get_args(Arm))
def test_the_table_says_which_branches_an_arm_has_and_whether_they_are_trained(arm):
    spec, config = ARM_TABLE[arm], options(malp_width=8, image_size=32)
    setup = arm_setup(arm, {"malp": tiny_malp(branch=None), "passive": tiny_malp(strength=0.0, branch=None)}, config)
    assert setup.trainable == (spec.cotrained or spec.heads)
    if setup.malp is None:
        assert not (spec.malp or spec.heads)
        return
    assert setup.asks_cnn == bool(spec.malp) and setup.malp.passive == (spec.malp == "passive")
    assert bool(setup.realness_weight or setup.branch_map_weight) == spec.heads == setup.malp.config.pretrained_branch


@pytest.mark.parametrize(("sign", "warned"), [(1.0, False), (0.0, True)])
def test_a_malp_that_cannot_see_clean_images_is_warned_of(inputs, caplog, sign, warned):
    with caplog.at_level(logging.WARNING, logger="malp_disc"):
        warn_if_uninformative(Localizer(inputs.images, sign), HalfDarker(), inputs, torch.device("cpu"))
    assert bool(caplog.records) == warned
    assert not warned or "(AUC 0.50" in caplog.text and "--malp-template-dropout 0.5" in caplog.text


def test_a_malp_that_the_run_has_pretrained_itself_needs_more_steps(inputs, caplog):
    with caplog.at_level(logging.WARNING, logger="malp_disc"):
        warn_if_uninformative(Localizer(inputs.images, 0.0), HalfDarker(), inputs, torch.device("cpu"), steps=20)
    assert "Give more --malp-pretrain-steps than 20, or give --template-dropout 0" in caplog.text and "--malp-template-dropout" not in caplog.text


def test_scratch_learns_along_from_random_weights_of_its_seed():
    malps = {"malp": tiny_malp(seed=5)}
    first, again, other = (arm_setup("from_scratch", malps, options(seed=seed, cotrain_weight=0.7, template_dropout=0.5)) for seed in (0, 0, 1))
    assert first.trainable and (first.weight, first.template_dropout) == (0.7, 0.5)
    weights = [setup.malp.cnn.map_head.weight for setup in (first, again, other)] + [malps["malp"].cnn.map_head.weight]
    assert torch.equal(weights[0], weights[1])
    assert not any(torch.equal(weights[0], weight) for weight in weights[2:])


@pytest.mark.parametrize("arm", ["random", "from_scratch", "frozen", "cotrain"])
def test_a_malp_whose_second_branch_is_told_attributes_serves_arms_that_leave_that_branch_out(weights, arm):
    given = with_pretrained_branch(tiny_malp(), "squeezenet1_0", weights=weights, labels=5)
    config = options()
    assert make_discriminator(arm_setup(arm, {"malp": given}, config, attributes=5), config).malp.branch is None


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("squeezenet") / "weights.pth"
    torch.save(squeezenet1_0(weights=None).state_dict(), path)
    return path


ASKED = {"vision_aided": {"realness"}, "feature_map": {"branch_map"}, "joint": {"classifier", "realness"}, "cotrain": {"map"}, "frozen": {"map"}}


@pytest.mark.parametrize("arm", ASKED)
def test_each_arm_asks_its_own_questions(weights, arm):
    config = options(backbone="squeezenet1_0", backbone_weights=weights, cotrain_weight=0.7, realness_weight=2.0)
    first, again = (make_discriminator(arm_setup(arm, {"malp": tiny_malp()}, config), config) for _ in range(2))
    assert {name for name, weight in first.weights.items() if weight} == ASKED[arm]
    assert (first.malp.branch is not None) == (arm in ON_BACKBONE)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters())), "the seed decides"
    assert any(p.requires_grad for p in first.malp.cnn.parameters()) == (arm in ("joint", "cotrain"))
    if arm == "joint":
        setup = arm_setup(arm, {"malp": tiny_malp()}, config)
        assert (first.weights["classifier"], first.weights["realness"], setup.weight, setup.losses) == (0.7, 2.0, 1.0, "pretraining")


def test_flags_of_the_cnns_questions_and_losses_apply_to_every_arm_that_asks_it(weights):
    config = options(backbone="squeezenet1_0", backbone_weights=weights, map_weight=0.5, classifier_weight=0.25, template_weight=0.125, cotrain_losses="light")
    for arm in ("joint", "cotrain", "frozen"):
        setup = arm_setup(arm, {"malp": tiny_malp()}, config)
        assert (setup.map_weight, setup.classifier_weight, setup.template_weight, setup.losses) == (0.5, 0.25, 0.125, "light"), arm
    assert not arm_setup("vision_aided", {"malp": tiny_malp()}, config).asks_cnn
    assert all(ArmSetup(**{"map_weight": 0.0, name: 1.0}).asks_cnn for name in ("map_weight", "classifier_weight", "template_weight"))


@pytest.mark.parametrize(
    ("arm", "learns", "penalty"),
    [("cotrain", {"cnn", "template"}, 2.0), ("frozen", {"cnn", "template"}, 0.0), ("vision_aided", set(), 0.0), ("feature_map", {"branch_map"}, 0.0), ("joint", {"cnn"}, 2.0)],
)
def test_a_part_of_malp_learns_and_is_penalised_only_where_the_generator_is_told_what_it_says(weights, arm, learns, penalty):
    config = options(backbone="squeezenet1_0", backbone_weights=weights, r1_weight=2.0, template_dropout=0.5 if arm == "cotrain" else 1.0)
    disc = make_discriminator(dataclasses.replace(arm_setup(arm, {"malp": tiny_malp()}, config), losses="light"), config)
    assert {name for name in ("cnn", "branch_map", "template") if getattr(disc, f"train_{name}")} == learns
    assert disc.r1_weight == penalty and disc.loss_weights == COTRAIN_WEIGHTS["light"]
    other = make_discriminator(dataclasses.replace(arm_setup(arm, {"malp": tiny_malp()}, config), losses="pretraining"), config)
    assert other.loss_weights == COTRAIN_WEIGHTS["pretraining"] != disc.loss_weights


@pytest.mark.parametrize(
    ("flags", "arm"),
    [({}, "joint"), ({"malp": Path("malp")}, "joint"), ({"generator_checkpoint": Path("G"), "discriminator_checkpoint": Path("D")}, "vision_aided"),
     ({"generator": "m:make"}, "vision_aided"), ({"generator": "m:make", "malp": Path("malp")}, "joint")],
)  # fmt: skip
def test_both_branches_are_the_default_where_a_pretrained_malp_is_at_hand(flags, arm):
    config = FinetuneConfig(**flags)
    config.check()
    assert config.arms == ("control", arm)
    given = FinetuneConfig(**flags, arms=("control", "cotrain"))
    given.check()
    assert given.arms == ("control", "cotrain")


def test_arms_on_a_backbone_alone_need_no_pretrained_malp_and_keep_a_branch_that_is_there(weights):
    config = options(arms=("control", "vision_aided"), backbone="squeezenet1_0", backbone_weights=weights, malp_width=8, image_size=32)
    assert load_given_malps(config, None) == {}
    assert arm_setup("vision_aided", {}, config).malp.config.branch == "squeezenet1_0"
    own = with_pretrained_branch(tiny_malp(), "squeezenet1_0", weights=weights)
    assert arm_setup("vision_aided", {"malp": own}, options(backbone="resnet18")).malp is own
    assert load_given_malps(options(arms=("control", "joint")), None) == {"malp": None}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"backbone_side": 16}, "--backbone-side of at least 32, got 16"),
        ({"arms": ("control", "control")}, r"different arms out of control, .*joint, got \['control', 'control'\]"),
        ({"max_train_steps": 100, "lr_warmup_steps": 100}, "--lr-warmup-steps below --max-train-steps 100, got 100: the run would end"),
        ({"lr_warmup_steps": -1}, "--lr-warmup-steps of 0 or more, got -1"),
        ({"branch_map_weight": -1.0}, "--branch-map-weight of 0 or more"),
        ({"classifier_weight": -1.0}, "--classifier-weight of 0 or more, got -1.0"),
        ({"template_weight": -1.0}, "--template-weight of 0 or more, got -1.0"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        options(**changed).check()


def test_a_malp_that_is_pretrained_begins_with_the_same_weights_whatever_came_before(tmp_path, monkeypatch):
    """In a resumed run the first may be loaded instead of trained, which leaves the global generator in another state."""
    begun = []
    monkeypatch.setattr(experiment_run, "pretrain", lambda malp, *rest, **named: begun.append(fingerprint(malp.state_dict())) or malp)
    for drawn in range(3):
        torch.rand(drawn)
        pretrained(f"malp-{drawn}", options(output_dir=tmp_path, image_size=32), HalfDarker(), None, Accelerator(cpu=True), steps=1)
    assert len(begun) == 3 and len(set(begun)) == 1


NO_EFFECT = {"frozen_weight": 3.0, "cotrain_weight": 0.1, "template_dropout": 0.0, "r1_weight": 10.0, "map_weight": 5.0, "passive_malp": Path("nosuch"), "cotrain_learning_rate": 1.0}
"""Options that the arms control and vision_aided don't use."""


@pytest.mark.parametrize("name", NO_EFFECT)
def test_an_option_of_arms_that_are_not_run_is_refused_with_the_arms_that_use_it(name, tmp_path, caplog):
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(ValueError, match=f"no effect in the arms control vision_aided: {flag} .of .*; leave it out, or run an arm that uses it"):
        options(**{name: NO_EFFECT[name]}).check()
    options(**{name: NO_EFFECT[name]}, arms=("control", "frozen", "cotrain", "no_template")).check()
    assert not caplog.records
    earlier = options(**{name: NO_EFFECT[name]}, resume_from_checkpoint="latest", output_dir=tmp_path)
    with pytest.raises(ValueError, match="no effect"):
        earlier.check()  # there is nothing to resume
    (tmp_path / "G-control.safetensors").touch()
    earlier.check()
    assert flag in caplog.text


def test_the_backbone_of_the_content_loss_is_used_by_every_arm():
    FinetuneConfig(arms=("control",), content_weight=1.0, backbone="resnet18", backbone_side=64).check()
    with pytest.raises(ValueError, match="no effect in the arms control: --backbone .*, --backbone-side .*; leave them out"):
        FinetuneConfig(arms=("control",), backbone="resnet18", backbone_side=64).check()


def test_the_result_of_a_finished_arm_is_refused_under_other_settings(tmp_path, caplog):
    """Where experiment.json, which is compared before, is missing."""
    path, recorded = tmp_path / "G-cotrain.safetensors", training_settings(options(), "cotrain")

    def finished(settings: dict) -> Path:
        save_tensors(path, {"w": torch.ones(1)}, {"malp_disc": json.dumps({"settings": settings})})
        return path

    check_finished(finished(recorded), "cotrain", options(frozen_weight=9.0))
    with pytest.raises(ValueError, match="G-cotrain.safetensors belongs to a run with other settings: cotrain_weight was 1.0 and is 0.5 now; choose another --output-dir"):
        check_finished(path, "cotrain", options(cotrain_weight=0.5))
    with pytest.raises(ValueError, match="doesn't say with which settings it was made; choose another --output-dir"):
        check_finished(finished({}), "cotrain", options())
    assert not caplog.records
    check_finished(finished({name: value for name, value in recorded.items() if name != "cotrain_weight"}), "cotrain", options())
    assert "doesn't say whether it was made with cotrain_weight 1.0" in caplog.text


PRETRAINING = {"malp_pretrain_steps": 5, "malp_width": 8, "malp_degradation": 0.5, "malp_attribute": "Smiling", "malp_template_dropout": 0.0}


@pytest.mark.parametrize("name", PRETRAINING)
def test_flags_of_a_pretraining_need_one(name, tmp_path, caplog):
    flag, changed = f"--{name.replace('_', '-')}", {name: PRETRAINING[name]}
    for arms, given, why in ((("control", "frozen"), {"malp": tiny_malp()}, "one is given"), (("control", "vision_aided"), {}, "no arm needs one")):
        with pytest.raises(ValueError, match=f"no effect: {flag}, as this run pretrains no MaLP: {why}.*Leave it out"):
            options(arms=arms, **changed).check_options_have_effect(given, own_discriminator=True)
        options(arms=arms).check_options_have_effect(given, own_discriminator=False)
    options(arms=("frozen",), **changed).check_options_have_effect({"malp": None}, own_discriminator=True)
    options(arms=("no_template",), **changed).check_options_have_effect({"malp": tiny_malp(), "passive": None}, own_discriminator=True)
    (tmp_path / "G-control.safetensors").touch()
    options(resume_from_checkpoint="latest", output_dir=tmp_path, **changed).check_options_have_effect({}, own_discriminator=True)
    assert f"no effect: {flag}" in caplog.text, "a run that was started with it goes on"


def test_a_fresh_malp_takes_the_flags_of_a_pretraining_but_for_its_steps():
    fresh = options(arms=("control", "frozen"), fresh_malp_steps=3, malp_width=8)
    fresh.check_options_have_effect({"malp": tiny_malp()}, own_discriminator=True)
    with pytest.raises(ValueError, match="no effect: --malp-pretrain-steps"):
        options(fresh_malp_steps=3, malp_pretrain_steps=5, malp_width=8).check_options_have_effect({"malp": tiny_malp()}, own_discriminator=True)


def test_flags_that_the_networks_or_other_flags_make_pointless_are_refused(weights):
    own_branch = with_pretrained_branch(tiny_malp(), "squeezenet1_0", weights=weights)
    for changed, given, own, message in (
        ({"backbone_side": 64, "backbone_depths": 1}, {"malp": own_branch}, True, "--backbone-side, --backbone-depths, as the given MaLP keeps the pretrained branch.*Leave them out"),
        ({"discriminator_learning_rate": 1e-3}, {}, False, "--discriminator-learning-rate, as the generator's own losses have no parameters"),
        ({"gradient_share": 0.5, "frozen_weight": 0.1, "cotrain_weight": 0.1}, {}, True, "--frozen-weight, --cotrain-weight, as --gradient-share takes the place"),
    ):
        with pytest.raises(ValueError, match=message):
            options(arms=("control", "frozen", "vision_aided"), **changed).check_options_have_effect(given, own_discriminator=own)
    backbones = {"malp_branch": "tf_efficientnet_lite0", "malp_backbone_weights": Path("x.pth")}
    options(arms=("control", "vision_aided"), **backbones).check_options_have_effect({}, own_discriminator=True)
    options(arms=("joint",), gradient_share=0.5, cotrain_weight=0.1).check_options_have_effect({"malp": tiny_malp()}, own_discriminator=True)
