"""MaLPDiscriminator: whose weights move, whose don't, and three lines in a training loop that isn't ours."""

from __future__ import annotations

import difflib
import inspect

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from malp_disc import LossWeights, MaLP, MaLPDiscriminator, fakeness_map
from malp_disc.encryption import NO_TEMPLATE
from tests.tiny import SIZE, Snapshot, pictures, tiny_malp, with_rectangles


def gradients(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.grad is not None}


def small_generator(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1), nn.Tanh())


# --- frozen ------------------------------------------------------------------------------------------------------------------------


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
    images, index = pictures(2), torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match="frozen and has nothing to learn; make it with trainable=True"):
        disc.discriminator_loss(images, images, images, index)


# --- G's step ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", [False, True])
def test_the_generator_loss_reaches_the_fake_and_no_weight_of_malp(trainable):
    disc = MaLPDiscriminator(tiny_malp(branch="vit"), trainable, map_weight=1.0, classifier_weight=1.0, template_weight=1.0)
    fake = pictures(3).requires_grad_(True)
    disc.generator_loss(fake, torch.tensor([0, NO_TEMPLATE, 0])).total.backward()
    assert gradients(disc) == set()
    assert fake.grad.isfinite().all() and (fake.grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("trainable", [False, True])
def test_the_generators_step_moves_no_template_through_the_encrypted_picture(trainable):
    """fake = G(T(I)), and T holds the templates: a graph through `encrypt` would let G's loss pull at them."""
    disc, generator = MaLPDiscriminator(tiny_malp(), trainable), small_generator()
    encrypted, index = disc.encrypt(pictures(2))
    assert not encrypted.requires_grad
    disc.generator_loss(generator(encrypted), index).total.backward()
    assert gradients(disc) == set() and gradients(generator) == {name for name, _ in generator.named_parameters()}


def test_encrypt_lets_the_gradient_of_a_picture_pass():
    """For images that another network made."""
    images = pictures(2).requires_grad_(True)
    MaLPDiscriminator(tiny_malp(), trainable=True).encrypt(images)[0].sum().backward()
    assert images.grad.any()


@pytest.mark.parametrize("trainable", [False, True])
def test_mode_and_gradients_are_as_before_after_the_generator_loss(trainable):
    disc = MaLPDiscriminator(tiny_malp(branch="vit"), trainable)
    for fake in (pictures(2), torch.full((2, 3, SIZE, SIZE), 255.0)):
        try:
            disc.generator_loss(fake, torch.zeros(2, dtype=torch.long))
        except ValueError:
            assert fake.max() == 255  # that one is refused, and restores too
        assert all(module.training is trainable for module in disc.malp.modules())
        assert all(parameter.requires_grad is trainable for parameter in disc.parameters())


def test_templates_that_the_user_fixed_stay_fixed():
    disc = MaLPDiscriminator(tiny_malp(), trainable=True)
    disc.malp.encryption.requires_grad_(False)
    disc.generator_loss(pictures(2), torch.zeros(2, dtype=torch.long))
    assert {name for name, parameter in disc.malp.named_parameters() if not parameter.requires_grad} == {"encryption.templates"}


def test_the_generator_sees_malp_in_evaluation_mode():
    """Two calls on one image agree, although the branch with dropout is in training mode."""
    disc = MaLPDiscriminator(tiny_malp(branch="vit"), trainable=True)
    fake, index, seen = pictures(2), torch.zeros(2, dtype=torch.long), []
    disc.malp.cnn.register_forward_hook(lambda module, *_: seen.append(module.training))
    assert torch.equal(disc.generator_loss(fake, index).map, disc.generator_loss(fake, index).map)
    assert seen == [False, False]


def test_the_terms_are_what_they_say():
    """‖M̂‖² as a mean square; -log P(not manipulated) = softplus of the logit; 1 - CS(S_i, S_R), 0 for an image without a template."""
    malp = tiny_malp(set_size=2)
    disc = MaLPDiscriminator(malp, map_weight=0.5, classifier_weight=2.0, template_weight=3.0, relative=False)
    fake, index = pictures(3), torch.tensor([1, NO_TEMPLATE, 0])
    losses, out = disc.generator_loss(fake, index), malp(fake)
    kept = torch.nn.functional.cosine_similarity(out.template[[0, 2], 0].flatten(1), malp.encryption.templates[[1, 0]].flatten(1))
    assert losses.map.item() == pytest.approx(out.map.square().mean().item(), rel=1e-5)
    assert losses.classifier.item() == pytest.approx(-(1 - out.logit.sigmoid()).log().mean().item(), rel=1e-4)
    assert losses.template.item() == pytest.approx((1 - kept).sum().item() / 3, rel=1e-3)
    expected = 0.5 * losses.map + 2 * losses.classifier + 3 * losses.template
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_without_templates_has_no_template_term():
    disc = MaLPDiscriminator(tiny_malp(), map_weight=1.0, template_weight=1.0, relative=False)
    losses = disc.generator_loss(pictures(2), torch.full((2,), NO_TEMPLATE))
    assert losses.template.item() == 0 and losses.total.item() == pytest.approx(losses.map.item())


def test_descent_on_the_fake_lowers_the_map():
    """Eq. 12 for G: "generate a fakeness map as a zero image" (section 4.4)."""
    disc, index = MaLPDiscriminator(tiny_malp()), torch.zeros(2, dtype=torch.long)
    fake = pictures(2).requires_grad_(True)
    optimizer = torch.optim.Adam([fake], lr=0.05)
    values = []
    for _ in range(6):
        losses = disc.generator_loss(fake.clamp(-1, 1), index)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        values.append(losses.map.item())
    assert values[-1] < 0.9 * values[0]


# --- relative scale ----------------------------------------------------------------------------------------------------------------


def test_the_first_total_is_the_sum_of_the_weights_and_the_first_scale_is_kept():
    weights = {"map_weight": 0.7, "classifier_weight": 2.0, "template_weight": 0.3}
    disc, index = MaLPDiscriminator(tiny_malp(), **weights), torch.zeros(3, dtype=torch.long)
    first = disc.generator_loss(pictures(3), index)
    assert first.total.item() == pytest.approx(3.0, rel=1e-5)
    second = disc.generator_loss(pictures(3, seed=5), index)
    expected = 0.7 * second.map / first.map + 2 * second.classifier / first.classifier + 0.3 * second.template / first.template
    assert second.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert second.map.item() != first.map.item()


def test_the_scale_is_saved_with_the_weights():
    disc, index = MaLPDiscriminator(tiny_malp()), torch.zeros(3, dtype=torch.long)
    disc.generator_loss(pictures(3), index)
    resumed = MaLPDiscriminator(tiny_malp(1))
    resumed.load_state_dict(disc.state_dict())
    assert torch.equal(resumed.scale, disc.scale)
    later = pictures(3, seed=5)
    assert torch.equal(resumed.generator_loss(later, index).total, disc.generator_loss(later, index).total)


def test_the_scale_is_a_constant_to_the_gradient():
    """Had it a gradient, a / a would have none."""
    fake = pictures(2).requires_grad_(True)
    disc, index = MaLPDiscriminator(tiny_malp()), torch.zeros(2, dtype=torch.long)
    (relative,) = torch.autograd.grad(disc.generator_loss(fake, index).total, fake)
    plain = MaLPDiscriminator(tiny_malp(), relative=False)
    (absolute,) = torch.autograd.grad(plain.generator_loss(fake, index).total, fake)
    assert torch.allclose(relative * disc.scale[0], absolute, rtol=1e-4, atol=1e-9)
    assert not plain.scale.any()


def test_calibration_over_several_batches_is_that_of_one_with_all_pictures():
    weights = {"map_weight": 0.7, "classifier_weight": 2.0, "template_weight": 0.3}
    disc, whole = (MaLPDiscriminator(tiny_malp(), **weights) for _ in range(2))
    fake, index = pictures(6), torch.tensor([0, NO_TEMPLATE, 0, 0, 0, NO_TEMPLATE])
    disc.generator_loss(pictures(3, seed=9), index[:3])  # forgotten again
    means = disc.calibrate([(fake[:3], index[:3]), (fake[3:], index[3:])])
    expected = whole.generator_loss(fake, index)
    assert torch.allclose(disc.scale, whole.scale, rtol=1e-5) and disc.scale[:3].min() > 0
    assert means.map.item() == pytest.approx(expected.map.item(), rel=1e-5) and means.total.item() == pytest.approx(3.0, rel=1e-5)
    with pytest.raises(ValueError, match="at least one batch"):
        disc.calibrate([])


def test_several_processes_share_the_mean_of_their_first_values(monkeypatch):
    """The other process saw three times ours: the mean is twice ours, so our first total is ½ of the weight."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.mul_(4))
    disc = MaLPDiscriminator(tiny_malp())
    assert disc.generator_loss(pictures(2), torch.zeros(2, dtype=torch.long)).total.item() == pytest.approx(0.5, rel=1e-5)


# --- R1 -----------------------------------------------------------------------------------------------------------------------------


def test_r1_is_the_squared_gradient_of_what_the_generator_is_told_about_real_pictures():
    """γ/2 E‖∇(w₁ m/s₁ + w₂ c/s₂)‖², by finite differences along the gradient: ‖∇f‖² = df(x + t∇f)/dt at 0."""
    weights = {"map_weight": 0.7, "classifier_weight": 2.0}
    disc = MaLPDiscriminator(tiny_malp(strength=0.0), trainable=True, r1_weight=3.0, **weights)
    images, index = pictures(1), torch.zeros(1, dtype=torch.long)
    disc.generator_loss(with_rectangles(images), index)  # fixes the scale
    losses = disc.discriminator_loss(images, images, with_rectangles(images), index)
    x = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(disc.generator_loss(x, index).total, x)
    step = 1e-2 / gradient.norm()
    with torch.no_grad():
        ahead, behind = (disc.generator_loss(images + sign * step * gradient, index).total for sign in (1, -1))
    assert losses.penalty.item() == pytest.approx(1.5 * ((ahead - behind) / (2 * step)).item(), rel=0.02)
    plain = MaLPDiscriminator(tiny_malp(strength=0.0), trainable=True, **weights).discriminator_loss(images, images, with_rectangles(images), index)
    assert plain.penalty == 0 and losses.total.item() == pytest.approx((plain.total + losses.penalty).item(), rel=1e-5)
    losses.penalty.backward()
    assert disc.malp.cnn.trunk[0].weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match="R1 weight >= 0, got -1"):
        MaLPDiscriminator(tiny_malp(), r1_weight=-1)


# --- MaLP's step -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"branch": "vit"}, {"strength": 0.0}, {"set_size": 2}])
@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_the_discriminator_loss_reaches_every_parameter_and_not_the_generator(config, dropout):
    disc, generator = MaLPDiscriminator(tiny_malp(**config), trainable=True, template_dropout=dropout), small_generator()
    images = pictures(3)
    encrypted, index = disc.encrypt(images)
    disc.discriminator_loss(images, encrypted, generator(encrypted), index).total.backward()
    assert gradients(disc) == {name for name, _ in disc.named_parameters()}
    assert gradients(generator) == set()


def test_the_discriminator_loss_is_j_with_the_proactive_truth_and_the_given_weights():
    malp, weights = tiny_malp(), LossWeights(recover_encrypted=3.0, map_error=1.0)
    disc, images = MaLPDiscriminator(malp, trainable=True, loss_weights=weights), pictures(3)
    encrypted, index = disc.encrypt(images)
    fake = with_rectangles(encrypted)
    ours, expected = disc.discriminator_loss(images, encrypted, fake, index), malp.losses(encrypted, fake, fakeness_map(images, fake), index, weights)
    assert torch.equal(ours.total, expected.total)
    assert torch.equal(disc(images, encrypted, fake, index).total, expected.total)


@pytest.mark.parametrize("way", ["map", "truth"])
def test_through_the_generator_the_templates_learn_from_what_it_makes_of_them(way):
    """The gradient of Eq. 11 with G(T(I)) in the graph, M_GT held constant or not; the generator itself stays as it is."""
    malp, generator, images, index = tiny_malp(set_size=2), small_generator().requires_grad_(False), pictures(3), torch.tensor([0, 1, 0])
    found, values = {}, {}
    for name in ("none", "map", "truth"):
        disc = MaLPDiscriminator(malp, trainable=True, generator_gradient=name)
        encrypted, _ = disc.encrypt(images, index)
        values[name] = disc.discriminator_loss(images, encrypted, generator(encrypted), index).total
        (found[name],) = torch.autograd.grad(values[name], malp.encryption.templates)
    assert values["none"] == values["map"] == values["truth"], "the value is the same, the way back isn't"
    encrypted, _ = malp.encrypt(images, index)
    fake = generator(encrypted)
    truth = fakeness_map(images, fake if way == "truth" else fake.detach())
    (expected,) = torch.autograd.grad(malp.losses(encrypted, fake, truth, index).total, malp.encryption.templates)
    assert torch.allclose(found[way], expected) and gradients(generator) == set()
    assert not any(torch.allclose(found[way], found[other], rtol=0.02) for other in found if other != way)


def test_through_a_generator_that_was_cut_off_is_refused():
    disc, images = MaLPDiscriminator(tiny_malp(), trainable=True, generator_gradient="map"), pictures(2)
    encrypted, index = disc.encrypt(images)
    with pytest.raises(ValueError, match="generator_gradient='map' needs a fake made from `encrypt`'s images with gradients on"):
        disc.discriminator_loss(images, encrypted, with_rectangles(encrypted.detach()), index)
    with pytest.raises(ValueError, match="out of .'none', 'map', 'truth'., got 'all'"):
        MaLPDiscriminator(tiny_malp(), trainable=True, generator_gradient="all")


def test_a_degradation_applies_before_malp_sees_the_images_and_the_truth_is_that_of_before():
    """Values of the degraded images, gradient of the identity, M_GT of the images before."""
    malp, images, index = tiny_malp(), pictures(3), torch.zeros(3, dtype=torch.long)
    disc = MaLPDiscriminator(malp, trainable=True)

    def degradation(x):
        return (x * 8).round() / 8

    encrypted, _ = disc.encrypt(images, index)
    fake = with_rectangles(encrypted)
    ours = disc.discriminator_loss(images, encrypted, fake, index, degradation=degradation).total
    assert torch.equal(disc(images, encrypted, fake, index, degradation=degradation).total, ours)
    leaf = ((encrypted * 8).round() / 8).requires_grad_(True)
    expected = malp.losses(leaf, (fake * 8).round() / 8, fakeness_map(images, fake), index).total
    assert torch.allclose(ours, expected)
    (through,) = torch.autograd.grad(expected, leaf)
    again, _ = malp.encrypt(images, index)
    by_hand = torch.autograd.grad((again * through).sum(), malp.encryption.templates)[0]
    rest = torch.autograd.grad(malp.losses(leaf.detach(), (fake * 8).round() / 8, fakeness_map(images, fake), index).total, malp.encryption.templates)[0]
    assert torch.allclose(torch.autograd.grad(ours, malp.encryption.templates)[0], by_hand + rest, atol=1e-6)
    assert not torch.equal(disc.discriminator_loss(images, encrypted, fake, index).total, ours)


def test_the_templates_learn_as_if_the_graph_had_gone_through_encrypt():
    """`encrypt` cuts it for G's sake; the loss must give the templates the gradient of Eq. 11 all the same."""
    malp, images, index = tiny_malp(set_size=2), pictures(3), torch.tensor([0, 1, 0])
    encrypted, _ = malp.encrypt(images, index)  # with the graph
    fake = with_rectangles(encrypted.detach())
    (expected,) = torch.autograd.grad(malp.losses(encrypted, fake, fakeness_map(images, fake), index).total, malp.encryption.templates)
    disc = MaLPDiscriminator(malp, trainable=True)
    cut, _ = disc.encrypt(images, index)
    (gradient,) = torch.autograd.grad(disc.discriminator_loss(images, cut, fake, index).total, malp.encryption.templates)
    assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-8) and torch.equal(cut, encrypted)


