"""DualGAN in its three forms: the files people have of them, and what is odd about each; their outputs are checked in tests/golden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generators import create_generator
from generators.dualgan import DualGANGenerator, PyTorchGANGenerator, TogheppiGenerator
from generators.norms import Dropout
from tests.generators.contract import GeneratorContract
from tests.golden.seeded import fill
from tests.tiny import sample_images

TINY = {"official": {"gcn": 1}, "pytorch_gan": {"width": 1}, "togheppi": {"num_filter": 2, "input_dim": 3, "output_dim": 3}}


def tiny(form: str = "official", seed: int = 0, **config) -> torch.nn.Module:
    generator = create_generator("dualgan", form=form, **{**TINY[form], **config}).eval()
    fill(generator, seed)
    return generator


class TestContract(GeneratorContract):
    name = "dualgan"
    config = {"form": "official", "gcn": 2}
    size = (256, 256)
    untouched = ("A_g_e8_conv", "A_g_bn_e8.weight")  # at 256 px the bottleneck is one pixel, normalised to nothing

    def make(self, seed=0):
        generator = create_generator(self.name, **self.config).eval()
        fill(generator, seed)  # so narrow and so deep, torch's own initialisation lets nothing through
        return generator


class TestContractOfPyTorchGAN(TestContract):
    config = {"form": "pytorch_gan", "width": 2}
    size = (128, 128)


class TestContractOfTogheppi(TestContract):
    config = {"form": "togheppi", "num_filter": 2, "input_dim": 3, "output_dim": 3}
    untouched = ("conv1.bn", "deconv8.bn")  # in the files, and never used


# --- published files -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "config", "cls"),
    [
        ("official", {"input_channels": 1, "prefix": "B_g_"}, DualGANGenerator),
        ("pytorch_gan", {}, PyTorchGANGenerator),
        ("togheppi", {"input_dim": 1}, TogheppiGenerator),
    ],
)
def test_a_file_tells_its_form_and_widths(tmp_path, form, config, cls):
    generator, images = tiny(form, **config), sample_images(1, 256, 256)
    state = generator.state_dict()
    layouts = [state, {"module." + key: value for key, value in state.items()}, {k: v for k, v in state.items() if "num_batches" not in k}]
    for layout in layouts:
        torch.save(layout, tmp_path / "generator_A_param.pkl")
        loaded = create_generator("dualgan", tmp_path / "generator_A_param.pkl").eval()
        assert type(loaded) is cls and loaded.config == generator.config
        assert torch.equal(loaded.manipulate(images), generator.manipulate(images))
    other = "togheppi" if form == "official" else "official"
    with pytest.raises(ValueError, match=f"form is {form} in the file and {other} was asked for"):
        create_generator("dualgan", tmp_path / "generator_A_param.pkl", form=other)


def variables(*generators: DualGANGenerator) -> dict[str, np.ndarray]:
    """As TensorFlow has them: its names, kernels (height, width, in, out), slots, discriminators and the step beside them."""
    found = {"A_d_h0_conv/w": np.zeros((5, 5, 3, 1), np.float32), "A_d_h0_conv/biases": np.zeros(1, np.float32), "global_step": np.array(3)}
    for generator in generators:
        for key, value in generator.state_dict().items():
            module, last = key.split(".")
            name = {"weight": "scale", "bias": "center"}[last] if "bn_" in module else {"weight": "w", "bias": "biases"}[last]
            array = value.permute(2, 3, 1, 0).numpy() if value.ndim == 4 else value.numpy()
            found |= {f"{module}/{name}": array, f"{module}/{name}/RMSProp": array * 0}
    return found


def test_a_tensorflow_checkpoint_has_both_directions(tmp_path):
    """Given here as .npz; the checkpoint's own two files are read by generators/tensorflow_files.py, see test_tensorflow_names.py."""
    there, back = tiny(), tiny(seed=1, prefix="B_g_")
    np.savez(tmp_path / "DualNet.npz", **variables(there, back))
    images = sample_images(1, 256, 256)
    for generator, config in ((there, {}), (there, {"prefix": "A_g_"}), (back, {"prefix": "B_g_"})):
        loaded = create_generator("dualgan", tmp_path / "DualNet.npz", **config).eval()
        assert loaded.config == generator.config and torch.equal(loaded.manipulate(images), generator.manipulate(images))
    np.savez(tmp_path / "back.npz", **variables(back))
    assert create_generator("dualgan", tmp_path / "back.npz").prefix == "B_g_"
    with pytest.raises(ValueError, match=r"back.npz has the generators \['B_g_'\], and prefix 'A_g_' was asked for"):
        create_generator("dualgan", tmp_path / "back.npz", prefix="A_g_")


# --- what is odd about each ----------------------------------------------------------------------------------------------------------


def test_the_official_network_sees_and_paints_bgr():
    generator, images = tiny(), sample_images(1, 256, 256)
    assert torch.equal(generator.manipulate(images), generator(images.flip(1)).flip(1))
    assert not torch.allclose(generator.manipulate(images), generator(images), atol=1e-3)
    drawing = tiny(input_channels=1)
    assert torch.allclose(
        drawing.manipulate(images)[:, [2, 1, 0]],
        drawing((images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, True)),
        atol=1e-5,
    )


def test_at_its_own_size_the_official_bottleneck_is_a_constant():
    """One pixel less its mean is 0: the layer that leads there could be anything. At twice the size it isn't so."""
    generator, larger = tiny(), sample_images(1, 512, 512)
    images = larger[..., ::2, ::2]
    before, before_larger = generator(images), generator(larger)
    with torch.no_grad():
        generator.A_g_e8_conv.weight.normal_()
    assert torch.equal(generator(images), before) and not torch.allclose(generator(larger), before_larger, atol=1e-4)


@pytest.mark.parametrize("form", ["pytorch_gan", "togheppi"])
def test_dropout_is_on_in_training_and_where_noise_is_asked_for(form):
    images = sample_images(2, 256, 256)
    generator, noisy = tiny(form), tiny(form, noise=True)
    assert torch.equal(generator.manipulate(images), generator.manipulate(images))
    assert not torch.equal(noisy.manipulate(images), noisy.manipulate(images))
    if form == "pytorch_gan":  # the other has batch norms, which change too
        assert not torch.equal(generator.train().manipulate(images), generator.manipulate(images))


def test_dropout_is_where_the_ports_have_it():
    names = [name for name, module in tiny("pytorch_gan").named_modules() if isinstance(module, Dropout)]
    assert [name.split(".")[0] for name in names] == ["down4", "down5", "down6", "down7", "up1", "up2", "up3"]


@pytest.mark.parametrize(("form", "divisor"), [("official", 256), ("pytorch_gan", 128), ("togheppi", 256)])
def test_wrong_sizes_are_refused(form, divisor):
    with pytest.raises(ValueError, match=f"expected sides divisible by {divisor}, got 256x192; resize"):
        tiny(form).manipulate(sample_images(1, 256, 192))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="expected form out of .*, got 'keras'"):
        create_generator("dualgan", form="keras")
