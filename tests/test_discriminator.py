"""MaLPDiscriminator: frozen or trainable, template dropout, and how one is made."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from malp_disc import MaLP, MaLPDiscriminator
from malp_disc.encryption import NO_TEMPLATE
from tests.tiny import sample_images, tiny_malp


def test_frozen_stays_in_evaluation_mode_whatever_its_parent_does():
    disc = MaLPDiscriminator(tiny_malp(branch="vit"))
    parent = nn.ModuleDict({"g": nn.Conv2d(3, 3, 1), "disc": disc})
    for _ in range(2):
        parent.train()
        assert parent["g"].training and not any(module.training for module in disc.modules())
    disc.train()
    assert not any(module.training for module in disc.modules())


def test_cotrained_follows_its_parent():
    disc = MaLPDiscriminator(tiny_malp(branch="vit"), trainable=True)
    assert all(module.training for module in disc.modules())
    nn.ModuleList([disc]).eval()
    assert not any(module.training for module in disc.modules())


def test_frozen_requires_no_gradient_and_gives_itself_none_to_train():
    disc = MaLPDiscriminator(tiny_malp())
    assert not any(parameter.requires_grad for parameter in disc.parameters())
    with pytest.raises(ValueError, match="frozen MaLPDiscriminator has no parameters to train; make it with trainable=True"):
        disc.parameter_groups(lr=1e-3)
    images, index = sample_images(2), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="frozen and has nothing to learn; make it with trainable=True"):
        disc.discriminator_loss(images, images, images, index)


@pytest.mark.parametrize(("dropout", "low", "high"), [(0.0, 0, 0), (1.0, 400, 400), (0.5, 150, 250)])
def test_template_dropout_is_the_share_that_goes_without(dropout, low, high):
    """400 draws at ½: 200 ± 10, five σ."""
    disc = MaLPDiscriminator(tiny_malp(set_size=3), template_dropout=dropout)
    images = torch.zeros(400, 3, 16, 16)
    encrypted, index = disc.encrypt(images, generator=torch.Generator().manual_seed(0))
    without = index == NO_TEMPLATE
    assert low <= without.sum() <= high
    assert torch.equal(encrypted[without], images[without])
    assert (encrypted[~without].flatten(1).abs().sum(1) > 0).all()
    again = disc.encrypt(images, generator=torch.Generator().manual_seed(0))[1]
    assert torch.equal(index, again)


def test_a_given_index_isnt_dropped():
    index = torch.tensor([0, 1, NO_TEMPLATE])
    assert torch.equal(MaLPDiscriminator(tiny_malp(set_size=2), template_dropout=1.0).encrypt(sample_images(3), index)[1], index)


# --- making one --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map_weight": 0.0}, "weights >= 0, one of them > 0, got map 0.0, classifier 0.0, template 0.0"),
        ({"classifier_weight": -1.0}, "weights >= 0"),
        ({"map_weight": math.nan}, "finite weights >= 0, one of them > 0, got map nan"),
        ({"template_weight": math.inf}, "finite weights >= 0, .* template inf"),
        ({"r1_weight": math.nan}, "finite R1 weight >= 0, got nan"),
        ({"r1_weight": math.inf}, "finite R1 weight >= 0, got inf"),
        ({"template_dropout": math.nan}, r"dropout in \[0, 1\], got nan"),
        ({"template_dropout": 1.2}, r"dropout in \[0, 1\], got 1.2"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MaLPDiscriminator(tiny_malp(), **options)


@pytest.mark.parametrize("wrong", [nn.Conv2d(3, 3, 3), "weights/faces64/malp"])
def test_what_is_no_malp_is_refused(wrong):
    with pytest.raises(ValueError, match=f"expected a MaLP, got {type(wrong).__name__}; load a pretrained one with MaLP.from_pretrained"):
        MaLPDiscriminator(wrong)


def test_a_compiled_malp_is_one():
    assert MaLPDiscriminator(torch.compile(tiny_malp(), backend="eager")).weights["map"] == 1


def test_a_passive_malp_has_no_template_to_keep():
    with pytest.raises(ValueError, match="no template that could survive; set template_weight=0"):
        MaLPDiscriminator(tiny_malp(strength=0.0), template_weight=1.0)


def test_from_pretrained_passes_the_options_on(tmp_path):
    malp = tiny_malp()
    malp.save_pretrained(tmp_path)
    disc = MaLPDiscriminator.from_pretrained(tmp_path, trainable=True, classifier_weight=0.5)
    assert disc.trainable and disc.weights["classifier"] == 0.5 and isinstance(disc.malp, MaLP)
    assert torch.equal(disc.malp.encryption.templates, malp.encryption.templates)
    assert not MaLPDiscriminator.from_pretrained(tmp_path).trainable
