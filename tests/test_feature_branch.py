"""MaLP with a pretrained second branch: what it learns, what it tells a generator, and that nothing else moves."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from malp_disc import MaLP, MaLPConfig, MaLPDiscriminator, fakeness_map
from malp_disc.feature_branch import FeatureBranch
from malp_disc.losses import LossWeights, localization_loss_encrypted, localization_loss_manipulated
from malp_disc.malp import with_pretrained_branch
from tests.tiny import sample_images, tiny_malp

TINY = "test_efficientnet"


def branched(seed: int = 0, **config) -> MaLP:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MaLP(MaLPConfig(**{"image_size": 32, "width": 8, "branch": TINY, "branch_side": 32, **config}), backbone_weights="random")


def half_noise(images: torch.Tensor) -> torch.Tensor:
    fake = images.clone()
    fake[..., 16:] = torch.rand(fake[..., 16:].shape, generator=torch.manual_seed(2)) * 2 - 1
    return fake


def discriminator(**options) -> MaLPDiscriminator:
    return MaLPDiscriminator(branched(), **{"trainable": True, "template_dropout": 1.0, **options})


def step(disc: MaLPDiscriminator, images: torch.Tensor, fake: torch.Tensor, **options) -> torch.Tensor:
    encrypted, index = disc.encrypt(images)
    return disc.discriminator_loss(images, encrypted, fake, index, **options).total


def learned(disc: MaLPDiscriminator, images: torch.Tensor, fake: torch.Tensor, *, steps: int) -> list[float]:
    optimizer, curve = torch.optim.Adam(disc.parameter_groups(lr=1e-2)), []
    for _ in range(steps):
        loss = step(disc, images, fake)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        curve.append(loss.item())
    return curve


def test_its_losses_are_eq_8_of_its_map_and_eq_10_at_every_location():
    branch, weights = branched().branch, LossWeights()
    images, fake, other = sample_images(3), half_noise(sample_images(3)), sample_images(2, 48, 40, seed=5)
    truth = fakeness_map(images, fake)
    real, changed = branch(images), branch(fake)
    localization, realness = branch.losses(images, fake, truth, weights)
    expected = localization_loss_encrypted(real.map, truth, weights) + localization_loss_manipulated(changed.map, truth, weights)
    torch.testing.assert_close(localization, expected)

    def entropy(untouched):
        kinds = [(untouched, weights.label_smoothing), (changed.logits, 1.0)]
        return sum(
            torch.stack([nn.functional.binary_cross_entropy_with_logits(v, torch.full_like(v, label)) for v in logits]).mean() for logits, label in kinds
        )

    torch.testing.assert_close(realness, weights.classification * entropy(real.logits))
    torch.testing.assert_close(branch.losses(images, fake, truth, weights, other)[1], weights.classification * entropy(branch(other).logits))
    assert real.map.shape == (3, 1, 32, 32) and real.logit.shape == (3,)
    known = branch.losses(images, fake, truth, weights, features=changed.features)
    torch.testing.assert_close(known, (localization, realness))


@pytest.mark.parametrize("train_cnn", [False, True])
def test_features_of_the_generators_update_save_the_second_pass_of_its_images_and_change_nothing(train_cnn):
    disc, images = MaLPDiscriminator(branched(), trainable=True, train_cnn=train_cnn), sample_images(2)
    fake, index, passed = half_noise(images), torch.tensor([-1, -1]), []
    features = disc.generator_loss(fake, index).features
    disc.malp.branch.backbone.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    losses, gradients = [], []
    for known in ((), features):
        losses.append(disc.discriminator_loss(images, images, fake, index, features=known).total)
        gradients.append(torch.autograd.grad(losses[-1], list(disc.malp.branch.realness_heads.parameters())))
    assert passed == [4, 2]
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert not any(maps.requires_grad for maps in features)


def test_real_images_of_another_domain_take_the_place_of_encrypted_ones_for_the_branch_alone():
    malp, images, target = branched(), sample_images(2), sample_images(2, seed=5)
    arguments = images, half_noise(images), fakeness_map(images, half_noise(images)), torch.tensor([-1, -1])
    without, found = malp.losses(*arguments), malp.losses(*arguments, real=target)
    torch.testing.assert_close(found.realness, malp.branch.losses(*arguments[:3], LossWeights(), target)[1])
    assert found.realness != without.realness and found.classification == without.classification


def test_j_of_a_malp_with_it_has_its_two_parts_more():
    malp, images = branched().eval(), sample_images(2)
    fake, index = half_noise(images), torch.tensor([0, -1])
    encrypted, _ = malp.encrypt(images, index)
    whole = malp.losses(encrypted, fake, fakeness_map(images, fake), index)
    localization, realness = malp.branch.losses(encrypted, fake, fakeness_map(images, fake), LossWeights())
    malp.drop_branch()
    without = malp.losses(encrypted, fake, fakeness_map(images, fake), index)
    torch.testing.assert_close(whole.realness, realness)
    torch.testing.assert_close(whole.total, without.total + localization + realness)
    assert without.realness == 0 and malp.config.branch is None


def test_the_templates_get_the_same_gradient_with_and_without_it():
    gradients = []
    for drop in (False, True):
        malp = branched().train()
        if drop:
            malp.drop_branch()
        encrypted, index = malp.encrypt(sample_images(2), torch.zeros(2, dtype=torch.long))
        malp.losses(encrypted, half_noise(sample_images(2)), torch.zeros(2, 1, 32, 32), index).total.backward()
        gradients.append(malp.encryption.templates.grad)
    torch.testing.assert_close(*gradients)


def test_asked_for_realness_alone_only_its_heads_learn_and_tell_the_classes_apart():
    disc, images = discriminator(train_cnn=False), sample_images(6)
    fake = torch.rand(images.shape, generator=torch.manual_seed(3)) * 2 - 1
    before = {name: value.detach().clone() for name, value in disc.named_parameters()}
    curve = learned(disc, images, fake, steps=50)
    assert curve[-1] < 0.5 * curve[0]
    moved = {name for name, value in disc.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if ".branch.map_heads." in name or ".branch.realness_heads." in name}
    index = torch.full((6,), -1)
    assert disc.generator_loss(images, index).total < 0.5 * disc.generator_loss(fake, index).total


@pytest.mark.parametrize("train_cnn", [False, True])
def test_without_its_map_every_other_gradient_is_the_same_and_that_of_the_map_heads_is_0(train_cnn):
    images, index, gradients, losses = sample_images(3), torch.full((3,), -1), [], []
    fake = half_noise(images)
    for with_map in (True, False):
        disc = discriminator(train_cnn=train_cnn, classifier_weight=float(train_cnn), train_branch_map=with_map)
        if not with_map:
            for head in disc.malp.branch.map_heads:
                head.register_forward_hook(lambda *_: pytest.fail("a map head ran"))
        losses.append(disc.discriminator_loss(images, images, fake, index))
        losses[-1].total.backward()
        gradients.append({name: p.grad for name, p in disc.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        if ".map_heads." in name:
            assert gradient.any() and not gradients[1][name].any()
        else:
            assert torch.equal(gradient, gradients[1][name]), name
    assert losses[0].realness == losses[1].realness and losses[0].classification == losses[1].classification
    torch.testing.assert_close(losses[0].total - losses[0].localization, losses[1].total - losses[1].localization)


def test_without_the_template_map_and_classifier_lose_j_r_alone_and_e_e_isnt_run():
    images, index, gradients, losses = sample_images(3), torch.full((3,), -1), [], []
    fake = half_noise(images)
    for options in ({"loss_weights": LossWeights(recover_manipulated=0.0)}, {"train_template": False}):
        disc = discriminator(classifier_weight=1.0, **options)
        if "train_template" in options:
            disc.malp.cnn.recovery.register_forward_hook(lambda *_: pytest.fail("E_E ran"))
        losses.append(disc.discriminator_loss(images, images, fake, index))
        losses[-1].total.backward()
        gradients.append({name: p.grad for name, p in disc.named_parameters() if p.requires_grad})
    learning = {name for name in gradients[0] if ".encryption." not in name and ".cnn.recovery." not in name}
    for name, gradient in gradients[1].items():
        assert torch.equal(gradient, gradients[0][name]) if name in learning else not gradient.any(), name
    assert losses[1].template == losses[1].recovery == 0 and losses[0].template > 0
    assert losses[1].localization == losses[0].localization and losses[1].classification == losses[0].classification


def test_images_with_a_template_train_it():
    with pytest.raises(ValueError, match="train_template=False needs a template dropout of 1, got 0.5"):
        discriminator(train_template=False, template_dropout=0.5)
    disc, images = discriminator(train_template=False), sample_images(2)
    with pytest.raises(ValueError, match="expected an index of -1 for all"):
        disc.discriminator_loss(images, images, half_noise(images), torch.tensor([-1, 0]))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_optimizer_leaves_map_heads_that_dont_learn_alone_and_loads_the_state_of_one_that_trained_them(weight):
    """The groups and keys are the same with and without, so runs of before go on."""
    images = sample_images(2)
    old, new = discriminator(train_cnn=False), discriminator(train_cnn=False, train_branch_map=weight > 0)
    optimizers = [torch.optim.Adam(disc.parameter_groups(lr=1e-2)) for disc in (old, new)]
    before = [p.detach().clone() for p in new.malp.branch.map_heads.parameters()]
    for disc, optimizer in zip((old, new), optimizers):
        step(disc, images, half_noise(images)).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, new.malp.branch.map_heads.parameters())) == (weight == 0)
    states = [optimizer.state_dict() for optimizer in optimizers]
    assert states[0]["param_groups"] == states[1]["param_groups"] and states[0]["state"].keys() == states[1]["state"].keys()
    assert old.state_dict().keys() == new.state_dict().keys()
    optimizers[1].load_state_dict(states[0])


def test_its_map_learns_where_and_how_much():
    disc, images = discriminator(train_cnn=False, branch_map_weight=1.0, realness_weight=0.0), sample_images(4)
    fake = half_noise(images)
    learned(disc, images, fake, steps=40)
    with torch.no_grad():
        maps = disc.malp(fake, branch=True).branch_map
    left, right = maps[..., :12].mean().item(), maps[..., 20:].mean().item()
    assert left < right / 2 and right > fakeness_map(images, fake)[..., 16:].mean().item() / 3


def test_every_trainable_parameter_gets_a_gradient_and_the_groups_hold_each_once():
    for options in ({}, {"train_cnn": False}):
        disc, images = discriminator(**options), sample_images(2)
        step(disc, images, half_noise(images)).backward()
        trainable = {name for name, p in disc.named_parameters() if p.requires_grad}
        assert trainable and all(p.grad is not None for p in disc.parameters() if p.requires_grad)
        grouped = [id(p) for group in disc.parameter_groups(lr=1.0, branch_lr=0.5) for p in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in disc.parameters() if p.requires_grad)
        assert disc.parameter_groups(lr=1.0, branch_lr=0.5)[-1]["lr"] == 0.5
        assert ("malp.cnn.map_head.weight" in trainable) == (options == {})


@pytest.mark.parametrize("order", ["before", "after", "between"])
def test_the_generators_loss_leaves_nothing_in_the_heads_whatever_the_order(order):
    """The heads after ten updates are those of a discriminator that no generator asked."""
    found = []
    for asked in (False, True):
        disc, images = discriminator(train_cnn=False), sample_images(3)
        fake, index = half_noise(images).requires_grad_(True), torch.full((3,), -1)
        optimizer = torch.optim.Adam(disc.parameter_groups(lr=1e-2))
        for _ in range(3):
            loss = disc.generator_loss(fake, index).total if asked and order != "after" else None
            if asked and order == "before":
                loss.backward()
            step(disc, images, fake).backward()
            optimizer.step()
            optimizer.zero_grad()
            if asked and order != "before":
                (loss if loss is not None else disc.generator_loss(fake, index).total).backward()
        found.append([p.detach().clone() for p in disc.parameters()])
        assert not asked or fake.grad.abs().sum() > 0
    assert all(torch.equal(a, b) for a, b in zip(*found))


def test_terms_of_weight_zero_are_not_computed_and_realness_keeps_its_own_scale():
    disc, index = discriminator(realness_weight=0.5), torch.zeros(2, dtype=torch.long)
    assert not disc.uses_cnn and disc.watched_terms == ["realness"]
    losses = disc.generator_loss(half_noise(sample_images(2)), index)
    assert losses.map == losses.branch_map == 0 and losses.total == 0.5 * losses.realness and not disc.scale.any()
    both = discriminator(map_weight=2.0, branch_map_weight=1.0)
    losses = both.generator_loss(half_noise(sample_images(2)), index)
    torch.testing.assert_close(losses.total, 2.0 + 1.0 + losses.realness)
    assert both.watched_terms == ["map", "branch_map", "realness"]


def test_a_frozen_one_asks_the_branch_too_and_a_plain_malp_cannot():
    disc, fake = MaLPDiscriminator(branched()), sample_images(2).requires_grad_(True)
    disc.generator_loss(fake, torch.zeros(2, dtype=torch.long)).total.backward()
    assert fake.grad.abs().sum() > 0 and not any(p.requires_grad for p in disc.parameters())
    for options in ({"realness_weight": 1.0}, {"branch_map_weight": 1.0}, {"train_cnn": False}):
        with pytest.raises(ValueError, match="pretrained second branch"):
            MaLPDiscriminator(tiny_malp(), trainable=True, **options)


def test_saving_keeps_the_heads_and_finds_the_backbone_by_name_and_hash(tmp_path):
    malp, images = branched(seed=3).eval(), sample_images(2)
    malp.save_pretrained(tmp_path)
    assert not any("backbone" in key for key in malp.state_dict())
    again = MaLP.from_pretrained(tmp_path, backbone_weights="random").eval()
    with torch.no_grad():
        ours, theirs = malp(images, branch=True), again(images, branch=True)
    for field in dataclasses.fields(ours):
        assert torch.equal(getattr(ours, field.name), getattr(theirs, field.name)), field.name
    assert again.config == malp.config and again.config.backbone_fingerprint == malp.branch.backbone.fingerprint
    with pytest.raises(ValueError, match="trained on a test_efficientnet with other weights"):
        MaLP(dataclasses.replace(malp.config, backbone_fingerprint="0" * 16), backbone_weights="random")


def test_a_gradient_penalty_on_a_cnn_that_does_not_learn_is_refused():
    with pytest.raises(ValueError, match=r"r1_weight=10.0 is a penalty on E_C and C, which don't learn with train_cnn=False"):
        discriminator(train_cnn=False, r1_weight=10.0)


def test_another_parts_missing_backbone_is_still_reported():
    parent = nn.ModuleDict({"generator": nn.ModuleDict({"backbone": nn.Linear(2, 2)}), "disc": discriminator()})
    state = {key: value for key, value in parent.state_dict().items() if not key.startswith("generator.")}
    found = parent.load_state_dict(state, strict=False)
    assert found.missing_keys == ["generator.backbone.weight", "generator.backbone.bias"] and not found.unexpected_keys


def test_it_is_added_to_a_trained_malp_without_changing_it():
    malp, images = tiny_malp(seed=4, branch="vit").eval(), sample_images(2)
    more = with_pretrained_branch(malp, TINY, weights="random", side=32)
    with torch.no_grad():
        assert torch.equal(more(images).map, malp(images).map) and torch.equal(more.encryption.templates, malp.encryption.templates)
    assert isinstance(more.branch, FeatureBranch) and not more.training and malp.config.branch == "vit"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_computes_in_float32_whatever_it_is_turned_into(dtype):
    disc, images, index = discriminator(), sample_images(2), torch.full((2,), -1)
    expected = disc.generator_loss(images, index).total
    assert torch.equal(nn.ModuleList([disc]).to(dtype)[0].generator_loss(images, index).total, expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(disc.generator_loss(images, index).total, expected)


def test_real_images_of_the_target_domain_are_checked_like_the_others():
    disc, images = discriminator(), sample_images(2)
    for bad in ((images + 1) * 127.5, images[:, :1], torch.full_like(images, torch.nan), images[:0]):
        with pytest.raises(ValueError, match="real"):
            step(disc, images, images, real=bad)


def test_a_branch_of_fewer_depths_is_saved_and_loaded(tmp_path):
    malp = branched(branch_depths=2)
    malp.save_pretrained(tmp_path)
    again = MaLP.from_pretrained(tmp_path, backbone_weights="random")
    assert len(again.branch.realness_heads) == 2 and again.config.branch_depths == 2
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(again.branch(images).map, malp.branch(images).map)
    with pytest.raises(ValueError, match="at least one branch depth"):
        branched(branch_depths=0)
