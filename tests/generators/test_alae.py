"""ALAE: latents by hand, edits, progressive blending, the published layout, and the interface."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generators import create_generator
from generators.alae import ALAE
from generators.alae_networks import instance_statistics
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

SMALL = {"layer_count": 3, "startf": 4, "maxf": 8, "latent_size": 6, "mapping_layers": 2}
SIZE = 16


def small(**config) -> ALAE:
    torch.manual_seed(0)
    return create_generator("alae", **{**SMALL, **config}).eval()


def shifts(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


class TestContract(GeneratorContract):
    name = "alae"
    config = SMALL
    size = (SIZE, SIZE)
    untouched = ("mapping_", *(f"discriminator_s.from_rgb.{i}." for i in (1, 2)), *(f"generator_s.to_rgb.{i}." for i in (0, 1)))


class TestContractFused(TestContract):
    config = {**SMALL, "fused_from": 8}

    def target(self, count: int) -> Tensor:
        return shifts(count, 6)


def test_a_maps_statistics_are_its_mean_and_deviation_with_a_gradient_where_it_is_flat():
    x = torch.tensor([[[[1.0, 3.0], [3.0, 1.0]], [[2.0, 2.0], [2.0, 2.0]]]], requires_grad=True)
    values = instance_statistics(x)
    assert torch.allclose(values, torch.tensor([[2.0, 2.0, 1.0, 0.0]]))
    values.sum().backward()
    assert x.grad.isfinite().all()


def test_the_latent_is_the_sum_of_what_all_blocks_say():
    """Each block's part through its linear layers' biases alone: the weights are silenced."""
    generator = small()
    for block in generator.discriminator_s.encode_block:
        for layer in (block.style_1, block.style_2):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.constant_(layer.bias, 0.5)
    assert torch.allclose(generator.encode(sample_images(2, SIZE, SIZE)), torch.full((2, 6), 3.0))


def test_a_zero_shift_is_the_reconstruction_and_a_shift_is_added_to_w():
    generator, images, shift = small(), sample_images(2, SIZE, SIZE), shifts(2, 6)
    with torch.no_grad():
        reconstruction = generator.manipulate(images)
        assert torch.equal(generator.manipulate(images, torch.zeros(2, 6)), reconstruction)
        edited = generator.manipulate(images, shift)
        assert not torch.allclose(edited, reconstruction, atol=1e-3)
        assert torch.allclose(edited, generator.decode(generator.encode(images) + shift).clamp(-1, 1), atol=1e-6)
        assert torch.allclose(edited, generator.manipulate(images, shift[:, None].expand(-1, 6, -1)), atol=1e-5)


def test_a_shift_of_the_last_layers_leaves_the_coarse_maps_as_they_were():
    generator, images, shift = small(), sample_images(1, SIZE, SIZE), torch.zeros(1, 6, 6)
    shift[:, 4:] = 2
    seen: list[Tensor] = []
    generator.generator_s.decode_block[1].register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        assert not torch.allclose(generator.manipulate(images, shift), generator.manipulate(images), atol=1e-3)
    assert torch.equal(*seen)


def test_a_fused_network_paints_what_the_unfused_one_does():
    """The encoder's weights are the same; the decoder's are turned round and (in, out)."""
    plain, fused, images = small(), small(fused_from=8), sample_images(1, SIZE, SIZE)
    state = plain.state_dict()
    for i in (1, 2):
        key = f"generator_s.decode_block.{i}.conv_1.weight"
        state[key] = state[key].flip(2, 3).transpose(0, 1)
    fused.load_state_dict(state)
    with torch.no_grad():
        assert torch.allclose(fused.encode(images), plain.encode(images), atol=1e-5)
        assert torch.allclose(fused(images), plain(images), atol=1e-3)


def test_generating_is_truncated_in_the_first_layers():
    generator = small(truncation_psi=0.0, truncation_cutoff=4)
    generator.dlatent_avg.buff.normal_()
    with torch.no_grad():
        w = generator.mapping_fl_s(shifts(1, 6))
        styles = torch.cat([generator.dlatent_avg.buff[:4], w.expand(2, -1)])[None]
        assert torch.allclose(generator.generate(shifts(1, 6)), generator.decode(styles), atol=1e-5)


def test_decoding_with_blend_mixes_in_the_enlarged_image_of_the_resolution_before():
    generator, w = small(), shifts(1, 6)
    with torch.no_grad():
        smaller, whole = F.interpolate(generator.decode(w, lod=1), scale_factor=2), generator.decode(w)
        assert torch.allclose(generator.decode(w, blend=0.25), 0.75 * smaller + 0.25 * whole, atol=1e-4)


def test_a_smaller_level_of_detail_encodes_smaller_images():
    generator = small()
    with torch.no_grad():
        assert generator.encode(sample_images(2, 8, 8), lod=1).shape == (2, 6)
        assert generator.decode(shifts(2, 6), lod=1).shape == (2, 3, 8, 8)


def test_the_authors_file_has_its_averaged_networks_taken(tmp_path):
    generator, images = small(), sample_images(1, SIZE, SIZE)
    torch.manual_seed(9)
    raw = create_generator("alae", **SMALL)
    models: dict[str, dict[str, Tensor]] = {}
    for key, value in generator.state_dict().items():
        part, _, name = key.partition(".")
        models.setdefault(part, {})[name] = value
        models.setdefault(part.removesuffix("_s"), {})[name] = value if part == "dlatent_avg" else raw.state_dict()[key]
    torch.save({"models": models, "auxiliary": {"iteration": 7}}, tmp_path / "model_262r.pth")
    loaded = create_generator("alae", tmp_path / "model_262r.pth", layer_count=3).eval()
    assert loaded.config == generator.config
    with torch.no_grad():
        assert torch.equal(loaded.manipulate(images), generator.manipulate(images))
    del models["mapping_fl_s"]
    torch.save({"models": models}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"part.pth is not a checkpoint of ALAE: expected the entries \['discriminator_s'"):
        create_generator("alae", tmp_path / "part.pth")


def test_the_published_networks_have_the_published_sizes():
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in ALAE(**config).parameters()) for config in ({}, {"layer_count": 6, "maxf": 256, "latent_size": 256})
        ]
    assert counts == [53926805, 13359506]


@pytest.mark.parametrize(
    ("size", "target", "message"),
    [
        ((32, 32), None, "takes 16x16, got 32x32; resize"),
        ((16, 16), torch.zeros(2, 6), r"a shift of the latents, \(1, 6\), or one per layer, \(1, 6, 6\), or None; got \(2, 6\)"),
        ((16, 16), torch.zeros(1, 7), r"got \(1, 7\)"),
    ],
)
def test_wrong_input_is_refused(size, target, message):
    with pytest.raises(ValueError, match=message):
        small().manipulate(sample_images(1, *size), target)
