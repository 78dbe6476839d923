"""CartoonGAN against the published network's own outputs, the files people have of it, and what a cartoon is."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from generators import create_generator, list_generators
from generators.cartoongan import CartoonGANGenerator
from tests.generators.contract import GeneratorContract
from tests.generators.test_stargan import tiny as tiny_stargan
from tests.golden.seeded import fill, image
from tests.tiny import sample_images

PUBLISHED = "weights/cartoongan/cartoongan_hayao_fp16.npz"

# Made once in float64 with a transcription of the published PyTorch code. Input: image("x", (2, 3, 32, 48)) times the contrast. Of the
# output, in RGB: the mean of each channel over both images, and of the second image the pixels [:, 8::16, 8::16]. Low contrast makes
# the norm's eps count.
SEEDED = {
    1.0: (
        [0.33266, 0.15366, -0.10849],
        [-0.42887, 0.30849, -0.25311, -0.1241, 0.65449, 0.4114, 0.96183, 0.68879, 0.64821]
        + [0.87092, -0.08909, 0.55441, -0.24503, -0.64125, -0.59821, -0.80225, -0.97005, -0.81466],
    ),
    0.002: (
        [0.33266, 0.15365, -0.10849],
        [-0.42971, 0.30869, -0.25363, -0.12448, 0.65464, 0.41187, 0.96187, 0.68929, 0.6485]
        + [0.87066, -0.08927, 0.55511, -0.24559, -0.64139, -0.59914, -0.80238, -0.96996, -0.81437],
    ),
}
HAYAO = {
    1.0: (
        [-0.2106, -0.32459, -0.40272],
        [-0.74998, -0.87819, 0.70128, -0.46463, 0.19268, 0.08243, 0.13375, -0.59861, -0.08281]
        + [-0.50338, -0.39595, 0.27121, -0.40029, -0.66641, -0.33271, -0.54995, -0.11378, 0.06403],
    ),
    0.002: (
        [-0.21063, -0.32433, -0.40285],
        [-0.74914, -0.87802, 0.70064, -0.46336, 0.19186, 0.08115, 0.13345, -0.59823, -0.08398]
        + [-0.50288, -0.40033, 0.27004, -0.40077, -0.66762, -0.33094, -0.55093, -0.11621, 0.06291],
    ),
}


def tiny(seed: int = 0, **config) -> CartoonGANGenerator:
    torch.manual_seed(seed)
    return CartoonGANGenerator(**{"conv_dim": 4, "repeat_num": 2, **config})


def check_outputs(generator: nn.Module, expected: dict[float, tuple[list[float], list[float]]]) -> None:
    for contrast, (means, pixels) in expected.items():
        with torch.no_grad():
            output = generator(contrast * image("x", (2, 3, 32, 48)))
        assert output.mean((0, 2, 3)).tolist() == pytest.approx(means, abs=1e-4), contrast
        assert output[1, :, 8::16, 8::16].flatten().tolist() == pytest.approx(pixels, abs=5e-4), contrast  # 2e-4 between two kinds of CPU


# --- the authors' outputs ----------------------------------------------------------------------------------------------------------


def test_it_reproduces_the_published_network():
    """In the paper's size, on name-seeded weights: layers, paddings, eps and the order of colours are theirs."""
    generator = CartoonGANGenerator()
    fill(generator, rules=[{"match": "scale$", "op": "affine", "factor": 1.0, "offset": 1.0}])
    check_outputs(generator, SEEDED)


# --- behaviour ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "height", "width"), [(1, 32, 32), (3, 16, 24), (2, 8, 8), (1, 12, 20)])
def test_images_in_images_of_the_same_size_out(count, height, width):
    output = tiny().manipulate(sample_images(count, height, width))
    assert output.shape == (count, 3, height, width) and output.isfinite().all() and output.abs().max() <= 1


def test_the_target_is_ignored_and_manipulate_is_the_forward_pass():
    generator, images = tiny(), sample_images(2)
    output = generator(images)
    for target in (None, torch.zeros(2, 5), torch.ones(2, 1)):
        assert torch.equal(generator.manipulate(images, target), output)


def test_training_and_evaluation_give_the_same_every_time():
    generator, images = tiny(), sample_images(2)
    output = generator.train()(images)
    assert torch.equal(generator(images), output) and torch.equal(generator.eval()(images), output)
    assert list(generator.buffers()) == []


def test_an_image_doesnt_depend_on_its_neighbours():
    generator, images = tiny(), sample_images(3)
    assert torch.allclose(generator(images)[:1], generator(images[:1]), atol=1e-5)


