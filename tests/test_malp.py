"""MaLP as a whole: the public names, its outputs, J of Eq. 11, and that it learns."""

from __future__ import annotations

import dataclasses
import inspect
import warnings

import pytest
import torch

import malp_disc
from malp_disc import MaLP, MaLPConfig, MaLPDiscriminator, MaLPOutput, fakeness_map
from malp_disc.encryption import NO_TEMPLATE
from malp_disc.losses import (
    LossWeights,
    classification_loss,
    localization_loss_encrypted,
    localization_loss_manipulated,
    recovery_loss,
    template_loss,
)
from tests.tiny import OUTPUTS, SIZE, sample_images, tiny_malp, with_rectangles


def test_the_public_names_are_those_of_the_design():
    for name in ("MaLP", "MaLPConfig", "MaLPOutput", "MaLPDiscriminator", "LossWeights", "fakeness_map"):
        assert hasattr(malp_disc, name) and name in malp_disc.__all__
    assert {"encrypt", "forward", "losses", "save_pretrained", "from_pretrained"} <= set(dir(MaLP))
    assert {"encrypt", "generator_loss", "discriminator_loss", "parameter_groups", "from_pretrained"} <= set(dir(MaLPDiscriminator))
    assert [field.name for field in dataclasses.fields(MaLPOutput)][:5] == ["map", "template", "logit", "similarity", "score"]
    assert list(inspect.signature(MaLP.encrypt).parameters) == ["self", "images", "index", "generator"]
    assert list(inspect.signature(MaLPDiscriminator.encrypt).parameters) == ["self", "images", "index", "generator"]
    assert list(inspect.signature(MaLPDiscriminator.generator_loss).parameters) == ["self", "fake", "index", "target", "keep_map"]
    asked = ["self", "images", "encrypted", "fake", "index", "real", "degradation", "features", "labels", "target", "known_map"]
    assert list(inspect.signature(MaLPDiscriminator.discriminator_loss).parameters) == asked


def test_the_defaults_are_the_papers():
    config = MaLPConfig()
    assert (config.image_size, config.set_size, config.strength, config.architecture) == (128, 1, 0.3, "paper")
    assert MaLP(MaLPConfig(width=8, branch=None)).encryption.templates.shape == (1, 128, 128)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (48, 48)])
def test_the_output_is_as_documented(height, width):
    out = tiny_malp(set_size=2)(sample_images(3, height, width))
    assert out.map.shape == out.template.shape == (3, 1, height, width)
    assert out.logit.shape == out.similarity.shape == out.score.shape == (3,)
    assert 0 <= out.map.min() and out.map.max() <= 1
    assert 0 <= out.score.min() and out.score.max() <= 1
    assert out.similarity.abs().max() <= 1
    assert out.branch_map is None


def test_the_second_branch_runs_when_asked_and_only_then():
    malp = tiny_malp(branch="vit").eval()
    images = sample_images(2)
    assert malp(images).branch_map is None
    out = malp(images, branch=True)
    assert out.branch_map.shape == (2, 1, SIZE, SIZE)
    assert torch.equal(out.map, malp(images).map)
    with pytest.raises(ValueError, match="branch=None"):
        tiny_malp()(images, branch=True)


def test_templates_have_the_papers_size_at_most():
    assert tiny_malp(image_size=144, set_size=2).encryption.templates.shape == (2, 128, 128)
    assert tiny_malp(image_size=144, template_size=144).encryption.templates.shape == (1, 144, 144)


def test_similarity_is_the_largest_over_the_set_and_the_score_averages_both():
    malp = tiny_malp(set_size=3)
    out = malp(sample_images(2))
    templates = malp.encryption.at((SIZE, SIZE))
    table = torch.nn.functional.cosine_similarity(out.template.flatten(1)[:, None], templates.flatten(1)[None], dim=2)
    assert torch.allclose(out.similarity, table.amax(1), atol=1e-4)
    assert torch.allclose(out.score, (out.logit.sigmoid() + 1 - out.similarity.clamp(0, 1)) / 2)


def test_a_passive_malp_scores_by_its_classifier_alone_and_adds_nothing():
    malp, images = tiny_malp(strength=0.0), sample_images(2)
    assert malp.passive and not tiny_malp().passive
    assert torch.equal(malp.encrypt(images)[0], images)
    out = malp(images)
    assert torch.equal(out.score, out.logit.sigmoid())


