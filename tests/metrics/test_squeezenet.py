"""SqueezeNet's features: torchvision's layers, fed as the file's training fed them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import squeezenet1_0

from malp_disc.data.faces import draw_faces
from malp_disc.levels import quantize
from malp_disc.metrics import squeezenet
from malp_disc.metrics.features import create_extractor
from malp_disc.metrics.squeezenet import SqueezeNetExtractor
from malp_disc.serialization.state_dicts import load_tensors, save_tensors

WEIGHTS = "weights/squeezenet1_0/squeezenet1_0_deepcompression_decoded.pth"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return draw_faces(range(2), 64)[0]


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return squeezenet1_0(weights=None).eval()


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("squeezenet") / "w.safetensors"
    save_tensors(path, net.state_dict())
    return path


def upscaled(images: torch.Tensor) -> torch.Tensor:
    return F.interpolate(quantize(images).float(), (227, 227), mode="bilinear", antialias=True)


@torch.no_grad()
def test_caffes_input_is_blue_green_red_less_the_mean(net, file, images):
    extractor = SqueezeNetExtractor(file, input="caffe").eval()
    red, green, blue = upscaled(images).unbind(1)
    expected = net.features(torch.stack([blue - 104, green - 117, red - 123], dim=1)).mean(dim=(2, 3))
    torch.testing.assert_close(extractor(images), expected)
    assert expected.shape == (2, extractor.dims) and expected.std() > 0
    assert extractor.label == "FD-SqueezeNet" and "Caffe" in extractor.name and "227" in extractor.resize


@torch.no_grad()
def test_torchvisions_input_is_normalised_on_imagenet(net, file, images):
    extractor = create_extractor("squeezenet", weights=file)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(extractor(images), net.features((upscaled(images) / 255 - mean) / deviation).mean(dim=(2, 3)))
    assert "torchvision" in extractor.name


@pytest.mark.parametrize("caffe", [False, True])
def test_the_same_weights_get_the_same_input_in_every_packaging(net, images, caffe, tmp_path):
    state = {key: value.clone() for key, value in net.state_dict().items()}
    if caffe:
        state["features.0.bias"][:8] = torch.tensor(squeezenet._CAFFE_BIAS)
    torch.save(state, tmp_path / "a.pth")
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "b.pth")
    save_tensors(tmp_path / "c.safetensors", state)
    save_tensors(tmp_path / "half.safetensors", {key: value.half() for key, value in state.items()})
    first, *others = [create_extractor("squeezenet", weights=tmp_path / name) for name in ("a.pth", "b.pth", "c.safetensors", "half.safetensors")]
    assert ("Caffe" in first.name) == caffe
    assert [other.name for other in others[:2]] == [first.name] * 2
    for other, tolerance in zip(others, (0, 0, 0.02)):
        torch.testing.assert_close(other(images), first(images), rtol=tolerance, atol=tolerance * first(images).abs().max().item())


def test_the_published_caffe_weights_are_known_by_their_values(shared, tmp_path):
    weights = load_tensors(shared(WEIGHTS))
    save_tensors(tmp_path / "again.safetensors", {key: value.half() for key, value in weights.items()})
    assert "Caffe" in SqueezeNetExtractor(shared(WEIGHTS)).name and "Caffe" in SqueezeNetExtractor(tmp_path / "again.safetensors").name


def test_an_unknown_input_and_a_side_that_is_too_small_are_refused(file):
    with pytest.raises(ValueError, match="caffe"):
        SqueezeNetExtractor(file, input="bgr")
    with pytest.raises(ValueError, match="at least 32 pixels, got 16"):
        SqueezeNetExtractor(file, side=16)


@torch.no_grad()
def test_another_side_has_another_label(net, file, images):
    smaller = create_extractor("squeezenet-128", weights=file)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    resized = F.interpolate(quantize(images).float(), (128, 128), mode="bilinear", antialias=True)
    torch.testing.assert_close(smaller(images), net.features((resized / 255 - mean) / deviation).mean(dim=(2, 3)))
    assert smaller.label == "FD-SqueezeNet-128" and "128" in smaller.resize and smaller.name == create_extractor("squeezenet", weights=file).name


def test_anothers_weights_are_refused(tmp_path):
    save_tensors(tmp_path / "w.safetensors", {"conv.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="not a checkpoint of this SqueezeNet"):
        create_extractor("squeezenet", weights=tmp_path / "w.safetensors")


def test_a_file_may_lack_the_classifier_and_nothing_else(net, file, images, tmp_path):
    layers = {key: value for key, value in net.state_dict().items() if key.startswith("features.")}
    save_tensors(tmp_path / "layers.safetensors", layers)
    extractor = create_extractor("squeezenet", weights=tmp_path / "layers.safetensors")
    assert extractor.name == create_extractor("squeezenet", weights=file).name
    torch.testing.assert_close(extractor(images), create_extractor("squeezenet", weights=file)(images))
    layers.pop("features.7.expand3x3.weight")
    save_tensors(tmp_path / "fewer.safetensors", layers)
    with pytest.raises(ValueError, match="1 missing, first .*features.7.expand3x3.weight"):
        create_extractor("squeezenet", weights=tmp_path / "fewer.safetensors")


def test_the_included_weights_are_the_published_ones_in_half_precision(shared, images):
    included, published = create_extractor("squeezenet"), create_extractor("squeezenet", weights=shared(WEIGHTS))
    assert "Caffe" in included.name
    for key, value in published.net.state_dict().items():
        assert torch.equal(included.net.state_dict()[key], value.half().float()), key
    assert (included(images) - published(images)).norm() < 0.002 * published(images).norm()


def test_the_included_weights_tell_how_damaged_an_image_is(images):
    """Without any file: more blur is further away, and one grey level hardly counts."""
    extractor = create_extractor("squeezenet")
    soft, softer = (F.interpolate(F.interpolate(images, side, mode="bilinear", antialias=True), 64, mode="bilinear") for side in (40, 24))
    here, brighter = extractor(images), extractor((images + 1 / 127.5).clamp(-1, 1))
    steps = [(extractor(other) - here).norm() for other in (soft, softer)]
    assert steps[1] > steps[0] > 3 * (brighter - here).norm()


def test_the_real_weights_see_blur_and_hardly_a_grey_level(shared, images):
    """Trained weights tell an image from its blurred self more than from itself one grey level brighter."""
    extractor = create_extractor("squeezenet", weights=shared(WEIGHTS))
    blurred = F.interpolate(F.interpolate(images, 24, mode="bilinear", antialias=True), 64, mode="bilinear")
    brighter = (images + 1 / 127.5).clamp(-1, 1)
    here, there, near = extractor(images), extractor(blurred), extractor(brighter)
    assert here.min() >= 0 and here.std() > 0.01
    assert (there - here).norm() > 5 * (near - here).norm()
