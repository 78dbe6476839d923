"""A step of pretraining can be called by itself: it moves MaLP alone, by Eq. 11, and accumulated micro-batches are one large batch."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from accelerate import Accelerator

from malp_disc import MaLP, MaLPDiscriminator, fakeness_map
from malp_disc.data.faces import ProceduralFaces
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.serialization.state_dicts import load_tensors
from malp_disc.training import pretrain_step
from malp_disc.training.batches import steps
from malp_disc.training.pretrain_options import PretrainOptions
from malp_disc.training.pretrain_step import PretrainStep, learning_rates
from tests.recipes.conftest import TINY
from tests.recipes.engine import ToyGenerator
from tests.tiny import sample_images, tiny_malp

TERMS = {"MaLP/total", "MaLP/template", "MaLP/localization", "MaLP/recovery", "MaLP/classification"}


def make_step(tmp_path, *, accumulation: int = 1, batch_size: int = 4, set_size: int = 1, optimizer=torch.optim.Adam, **flags) -> tuple[PretrainStep, list]:
    config = PretrainOptions(output_dir=tmp_path, train_batch_size=batch_size, gradient_accumulation_steps=accumulation, max_train_steps=10, mixed_precision="no", **flags)
    malp = tiny_malp(image_size=16, branch=None, set_size=set_size)
    disc = MaLPDiscriminator(malp, trainable=True, generator_gradient=config.malp_generator_gradient)
    torch.manual_seed(0)
    generator = ToyGenerator().eval().requires_grad_(False)
    accelerator, faces = Accelerator(cpu=True), ProceduralFaces(16, image_size=16)
    base_rates = (1e-3, 5e-3)
    groups = optimizer(disc.parameter_groups(lr=base_rates[0], template_lr=base_rates[1]))
    step = PretrainStep(disc, disc, groups, generator, config, accelerator, base_rates=base_rates, attribute_names=faces.attribute_names)
    return step, next(steps(faces, config, accelerator, start=0))[1]


def weights(step: PretrainStep) -> dict[str, torch.Tensor]:
    return copy.deepcopy(step.discriminator.malp.state_dict())


def test_a_step_moves_malp_and_neither_the_generator_nor_the_batch(tmp_path):
    step, batches = make_step(tmp_path, malp_template_delay=0.0, malp_least_psnr=0.0)
    before, generator, images = weights(step), copy.deepcopy(step.generator.state_dict()), batches[0].images.clone()
    terms = step(1, batches)
    assert set(terms) == TERMS and all(value.isfinite() and not value.requires_grad for value in terms.values())
    still = [name for name, value in weights(step).items() if value.is_floating_point() and torch.equal(value, before[name])]
    assert still == [], "every weight of MaLP moves"
    assert all(torch.equal(value, generator[name]) for name, value in step.generator.state_dict().items())
    assert torch.equal(batches[0].images, images)
    assert all(not p.grad.any() for p in step.discriminator.parameters() if p.grad is not None)


def test_templates_stay_during_their_delay_while_the_networks_learn(tmp_path):
    step, batches = make_step(tmp_path, malp_template_delay=0.5, malp_least_psnr=0.0)
    before = weights(step)
    step(1, batches)
    moved = {name for name, value in weights(step).items() if not torch.equal(value, before[name])}
    assert "encryption.templates" not in moved and any(name.startswith("cnn.") for name in moved)


def test_the_delay_of_the_templates_is_over_after_its_share_of_the_steps(tmp_path):
    """The first of ten."""
    step, batches = make_step(tmp_path, malp_template_delay=0.1, malp_least_psnr=0.0)
    before = weights(step)["encryption.templates"]
    step(1, batches)
    assert torch.equal(weights(step)["encryption.templates"], before)
    step(2, batches)
    assert not torch.equal(weights(step)["encryption.templates"], before)


def test_a_generators_images_on_another_scale_are_refused(tmp_path):
    step, (batch,) = make_step(tmp_path)
    step.generator.manipulate = lambda images, target: 127.5 * images
    with pytest.raises(ValueError, match=r"expected fake in \[-1, 1\]"):
        step.losses(batch)


def test_the_loss_is_eq_11_on_the_encrypted_and_the_manipulated_images(tmp_path):
    step, (batch,) = make_step(tmp_path)
    losses = step.losses(batch)
    malp = step.discriminator.malp
    encrypted, index = malp.encrypt(batch.images, torch.zeros(4, dtype=torch.long))
    fake = step.generator.manipulate(encrypted, batch.target)
    expected = malp.losses(encrypted, fake, fakeness_map(batch.images, fake), index)
    for field in ("total", "template", "localization", "recovery", "classification"):
        torch.testing.assert_close(getattr(losses, field), getattr(expected, field), msg=field)


@pytest.mark.parametrize(("dropout", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_template_dropout_leaves_images_as_they_are(tmp_path, dropout, share):
    step, (batch,) = make_step(tmp_path, malp_template_dropout=dropout, set_size=2)
    encrypted, index = step.encrypt(batch)
    assert (index == NO_TEMPLATE).float().mean() == share
    unchanged = (encrypted == batch.images).flatten(1).all(1)
    assert torch.equal(unchanged, index == NO_TEMPLATE)


@pytest.mark.parametrize("gradient", ["none", "map"])
def test_only_a_generator_gradient_keeps_the_generators_graph(tmp_path, gradient):
    step, (batch,) = make_step(tmp_path, malp_generator_gradient=gradient)
    encrypted, _ = step.encrypt(batch)
    assert encrypted.requires_grad is step.edit(encrypted, batch).requires_grad is (gradient == "map")


def test_one_attribute_alone_is_edited(tmp_path):
    step, (batch,) = make_step(tmp_path, malp_attribute="Smiling")
    given = []
    step.generator.manipulate = lambda images, target: given.append(target) or images
    step.edit(batch.images, batch)
    changed = (given[0] != batch.labels).any(0)
    assert [name for name, different in zip(step.attribute_names, changed) if different] == ["Smiling"]


def test_a_degradation_reaches_malp_in_its_share_of_the_steps(tmp_path):
    seen = []
    for share in (0.0, 1.0):
        step, (batch,) = make_step(tmp_path, malp_degradation=share)
        step.wrapped = lambda *tensors, degradation: seen.append(degradation)
        step.losses(batch)
    assert seen[0] is None
    degraded = seen[1](batch.images)
    assert degraded.shape == batch.images.shape and not torch.equal(degraded, batch.images)


def test_whether_and_how_an_image_is_degraded_are_drawn_apart(tmp_path, monkeypatch):
    """From one number, a share of a quarter would always give the same kind."""
    told = []
    monkeypatch.setattr(pretrain_step, "random_degradation", lambda draws: told.append(draws))
    step, (batch,) = make_step(tmp_path, malp_degradation=0.25)
    step.wrapped = lambda *tensors, degradation: None
    for coin in (0.2, 0.3):
        batch.noise.uniform = lambda *shape, device=None, coin=coin: torch.tensor([[coin, 0.5, 0.625, 0.75]])
        step.losses(batch)
    assert told == [[0.5, 0.625, 0.75]]


def test_all_templates_are_used_and_the_dropout_of_malp_is_seeded_by_the_micro_batch(tmp_path):
    step, batches = make_step(tmp_path, set_size=2, batch_size=8, accumulation=2)
    assert {number for batch in batches for number in step.encrypt(batch)[1].tolist()} == {0, 1}
    seeds = []
    step.wrapped = lambda *tensors, degradation: seeds.append(torch.initial_seed())
    for batch in (*batches, *batches):
        torch.manual_seed(5)
        step.losses(batch)
    assert seeds[:2] == seeds[2:] and len({5, *seeds}) == 3


def test_two_micro_batches_are_one_batch_with_all_images(tmp_path):
    def plain_sgd(groups):
        return torch.optim.SGD(groups, lr=1e-3)

    results = []
    for accumulation, batch_size in ((1, 4), (2, 2)):
        step, batches = make_step(tmp_path, accumulation=accumulation, batch_size=batch_size, optimizer=plain_sgd, malp_template_delay=0.0, malp_least_psnr=0.0)
        results.append((step(1, batches), weights(step)))
    (whole, together), (parts, apart) = results
    for name in TERMS:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-5, msg=name)
    for name, value in together.items():
        torch.testing.assert_close(apart[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_templates_are_held_to_the_least_psnr(tmp_path):
    step, batches = make_step(tmp_path, malp_template_delay=0.0, malp_least_psnr=45.0)
    with torch.no_grad():
        step.discriminator.malp.encryption.templates.mul_(100)
    step(1, batches)
    encrypted, _ = step.encrypt(dataclasses.replace(batches[0]))
    error = (encrypted - batches[0].images).square().mean()
    assert 10 * torch.log10(4 / error) > 44.9


def test_a_pretrained_second_branch_learns_with_its_own_group(launch, stargan, tmp_path):
    """Three groups of parameters: networks, templates, heads. The backbone isn't saved, and the heads have moved from where they began."""
    launch("pretrain_malp.py", *TINY, "--output-dir", tmp_path, "--max-train-steps", 2, "--generator-checkpoint", stargan / "G.safetensors",
           "--malp-width", 4, "--malp-branch", "tf_efficientnet_lite0", "--test-size", 16)  # fmt: skip
    malp = MaLP.from_pretrained(tmp_path / "malp")
    assert malp.config.branch == "tf_efficientnet_lite0" and malp(sample_images(1, 32, 32), branch=True).branch_map.shape == (1, 1, 32, 32)
    heads = {name: value for name, value in load_tensors(tmp_path / "malp" / "model.safetensors").items() if "branch." in name}
    assert heads and not any("backbone" in name for name in heads)
    biases = [value for name, value in heads.items() if "heads." in name and name.endswith(".1.bias")]  # of the group norms, 0 at first
    assert biases and all(value.any() for value in biases)


def test_all_groups_follow_the_schedule_and_only_the_templates_wait():
    config = PretrainOptions(max_train_steps=100, malp_template_delay=0.25)
    rates = (1.0, 5.0, 2.0)
    assert learning_rates(config, rates, 0) == (1.0, 0.0, 2.0) and learning_rates(config, rates, 25) == (1.0, 5.0, 2.0)
    assert learning_rates(config, rates, 75) == pytest.approx([0.5, 2.5, 1.0], abs=0.02) and learning_rates(config, rates[:2], 75) == learning_rates(config, rates, 75)[:2]
