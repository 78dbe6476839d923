"""StyleGAN v1 in both ports: latents in, InterFaceGAN's edits, the published layouts, and the interface."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from generators import create_generator
from generators.interfacegan import edit, to_sphere
from generators.style_based_gan import StyleBasedGAN
from generators.stylegan import StyleGANGenerator
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

SMALL = {"resolution": 16, "w_space_dim": 8, "fmaps_base": 64, "fmaps_max": 8}
OTHER = {"port": "rosinality", "resolution": 16, "code_dim": 8, "n_mlp": 2, "channels": 32}


def small(seed: int = 0, **config) -> nn.Module:
    torch.manual_seed(seed)
    return create_generator("stylegan", **{**SMALL, **config}).eval()


def other(**config) -> nn.Module:
    torch.manual_seed(0)
    return create_generator("stylegan", **{**OTHER, **config}).eval()


def codes(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


class TestContract(GeneratorContract):
    name = "stylegan"
    config = SMALL
    size = (16, 16)
    untouched = ("synthesis.output0.", "synthesis.output1.")
    trains_input = False
    uses_image = False

    def target(self, count: int) -> Tensor:
        return codes(count, 8)


class TestContractFused(TestContract):
    config = {**SMALL, "fused_scale": True}

    def target(self, count: int) -> Tensor:
        return codes(count, 6, 8)

    untouched = (*TestContract.untouched, "mapping.")


class TestContractRosinality(TestContract):
    config = OTHER
    untouched = tuple(
        f"generator.{part}.{i}." for part, unused in (("progression", range(3, 9)), ("to_rgb", (0, 1, *range(3, 9)))) for i in unused
    )


class TestContractRosinalityFused(TestContractRosinality):
    config = {**OTHER, "fused_from": 16}


# --- edits -------------------------------------------------------------------------------------------------------------------------


def test_an_edited_code_lies_at_the_wanted_distance_and_moved_along_the_normal_only():
    boundary, z = to_sphere(codes(1, 8)) / math.sqrt(8), to_sphere(codes(3, 8))
    distances = torch.tensor([-2.0, 0.0, 3.0])
    edited = edit(z, boundary, distances)
    assert torch.allclose(edited @ boundary[0], distances, atol=1e-5)
    moved = edited - z
    assert torch.allclose(moved, (moved @ boundary[0])[:, None] * boundary, atol=1e-5)
    assert torch.allclose(edit(edited, boundary, z @ boundary[0]), z, atol=1e-5), "and back"


def test_styles_are_moved_by_the_distance():
    boundary, styles = torch.eye(8)[2], codes(2, 6, 8)
    moved = edit(styles, boundary, 1.5) - styles
    assert torch.allclose(moved, (1.5 * boundary).expand(2, 6, 8), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "boundary", "message"),
    [
        ((2, 8), torch.eye(9)[0], r"codes \(B, 9\) or \(B, L, 9\), as long as the boundary, got \(2, 8\)"),
        ((8,), torch.eye(8)[0], r"got \(8,\)"),
        ((2, 8), torch.ones(8), "a boundary of norm 1, got 2.828; divide it"),
    ],
)
def test_wrong_edits_are_refused(shape, boundary, message):
    with pytest.raises(ValueError, match=message):
        edit(codes(*shape), boundary, 1.0)


# --- latents -----------------------------------------------------------------------------------------------------------------------


def test_truncation_draws_the_first_layers_to_the_mean_style():
    generator = small(truncation_psi=0.5, truncation_layers=4)
    generator.truncation.w_avg.fill_(2.0)
    styles = generator.truncation(torch.zeros(1, 8))
    assert torch.equal(styles[0, :, 0], torch.tensor([1.0, 1, 1, 1, 0, 0]))
    assert torch.allclose(generator(codes(2, 8)), generator(generator.truncation(generator.mapping(codes(2, 8)))))


def test_codes_of_any_length_are_mapped_to_the_same_style():
    for generator in (small(), other()):
        with torch.no_grad():
            assert torch.allclose(generator.mapping(codes(1, 8)), generator.mapping(3 * codes(1, 8)), atol=1e-4)


def test_of_two_styles_the_early_layers_one_decides_the_early_layers():
    """Both ports: layer i's style changes nothing before layer i, so the last style can't move the coarsest maps."""
    for generator, first in ((small(), "synthesis.layer4"), (other(), "generator.progression.1")):
        seen: list[Tensor] = []
        generator.get_submodule(first).register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.clone()))
        styles = codes(1, 6, 8)
        changed = styles.clone()
        changed[:, -1] += 3
        images = sample_images(1, 16, 16)
        with torch.no_grad():
            assert not torch.allclose(generator.manipulate(images, styles), generator.manipulate(images, changed), atol=1e-3)
        assert torch.equal(*seen)


def test_the_other_port_draws_new_noise_and_manipulate_fixed_noise():
    generator, images = other(), sample_images(2, 16, 16)
    for name, parameter in generator.named_parameters():
        if ".noise" in name:
            nn.init.constant_(parameter, 1.0)
    with torch.no_grad():
        assert not torch.allclose(generator(codes(1, 8)), generator(codes(1, 8)), atol=1e-3)
        first, second = generator.manipulate(images, codes(1, 8).expand(2, -1))
        assert torch.allclose(first, second, atol=1e-4)


def test_fading_in_blends_with_the_enlarged_image_of_the_resolution_before():
    generator, styles = other(), codes(1, 6, 8)
    noise = [torch.zeros(1, 1, 4 * 2**i, 4 * 2**i) for i in range(3)]
    with torch.no_grad():
        smaller = nn.functional.interpolate(generator(styles[:, :4], noise), scale_factor=2)
        assert torch.allclose(generator(styles, noise, alpha=0.25), 0.75 * smaller + 0.25 * generator(styles, noise), atol=1e-5)


# --- files -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"fused_scale": True}, {"fmaps_base": 1024}, {"resolution": 8}])
def test_interfacegans_file_without_the_truncation_tells_the_sizes(tmp_path, config):
    generator = small(**config)
    state = generator.state_dict()
    del state["truncation.truncation"]
    torch.save(state, tmp_path / "stylegan_ffhq.pth")
    loaded = create_generator("stylegan", tmp_path / "stylegan_ffhq.pth").eval()
    assert isinstance(loaded, StyleGANGenerator)
    images = sample_images(1, generator.resolution, generator.resolution)
    with torch.no_grad():
        assert torch.equal(loaded.manipulate(images, codes(1, 8)), generator.manipulate(images, codes(1, 8)))
    with pytest.raises(ValueError, match=f"resolution is {generator.resolution} in the file and 1024 was asked for"):
        create_generator("stylegan", tmp_path / "stylegan_ffhq.pth", resolution=1024)


def test_rosinalitys_file_has_its_averaged_generator_taken(tmp_path):
    generator, images = other(), sample_images(1, 16, 16)
    torch.manual_seed(9)
    raw = create_generator("stylegan", **OTHER)
    torch.save({"generator": raw.state_dict(), "g_running": generator.state_dict(), "step": torch.tensor(3)}, tmp_path / "stylegan.model")
    loaded = create_generator("stylegan", tmp_path / "stylegan.model", resolution=16).eval()
    assert isinstance(loaded, StyleBasedGAN)
    with torch.no_grad():
        assert torch.equal(loaded.manipulate(images, codes(1, 8)), generator.manipulate(images, codes(1, 8)))
    with pytest.raises(ValueError, match="port is rosinality in the file and interfacegan was asked for"):
        create_generator("stylegan", tmp_path / "stylegan.model", port="interfacegan")


def test_a_file_from_the_middle_of_progressive_training_is_refused(tmp_path):
    torch.save(small().state_dict() | {"synthesis.lod": torch.tensor(1.5)}, tmp_path / "early.pth")
    with pytest.raises(ValueError, match="early.pth comes from the middle of progressive training: its synthesis.lod is 1.5"):
        create_generator("stylegan", tmp_path / "early.pth")


def test_the_published_networks_have_the_published_sizes():
    with torch.device("meta"):
        counts = [sum(parameter.numel() for parameter in cls().parameters()) for cls in (StyleGANGenerator, StyleBasedGAN)]
    assert counts == [26219628, 26219115]


# --- wrong input -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [small, other])
@pytest.mark.parametrize(
    ("size", "target", "message"),
    [
        ((16, 16), None, r"no encoder, .*: give latents as the target, \(1, 8\) codes of Z, or \(1, 6, 8\) styles"),
        ((32, 32), codes(1, 8), r"draws 16x16: expected images \(B, 3, 16, 16\), got 32x32; resize"),
        ((16, 16), codes(2, 8), r"expected latents as the target, \(1, 8\) .* got \(2, 8\)"),
        ((16, 16), codes(1, 5, 8), r"got \(1, 5, 8\)"),
    ],
)
def test_wrong_input_is_refused(make, size, target, message):
    with pytest.raises(ValueError, match=message):
        make().manipulate(sample_images(1, *size), target)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"resolution": 24}, "a power of 2 and at least 8, got 24"),
        ({"fused_scale": "yes"}, "expected fused_scale 'auto', True or False, got 'yes'"),
        ({"port": "tensorflow"}, "unknown port 'tensorflow'; choose"),
        ({"port": "rosinality", "resolution": 2048}, "a power of 2 from 8 to 1024, got 2048"),
        ({"port": "rosinality", "channels": 16}, "expected at least 32, got 16"),
    ],
)
def test_wrong_arguments_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        create_generator("stylegan", **config)
