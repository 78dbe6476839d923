"""Colorizing-with-GANs in its three forms: what they see and paint, and their files; their outputs are checked in tests/golden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generators import create_generator
from generators.colorizing_gan import LEVELS, ColorizingGenerator, ColorizingPort, from_normalised_lab, to_normalised_lab
from generators.colours import rgb_to_lab
from tests.generators.contract import GeneratorContract
from tests.tiny import sample_images

SMALL = {"encoder": ((4, 1), (4, 2), (8, 2), (8, 2)), "decoder": (8, 4, 4)}


def tiny(seed: int = 0, **config) -> ColorizingGenerator:
    torch.manual_seed(seed)
    return ColorizingGenerator(**{**SMALL, **config}).eval()


def tiny_port(seed: int = 0, **config) -> ColorizingPort:
    torch.manual_seed(seed)
    return ColorizingPort(**{"width": 4, **config}).eval()


def grey(images: torch.Tensor) -> torch.Tensor:
    return (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True).expand(-1, 3, -1, -1)


class TestContract(GeneratorContract):
    name = "colorizing_gan"
    config = {"form": "places365", **SMALL}


class TestContractOfColoursOnly(TestContract):
    config = {"form": "places365", **SMALL, "keep_lightness": True}


class TestContractOfThePort(TestContract):
    config = {"form": "port", "width": 4}
    size = (48, 40)


# --- what is seen and painted --------------------------------------------------------------------------------------------------------


def test_only_the_luminance_is_seen():
    images = sample_images(2)
    assert torch.allclose(tiny().manipulate(images), tiny().manipulate(grey(images)), atol=1e-4)


def test_the_network_is_given_levels_from_0_to_255():
    """Its first norm would hide any other factor from the output, all but its eps."""
    generator, seen = tiny(), []
    generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.tensor([-1.0, 0.0, 1.0]).repeat_interleave(8).view(1, 1, 1, 24).expand(1, 3, 8, 24)
    output = generator.manipulate(images)
    assert torch.allclose(seen[0][0, 0, 0, ::8], torch.tensor([0.0, 127.5, 255.0]), atol=1e-3)
    assert torch.equal(output, from_normalised_lab(generator(seen[0])))


def test_lightness_is_painted_anew_unless_it_is_to_be_kept():
    """Kept, it is the image's wherever the colours that the network chose can be shown with it."""
    images = sample_images(1)
    before = to_normalised_lab(images)
    kept = tiny(keep_lightness=True)
    with torch.no_grad():
        kept.gen.conv_last.weight.mul_(0.1), kept.gen.conv_last.bias.zero_()
    after = to_normalised_lab(kept.manipulate(images))
    painted = kept((grey(images)[:, :1] + 1) * 127.5)
    assert torch.allclose(after[:, 0], before[:, 0], atol=1e-3) and torch.allclose(after[:, 1:], painted[:, 1:], atol=1e-3)
    assert not torch.allclose(to_normalised_lab(tiny().manipulate(images))[:, 0], before[:, 0], atol=0.1)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 40), (128, 128)])
def test_the_port_keeps_the_lightness_at_any_size(height, width):
    images, port = sample_images(2, height, width), tiny_port()
    with torch.no_grad():
        port.final.model[0].weight.mul_(0.2)
    before, after = (rgb_to_lab((x + 1) / 2) for x in (images, port.manipulate(images)))
    assert torch.allclose(before[:, 0], after[:, 0], atol=0.05) and not torch.allclose(before[:, 1:], after[:, 1:], atol=2)


def test_there_and_back_is_the_identity():
    assert torch.allclose(from_normalised_lab(to_normalised_lab(sample_images(2))), sample_images(2), atol=1e-4)


def test_statistics_of_the_image_are_the_authors_on_a_batch_of_one():
    images = sample_images(3)
    together, batch = tiny().manipulate(images), tiny(statistics="batch")
    for i in range(3):
        assert torch.allclose(batch.manipulate(images[i : i + 1]), together[i : i + 1], atol=1e-3)
    assert not torch.allclose(batch.manipulate(images), together, atol=0.01)


