"""The context encoder: what it hides, what it repaints, the file people have of it; its outputs are checked in tests/golden."""

from __future__ import annotations

import pytest
import torch

from generators import create_generator
from generators.context_encoder import ContextEncoderGenerator, hide
from tests.generators.contract import GeneratorContract
from tests.golden.seeded import fill
from tests.tiny import sample_images


def tiny(seed: int = 0, **config) -> ContextEncoderGenerator:
    generator = ContextEncoderGenerator(**{"nef": 2, "ngf": 2, "bottleneck": 8, **config}).eval()
    fill(generator, seed)
    return generator


class TestContract(GeneratorContract):
    name = "context_encoder"
    config = {"nef": 4, "ngf": 4, "bottleneck": 16}
    size = (128, 128)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (128, 192)])
def test_the_centre_is_new_and_the_other_pixels_are_as_they_were(height, width):
    images = sample_images(2, height, width)
    kept = images.clone()
    output = tiny().manipulate(images)
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
    assert torch.equal(output[..., ~inside], images[..., ~inside]) and torch.equal(images, kept)
    assert (output[..., inside] != images[..., inside]).float().mean() > 0.99
    assert torch.equal(output[..., inside].unflatten(-1, (height // 2, width // 2)), tiny()(hide(images)))


def test_what_is_hidden_doesnt_matter_and_the_ring_around_it_does():
    generator, images = tiny(), sample_images(1, 128, 128)
    hidden, ring = images.clone(), images.clone()
    hidden[..., 36:92, 36:92] = 0.3
    ring[..., 32:36, 32:96] = 0.3
    assert torch.equal(generator.manipulate(hidden), generator.manipulate(images))
    assert not torch.equal(generator.manipulate(ring), generator.manipulate(images))


def test_all_but_a_ring_of_four_pixels_is_hidden():
    images = sample_images(1, 128, 192)
    changed = (hide(images) != images).all(1)[0].nonzero()
    assert changed.min(0).values.tolist() == [36, 52] and changed.max(0).values.tolist() == [91, 139] and len(changed) == 56 * 88


def test_the_filling_is_imagenets_mean():
    filled = ((hide(sample_images(1, 128, 128))[0, :, 36:92, 36:92] + 1) * 127.5).flatten(1)
    assert filled.min(1).values.tolist() == pytest.approx([117, 104, 123], abs=1e-3) and torch.equal(
        filled.min(1).values, filled.max(1).values
    )


@pytest.mark.parametrize("counters", [True, False])
def test_the_published_layout_loads_and_the_widths_are_read_from_it(tmp_path, counters):
    generator, images = tiny(ngf=3), sample_images(1, 128, 128)
    state = {key: value for key, value in generator.state_dict().items() if counters or not key.endswith("num_batches_tracked")}
    torch.save({"epoch": 500, "state_dict": state}, tmp_path / "netG_streetview.pth")
    loaded = create_generator("context_encoder", tmp_path / "netG_streetview.pth").eval()
    assert loaded.config == {"nc": 3, "nef": 2, "ngf": 3, "bottleneck": 8}
    assert torch.equal(loaded.manipulate(images), generator.manipulate(images))
    with pytest.raises(ValueError, match="bottleneck is 8 in the file and 4000 was asked for"):
        create_generator("context_encoder", tmp_path / "netG_streetview.pth", bottleneck=4000)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (128, 144)])
def test_wrong_sizes_are_refused(height, width):
    with pytest.raises(ValueError, match=f"expected sides divisible by 32 and at least 128, got {height}x{width}; resize"):
        tiny().manipulate(sample_images(1, height, width))