def test_the_networks_colours_are_blue_green_red_and_ours_are_not():
    generator, images = tiny(), sample_images(1)
    with torch.no_grad():
        generator.conv01_1.weight[:, 0] = 0  # the network no longer sees blue …
        generator.deconv03_1.weight[2] = 0  # … and paints red plain
        generator.deconv03_1.bias[2] = 0.5
    output = generator(images)
    recoloured = images.clone()
    recoloured[:, 2] = sample_images(1, seed=5)[:, 2]
    assert torch.equal(generator(recoloured), output)
    recoloured[:, 0] = sample_images(1, seed=5)[:, 0]
    assert not torch.allclose(generator(recoloured), output, atol=1e-3)
    assert torch.allclose(output[:, 0], torch.tensor(0.5).tanh()) and output[:, 1:].std() > 0.01


def test_the_gradient_reaches_the_image_and_every_parameter_that_matters():
    """All but the biases right before a norm, which takes each channel's mean off again. In float64, so that nothing is nothing."""
    generator, images = tiny().double(), sample_images(2).double().requires_grad_(True)
    (generator(images) * sample_images(2, seed=3)).sum().backward()
    assert images.grad.isfinite().all() and (images.grad.flatten(1).abs().sum(1) > 0).all()
    idle = {name for name, parameter in generator.named_parameters() if not parameter.grad.abs().max() > 1e-9}
    before_a_norm = {"conv01_1", "conv02_2", "conv03_2", "deconv01_2", "deconv02_2", "conv04_1", "conv04_2", "conv05_1", "conv05_2"}
    assert idle == {name + ".bias" for name in before_a_norm}


def test_a_plain_image_stays_finite():
    """eps is 1e-9 and a plain image has no variance at all in the first norm."""
    images = torch.full((1, 3, 16, 16), 0.3, requires_grad=True)
    output = tiny()(images)
    output.square().sum().backward()
    assert output.isfinite().all() and images.grad.isfinite().all()


def test_the_output_is_float32_under_bf16_autocast_and_off_the_bf16_grid():
    generator, images = tiny(), sample_images(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = generator(images)
    assert output.dtype == torch.float32
    assert (output != output.bfloat16().float()).float().mean() > 0.9  # the last layers weren't computed in bf16
    assert torch.allclose(output, generator(images), atol=0.1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 30, 32), "divisible by 4 and at least 8, got 30x32; resize"),
        (torch.zeros(2, 3, 32, 33), "divisible by 4 and at least 8, got 32x33"),
        (torch.zeros(2, 3, 4, 32), "divisible by 4 and at least 8, got 4x32"),
        (torch.zeros(2, 1, 32, 32), r"images \(B, 3, H, W\), got \(2, 1, 32, 32\)"),
        (torch.zeros(3, 32, 32), r"images \(B, 3, H, W\), got \(3, 32, 32\)"),
    ],
)
def test_wrong_shapes_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        tiny().manipulate(images)


# --- files -------------------------------------------------------------------------------------------------------------------------


def save_arrays(path, state: dict[str, Tensor], dtype=np.float32) -> None:
    np.savez(path, **{key: value.numpy().astype(dtype) for key, value in state.items()})


SAVERS = {
    "Hayao_net_G_float.pth": lambda path, state: torch.save(state, path),
    "nested.pth": lambda path, state: torch.save({"epoch": 3, "state_dict": state}, path),
    "parallel.pth": lambda path, state: torch.save({"module." + key: value for key, value in state.items()}, path),
    "hayao.safetensors": lambda path, state: save_file(state, path),
    "hayao.npz": save_arrays,
}


@pytest.mark.parametrize("name", SAVERS)
def test_published_layouts_load_and_the_widths_are_read_from_the_file(tmp_path, name):
    generator, images = tiny(), sample_images(2)
    SAVERS[name](tmp_path / name, generator.state_dict())
    for config in ({}, {"conv_dim": 4}):
        loaded = create_generator("cartoongan", checkpoint=tmp_path / name, **config)
        assert loaded.config == {"conv_dim": 4, "repeat_num": 2}
        assert torch.equal(loaded(images), generator(images))


def test_half_precision_arrays_are_run_in_float32(tmp_path):
    generator, images = tiny(), sample_images(2)
    save_arrays(tmp_path / "half.npz", generator.state_dict(), np.float16)
    loaded = create_generator("cartoongan", str(tmp_path / "half.npz"))
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    generator.half().float()
    assert torch.equal(loaded(images), generator(images))