def test_parameter_groups_hold_every_parameter_once_at_its_rate():
    disc = MaLPDiscriminator(tiny_malp(branch="vit"), trainable=True)
    networks, templates = disc.parameter_groups(lr=1e-3, template_lr=2e-2)
    assert (networks["lr"], templates["lr"]) == (1e-3, 2e-2)
    assert [p is disc.malp.encryption.templates for p in templates["params"]] == [True]
    together = [id(p) for p in networks["params"] + templates["params"]]
    assert sorted(together) == sorted(id(p) for p in disc.parameters())
    assert disc.parameter_groups(lr=1e-3)[1]["lr"] == pytest.approx(5e-3)


def test_only_the_one_whose_turn_it_is_moves():
    disc, generator = MaLPDiscriminator(tiny_malp(branch="vit"), trainable=True), small_generator()
    ours = torch.optim.SGD(disc.parameter_groups(lr=1e-2))
    theirs = torch.optim.SGD(generator.parameters(), lr=1e-2)
    images = pictures(3)
    encrypted, index = disc.encrypt(images)
    fake = generator(encrypted)
    before_disc, before_generator = Snapshot(disc), Snapshot(generator)

    disc.discriminator_loss(images, encrypted, fake, index).total.backward()
    ours.step()
    assert before_disc.moved() == before_disc.names and before_generator.moved() == set()
    ours.zero_grad()

    before_disc = Snapshot(disc)
    disc.generator_loss(fake, index).total.backward()
    theirs.step()
    ours.step()  # nothing to step with: G's loss left no gradient behind
    assert before_disc.moved() == set() and before_generator.moved() == before_generator.names


