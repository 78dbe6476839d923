"""StarGAN v2: the files people have of it, domains and styles, and the edges that are kept where the masks say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from generators import create_generator
from generators.starganv2 import StarGANv2, starganv2_discriminator
from generators.starganv2_networks import HighPass, StarGANv2Discriminator, StyledBlock
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

TINY = {"max_conv_dim": 8, "style_dim": 6, "latent_dim": 3, "hidden_dim": 8, "num_domains": 2, "w_hpf": 0}


class TestContract(GeneratorContract):
    name = "starganv2"
    config = {**TINY, "img_size": 256}
    untouched = ("style_encoder",)

    def target(self, count: int) -> Tensor:
        return torch.arange(count) % 2


def tiny(**config) -> StarGANv2:
    torch.manual_seed(0)
    return StarGANv2(**{**TINY, **config}).eval()


def masked(network: StarGANv2, value: float) -> StarGANv2:
    """The same with masks that are `value` everywhere; the landmark network takes a second per image and knows no faces here."""
    network.fan.masks = lambda images: (torch.full((len(images), 1, 64, 64), value),) * 2
    return network


# --- domains and styles ------------------------------------------------------------------------------------------------------------


def test_a_domain_is_the_style_of_one_latent_in_that_domain():
    network, images = tiny(num_domains=3), sample_images(2)
    latents = torch.randn(1, 3, generator=torch.Generator().manual_seed(0)).expand(2, -1)
    domains = torch.tensor([2, 1])
    output = network.manipulate(images, domains)
    assert torch.equal(output, network.manipulate(images, network.mapping_network(latents, domains)))
    assert not torch.allclose(output, network.manipulate(images, domains.flip(0)), atol=1e-4)
    assert torch.equal(network.manipulate(images), network.manipulate(images, torch.zeros(2, dtype=torch.int32)))


def test_each_image_goes_through_its_domains_head():
    network, latents = tiny(num_domains=3).mapping_network, torch.randn(3, 3)
    styles = network(latents, torch.tensor([1, 2, 0]))
    for style, latent, domain in zip(styles, latents, (1, 2, 0)):
        assert torch.allclose(style, network.unshared[domain](network.shared(latent)), atol=1e-6)


def test_a_references_style_is_a_target():
    network = tiny(img_size=64)
    images, references = sample_images(2, 64, 64), sample_images(2, 64, 64, seed=1)
    style = network.style_encoder(references, torch.tensor([0, 1]))
    assert style.shape == (2, 6) and not torch.allclose(style, network.style_encoder(references, torch.tensor([1, 0])), atol=1e-5)
    (network.manipulate(images, style) * sample_images(2, 64, 64, seed=3)).sum().backward()
    assert all(parameter.grad.any() for parameter in network.style_encoder.parameters())
    with pytest.raises(ValueError, match=r"images \(B, 3, 64, 64\), got \(2, 3, 32, 32\)"):
        network.style_encoder(sample_images(2), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 2]), r"domains from 0 to 1, got \[0, 2\]"),
        (torch.tensor([-1, 0]), r"domains from 0 to 1, got \[-1, 0\]"),
        (torch.tensor([0.0, 1.0]), r"domains \(2,\) as whole numbers or styles \(2, 6\), got \(2,\) of torch.float32"),
        (torch.zeros(2, 5), r"styles \(2, 6\), got \(2, 5\)"),
        (torch.zeros(1, dtype=torch.long), r"domains \(2,\).*got \(1,\)"),
    ],
)
def test_other_targets_are_refused(target, message):
    with pytest.raises(ValueError, match=message):
        tiny().manipulate(sample_images(2), target)


def test_the_image_is_cut_to_the_range_by_manipulate_alone():
    network, images = tiny(), sample_images(2)
    with torch.no_grad():
        network.generator.to_rgb[2].weight.mul_(20)
        raw = network(images)
        assert raw.abs().max() > 1 and torch.equal(network.manipulate(images), raw.clamp(-1, 1))


# --- kept edges --------------------------------------------------------------------------------------------------------------------


def test_the_high_pass_answers_a_point_and_not_a_plane():
    x = torch.zeros(1, 2, 7, 7)
    x[:, 0, 3, 3], x[:, 1] = 1, 5
    output = HighPass(2)(x)
    assert output[0, 0, 3, 3] == 4 and output[0, 0, 2, 2] == -0.5 and output[0, 0].sum() == 0 and not output[0, 1, 1:-1, 1:-1].any()


def test_masks_bring_the_images_edges_back():
    network, images = masked(tiny(w_hpf=1), 0.0), sample_images(2, 64, 64)
    with torch.no_grad():
        style = network.style(images)
        without = network(images)
        assert torch.equal(without, network.generator(images, style))
        whole = masked(network, 1.0)(images)
        assert not torch.allclose(whole, without, atol=1e-3)
        network.generator.hpf.filter.zero_()
        assert torch.equal(network(images), without)


def test_each_size_has_its_mask():
    """At 64 pixels' height features of 32 and of 64 are kept: both masks are used, each at its own."""
    network, images = tiny(w_hpf=1), sample_images(1, 64, 64)
    none, full = torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)
    seen = []
    network.generator.hpf.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0].shape[2], bool(inputs[0].any()))))
    with torch.no_grad():
        for masks in ((full, none), (none, full)):
            network.generator(images, network.style(images), masks)
    assert seen == [(32, True), (64, False), (32, False), (64, True)]