def test_another_networks_file_is_refused_by_its_first_keys(tmp_path):
    torch.save(tiny_stargan().state_dict(), tmp_path / "stargan.pth")
    save_arrays(tmp_path / "linear.npz", nn.Linear(2, 2).state_dict())
    for name in ("stargan.pth", "linear.npz"):
        message = rf"{name} is not a checkpoint of this CartoonGANGenerator: \d+ missing, first \['conv01_1.weight'"
        with pytest.raises(ValueError, match=message):
            create_generator("cartoongan", tmp_path / name)
    state = tiny().state_dict()
    state["conv02_9.bias"] = state.pop("conv02_1.bias")
    save_arrays(tmp_path / "odd.npz", state)
    with pytest.raises(ValueError, match=r"1 missing, first \['conv02_1.bias'\]; 1 unknown, first \['conv02_9.bias'\]"):
        create_generator("cartoongan", tmp_path / "odd.npz")


def test_other_arguments_than_the_files_are_refused(tmp_path):
    save_arrays(tmp_path / "hayao.npz", tiny().state_dict())
    with pytest.raises(ValueError, match=r"conv01_1.weight is \(4, 3, 7, 7\) in the file and \(8, 3, 7, 7\) here"):
        create_generator("cartoongan", tmp_path / "hayao.npz", conv_dim=8)
    with pytest.raises(ValueError, match=r"missing, first \['conv06_1.weight'"):
        create_generator("cartoongan", tmp_path / "hayao.npz", repeat_num=3)


class Touch:
    """Unpickled, it leaves a file."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_files_that_arent_plain_arrays_are_refused_and_never_run(tmp_path):
    np.savez(tmp_path / "objects.npz", weight=np.array([Touch(tmp_path / "run")], dtype=object))
    np.savez(tmp_path / "text.npz", weight=np.array(["a"]))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    with open(tmp_path / "single.npz", "wb") as file:
        np.save(file, np.zeros(3))
    for name in ("objects.npz", "text.npz", "damaged.npz", "single.npz"):
        with pytest.raises(ValueError, match=f"{re.escape(name)} can't be read as plain arrays by name"):
            create_generator("cartoongan", tmp_path / name)
    assert not (tmp_path / "run").exists()
    for name in ("absent.npz", "absent.pth"):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint at .*{name}"):
            create_generator("cartoongan", tmp_path / name)


def test_it_is_made_by_name():
    assert "cartoongan" in list_generators()
    generator = create_generator("cartoongan")
    assert isinstance(generator, CartoonGANGenerator) and generator.config == {"conv_dim": 64, "repeat_num": 8}


# --- the published weights on photographs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hayao(shared) -> CartoonGANGenerator:
    return create_generator("cartoongan", shared(PUBLISHED)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def painted(hayao, photographs) -> tuple[Tensor, Tensor]:
    """Eight photographs, horses and faces, and their cartoons."""
    images = torch.cat([photographs("horse2zebra256/testA", 4), photographs("celeba_crop144/test", 4)])
    return images, torch.cat([hayao.manipulate(photograph[None]) for photograph in images])


def test_the_published_weights_give_the_published_networks_output(hayao):
    assert hayao.config == {"conv_dim": 64, "repeat_num": 8} and sum(parameter.numel() for parameter in hayao.parameters()) == 11_129_667
    check_outputs(hayao, HAYAO)


def test_a_cartoon_still_shows_the_image_and_is_another_one(painted):
    images, cartoons = painted
    resemblance = torch.corrcoef(torch.cat([images.mean(1).flatten(1), cartoons.mean(1).flatten(1)]))[:8, 8:]
    assert resemblance.argmax(dim=1).tolist() == list(range(8)) and resemblance.diagonal().min() > 0.6
    assert ((images - cartoons).abs().mean((1, 2, 3)) > 0.1).all()


def test_a_cartoon_is_flat_with_outlines(painted):
    """The middle difference between neighbouring pixels falls and the mean one rises. Energy at high frequencies isn't what falls: the
    outlines bring more of it than these soft photographs lose."""
    middle, mean = [], []
    for batch in painted:
        grey = batch.mean(1)
        steps = torch.cat([grey.diff(dim=1).abs().flatten(1), grey.diff(dim=2).abs().flatten(1)], dim=1)
        middle.append(steps.median(dim=1).values), mean.append(steps.mean(dim=1))
    assert (middle[1] / middle[0]).median() < 0.85
    assert mean[1].mean() > mean[0].mean()


def test_no_colours_are_swapped(painted):
    """Each channel resembles its own of the photograph most; and Hayao's colours are warm, while with BGR taken for RGB they're cold."""
    images, cartoons = (batch.transpose(0, 1).flatten(1) for batch in painted)
    resemblance = torch.corrcoef(torch.cat([images, cartoons]))[:3, 3:]
    assert resemblance.argmax(dim=1).tolist() == [0, 1, 2]
    assert (cartoons[0] - cartoons[2]).mean() > (images[0] - images[2]).mean() + 0.03


class TestContract(GeneratorContract):
    name = "cartoongan"
    config = {"conv_dim": 4, "repeat_num": 2}