def test_dropout_is_where_the_forms_have_it():
    images = sample_images(1)
    assert not torch.equal(tiny(dropouts=(0,)).train().manipulate(images), tiny(dropouts=(0,)).manipulate(images))
    assert torch.equal(tiny().train().manipulate(images), tiny().manipulate(images))
    noisy = tiny_port(noise=True)
    assert not torch.equal(noisy.manipulate(images), noisy.manipulate(images))
    assert torch.equal(tiny_port().manipulate(images), tiny_port().manipulate(images))


# --- files ---------------------------------------------------------------------------------------------------------------------------


def variables(generator: ColorizingGenerator) -> dict[str, np.ndarray]:
    """As TensorFlow has them, with an optimizer's slots and a discriminator beside them."""
    found = {"dis/conv0/kernel": np.zeros((4, 4, 4, 1), np.float32), "global_step": np.array(3), "beta1_power": np.array(0.5, np.float32)}
    for key, value in generator.state_dict().items():
        scope, module, last = key.split(".")
        names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        name = names[last] if "bn_" in module else {"weight": "kernel", "bias": "bias"}[last]
        array = value.permute(2, 3, 1, 0).numpy() if value.ndim == 4 else value.numpy()
        found |= {f"{scope}/{module}/{name}": array, f"{scope}/{module}/{name}/Adam": array * 0}
    return found


def test_a_tensorflow_checkpoint_loads_and_its_levels_are_read_from_it(tmp_path):
    """Given here as .npz; the checkpoint's own two files are read by generators/tensorflow_files.py, see test_tensorflow_names.py."""
    generator, images = tiny(), sample_images(1)
    np.savez(tmp_path / "CGAN_places365.npz", **variables(generator))
    torch.save(generator.state_dict(), tmp_path / "converted.pth")
    for name in ("CGAN_places365.npz", "converted.pth"):
        loaded = create_generator("colorizing_gan", tmp_path / name).eval()
        assert loaded.config == generator.config and torch.equal(loaded.manipulate(images), generator.manipulate(images))
        with pytest.raises(ValueError, match=f"{name} has 4 layers down, and form 'cifar10' was asked for"):
            create_generator("colorizing_gan", tmp_path / name, form="cifar10")
        with pytest.raises(ValueError, match=f"{name}: decoder is .* in the file and .* was asked for"):
            create_generator("colorizing_gan", tmp_path / name, decoder=[8, 4])


def test_five_levels_are_the_small_form(tmp_path):
    generator = tiny(encoder=((2, 1), (2, 2), (2, 2), (2, 2), (2, 2)), decoder=(2, 2, 2, 2), dropouts=LEVELS["cifar10"]["dropouts"])
    torch.save(generator.state_dict(), tmp_path / "cifar10.pth")
    loaded = create_generator("colorizing_gan", tmp_path / "cifar10.pth", form="cifar10")
    assert loaded.config == generator.config and loaded.dropouts == (0, 1)


@pytest.mark.parametrize("counters", [True, False])
def test_the_ports_file_loads(tmp_path, counters):
    for config in ({}, {"normalization_type": None}):
        port, images = tiny_port(**config), sample_images(1)
        state = {key: value for key, value in port.state_dict().items() if counters or not key.endswith("num_batches_tracked")}
        torch.save(state, tmp_path / "batchnorm_ep200_weigths_gen.pt")
        loaded = create_generator("colorizing_gan", tmp_path / "batchnorm_ep200_weigths_gen.pt").eval()
        assert loaded.config == port.config and torch.equal(loaded.manipulate(images), port.manipulate(images))
        with pytest.raises(ValueError, match="its keys are the port's, and form 'places365' was asked for"):
            create_generator("colorizing_gan", tmp_path / "batchnorm_ep200_weigths_gen.pt", form="places365")


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="Colorizing-with-GANs: expected sides divisible by 8, got 32x36; resize"):
        tiny().manipulate(sample_images(1, 32, 36))
    with pytest.raises(ValueError, match="expected form out of .*, got 'imagenet'"):
        create_generator("colorizing_gan", form="imagenet")
    with pytest.raises(ValueError, match="expected normalization_type 'batch' or None, got 'spectral'"):
        ColorizingPort(normalization_type="spectral")


def test_the_forms_are_the_authors_sizes():
    with torch.device("meta"):
        networks = [create_generator("colorizing_gan", form=form) for form in ("places365", "cifar10", "port")]
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == [42_023_811, 16_654_851, 16_654_722]
    assert [network.divisor for network in networks[:2]] == [128, 16]
