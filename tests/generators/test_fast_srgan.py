"""Fast-SRGAN against the published network's own outputs, the file people have of it, and what super-resolution is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from generators import create_generator, list_generators
from generators.fast_srgan import FastSRGANGenerator
from generators.super_resolution import shrink
from tests.generators.contract import GeneratorContract
from tests.generators.test_stargan import tiny as tiny_stargan
from tests.golden.seeded import fill, image
from tests.tiny import sample_images

PUBLISHED = "weights/fast_srgan/model.pt"

# Made once in float64 with a transcription of the published PyTorch code. Input: image("x", (2, 3, 8, 12)) times the contrast. Of the
# output of `upscale`: the mean of each channel over both images, and of the second image the pixels [:, 8::16, 8::16]. Low contrast
# makes the norm's eps count.
SEEDED = {
    1.0: (
        [-0.06921, -0.22222, -0.16179],
        [-0.17282, -0.74853, 0.71954, -0.36529, 0.6453, 0.05863, -0.70768, -0.30642, -0.65129]
        + [-0.44977, -0.31352, 0.01445, -0.34225, -0.19487, 0.18656, -0.09972, 0.59425, -0.01548],
    ),
    0.002: (
        [-0.05965, -0.2197, -0.16107],
        [-0.48939, -0.47329, -0.13216, -0.16631, 0.76817, 0.93618, -0.10779, -0.39539, -0.58647]
        + [-0.57214, -0.12972, -0.4315, -0.00612, -0.09424, -0.57426, 0.02569, 0.31795, -0.50284],
    ),
}
MODEL_PT = {
    1.0: (
        [-0.0829, -0.06278, 0.12111],
        [-0.30929, -0.37674, 0.5725, -0.3399, 0.24635, -0.02152, 0.53189, 0.18813, 0.13689]
        + [-0.21557, 0.17308, 0.25613, 0.55198, 0.60911, -0.44378, -0.21658, 0.76021, 0.37722],
    ),
    0.002: (
        [-0.01234, -0.01505, -0.01994],
        [2e-05, -0.01416, -0.00943, -0.00363, -0.0008, -0.00791, -0.01933, -0.01371, -0.01886]
        + [-0.00802, -0.02121, -0.01778, -0.0135, -0.02475, -0.01928, -0.0202, -0.02512, -0.01149],
    ),
}


def tiny(seed: int = 0, **config) -> FastSRGANGenerator:
    torch.manual_seed(seed)
    return FastSRGANGenerator(**{"n_filters": 8, "n_layers": 2, **config})


def check_outputs(generator: FastSRGANGenerator, expected: dict[float, tuple[list[float], list[float]]]) -> None:
    for contrast, (means, pixels) in expected.items():
        with torch.no_grad():
            output = generator.upscale(contrast * image("x", (2, 3, 8, 12)))
        assert output.mean((0, 2, 3)).tolist() == pytest.approx(means, abs=1e-4), contrast
        assert output[1, :, 8::16, 8::16].flatten().tolist() == pytest.approx(pixels, abs=1e-4), contrast


# --- the authors' outputs ----------------------------------------------------------------------------------------------------------


def test_it_reproduces_the_published_network():
    """In the published size, on name-seeded weights: layers, norms without weights, eps, paddings and slopes are theirs."""
    generator = FastSRGANGenerator()
    fill(generator, rules=[{"match": r"relu1?\.weight$|neck\.1", "op": "affine", "factor": 1.0, "offset": -0.75}])
    check_outputs(generator, SEEDED)


# --- behaviour ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "height", "width"), [(1, 32, 32), (3, 16, 24), (2, 8, 8), (1, 12, 20)])
def test_images_in_images_of_the_same_size_out(count, height, width):
    output = tiny().manipulate(sample_images(count, height, width))
    assert output.shape == (count, 3, height, width) and output.isfinite().all() and output.abs().max() <= 1


@pytest.mark.parametrize(("height", "width"), [(2, 2), (5, 7)])
def test_upscaling_is_fourfold_from_any_size(height, width):
    assert tiny().upscale(sample_images(2, height, width)).shape == (2, 3, 4 * height, 4 * width)


def test_the_target_is_ignored_and_manipulating_is_shrinking_and_upscaling():
    generator, images = tiny(), sample_images(2)
    output = generator.upscale(shrink(images))
    assert torch.equal(generator(images), output)
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


def test_the_gradient_reaches_the_image_and_every_parameter():
    generator, images = tiny(), sample_images(2).requires_grad_(True)
    (generator(images) * sample_images(2, seed=3)).sum().backward()
    assert images.grad.isfinite().all() and (images.grad != 0).float().mean() > 0.9
    assert [name for name, parameter in generator.named_parameters() if not parameter.grad.abs().max() > 1e-4] == []


def test_shrinking_keeps_means_and_places():
    """A ramp becomes the ramp of its blocks' centres, away from the border: nothing is shifted by half a pixel."""
    ramp = torch.linspace(-0.9, 0.9, 64).expand(1, 3, 64, 64)
    centres = ramp.unflatten(3, (16, 4)).mean(4)[:, :, :16]
    assert torch.allclose(shrink(ramp)[..., 2:-2], centres[..., 2:-2], atol=1e-6)
    assert torch.allclose(shrink(torch.full((1, 3, 8, 8), 0.3)), torch.full((1, 3, 2, 2), 0.3), atol=1e-6)