def test_encrypt_draws_where_no_index_is_given():
    malp, images = tiny_malp(set_size=4), sample_images(8)
    encrypted, index = malp.encrypt(images, generator=torch.Generator().manual_seed(3))
    again, same = malp.encrypt(images, generator=torch.Generator().manual_seed(3))
    assert torch.equal(index, same) and torch.equal(encrypted, again)
    assert index.dtype == torch.long and index.shape == (8,) and len(set(index.tolist())) > 1
    assert encrypted.shape == images.shape and encrypted.abs().max() <= 1
    assert torch.equal(malp.encrypt(images, index)[0], encrypted)


def test_an_index_of_another_integer_type_comes_back_as_long():
    assert tiny_malp().encrypt(sample_images(2), torch.zeros(2, dtype=torch.int32))[1].dtype == torch.long


def test_arithmetic_is_float32_under_bf16_autocast_and_gives_the_same_numbers():
    malp, images = tiny_malp(branch="vit").eval(), sample_images(2)
    fake, index = with_rectangles(images), torch.zeros(2, dtype=torch.long)
    plain, plain_losses = malp(images, branch=True), malp.losses(malp.encrypt(images, index)[0], fake, fakeness_map(images, fake), index)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, losses = malp(images, branch=True), malp.losses(malp.encrypt(images, index)[0], fake, fakeness_map(images, fake), index)
    for field in OUTPUTS:
        value = getattr(out, field)
        assert value.dtype == torch.float32 and torch.equal(value, getattr(plain, field)), field
    for field in dataclasses.fields(losses):
        assert torch.equal(getattr(losses, field.name), getattr(plain_losses, field.name)), field.name


def test_bf16_images_are_taken():
    out = tiny_malp()(sample_images(2).bfloat16())
    assert out.map.dtype == torch.float32


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 32, 32), r"\(B, 3, H, W\), got \(2, 1, 32, 32\)"),
        (torch.full((1, 3, 32, 32), 255.0), "divide by 127.5 and subtract 1"),
        (torch.full((1, 3, 32, 32), torch.nan), "got min nan"),
    ],
)
def test_what_are_no_images_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        tiny_malp()(images)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "papier"}, "unknown architecture 'papier'"),
        ({"image_size": 8}, "image size of at least 16, got 8"),
        ({"image_size": 36, "branch": "vit"}, "divisible by 8, got 36; or branch=None"),
        ({"width": 2}, "width of at least 4, best a multiple of 8.*got 2"),
        ({"width": 28}, "width of at least 4, best a multiple of 8.*got 28"),
        ({"strength": 1.5}, r"strength in \[0, 1\], got 1.5"),
        ({"set_size": 0}, "template set of at least 1"),
    ],
)
def test_an_impossible_config_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        tiny_malp(**config)


# --- Eq. 11 ------------------------------------------------------------------------------------------------------------------------


def batch(malp: MaLP, count: int = 4, index: list[int] | None = None):
    images = sample_images(count)
    encrypted, index = malp.encrypt(images, None if index is None else torch.tensor(index))
    fake = with_rectangles(encrypted.detach())
    return encrypted, fake, fakeness_map(images, fake), index


@pytest.mark.parametrize("index", [[0, 1, 1], [0, NO_TEMPLATE, 1]])
def test_j_is_the_sum_of_its_parts_and_each_part_is_its_equation(index):
    """Restated from two separate forward passes; the two branches of the localization add up; -1 leaves the classifier alone."""
    malp, weights = tiny_malp(set_size=2, branch="vit").eval(), LossWeights()
    encrypted, fake, truth, index = batch(malp, 3, index)
    losses = malp.losses(encrypted, fake, truth, index, weights)
    real, changed = malp(encrypted, branch=True), malp(fake, branch=True)
    localization = sum(
        localization_loss_encrypted(getattr(real, name), truth, weights) + localization_loss_manipulated(getattr(changed, name), truth, weights)
        for name in ("map", "branch_map")
    )
    similarity = torch.cat([real.similarity, changed.similarity])
    label, expected = torch.tensor([0, 0, 0, 1, 1, 1]), torch.cat([index >= 0, index >= 0])
    classification = classification_loss(torch.cat([real.logit, changed.logit]), similarity, label, expected, weights)
    recovery = recovery_loss(real.template, changed.template, malp.encryption.at((SIZE, SIZE)), index, weights)
    template = template_loss(malp.encryption.templates, weights)
    assert torch.allclose(losses.localization, localization, rtol=1e-4)
    assert torch.allclose(losses.classification, classification, rtol=1e-4)
    assert torch.allclose(losses.recovery, recovery, rtol=1e-4)
    assert torch.allclose(losses.template, template, rtol=1e-4)
    assert torch.allclose(losses.total, localization + classification + recovery + template, rtol=1e-4)


