"""What every generator of the zoo keeps to, as a base class: a test file makes one subclass per generator, with a small network.

class TestContract(GeneratorContract):
    name = "stargan"
    config = {"conv_dim": 4, "c_dim": 5, "repeat_num": 1}

    def target(self, count): …
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from generators import create_generator
from tests.tiny import sample_images


class GeneratorContract:
    """Attributes to set; the methods below them are the tests."""

    name: str
    """For `create_generator`."""
    config: dict[str, Any] = {}
    """Constructor arguments of a network small enough for a test."""
    size: tuple[int, int] = (32, 32)
    """Height and width that it takes."""
    untouched: tuple[str, ...] = ()
    """Beginnings of the names of parameters that `manipulate` has no use for (a decoder of the other domain, say): they get no gradient."""
    bf16_tolerance: float | None = 0.15
    """How far the image under bf16 autocast may be from that in float32, on average; None for a network that can't run so."""
    trains_input: bool = True
    """False where the result doesn't depend differentiably on the image (a latent alone decides)."""
    uses_image: bool = True
    """False where the target alone decides (a latent, a label map): then another image changes nothing, and another target does."""

    def make(self, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return create_generator(self.name, **self.config).eval()

    def target(self, count: int) -> Tensor | None:
        """Targets of `count` images, None where there is nothing to choose."""
        return None

    def images(self, count: int) -> Tensor:
        return sample_images(count, *self.size)

    @pytest.fixture
    def generator(self) -> nn.Module:
        return self.make()

    def test_images_of_the_same_size_come_out_in_range(self, generator):
        for count in (1, 3):
            with torch.no_grad():
                output = generator.manipulate(self.images(count), self.target(count))
            assert output.shape == (count, 3, *self.size) and output.dtype == torch.float32
            assert output.isfinite().all() and output.abs().max() <= 1
            assert output.std() > 1e-4, "one flat colour"

    def test_the_same_image_gives_the_same_result_whatever_stands_beside_it(self, generator):
        images, target = self.images(3), self.target(3)
        with torch.no_grad():
            together = generator.manipulate(images, target)
            again = generator.manipulate(images, target)
            alone = generator.manipulate(images[1:2], None if target is None else target[1:2])
        assert torch.equal(together, again)
        assert torch.allclose(together[1:2], alone, atol=2e-4)

    def test_the_image_matters(self, generator):
        images, target = self.images(2), self.target(2)
        with torch.no_grad():
            result, of_other = generator.manipulate(images, target), generator.manipulate(images.flip(-1), target)
            assert torch.allclose(result, of_other, atol=1e-3) != self.uses_image
            if not self.uses_image:
                assert not torch.allclose(result, generator.manipulate(images, target.flip(0)), atol=1e-3)

    def test_saved_weights_come_back(self, generator, tmp_path):
        state = {key: value.contiguous().clone() for key, value in generator.state_dict().items()}
        save_file(state, tmp_path / "weights.safetensors")
        torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "weights.pth")
        images, target = self.images(2), self.target(2)
        with torch.no_grad():
            expected = generator.manipulate(images, target)
            for file in ("weights.safetensors", "weights.pth"):
                loaded = create_generator(self.name, tmp_path / file, **self.config).eval()
                assert torch.allclose(loaded.manipulate(images, target), expected, atol=1e-6), file

    def test_another_networks_file_is_refused_by_its_keys(self, tmp_path):
        torch.save(nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7)).state_dict(), tmp_path / "other.pth")
        with pytest.raises(ValueError, match=r"other\.pth.*\d+\.(weight|bias)|\d+\.(weight|bias).*other\.pth"):
            create_generator(self.name, tmp_path / "other.pth", **self.config)

    def test_the_gradient_reaches_the_image_and_every_parameter(self):
        generator = self.make()
        images = self.images(2)
        images.requires_grad_(self.trains_input)
        output = generator.manipulate(images, self.target(2))
        (output * sample_images(2, *self.size, seed=3)).sum().backward()
        if self.trains_input:
            assert images.grad.isfinite().all() and (images.grad != 0).float().mean() > 0.2
        without = [
            name
            for name, parameter in generator.named_parameters()
            if parameter.requires_grad
            and not name.startswith(self.untouched or ("\0",))
            and (parameter.grad is None or not parameter.grad.abs().max() > 0)
        ]
        assert without == []
        assert all(parameter.grad.isfinite().all() for parameter in generator.parameters() if parameter.grad is not None)

    def test_images_are_near_those_of_float32_under_bf16_autocast(self, generator):
        if self.bf16_tolerance is None:
            pytest.skip("this network doesn't run in half precision")
        images, target = self.images(2), self.target(2)
        with torch.no_grad():
            expected = generator.manipulate(images, target)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = generator.manipulate(images, target)
        assert output.isfinite().all() and (output.float() - expected).abs().mean() < self.bf16_tolerance
        inside = output[output.abs() < 1]
        assert output.dtype == torch.float32 and (inside != inside.bfloat16()).float().mean() > 0.8, "computed to the last in bf16"

    def test_grey_images_are_refused(self, generator):
        with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
            generator.manipulate(torch.zeros(2, 1, *self.size), self.target(2))
