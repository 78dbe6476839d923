"""The authors' networks: their own outputs, what MaLP makes of them, and learning."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from malp_disc import LossWeights, MaLP, MaLPConfig, MaLPDiscriminator, fakeness_map
from malp_disc.official.networks import OfficialClassifier, official_similarity
from malp_disc.official.vit import VIT_GENERATIONS, OfficialViT
from tests.golden.__main__ import chosen, list_cases
from tests.golden.authors_arithmetic import template_metric
from tests.golden.case import tapped
from tests.golden.seeded import image
from tests.official import GOLDENS, golden, official, packed, saved, seeded_network, seeded_state, signal
from tests.tiny import sample_images, with_rectangles


def test_every_network_and_the_arithmetic_have_the_authors_numbers_as_goldens():
    """Encoder, classifier, four ViTs; 13 losses with gradients; and one training step, gradient by gradient: tests/golden/test_data.py compares them."""
    names = ["malp_encoder", "malp_encoder1_classifier", *(f"malp_vit_{generation}" for generation in sorted(VIT_GENERATIONS))]
    names += ["official_losses", "official_train_step"]
    assert chosen(list_cases(GOLDENS), ["malp_*", "official_*"]) == names


@pytest.mark.parametrize("generation", VIT_GENERATIONS)
def test_a_checkpoint_gives_the_authors_outputs_through_malp(tmp_path, generation):
    """Map, template and transformer map of every key generation; sampled as the records are.

    Seeded weights leave the last ReLU nothing of the map, so it is compared before that, and must be what the ReLU makes of it.
    """
    malp = MaLP.from_official(saved(tmp_path, packed(generation)))
    assert not any(module.training for module in malp.modules())
    assert malp.config.vit_generation == generation and malp.config.branch
    theirs, vit = golden("malp_encoder"), golden(f"malp_vit_{generation}")
    with torch.no_grad():
        with tapped(map=malp.cnn.layers_5[1]) as before:
            out = malp(image("x", (2, 3, 128, 128)))
        second = malp(image("x", (1, 3, 128, 128)), branch=True)
    assert torch.allclose(before["map"][..., ::2, ::2], theirs["man_map_prerelu"], rtol=0, atol=2e-5)
    assert torch.equal(out.map, before["map"].clamp(0, 1)) and torch.allclose(out.map[..., ::2, ::2], theirs["man_map"], atol=1e-6)
    assert torch.allclose(out.template[..., ::2, ::2], theirs["signal"], rtol=0, atol=4e-5)
    assert torch.allclose(second.branch_map[..., ::2, ::2], vit["trans_map"], rtol=0, atol=1e-4 * vit["trans_map"].abs().max().item())


def test_the_classifier_of_a_checkpoint_answers_as_the_authors(tmp_path):
    path = saved(tmp_path, packed(classifier=lambda: seeded_state(OfficialClassifier)))
    malp = MaLP.from_official(path)
    path.unlink()  # 140 MB
    y, maps = golden("malp_encoder1_classifier")["y"], image("x", (4, 1, 128, 128)) * 0.5 + 0.5
    with torch.no_grad():
        assert torch.allclose(malp.classifier.sigmoids(maps), y, atol=1e-5)
        assert torch.allclose(malp.classifier(maps), y[:, 1] - y[:, 0], atol=1e-5)
        assert torch.allclose(malp.classifier(maps).sigmoid(), y.softmax(1)[:, 1], atol=1e-5)  # P(fake) by their softmax of sigmoids


# --- what MaLP makes of them ---------------------------------------------------------------------------------------------------------------


def test_the_map_is_clamped_and_the_classifier_sees_it_as_it_is():
    malp, images = official(), sample_images(2, 128, 128)
    with torch.no_grad():
        malp.cnn.layers_5[1].bias.fill_(1.1)  # around 1: their map has no upper bound
        raw, template = malp.cnn(images)
        out = malp(images)
        assert raw.max() > 1 > raw.min() >= 0
        assert torch.equal(out.map, raw.clamp(0, 1)) and torch.equal(out.template, template)
        assert torch.equal(out.logit, malp.classifier(raw)) and not torch.equal(out.logit, malp.classifier(out.map))


def test_similarity_is_the_authors_cosine_the_largest_of_the_set():
    """cos(m·A_i, min-max of the recovered template), as their metric has it; m changes nothing."""
    malp, images = official(count=3), sample_images(2, 128, 128)
    with torch.no_grad():
        out = malp(images)
        expected = template_metric(0.1 * malp.encryption.templates, out.template, out.template)[..., 0].amax(1)
    assert torch.allclose(out.similarity, expected, atol=1e-5)
    assert torch.allclose(out.score, (out.logit.sigmoid() + 1 - out.similarity) / 2)


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_a_constant_recovered_template_is_similar_to_nothing(level):
    """0/0 in their code. Here 0, with a finite gradient: a dead head has recovered no template."""
    recovered = torch.full((2, 1, 128, 128), level, requires_grad=True)
    similarity = official_similarity(recovered, signal(3)[:, None])
    similarity.sum().backward()
    assert torch.equal(similarity, torch.zeros(2, 3)) and recovered.grad.isfinite().all()
    malp = official()
    with torch.no_grad():
        malp.cnn.layers_6[1].weight.zero_(), malp.cnn.layers_6[1].bias.fill_(level)
        out = malp(sample_images(1, 128, 128))
    assert out.similarity.item() == 0 and out.score.isfinite().all()


def test_encryption_adds_m_times_a_and_clamps():
    malp, images = official(count=2), sample_images(2, 128, 128)
    index = torch.tensor([1, 0])
    assert torch.allclose(malp.encrypt(images, index)[0], (images + malp.config.strength * signal(2)[index, None]).clamp(-1, 1), atol=1e-6)
    assert malp.encrypt(torch.ones(1, 3, 128, 128))[0].max() == 1  # theirs goes beyond


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160), (128, 128)])
def test_images_of_other_sizes_are_taken(height, width):
    malp, images = official("prenorm"), sample_images(2, height, width)
    with torch.no_grad():
        malp.cnn.layers_5[1].bias.fill_(0.3)  # alive in every pixel
        out = malp(images, branch=True)
        assert out.map.shape == out.template.shape == out.branch_map.shape == (2, 1, height, width)
        assert out.logit.shape == out.similarity.shape == out.score.shape == (2,)
        raw = malp.cnn(images)[0]
        resampled = nn.functional.interpolate(raw, (128, 128), mode="bilinear", antialias=True)
        y = malp.classifier.sigmoids(raw if raw.shape[2:] == (128, 128) else resampled)
    assert torch.allclose(out.logit, y[:, 1] - y[:, 0], atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (1, 3, 128, 128), (1, 128, 128)])
def test_the_classifier_itself_takes_one_size_only(shape):
    with pytest.raises(ValueError, match=r"takes \(B, 1, 128, 128\) only, got \(" + ", ".join(map(str, shape))):
        official().classifier.sigmoids(torch.zeros(shape))


@pytest.mark.parametrize(("height", "width"), [(136, 128), (60, 64), (64, 60), (256, 256)])
def test_the_transformer_refuses_what_it_has_no_positions_for(height, width):
    with pytest.raises(ValueError, match=f"sides divisible by 8 and at most 256 patches, as 128x128 has, got {height}x{width}"):
        seeded_network(OfficialViT, "prenorm")(torch.zeros(1, 3, height, width))


@pytest.mark.parametrize("generation", VIT_GENERATIONS)
def test_a_token_fills_half_a_row_and_the_class_token_none(generation):
    vit = copy.deepcopy(seeded_network(OfficialViT, generation)).eval()
    images = sample_images(1, 128, 128)
    with torch.no_grad():
        tokens, map_ = vit.tokens(images), vit(images)
    assert tokens.shape == (1, 257, 64)
    for number in (1, 2, 3, 200):
        row, column = divmod((number - 1) * 64, 128)
        assert torch.equal(map_[0, 0, row, column : column + 64], tokens[0, number])


def test_generations_differ_in_more_than_their_keys():
    """The last norm is in the head of the older two, in the blocks of the younger two."""
    images = sample_images(1, 128, 128)
    with torch.no_grad():
        for generation in VIT_GENERATIONS:
            vit = copy.deepcopy(seeded_network(OfficialViT, generation)).eval()
            for module in vit.modules():
                if isinstance(module, nn.LayerNorm):
                    module.weight.fill_(1), module.bias.zero_()
            normed = torch.allclose(vit.tokens(images).mean(2), torch.zeros(1, 257), atol=1e-4)
            assert normed == (generation in ("foldednorm", "current"))
    with pytest.raises(ValueError, match="'postnorm'.*prenorm, dualpatchnorm, foldednorm, current"):
        OfficialViT("postnorm")


# --- learning ------------------------------------------------------------------------------------------------------------------------------


def test_every_parameter_takes_part_in_j_and_here_the_transformer_learns():
    """In the authors' code none of the transformer's 74 parameters gets a gradient (golden official_train_step: null)."""
    malp, images = official("prenorm", count=2).train(), sample_images(2, 128, 128)
    malp.cnn.layers_5[1].bias.data.fill_(0.3)  # alive in every pixel
    encrypted, index = malp.encrypt(images, torch.tensor([0, 1]))
    fake = with_rectangles(encrypted.detach())
    malp.losses(encrypted, fake, fakeness_map(images, fake), index, LossWeights()).total.backward()
    gradients = {name: parameter.grad for name, parameter in malp.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
    # The class head has no part in MaLP: its gradient is zero, not missing.
    assert {name for name, gradient in gradients.items() if not gradient.any()} == {name for name in gradients if name.startswith("branch.mlp_head.")}


def test_a_frozen_one_teaches_a_generator():
    disc = MaLPDiscriminator(official("current"), map_weight=1.0, classifier_weight=1.0, template_weight=1.0)
    disc.malp.cnn.layers_5[1].bias.data.fill_(0.3)
    fake = sample_images(2, 128, 128).requires_grad_(True)
    disc.generator_loss(fake, torch.zeros(2, dtype=torch.long)).total.backward()
    assert fake.grad.isfinite().all() and (fake.grad.flatten(1).abs().sum(1) > 0).all()
    assert all(parameter.grad is None for parameter in disc.parameters())


def test_a_fresh_one_starts_from_templates_as_theirs():
    """Uniform in [0, 1)."""
    templates = MaLP(MaLPConfig(architecture="official")).encryption.templates
    assert templates.shape == (1, 128, 128) and 0 <= templates.min() < 0.01 and 0.99 < templates.max() < 1


@pytest.mark.parametrize(("setting", "value"), [("image_size", 64), ("width", 32), ("template_size", 64)])
def test_the_authors_networks_have_one_size(setting, value):
    with pytest.raises(ValueError, match="authors' networks have image size 128, width 64 and template size 128, got .*architecture='paper' takes others"):
        MaLPConfig(architecture="official", **{setting: value})
    with pytest.raises(ValueError, match="unknown generation of vit-pytorch's keys 'latest'"):
        MaLP(MaLPConfig(architecture="official", vit_generation="latest"))
