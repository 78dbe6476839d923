"""MaLPDiscriminator in MaLP's own step: J with the proactive truth, R1, and whose weights get gradients."""

from __future__ import annotations

import copy

import pytest
import torch

from malp_disc import LossWeights, MaLP, MaLPConfig, MaLPDiscriminator, fakeness_map
from malp_disc.encryption import NO_TEMPLATE
from tests.tiny import Snapshot, gradients, sample_images, small_generator, tiny_malp, with_rectangles


def test_r1_is_the_squared_gradient_of_what_the_generator_is_told_about_real_images():
    """γ/2 E‖∇(w₁ m/s₁ + w₂ c/s₂)‖², by finite differences along the gradient: ‖∇f‖² = df(x + t∇f)/dt at 0."""
    weights = {"map_weight": 0.7, "classifier_weight": 2.0}
    disc = MaLPDiscriminator(tiny_malp(strength=0.0), trainable=True, r1_weight=3.0, **weights)
    images, index = sample_images(1), torch.zeros(1, dtype=torch.long)
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


def test_r1_is_a_mean_over_the_images():
    disc, index = MaLPDiscriminator(tiny_malp(strength=0.0), trainable=True, r1_weight=1.0, relative=False), torch.zeros(3, dtype=torch.long)
    images = sample_images(3)
    whole = disc.discriminator_loss(images, images, with_rectangles(images), index).penalty.item()
    singles = [disc.discriminator_loss(image, image, with_rectangles(image), index[:1]).penalty.item() for image in images.split(1)]
    assert whole == pytest.approx(sum(singles) / 3, rel=1e-4) and len(set(singles)) == 3


# --- MaLP's step -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"branch": "vit"}, {"strength": 0.0}, {"set_size": 2}])
@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_the_discriminator_loss_reaches_every_parameter_and_not_the_generator(config, dropout):
    disc, generator = MaLPDiscriminator(tiny_malp(**config), trainable=True, template_dropout=dropout), small_generator()
    images = sample_images(3)
    encrypted, index = disc.encrypt(images)
    disc.discriminator_loss(images, encrypted, generator(encrypted), index).total.backward()
    assert gradients(disc) == {name for name, _ in disc.named_parameters()}
    assert gradients(generator) == set()


def test_the_discriminator_loss_is_j_with_the_proactive_truth_and_the_given_weights():
    malp, weights = tiny_malp(), LossWeights(recover_encrypted=3.0, map_error=1.0)
    disc, images = MaLPDiscriminator(malp, trainable=True, loss_weights=weights), sample_images(3)
    encrypted, index = disc.encrypt(images)
    fake = with_rectangles(encrypted)
    ours, expected = disc.discriminator_loss(images, encrypted, fake, index), malp.losses(encrypted, fake, fakeness_map(images, fake), index, weights)
    assert torch.equal(ours.total, expected.total)
    assert torch.equal(disc(images, encrypted, fake, index).total, expected.total)


@pytest.mark.parametrize("way", ["map", "truth"])
def test_through_the_generator_the_templates_learn_from_what_it_makes_of_them(way):
    """The gradient of Eq. 11 with G(T(I)) in the graph, M_GT held constant or not; the generator itself stays as it is."""
    malp, generator, images, index = tiny_malp(set_size=2), small_generator().requires_grad_(False), sample_images(3), torch.tensor([0, 1, 0])
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
    disc, images = MaLPDiscriminator(tiny_malp(), trainable=True, generator_gradient="map"), sample_images(2)
    encrypted, index = disc.encrypt(images)
    with pytest.raises(ValueError, match="generator_gradient='map' needs a fake made from `encrypt`'s images with gradients on"):
        disc.discriminator_loss(images, encrypted, with_rectangles(encrypted.detach()), index)
    with pytest.raises(ValueError, match="out of .'none', 'map', 'truth'., got 'all'"):
        MaLPDiscriminator(tiny_malp(), trainable=True, generator_gradient="all")


def test_a_degradation_applies_before_malp_sees_the_images_and_the_truth_is_that_of_before():
    """Values of the degraded images, gradient of the identity, M_GT of the images before."""
    malp, images, index = tiny_malp(), sample_images(3), torch.zeros(3, dtype=torch.long)
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
    malp, images, index = tiny_malp(set_size=2), sample_images(3), torch.tensor([0, 1, 0])
    encrypted, _ = malp.encrypt(images, index)  # with the graph
    fake = with_rectangles(encrypted.detach())
    (expected,) = torch.autograd.grad(malp.losses(encrypted, fake, fakeness_map(images, fake), index).total, malp.encryption.templates)
    disc = MaLPDiscriminator(malp, trainable=True)
    cut, _ = disc.encrypt(images, index)
    (gradient,) = torch.autograd.grad(disc.discriminator_loss(images, cut, fake, index).total, malp.encryption.templates)
    assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-8) and torch.equal(cut, encrypted)


def test_without_a_template_in_the_batch_no_gradient_goes_to_the_images_and_the_templates_get_the_same():
    """The graph through `encrypt` would add 0 to the templates' gradient, and cost that of E_C's first layer to its images."""
    images, index, malp = sample_images(2), torch.tensor([NO_TEMPLATE, NO_TEMPLATE]), tiny_malp().train()
    fake = with_rectangles(images)
    encrypted, _ = malp.encrypt(images, index)
    assert encrypted.requires_grad
    expected = torch.autograd.grad(malp.losses(encrypted, fake, fakeness_map(images, fake), index).total, list(malp.parameters()))
    seen, disc = [], MaLPDiscriminator(malp, trainable=True)
    malp.cnn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].requires_grad))
    found = torch.autograd.grad(disc.discriminator_loss(images, encrypted, fake, index).total, list(malp.parameters()))
    assert seen == [False]
    torch.testing.assert_close(found, expected)