def test_without_weights_the_default_ones_count():
    malp = tiny_malp()
    arguments = batch(malp, 2)
    assert torch.equal(malp.losses(*arguments).total, malp.losses(*arguments, LossWeights()).total)


@pytest.mark.parametrize(
    "config", [{"branch": "vit"}, {"branch": None}, {"strength": 0.0}, {"set_size": 3}, {"strength": 0.0, "branch": "vit"}]
)
def test_every_parameter_takes_part_in_j(config):
    """None left without a gradient, or several processes stop with "expected to have finished reduction"."""
    malp = tiny_malp(**config).train()
    malp.losses(*batch(malp)).total.backward()
    without = [name for name, parameter in malp.named_parameters() if parameter.grad is None]
    broken = [name for name, parameter in malp.named_parameters() if parameter.grad is not None and not parameter.grad.isfinite().all()]
    still = {name for name, parameter in malp.named_parameters() if parameter.grad is not None and not parameter.grad.any()}
    assert without == [] and broken == []
    # A passive detector has no template to learn and nothing to recover: those gradients are zero, not missing.
    unused = {name for name, _ in malp.named_parameters() if name.startswith(("encryption.", "cnn.recovery."))}
    assert still == (unused if malp.passive else set())


def test_every_parameter_takes_part_when_no_image_has_a_template():
    malp = tiny_malp(set_size=2)
    malp.losses(*batch(malp, 3, [NO_TEMPLATE] * 3)).total.backward()
    assert [name for name, parameter in malp.named_parameters() if parameter.grad is None] == []


def test_a_passive_j_has_no_template_and_no_recovery_term():
    encrypted, fake, truth, index = batch(malp := tiny_malp(strength=0.0).eval())
    losses = malp.losses(encrypted, fake, truth, index)
    assert losses.template.item() == 0 and losses.recovery.item() == 0
    logits, label = torch.cat([malp(encrypted).logit, malp(fake).logit]), torch.arange(2).repeat_interleave(4)
    assert torch.allclose(losses.classification, classification_loss(logits, torch.zeros(8), label, torch.zeros(8, dtype=torch.bool), LossWeights()))
    assert torch.allclose(losses.total, losses.localization + losses.classification)


def test_an_untouched_image_leaves_j_finite():
    """G(x) = x: the truth is zero everywhere and has no cosine."""
    malp, images = tiny_malp(branch="vit"), sample_images(2)
    encrypted, index = malp.encrypt(images)
    losses = malp.losses(encrypted, images, fakeness_map(images, images), index)
    losses.total.backward()
    assert losses.total.isfinite() and all(parameter.grad.isfinite().all() for parameter in malp.parameters())


def test_sixty_steps_teach_it_where_eight_images_were_changed():
    """Pearson of map and truth, which a constant map can't have, and the template is found in the encrypted images only."""
    malp = tiny_malp(1)
    images, index = sample_images(8), torch.zeros(8, dtype=torch.long)
    groups = [{"params": malp.cnn.parameters()}, {"params": malp.classifier.parameters()}, {"params": malp.encryption.parameters(), "lr": 1e-2}]
    optimizer = torch.optim.Adam(groups, lr=3e-3)

    def forward():
        encrypted, _ = malp.encrypt(images, index)
        fake = with_rectangles(encrypted.detach())
        return encrypted, fake, fakeness_map(images, fake)

    def correlation() -> float:
        _, fake, truth = forward()
        return sum(torch.corrcoef(torch.stack([m.flatten(), t.flatten()]))[0, 1].item() for m, t in zip(malp(fake).map, truth)) / len(truth)

    with torch.no_grad():
        before = correlation()
    for _ in range(60):
        encrypted, fake, truth = forward()
        optimizer.zero_grad()
        malp.losses(encrypted, fake, truth, index).total.backward()
        optimizer.step()
    with torch.no_grad():
        after = correlation()
        encrypted, fake, _ = forward()
        untouched, changed = malp(encrypted), malp(fake)
    assert before < 0.5 and after > 0.75
    assert untouched.map.mean() < changed.map.mean()
    assert untouched.score.max() < changed.score.min()


def test_images_of_another_size_get_stretched_templates_and_a_warning():
    malp = tiny_malp(image_size=16)
    with pytest.warns(UserWarning, match="at 32x16 its templates are stretched") as caught:
        malp.encrypt(torch.zeros(1, 3, 32, 16))
    assert caught[0].filename == __file__, "the warning points at the caller"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        malp.encrypt(torch.zeros(1, 3, 16, 16))
        tiny_malp(image_size=16, strength=0).encrypt(torch.zeros(1, 3, 32, 16))  # without a template there is nothing to recognize