# --- template dropout --------------------------------------------------------------------------------------------------------------


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
    assert torch.equal(MaLPDiscriminator(tiny_malp(set_size=2), template_dropout=1.0).encrypt(pictures(3), index)[1], index)


# --- making one --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map_weight": 0.0}, "weights >= 0, one of them > 0, got map 0.0, classifier 0.0, template 0.0"),
        ({"classifier_weight": -1.0}, "weights >= 0"),
        ({"template_dropout": 1.2}, r"dropout in \[0, 1\], got 1.2"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MaLPDiscriminator(tiny_malp(), **options)


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


# --- somebody else's loop ----------------------------------------------------------------------------------------------------------
# The shape of the published pix2pix training script: conditional patch discriminator, BCE, L1, D's step before G's.


def patch_discriminator() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(9)
        return nn.Sequential(nn.Conv2d(6, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4, 2, 1))


# fmt: off
def their_loop(pairs, netG, netD):
    criterionGAN, criterionL1 = nn.BCEWithLogitsLoss(), nn.L1Loss()
    optimizer_G = torch.optim.Adam(netG.parameters(), lr=2e-3, betas=(0.5, 0.999))
    optimizer_D = torch.optim.Adam(netD.parameters(), lr=2e-3, betas=(0.5, 0.999))
    for real_A, real_B in pairs:
        fake_B = netG(real_A)
        # update D
        optimizer_D.zero_grad()
        pred_fake = netD(torch.cat((real_A, fake_B), 1).detach())
        pred_real = netD(torch.cat((real_A, real_B), 1))
        loss_D_fake = criterionGAN(pred_fake, torch.zeros_like(pred_fake))
        loss_D_real = criterionGAN(pred_real, torch.ones_like(pred_real))
        ((loss_D_fake + loss_D_real) * 0.5).backward()
        optimizer_D.step()
        # update G
        optimizer_G.zero_grad()
        pred_fake = netD(torch.cat((real_A, fake_B), 1))
        loss_G = criterionGAN(pred_fake, torch.ones_like(pred_fake)) + 100.0 * criterionL1(fake_B, real_B)
        loss_G.backward()
        optimizer_G.step()


def their_loop_with_malp(pairs, netG, netD, malp):
    criterionGAN, criterionL1 = nn.BCEWithLogitsLoss(), nn.L1Loss()
    optimizer_G = torch.optim.Adam(netG.parameters(), lr=2e-3, betas=(0.5, 0.999))
    optimizer_D = torch.optim.Adam(netD.parameters(), lr=2e-3, betas=(0.5, 0.999))
    disc = MaLPDiscriminator(malp)
    for real_A, real_B in pairs:
        real_A, index = disc.encrypt(real_A)
        fake_B = netG(real_A)
        # update D
        optimizer_D.zero_grad()
        pred_fake = netD(torch.cat((real_A, fake_B), 1).detach())
        pred_real = netD(torch.cat((real_A, real_B), 1))
        loss_D_fake = criterionGAN(pred_fake, torch.zeros_like(pred_fake))
        loss_D_real = criterionGAN(pred_real, torch.ones_like(pred_real))
        ((loss_D_fake + loss_D_real) * 0.5).backward()
        optimizer_D.step()
        # update G
        optimizer_G.zero_grad()
        pred_fake = netD(torch.cat((real_A, fake_B), 1))
        loss_G = criterionGAN(pred_fake, torch.ones_like(pred_fake)) + 100.0 * criterionL1(fake_B, real_B)
        loss_G = loss_G + disc.generator_loss(fake_B, index).total
        loss_G.backward()
        optimizer_G.step()
# fmt: on


def pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(images, images.flip(1)) for images in (pictures(2, seed=seed) for seed in range(2))]


