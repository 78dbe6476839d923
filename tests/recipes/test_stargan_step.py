"""One step of StarGAN's training: which update is due, and whose weights it moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.optim.swa_utils import AveragedModel

from generators.stargan import StarGANDiscriminator, StarGANGenerator
from generators.stargan_losses import StarGANCritic, StarGANWeights
from malp_disc.data.faces import ProceduralFaces
from malp_disc.training.batches import steps
from malp_disc.training.stargan_branch import second_branch
from malp_disc.training.stargan_options import StarGANOptions
from malp_disc.training.stargan_step import StarGANStep, discriminator_optimizer

FACES = ProceduralFaces(16, image_size=16)


def options(**changed) -> StarGANOptions:
    return StarGANOptions(**{"output_dir": Path("x"), "max_train_steps": 8, "train_batch_size": 2, "warmup_steps": 4, "n_critic": 2, **changed})


def make(config: StarGANOptions) -> StarGANStep:
    torch.manual_seed(0)
    generator = StarGANGenerator(conv_dim=2, c_dim=5, repeat_num=1)
    critic = StarGANCritic(StarGANDiscriminator(image_size=16, conv_dim=2, c_dim=5, repeat_num=2), StarGANWeights(rec=config.reconstruction_weight))
    optimizers = {name: torch.optim.Adam(network.parameters(), lr=1e-3) for name, network in (("G", generator), ("D", critic))}
    return StarGANStep(generator, critic, AveragedModel(generator), optimizers, config, Accelerator(cpu=True))


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize(
    ("number", "terms"),
    [(1, {"G/copying"}), (4, {"D/adversarial", "G/copying"}), (5, {"D/adversarial"}), (6, {"D/adversarial", "G/reconstruction"})],
    ids=["warm-up", "its last quarter", "a step of the discriminator alone", "every second step"],
)
def test_each_step_updates_the_networks_that_are_due_and_no_other(number, terms):
    config = options()
    step = make(config)
    before = {name: weights(getattr(step, name)) for name in ("generator", "critic")}
    ((_, batches),) = list(steps(FACES, options(max_train_steps=1), step.accelerator, start=0))
    said = step(number, batches)
    assert terms <= said.keys() and {name.split("/")[0] for name in said} == {name.split("/")[0] for name in terms}
    assert torch.equal(weights(step.generator), before["generator"]) != any(name.startswith("G/") for name in terms)
    assert torch.equal(weights(step.critic), before["critic"]) != any(name.startswith("D/") for name in terms)
    assert all(parameter.requires_grad and (parameter.grad is None or not parameter.grad.any()) for parameter in step.critic.parameters())


def sgd(step: StarGANStep) -> StarGANStep:
    """Adam would enlarge rounding errors, and hide a wrong factor."""
    step.g_optimizer, step.d_optimizer = (torch.optim.SGD(network.parameters(), lr=1.0) for network in (step.generator, step.critic))
    return step


RATES = {"learning_rate": 0.1, "discriminator_learning_rate": 0.01}


@pytest.mark.parametrize("changed", [{"warmup_steps": 1}, {"n_critic": 1, "warmup_steps": 0, "identity_share": 0.5}], ids=["warm-up", "both networks"])
def test_micro_batches_give_what_one_batch_gives(changed):
    """The discriminator's penalty draws a number per image."""
    moved = []
    for size, accumulated in ((4, 1), (2, 2)):
        config = options(train_batch_size=size, gradient_accumulation_steps=accumulated, max_train_steps=1, **RATES, **changed)
        step = sgd(make(config))
        before = torch.cat([weights(step.generator), weights(step.critic)])
        ((number, batches),) = list(steps(FACES, config, step.accelerator, start=0))
        step(number, batches)
        moved.append(torch.cat([weights(step.generator), weights(step.critic)]) - before)
    assert moved[0].abs().max() > 1e-3
    torch.testing.assert_close(*moved, rtol=1e-3, atol=1e-6)