def test_with_kept_edges_a_block_has_no_shortcut_and_no_division():
    torch.manual_seed(0)
    block, x, style = StyledBlock(4, 4, 6, bare=False), torch.randn(2, 4, 8, 8), torch.randn(2, 6)
    whole = block(x, style)
    block.bare = True
    assert torch.allclose((block(x, style) + x) / 2**0.5, whole, atol=1e-6)


# --- published files ---------------------------------------------------------------------------------------------------------------

PARTS = ("generator", "mapping_network", "style_encoder")


def published(network: StarGANv2, prefix: str = "") -> dict[str, dict[str, Tensor]]:
    parts = (*PARTS, "fan") if network.fan is not None else PARTS
    return {part: {prefix + key: value for key, value in getattr(network, part).state_dict().items()} for part in parts}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_published_layout_loads_and_the_widths_are_read_from_it(tmp_path, prefix):
    network, images = tiny(num_domains=3), sample_images(2)
    torch.save(published(network, prefix), tmp_path / "100000_nets_ema.ckpt")
    loaded = create_generator("starganv2", tmp_path / "100000_nets_ema.ckpt", num_domains=3).eval()
    assert loaded.config == {**TINY, "img_size": 256, "num_domains": 3} and loaded.fan is None
    assert torch.equal(loaded.manipulate(images), network.manipulate(images))


@pytest.mark.parametrize(("w_hpf", "with_filter"), [(1, False), (1, True), (2, True)])
def test_the_faces_file_loads_with_and_without_the_constant_filter(tmp_path, w_hpf, with_filter):
    network, images = tiny(w_hpf=w_hpf), sample_images(1, 64, 64)
    file = published(network)
    if not with_filter:
        del file["generator"]["hpf.filter"]
    torch.save(file, tmp_path / "100000_nets_ema.ckpt")
    loaded = create_generator("starganv2", tmp_path / "100000_nets_ema.ckpt").eval()
    assert loaded.config["w_hpf"] == w_hpf
    assert torch.equal(masked(loaded, 1.0).manipulate(images), masked(network, 1.0).manipulate(images))
    del file["fan"]
    torch.save(file, tmp_path / "faceless.ckpt")
    with pytest.raises(ValueError, match=r"faceless.ckpt.*missing, first \['fan\.conv1"):
        create_generator("starganv2", tmp_path / "faceless.ckpt")


def test_the_discriminator_loads_from_a_training_checkpoint(tmp_path):
    torch.manual_seed(0)
    network = StarGANv2Discriminator(img_size=64, num_domains=3, max_conv_dim=8)
    torch.save({"generator": {}, "discriminator": network.state_dict()}, tmp_path / "100000_nets.ckpt")
    loaded = starganv2_discriminator(tmp_path / "100000_nets.ckpt", num_domains=3)
    assert loaded.config == network.config
    images, domains = sample_images(2, 64, 64), torch.tensor([2, 0])
    logits = network(images, domains)
    assert logits.shape == (2,) and torch.equal(loaded(images, domains), logits)
    logits.sum().backward()
    assert all(parameter.grad.any() for parameter in network.parameters())
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.ckpt")
    with pytest.raises(ValueError, match=r"linear.ckpt is not a checkpoint of this StarGANv2Discriminator.*\['weight', 'bias'\]"):
        starganv2_discriminator(tmp_path / "linear.ckpt")


def test_other_files_and_arguments_are_refused(tmp_path):
    torch.save(published(tiny()), tmp_path / "nets.ckpt")
    with pytest.raises(ValueError, match="nets.ckpt: w_hpf is 0 in the file and 1 was asked for"):
        create_generator("starganv2", tmp_path / "nets.ckpt", w_hpf=1)
    torch.save({"generator": tiny().generator.state_dict()}, tmp_path / "generator.ckpt")
    with pytest.raises(ValueError, match=r"generator.ckpt .*StarGAN v2.*found \['generator'\]"):
        create_generator("starganv2", tmp_path / "generator.ckpt")