def test_three_lines_are_enough_for_a_loop_that_isnt_ours():
    """The two loops differ by three added lines and nothing else; G moves another way, MaLP doesn't move."""
    difference = list(difflib.ndiff(inspect.getsource(their_loop).splitlines()[1:], inspect.getsource(their_loop_with_malp).splitlines()[1:]))
    assert len([line for line in difference if line.startswith("+ ")]) == 3 and not any(line.startswith("- ") for line in difference)

    without, with_malp, passive = small_generator(), small_generator(), small_generator()
    start, malp = Snapshot(with_malp), tiny_malp()
    malp_before, buffers = Snapshot(malp), [value.clone() for value in malp.state_dict().values()]
    their_loop(pairs(), without, patch_discriminator())
    their_loop_with_malp(pairs(), with_malp, patch_discriminator(), malp)
    their_loop_with_malp(pairs(), passive, patch_discriminator(), tiny_malp(strength=0.0))
    assert start.moved() == start.names
    for other in (with_malp, passive):  # also where the template isn't what makes the difference
        assert Snapshot(without).names == {n for n, p in other.named_parameters() if not torch.equal(p, without.get_parameter(n))}
    assert malp_before.moved() == set() and gradients(malp) == set()
    assert all(torch.equal(value, before) for value, before in zip(malp.state_dict().values(), buffers))