def test_detail_that_the_small_image_cant_hold_is_gone_from_it():
    """A wave of 3 pixels would alias to one of 12 without antialiasing; here next to nothing is left of it."""
    wave = (0.2 * torch.cos(2 * torch.pi * torch.arange(64) / 3)).expand(1, 3, 64, 64)
    assert shrink(wave)[..., 1:-1].abs().max() < 0.01
    assert F.interpolate(wave, (16, 16), mode="bicubic")[..., 1:-1].abs().max() > 0.1


def test_overshoot_is_cut_off():
    edge = torch.ones(1, 3, 32, 32)
    edge[..., 14:] = -1
    assert shrink(edge).abs().max() <= 1
    assert F.interpolate(edge, (8, 8), mode="bicubic", antialias=True).max() > 1.01


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
        (torch.zeros(2, 3, 30, 32), "sides divisible by 4 and at least 8, got 30x32; resize"),
        (torch.zeros(2, 3, 32, 33), "sides divisible by 4 and at least 8, got 32x33"),
        (torch.zeros(2, 3, 4, 32), "sides divisible by 4 and at least 8, got 4x32"),
        (torch.zeros(2, 1, 32, 32), r"images \(B, 3, H, W\), got \(2, 1, 32, 32\)"),
        (torch.zeros(3, 32, 32), r"images \(B, 3, H, W\), got \(3, 32, 32\)"),
    ],
)
def test_wrong_shapes_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        tiny().manipulate(images)


def test_wrong_shapes_for_upscaling_are_refused():
    with pytest.raises(ValueError, match="and at least 2, got 1x32"):
        tiny().upscale(torch.zeros(1, 3, 1, 32))
    with pytest.raises(ValueError, match=r"images \(B, 3, H, W\), got \(1, 4, 8, 8\)"):
        tiny().upscale(torch.zeros(1, 4, 8, 8))


# --- files -------------------------------------------------------------------------------------------------------------------------

SAVERS = {
    "bare.pt": lambda path, state: torch.save(state, path),
    "model.pt": lambda path, state: torch.save({"_orig_mod." + key: value for key, value in state.items()}, path),
    "parallel.pt": lambda path, state: torch.save({"module._orig_mod." + key: value for key, value in state.items()}, path),
    "nested.pt": lambda path, state: torch.save({"epoch": 3, "state_dict": state}, path),
    "model.safetensors": lambda path, state: save_file(state, path),
}


@pytest.mark.parametrize("name", SAVERS)
def test_published_layouts_load_and_the_widths_are_read_from_the_file(tmp_path, name):
    generator, images = tiny(), sample_images(2)
    SAVERS[name](tmp_path / name, generator.state_dict())
    for config in ({}, {"n_filters": 8}):
        loaded = create_generator("fast_srgan", checkpoint=tmp_path / name, **config)
        assert loaded.config == {"n_filters": 8, "n_layers": 2}
        assert torch.equal(loaded(images), generator(images))