def both_updates(disc: MaLPDiscriminator, *, keep_map: bool) -> tuple[list[torch.Tensor], dict[str, torch.Tensor], int]:
    """G's loss and its gradient; MaLP's loss and gradients; and how many images went through E_C."""
    disc, images, passed = copy.deepcopy(disc), sample_images(3), []
    fake, index = with_rectangles(images).requires_grad_(True), torch.full((3,), NO_TEMPLATE)
    disc.malp.cnn.trunk.register_forward_hook(lambda _, inputs, output: passed.append(len(output)))
    told = disc.generator_loss(fake, index, keep_map=keep_map)
    told.total.backward()
    assert gradients(disc) == set()
    own = disc.discriminator_loss(images, images, fake, index, known_map=told.known_map)
    own.total.backward()
    return [told.total, fake.grad], {"total": own.total} | {name: p.grad for name, p in disc.named_parameters() if p.grad is not None}, sum(passed)


NO_TEMPLATES = {"template_dropout": 1.0, "train_template": False, "report_template": False}


@pytest.mark.parametrize("options", [{}, {"classifier_weight": 1.0, "relative": False}, {"r1_weight": 1.0}])
@pytest.mark.parametrize("config", [{}, {"strength": 0.0}])
def test_the_map_of_the_generators_loss_saves_a_pass_and_changes_nothing_but_rounding(config, options):
    disc = MaLPDiscriminator(tiny_malp(**config), trainable=True, **NO_TEMPLATES, **options)
    (told, own, passed), (told_apart, own_apart, passed_apart) = (both_updates(disc, keep_map=keep) for keep in (True, False))
    assert passed == passed_apart - 3
    assert all(torch.equal(a, b) for a, b in zip(told, told_apart)), "the generator's loss and gradient are the same to the last bit"
    torch.testing.assert_close(own, own_apart, rtol=1e-4, atol=1e-6)
    assert own.keys() == {"total"} | {name for name, _ in disc.named_parameters()}


def test_the_map_is_kept_only_where_both_losses_see_the_same_one():
    fake, none = with_rectangles(sample_images(2)).requires_grad_(True), torch.full((2,), NO_TEMPLATE)

    def kept(malp=None, trainable=True, **options) -> bool:
        disc = MaLPDiscriminator(malp or tiny_malp(), trainable, **{**NO_TEMPLATES, **options})
        known_map = disc.generator_loss(fake, none, keep_map=True).known_map
        assert (known_map is not None) == disc.shares_map or not torch.is_grad_enabled()
        return known_map is not None

    assert kept()
    assert not kept(trainable=False), "a frozen MaLP has no update"
    assert not kept(train_template=True) and not kept(report_template=True) and not kept(template_weight=1.0), "E_E is run on the same layers"
    assert not kept(malp=MaLP(MaLPConfig(architecture="official", branch=None))), "batch norm differs between the modes"
    with torch.no_grad():
        assert not kept()


def test_a_known_map_of_other_images_and_one_where_the_templates_learn_are_refused():
    images, none = sample_images(2), torch.full((2,), NO_TEMPLATE)
    fake = with_rectangles(images)
    disc = MaLPDiscriminator(tiny_malp(), trainable=True, **NO_TEMPLATES)
    known_map = disc.generator_loss(fake, none, keep_map=True).known_map
    with pytest.raises(ValueError, match=r"a known map \(2, 1, 32, 32\), one per image of manipulated, got \(1, 1, 32, 32\)"):
        disc.discriminator_loss(images, images, fake, none, known_map=known_map[:1])
    with pytest.raises(ValueError, match="leaves out E_E, which learns here"):
        MaLPDiscriminator(tiny_malp(), trainable=True).discriminator_loss(images, images, fake, none, known_map=known_map)


def test_a_degradation_makes_another_map_than_the_known_one():
    images, none = sample_images(2), torch.full((2,), NO_TEMPLATE)
    fake = with_rectangles(images)
    disc = MaLPDiscriminator(tiny_malp(), trainable=True, **NO_TEMPLATES)
    known_map = disc.generator_loss(fake, none, keep_map=True).known_map
    losses = [disc.discriminator_loss(images, images, fake, none, degradation=lambda x: x / 2, known_map=known).total for known in (None, known_map)]
    assert torch.equal(*losses)


def test_parameter_groups_hold_every_parameter_once_at_its_rate():
    disc = MaLPDiscriminator(tiny_malp(branch="vit"), trainable=True)
    networks, templates = disc.parameter_groups(lr=1e-3, template_lr=2e-2)
    assert (networks["lr"], templates["lr"]) == (1e-3, 2e-2)
    assert [p is disc.malp.encryption.templates for p in templates["params"]] == [True]
    together = [id(p) for p in networks["params"] + templates["params"]]
    assert sorted(together) == sorted(id(p) for p in disc.parameters())
    assert disc.parameter_groups(lr=1e-3)[1]["lr"] == pytest.approx(5e-3)


def test_each_update_moves_only_its_own_network():
    disc, generator = MaLPDiscriminator(tiny_malp(branch="vit"), trainable=True), small_generator()
    ours = torch.optim.SGD(disc.parameter_groups(lr=1e-2))
    theirs = torch.optim.SGD(generator.parameters(), lr=1e-2)
    images = sample_images(3)
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
