"""Council-GAN: the files people have of it, and layers of colour that cover an image where their masks say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from generators import create_generator
from generators.council_gan import CouncilGAN, cover
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

TINY = {"dim": 4, "n_res": 1, "style_dim": 5, "mlp_dim": 8}


class TestContract(GeneratorContract):
    name = "council_gan"
    config = TINY
    untouched = ("enc_style",)

    def target(self, count: int) -> Tensor:
        return torch.linspace(-1, 1, 5 * count).view(count, 5)


def tiny(**config) -> CouncilGAN:
    torch.manual_seed(0)
    return CouncilGAN(**{**TINY, **config}).eval()


def test_covering_by_hand():
    """0.8 under half of 0 is 0.4; a quarter of -1 over that is 0.4 · 0.75 - 0.25 = 0.05."""
    image = torch.full((1, 1, 1, 1), 0.8)
    colours, masks = torch.tensor([0.0, -1.0]).view(1, 2, 1, 1), torch.tensor([0.5, 0.25]).view(1, 2, 1, 1)
    assert torch.allclose(cover(image, colours, masks), torch.tensor(0.05))


def test_where_no_mask_covers_the_image_stays_as_it_was():
    images, colours = sample_images(2), sample_images(6, seed=1).view(2, 9, 32, 32)
    masks = torch.zeros(2, 3, 32, 32)
    masks[:, 1, :8] = 1
    output = cover(images, colours, masks)
    assert torch.equal(output[:, :, 8:], images[:, :, 8:]) and torch.equal(output[:, :, :8], colours[:, 3:6, :8])


@pytest.mark.parametrize("count", [1, 3])
def test_a_decoder_without_masks_leaves_the_image_alone_and_with_the_last_one_replaces_it(count):
    network, images = tiny(num_of_mask_dim_to_add=count), sample_images(2)
    last = network.dec.model[-1].conv
    with torch.no_grad():
        last.bias[-count:] = -50.0
        assert torch.equal(network.manipulate(images), images)
        last.bias[-1] = 50.0
        output = network.manipulate(images)
        painted = network.dec(
            network.enc_content(images), network.mlp(torch.randn(1, 5, generator=torch.Generator().manual_seed(0)).expand(2, -1))
        )
    assert torch.equal(output, painted[:, -count - 3 : -count])


@pytest.mark.parametrize("entry", ["a2b", "b2a"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_published_layout_loads_and_the_widths_are_read_from_it(tmp_path, entry, count):
    network, images = tiny(num_of_mask_dim_to_add=count), sample_images(2)
    torch.save({entry: network.state_dict()}, tmp_path / f"{entry}_gen_0_01000000.pt")
    loaded = create_generator("council_gan", tmp_path / f"{entry}_gen_0_01000000.pt").eval()
    assert loaded.config == {"input_dim": 3, "n_downsample": 2, "num_of_mask_dim_to_add": count, **TINY}
    assert torch.equal(loaded.manipulate(images), network.manipulate(images))


def test_other_files_and_arguments_are_refused(tmp_path):
    network = tiny()
    torch.save({"a2b": network.state_dict()}, tmp_path / "council.pt")
    with pytest.raises(ValueError, match="council.pt: num_of_mask_dim_to_add is 3 in the file and 1 was asked for"):
        create_generator("council_gan", tmp_path / "council.pt", num_of_mask_dim_to_add=1)
    with pytest.raises(ValueError, match="expected at least one mask, got num_of_mask_dim_to_add=0"):
        tiny(num_of_mask_dim_to_add=0)
    other = create_generator("munit", **TINY)
    torch.save({"a2b": other.a.state_dict()}, tmp_path / "munit.pt")
    with pytest.raises(ValueError, match=r"munit.pt is not a checkpoint of this CouncilGAN: .*dec\.model"):
        create_generator("council_gan", tmp_path / "munit.pt")
