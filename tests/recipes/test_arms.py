"""What an arm is made of, and what is said before any work: no training here."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from malp_disc.training.generator_losses import VisionAidedObjective
from torch import nn
from torchvision.models import squeezenet1_0

from malp_disc.data.faces import draw_faces
from malp_disc.evaluation.eval_set import EvalSet
from malp_disc.experiment.arms import ArmOptions, arm_objective, arm_setup
from malp_disc.experiment.run import warn_if_uninformative
from tests.report.test_clean import Localizer, half_darker
from tests.tiny import tiny_malp


def options(**changed) -> ArmOptions:
    return ArmOptions(**{"output_dir": Path("x"), "vision_aided_network": Path("squeezenet.pth"), **changed})


class HalfDarker(nn.Module):
    manipulate = staticmethod(half_darker)


@pytest.fixture
def inputs() -> EvalSet:
    images, labels = draw_faces(range(40), 32)[:2]
    labels = labels[:, :2].float()
    return EvalSet(images, labels, labels, torch.zeros(40, dtype=torch.long), ("a", "b"))


@pytest.mark.parametrize(("sign", "warned"), [(1.0, False), (0.0, True)])
def test_a_malp_that_cannot_see_clean_pictures_is_warned_of(inputs, caplog, sign, warned):
    with caplog.at_level(logging.WARNING, logger="malp_disc"):
        warn_if_uninformative(Localizer(inputs.images, sign), HalfDarker(), inputs, torch.device("cpu"))
    assert bool(caplog.records) == warned
    assert not warned or "(AUC 0.50" in caplog.text and "--malp-template-dropout 0.5" in caplog.text


def test_scratch_learns_along_from_random_weights_of_its_seed():
    malps = {"malp": tiny_malp(seed=5)}
    first, again, other = (arm_setup("from_scratch", malps, options(seed=seed, cotrain_weight=0.7, template_dropout=0.5)) for seed in (0, 0, 1))
    assert first.trainable and (first.weight, first.template_dropout) == (0.7, 0.5)
    weights = [setup.malp.cnn.map_head.weight for setup in (first, again, other)] + [malps["malp"].cnn.map_head.weight]
    assert torch.equal(weights[0], weights[1])
    assert not any(torch.equal(weights[0], weight) for weight in weights[2:])


@pytest.mark.parametrize("arm", ["vision_aided", "feature_map", "joint"])
def test_arms_with_a_feature_discriminator_add_it_to_the_own_losses(tmp_path, arm):
    torch.save(squeezenet1_0(weights=None).state_dict(), tmp_path / "squeezenet.pth")
    own, config = nn.Linear(1, 1), options(vision_aided_network=tmp_path / "squeezenet.pth", vision_aided_weight=2.0, feature_map_weight=30.0)
    losses = arm_objective(arm, own, config)
    assert isinstance(losses, VisionAidedObjective) and losses.own is own
    assert (losses.weight, losses.discriminator.target) == ((30.0, "map") if arm == "feature_map" else (2.0, "realness"))
    again = arm_objective(arm, own, config)
    assert all(torch.equal(a, b) for a, b in zip(losses.discriminator.parameters(), again.discriminator.parameters())), "the seed decides"
    assert (arm_setup(arm, {"malp": tiny_malp()}, config).malp is not None) == (arm == "joint")
    assert arm_objective("cotrain", own, config) is own


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"arms": ("control", "joint"), "vision_aided_network": None}, "vision_aided, feature_map and joint need --vision-aided-network"),
        ({"arms": ("control", "control")}, r"different arms out of control, .*joint, got \['control', 'control'\]"),
        ({"malp_scales": (1, 0)}, r"--malp-scales of 1 or more, got \[1, 0\]"),
        ({"malp_scales": (1, 2), "template_dropout": 0.5}, "use it with --template-dropout 1"),
        ({"max_train_steps": 100, "lr_warmup_steps": 100}, "--lr-warmup-steps below --max-train-steps 100, got 100: the run would end"),
        ({"feature_map_weight": -1.0}, "--feature-map-weight of 0 or more"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        options(**changed).check()