def test_a_step_is_one_of_gradient_descent_on_eq_5_and_then_on_eq_6():
    """At half of the rates, since three quarters of the steps are over; with the L1 loss to the input for images that keep their labels."""
    config = options(train_batch_size=4, n_critic=1, warmup_steps=0, identity_share=0.5, **RATES)
    step, by_hand = sgd(make(config)), make(config)
    given, again = (next(steps(FACES, config, step.accelerator, start=0))[1] for _ in range(2))
    step(7, given)
    generator, critic, (batch,) = by_hand.generator, by_hand.critic, again
    chosen = batch.noise.uniform() < 0.5
    target = torch.where(chosen[:, None], batch.labels, batch.target)
    assert 0 < chosen.sum() < 4
    for network, rate in ((critic, 0.005), (generator, 0.05)):
        fake = generator(batch.images, target)
        if network is critic:
            loss = critic(batch.images, fake.detach(), batch.labels, batch.noise.uniform(), target).total
        else:
            copying = (fake - batch.images)[chosen].abs().mean() * chosen.float().mean()
            loss = critic.generator_losses(batch.images, fake, generator(fake, batch.labels), target).total + 10 * copying
        parameters = list(network.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
            parameter.data -= rate * gradient
    for network, expected in ((step.generator, generator), (step.critic, critic)):
        torch.testing.assert_close(dict(network.state_dict()), dict(expected.state_dict()), rtol=1e-4, atol=1e-6)
        assert all(parameter.grad is None for parameter in network.parameters()), "none is left for the next step"
    torch.testing.assert_close(weights(step.average.module), weights(generator), rtol=1e-4, atol=1e-6, msg="the first update of the average replaces it")


def test_warming_up_learns_to_copy_with_the_images_own_labels():
    config = options(max_train_steps=1)
    step = sgd(make(config))
    ((_, (batch,)),) = list(steps(FACES, config, step.accelerator, start=0))
    batch.target = 1 - batch.labels
    expected = (step.generator(batch.images, batch.labels) - batch.images).abs().mean().item()
    assert step(1, [batch])["G/copying"].item() == pytest.approx(expected, rel=1e-5)


def test_a_share_of_the_images_keeps_its_labels():
    step = make(options(identity_share=1.0))
    ((_, batches),) = list(steps(FACES, options(max_train_steps=1), step.accelerator, start=0))
    assert all(chosen.all() for chosen in step.choose_copied(batches))
    assert all(torch.equal(batch.target, batch.labels) for batch in batches)


def test_the_second_branchs_heads_have_a_rate_of_their_own():
    step = with_branch(branch_learning_rate=0.5, discriminator_learning_rate=0.25)
    ((_, batches),) = list(steps(FACES, options(max_train_steps=1), step.accelerator, start=0))
    step(7, batches)
    assert [group["lr"] for group in step.d_optimizer.param_groups] == [0.125, 0.25], "half of them, by the schedule"


def test_crops_are_refused():
    with pytest.raises(ValueError, match="--random-crop"):
        options(random_crop=8).check()


def with_branch(**changed) -> StarGANStep:
    config = options(realness_weight=1.0, backbone="resnet10t", backbone_weights="random", backbone_side=32, warmup_steps=0, **changed)
    torch.manual_seed(0)
    generator, discriminator = StarGANGenerator(conv_dim=2, c_dim=5, repeat_num=1), StarGANDiscriminator(image_size=16, conv_dim=2, c_dim=5, repeat_num=2)
    critic = StarGANCritic(discriminator, StarGANWeights(adv=config.adversarial_weight, branch=config.realness_weight), second_branch(config, 16, 5))
    optimizers = {"G": torch.optim.Adam(generator.parameters(), lr=1e-3), "D": discriminator_optimizer(critic, config)}
    return StarGANStep(generator, critic, AveragedModel(generator), optimizers, config, Accelerator(cpu=True))


def test_the_second_branch_learns_beside_the_discriminator_and_its_backbone_does_not():
    step = with_branch()
    branch = step.critic.branch.malp.branch
    before = [weights(part) for part in (branch.realness_heads, branch.backbone, step.critic.discriminator)]
    ((_, batches),) = list(steps(FACES, options(max_train_steps=1), step.accelerator, start=0))
    said = step(2, batches)
    heads, backbone, discriminator = (torch.equal(weights(part), old) for part, old in zip((branch.realness_heads, branch.backbone, step.critic.discriminator), before))
    assert (heads, backbone, discriminator) == (False, True, False)
    assert said["D/realness"] > 0 and said["G/realness"] > 0
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in step.critic.parameters())


def test_a_branch_that_is_told_the_attributes_gets_them_in_both_updates():
    step = with_branch(conditional_realness=True)
    told = step.critic.branch.malp.branch.label_weights
    before = [weights.detach().clone() for weights in told]
    assert all(weights.shape == (5, 64) and not weights.any() for weights in told)
    ((_, batches),) = list(steps(FACES, options(max_train_steps=1), step.accelerator, start=0))
    step(2, batches)
    assert not any(torch.equal(weights, old) for weights, old in zip(told, before))
    real, values = torch.rand(2, 3, 16, 16) * 2 - 1, []
    for target in (torch.zeros(2, 5), torch.ones(2, 5)):
        values.append(step.critic.generator_losses(real, real, real, target).realness)
    assert values[0] != values[1]


def test_in_place_of_the_discriminators_realness_the_penalty_is_not_computed():
    step = with_branch(adversarial_weight=0.0)
    ((_, batches),) = list(steps(FACES, options(max_train_steps=1), step.accelerator, start=0))
    said = step(2, batches)
    assert said["D/penalty"] == 0 and said["D/classification"] > 0 and said["G/realness"] > 0


def test_the_branchs_loss_reaches_the_generator_with_its_weight():
    step = with_branch()
    real = torch.rand(2, 3, 16, 16) * 2 - 1
    moved = []
    for weight in (1.0, 3.0):
        step.critic.weights = StarGANWeights(cls=0.0, rec=0.0, adv=0.0, branch=weight)
        fake = real.flip(0).requires_grad_(True)
        step.critic.generator_losses(real, fake, real, torch.zeros(2, 5)).total.backward()
        moved.append(fake.grad)
    assert moved[0].any() and torch.allclose(3 * moved[0], moved[1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"realness_weight": -1.0}, "--realness-weight of 0 or more"),
        ({"adversarial_weight": 0.0}, "give a --realness-weight"),
        ({"branch_learning_rate": 0.0}, "--branch-learning-rate above 0"),
    ],
)
def test_weights_that_make_no_sense_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        options(**changed).check()