def test_the_three_lines_of_the_docstring_cotrain():
    """In the order in which the docstring has them, G first: one backward must not use up the other's graph."""
    netG, malp = small_generator(), tiny_malp(branch="vit")
    optimizer_G = torch.optim.Adam(netG.parameters(), lr=2e-3)
    disc = MaLPDiscriminator(malp, trainable=True)
    optimizer_M = torch.optim.Adam(disc.parameter_groups(lr=1e-3))
    before_G, before_malp = Snapshot(netG), Snapshot(malp)
    for real_A, real_B in pairs():
        encrypted, index = disc.encrypt(real_A)
        fake_B = netG(encrypted)
        loss_G = nn.functional.l1_loss(fake_B, real_B)
        loss_G = loss_G + disc.generator_loss(fake_B, index).total
        optimizer_G.zero_grad()
        loss_G.backward()
        optimizer_G.step()
        assert gradients(malp) == set()
        disc.discriminator_loss(real_A, encrypted, fake_B, index).total.backward()
        optimizer_M.step()
        optimizer_M.zero_grad()
    assert before_G.moved() == before_G.names
    assert before_malp.moved() == before_malp.names


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(True)


def test_frozen_works_unprepared_under_accelerate(accelerator):
    """The same steps with and without Accelerate, which has never heard of the discriminator."""
    malp, plain, prepared = tiny_malp(), small_generator(), small_generator()
    before = Snapshot(malp)

    def train(network, optimizer, backward):
        disc = MaLPDiscriminator(malp)
        for real_A, _ in pairs():
            encrypted, index = disc.encrypt(real_A)
            backward(disc.generator_loss(network(encrypted), index).total)
            optimizer.step()
            optimizer.zero_grad()

    train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), lambda loss: loss.backward())
    train(*accelerator.prepare(prepared, torch.optim.SGD(prepared.parameters(), lr=0.1)), accelerator.backward)
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), prepared.parameters()))
    assert before.moved() == set()


def test_the_losses_are_float32_under_bf16_autocast():
    disc, images = MaLPDiscriminator(tiny_malp(), trainable=True), pictures(2)
    generator = small_generator()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encrypted, index = disc.encrypt(images)
        fake = generator(encrypted)
        losses = disc.generator_loss(fake, index)
        malp_losses = disc.discriminator_loss(images, encrypted, fake, index)
    assert fake.dtype == torch.bfloat16
    assert losses.total.dtype == losses.map.dtype == malp_losses.total.dtype == torch.float32
    (losses.total + malp_losses.total).backward()
    assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())
