"""A second branch that is told the attributes of every image: "is this a real image with these attributes?"."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from malp_disc import MaLP, MaLPConfig, MaLPDiscriminator, fakeness_map
from malp_disc.experiment.arms import ArmOptions, arm_setup
from malp_disc.losses import LossWeights
from malp_disc.malp import with_pretrained_branch
from tests.tiny import sample_images, tiny_malp

TINY = "test_efficientnet"


def told(labels: int = 2) -> MaLP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaLP(MaLPConfig(image_size=32, width=8, branch=TINY, branch_side=32, branch_labels=labels), backbone_weights="random")


def moved(malp: MaLP) -> MaLP:
    """With label weights that aren't 0."""
    for number, weights in enumerate(malp.branch.label_weights):
        torch.nn.init.normal_(weights, std=0.1, generator=torch.manual_seed(number))
    return malp


def labelled(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose brightness is their first attribute, and whose second one can't be seen."""
    random = torch.manual_seed(seed)
    labels = (torch.rand(count, 2, generator=random) < 0.5).float()
    noise = torch.rand(count, 3, 32, 32, generator=random) - 0.5
    return noise + 0.4 * (2 * labels[:, :1, None, None] - 1), labels


def entropy(logits: tuple[torch.Tensor, ...], label: float) -> torch.Tensor:
    return torch.stack([F.binary_cross_entropy_with_logits(values, torch.full_like(values, label)) for values in logits]).mean()


def test_half_of_manipulated_are_real_images_with_wrong_attributes():
    branch, weights = moved(told()).branch, LossWeights()
    images, labels = labelled(3, seed=1)
    fake, target = sample_images(3), torch.stack([labels[0], 1 - labels[1], 1 - labels[2]])  # the first has its own
    truth = fakeness_map(images, fake)
    realness = branch.losses(images, fake, truth, weights, labels=labels, target=target)[1]
    real, same = branch(images, labels).logits, branch(fake[:1], target[:1]).logits
    edited, wrong = branch(fake[1:], target[1:]).logits, branch(images[1:], target[1:]).logits
    expected = entropy(real, weights.label_smoothing) + entropy(same, 1.0) / 3 + (entropy(edited, 1.0) + entropy(wrong, 1.0)) / 2 * 2 / 3
    torch.testing.assert_close(realness, weights.classification * expected)
    parts = [branch.losses(*(batch[i : i + 1] for batch in (images, fake, truth)), weights, labels=labels[i : i + 1], target=target[i : i + 1])[1] for i in range(3)]
    torch.testing.assert_close(sum(parts) / 3, realness, msg="the losses of micro-batches add up to the batch's")
    known = branch.losses(images, fake, truth, weights, features=branch(fake).features, labels=labels, target=target)[1]
    torch.testing.assert_close(known, realness)
    unchanged = branch.losses(images, fake, truth, weights, labels=labels, target=labels)[1]
    torch.testing.assert_close(unchanged, weights.classification * (entropy(real, weights.label_smoothing) + entropy(branch(fake, labels).logits, 1.0)))


def test_it_starts_without_an_opinion_and_learns_which_attributes_an_image_has():
    disc = MaLPDiscriminator(told(), trainable=True, train_cnn=False, template_dropout=1.0)
    branch, (images, labels) = disc.malp.branch, labelled(16, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(branch(images, labels).logits, branch(images).logits))
    optimizer = torch.optim.Adam(disc.parameter_groups(lr=1e-2))
    for seed in range(60):
        seen, own = labelled(16, seed=100 + seed)
        fake, target = sample_images(16, seed=seed), own.flip(0)
        disc.discriminator_loss(seen, seen, fake, torch.full((16,), -1), labels=own, target=target).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    visible, hidden = labels.clone(), labels.clone()
    visible[:, 0], hidden[:, 1] = 1 - labels[:, 0], 1 - labels[:, 1]
    with torch.no_grad():
        right, wrong, either = (branch(images, attributes).logit for attributes in (labels, visible, hidden))
    assert (wrong > right).float().mean() >= 0.9, "the wrong brightness counts as manipulated"
    assert (either - right).abs().mean() < 0.5 * (wrong - right).mean(), "an attribute that can't be seen matters less"

    # A generator that is asked for the other brightness is pulled towards it
    grey = torch.zeros(4, 3, 32, 32, requires_grad=True)
    bright = torch.tensor([[1.0, 0], [1, 1], [0, 0], [0, 1]])
    disc.generator_loss(grey, torch.full((4,), -1), bright).total.backward()
    towards = -grey.grad.mean((1, 2, 3))
    assert towards[:2].min() > towards[2:].max()


def test_missing_or_misshapen_attributes_are_refused():
    disc = MaLPDiscriminator(told(), trainable=True, train_cnn=False, template_dropout=1.0)
    images, index, labels = sample_images(2), torch.tensor([-1, -1]), torch.zeros(2, 2)
    for bad in (None, labels[:1], torch.zeros(2, 3), torch.zeros(2)):
        with pytest.raises(ValueError, match=r"expected target of shape \(2, 2\)"):
            disc.generator_loss(images, index, bad)
        with pytest.raises(ValueError, match=r"expected labels of shape \(2, 2\)"):
            disc.discriminator_loss(images, images, images, index, labels=bad, target=labels)
    for bad in (2 * labels - 1, torch.full((2, 2), torch.nan)):
        with pytest.raises(ValueError, match=r"expected target in \[0, 1\], got values from (-1|nan)"):
            disc.generator_loss(images, index, bad)
    with pytest.raises(ValueError, match="those of `real` aren't known"):
        disc.discriminator_loss(images, images, images, index, labels=labels, target=labels, real=images)


def test_it_is_saved_and_loaded(tmp_path):
    malp, (images, labels) = moved(told()).eval(), labelled(2, seed=3)
    malp.save_pretrained(tmp_path)
    again = MaLP.from_pretrained(tmp_path, backbone_weights="random")
    assert again.config.branch_labels == 2
    assert all(torch.equal(a, b) for a, b in zip(again.branch(images, labels).logits, malp.branch(images, labels).logits))
    malp.drop_branch()
    assert malp.config.branch_labels == 0


@pytest.mark.parametrize(("labels", "branch"), [(-1, TINY), (2, None), (2, "vit")])
def test_only_a_pretrained_branch_can_be_told_attributes(labels, branch):
    with pytest.raises(ValueError, match="expected branch labels of 0"):
        MaLPConfig(branch=branch, branch_labels=labels)


def options(**changed) -> ArmOptions:
    return ArmOptions(image_size=32, malp_width=8, backbone=TINY, backbone_side=32, **changed)


def test_the_arms_tell_it_the_attributes_of_the_data_set(monkeypatch):
    monkeypatch.setattr("malp_disc.experiment.arms.with_pretrained_branch", lambda malp, name, **given: with_pretrained_branch(malp, name, **given | {"weights": "random"}))
    config = options()
    setups = {arm: arm_setup(arm, {}, config, attributes=5) for arm in ("vision_aided", "joint", "feature_map")}
    assert {arm: setup.malp.config.branch_labels for arm, setup in setups.items()} == {"vision_aided": 5, "joint": 5, "feature_map": 0}
    plain = [arm_setup("vision_aided", {}, options(conditional_realness=asked), attributes=count) for asked, count in ((None, 0), (False, 5))]
    assert [setup.malp.config.branch_labels for setup in plain] == [0, 0]
    assert [setup.realness_weight for setup in (setups["vision_aided"], *plain)] == [2.0, 1.0, 1.0]
    assert arm_setup("vision_aided", {}, options(realness_weight=0.3), attributes=5).realness_weight == 0.3
    with pytest.raises(ValueError, match="this data set has none, or images of another domain; leave it out"):
        arm_setup("vision_aided", {}, options(conditional_realness=True))
    own = with_pretrained_branch(tiny_malp(), TINY, weights="random", side=32)
    assert arm_setup("vision_aided", {"malp": own}, config, attributes=5).realness_weight == 1.0
    with pytest.raises(ValueError, match="is conditioned on 0 attributes, where --conditional-realness True and this data set ask for 5"):
        arm_setup("vision_aided", {"malp": own}, options(conditional_realness=True), attributes=5)
    with pytest.raises(ValueError, match="is conditioned on 2 attributes, where --conditional-realness None and this data set ask for 5"):
        arm_setup("vision_aided", {"malp": told()}, config, attributes=5)
    assert arm_setup("feature_map", {"malp": told(5)}, config, attributes=5).malp.config.branch_labels == 5
    with pytest.raises(ValueError, match="expected --realness-weight of 0 or more, got -1"):
        options(realness_weight=-1).check()