def test_another_networks_file_is_refused_by_its_first_keys(tmp_path):
    torch.save(tiny_stargan().state_dict(), tmp_path / "stargan.pth")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    for name in ("stargan.pth", "linear.pth"):
        message = rf"{name} is not a checkpoint of this FastSRGANGenerator: \d+ missing, first \['neck.0.weight'"
        with pytest.raises(ValueError, match=message):
            create_generator("fast_srgan", tmp_path / name)
    state = tiny().state_dict()
    state["stem.1.conv9.weight"] = state.pop("stem.1.conv2.weight")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"1 missing, first \['stem.1.conv2.weight'\]; 1 unknown, first \['stem.1.conv9.weight'\]"):
        create_generator("fast_srgan", tmp_path / "odd.pth")
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*absent.pt"):
        create_generator("fast_srgan", tmp_path / "absent.pt")


def test_other_arguments_than_the_files_are_refused(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"neck.0.weight is \(8, 3, 3, 3\) in the file and \(4, 3, 3, 3\) here"):
        create_generator("fast_srgan", tmp_path / "model.pt", n_filters=4)
    with pytest.raises(ValueError, match=r"missing, first \['stem.2.conv1.weight'"):
        create_generator("fast_srgan", tmp_path / "model.pt", n_layers=3)


def test_it_is_made_by_name():
    assert "fast_srgan" in list_generators()
    generator = create_generator("fast_srgan")
    assert isinstance(generator, FastSRGANGenerator) and generator.config == {"n_filters": 64, "n_layers": 8}


# --- the published weights on photographs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(shared) -> FastSRGANGenerator:
    return create_generator("fast_srgan", shared(PUBLISHED)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def faces(photographs) -> Tensor:
    return photographs("celeba_crop144/test", 12)


@pytest.fixture(scope="module")
def horses(photographs) -> Tensor:
    return photographs("horse2zebra256/testA", 12)


def psnr(images: Tensor, others: Tensor) -> float:
    """dB, averaged over images; the range of [-1, 1] is 2."""
    return (10 * torch.log10(4 / (images - others).square().mean((1, 2, 3)))).mean().item()


def sharpness(images: Tensor) -> float:
    """Mean squared difference from the four neighbours."""
    kernel = torch.tensor([[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]])
    return F.conv2d(images.flatten(0, 1)[:, None], kernel[None, None]).square().mean().item()


def bicubic(images: Tensor) -> Tensor:
    return F.interpolate(shrink(images), scale_factor=4, mode="bicubic").clamp(-1, 1)


def test_the_published_weights_give_the_published_networks_output(published):
    assert published.config == {"n_filters": 64, "n_layers": 8}
    assert sum(parameter.numel() for parameter in published.parameters()) == 925_646
    check_outputs(published, MODEL_PT)


def test_faces_come_closer_to_the_original_than_bicubic_ones(published, faces):
    restored, plain = published.manipulate(faces), bicubic(faces)
    assert psnr(faces, restored) > psnr(faces, plain) + 0.4
    similarities = [structural_similarity_index_measure(batch, faces, data_range=2.0) for batch in (restored, plain)]
    assert similarities[0] > similarities[1] + 0.01


def test_landscapes_come_sharper_than_bicubic_ones_and_no_closer(published, horses):
    """Foliage and grass are invented: sharp, and by PSNR a little further from the original than a blur, as GANs' textures are."""
    restored, plain = published.manipulate(horses), bicubic(horses)
    assert 3 * sharpness(plain) < sharpness(restored) < sharpness(horses)
    assert abs(psnr(horses, restored) - psnr(horses, plain)) < 1


def test_the_restored_image_agrees_with_the_small_one(published, horses):
    """Only detail is invented, and no colour is shifted: shrunk again it is the small image, up to some 2% of the range."""
    restored = published.manipulate(horses)
    assert psnr(shrink(horses), shrink(restored)) > 31
    assert (restored.mean((0, 2, 3)) - horses.mean((0, 2, 3))).abs().max() < 0.04


class TestContract(GeneratorContract):
    name = "fast_srgan"
    config = {"n_filters": 8, "n_layers": 2}
