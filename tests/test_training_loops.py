"""MaLPDiscriminator in a training loop that isn't ours: three added lines, under Accelerate and autocast too."""

from __future__ import annotations

import difflib
import inspect

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from malp_disc import MaLPDiscriminator
from tests.tiny import Snapshot, gradients, sample_images, small_generator, tiny_malp

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
    return [(images, images.flip(1)) for images in (sample_images(2, seed=seed) for seed in range(2))]


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
    disc, images = MaLPDiscriminator(tiny_malp(), trainable=True), sample_images(2)
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
