"""Feature extractors: equal to the packages they stand for, safe with files, and honest about what they are."""

from __future__ import annotations

import hashlib
import io
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.utils import save_image

from malp_disc.data.faces import draw_faces
from malp_disc.levels import quantize
from malp_disc.metrics import download, inception
from malp_disc.metrics.download import PublishedFile, cache_folder, fetch
from malp_disc.metrics.features import create_extractor, extract_features
from malp_disc.metrics.frechet import frechet_distance
from malp_disc.metrics.inception import DIMS, build_inception
from malp_disc.serialization.state_dicts import save_tensors

WEIGHTS = "weights/fid_inception_2015_12_05/fid_inception_to_mixed_7a.safetensors"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return draw_faces(range(3), 64)[0]


def test_quantize_is_what_a_png_holds(images, tmp_path):
    floats = (images + 0.013 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)))[:1].clamp(-1, 1)
    save_image((floats + 1) / 2, tmp_path / "x.png")
    stored = torch.from_numpy(np.asarray(Image.open(tmp_path / "x.png")).copy()).permute(2, 0, 1)[None]
    assert torch.equal(quantize(floats), stored)
    assert torch.equal(quantize(stored.float() / 127.5 - 1), stored)


def test_quantize_clips():
    assert quantize(torch.tensor([-1.2, -1.0, 0.0, 1.0, 1.2])).tolist() == [0, 0, 128, 255, 255]


def test_features_do_not_see_less_than_half_a_grey_level(images):
    """What differs by less than a PNG can hold gives the same features, not nearly the same."""
    extractor = create_extractor("faces")
    assert torch.equal(extractor(images), extractor(images + 0.3 / 127.5))
    assert not torch.equal(extractor(images), extractor((images + 4 / 127.5).clamp(-1, 1)))


def test_the_embedded_extractor_says_what_it_is_and_is_not_called_fid(images):
    extractor = create_extractor("faces")
    assert extractor.label == "FD-faces"
    assert "sha256" in extractor.name and "64" in extractor.resize
    assert extractor(images).shape == (3, extractor.dims) == (3, 96)


def test_extracting_in_batches_of_any_size_gives_the_same_rows(images):
    extractor, seen = create_extractor("faces"), []
    whole = extract_features(extractor, [images])
    labels = torch.zeros(3)
    parts = extract_features(extractor, [(images[:1], labels[:1]), (images[1:], labels[1:])], progress=seen.append)
    assert whole.dtype == np.float32 and whole.shape == (3, 96)
    np.testing.assert_allclose(parts, whole, atol=5e-5)  # kernels for one image add in another order
    assert seen == [1, 2]


def test_features_stay_float32_under_autocast(images):
    extractor = create_extractor("faces")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extractor(images), create_extractor("faces")(images))


def test_the_distance_grows_with_blur_and_with_noise():
    """Real against real is the floor; each step of damage is further away."""
    real, other = draw_faces(range(15_000_000, 15_000_060))[0], draw_faces(range(15_000_060, 15_000_120))[0]
    extractor = create_extractor("faces")
    reference = extract_features(extractor, [real])

    def distance(x: torch.Tensor) -> float:
        return frechet_distance(reference, extract_features(extractor, [x]))

    def smaller(size: int) -> torch.Tensor:
        return F.interpolate(F.interpolate(other, size, mode="bilinear", antialias=True), 64, mode="bilinear").clamp(-1, 1)

    noise = torch.randn(other.shape, generator=torch.Generator().manual_seed(0))
    blurred = [distance(x) for x in (other, smaller(36), smaller(20))]
    noisy = [distance((other + s * noise).clamp(-1, 1)) for s in (0, 0.08, 0.2)]
    for distances in (blurred, noisy):
        assert all(b > a for a, b in zip(distances, distances[1:])), distances


@pytest.mark.parametrize("dims", [64, 192, 768])
def test_equal_to_pytorch_fids_own_network(dims, images, shared, monkeypatch):
    """Their class, made to take our file's weights instead of downloading its own."""
    from pytorch_fid import inception
    from safetensors.torch import load_file
    from torch import nn

    path = shared(WEIGHTS)
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: load_file(path))
    monkeypatch.setattr(nn.Module, "load_state_dict", partial_load(nn.Module.load_state_dict))
    theirs = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[dims]]).eval()
    images = images[:1]
    png = quantize(images).float() / 255
    with torch.no_grad():
        expected = F.adaptive_avg_pool2d(theirs(png)[0], 1).flatten(1)
    extractor = create_extractor(f"inception-{dims}", weights=path)
    assert torch.allclose(extractor(images), expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 0.01
    assert extractor.label == f"FID-{dims}"


def partial_load(load):
    """Module.load_state_dict that doesn't mind the layers the shared file lacks."""
    return lambda self, state, strict=True, assign=False: load(self, state, strict=False, assign=assign)


def test_a_file_that_ends_early_is_refused_for_2048(shared):
    for name in ("inception-2048", "clean-2048", "clean"):
        with pytest.raises(ValueError, match="ends before Mixed_7b, .* take 64 or 192 or 768 features, for which this file is enough"):
            create_extractor(name, weights=shared(WEIGHTS))


@pytest.mark.parametrize("dims", DIMS)
def test_inception_is_built_without_the_network_and_has_pytorch_fids_keys(dims, monkeypatch):
    from pytorch_fid import inception
    from torch import nn

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", partial_load(nn.Module.load_state_dict))
    theirs = {key: value.shape for key, value in inception.fid_inception_v3().state_dict().items()}
    ours = {key: value.shape for key, value in build_inception(dims).state_dict().items()}
    assert ours.items() <= theirs.items()
    if dims == 2048:
        assert {key for key in theirs if key not in ours} == {"fc.weight", "fc.bias"}


def test_another_networks_weights_are_refused(tmp_path):
    save_tensors(tmp_path / "w.safetensors", {"conv.weight": torch.zeros(1)})
    for name in ("inception-64", "clean-64"):
        with pytest.raises(ValueError, match="not a checkpoint of this FIDInception"):
            create_extractor(name, weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "file"), [("inception-2048", "pt_inception-2015-12-05-6726825d.pth"), ("clean", "inception-2015-12-05.pt")]
)
def test_without_weights_and_internet_the_error_says_what_to_put_where(name, file, monkeypatch, tmp_path):
    def offline(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("MALP_DISC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download.urllib.request, "urlopen", offline)
    with pytest.raises(FileNotFoundError) as caught:
        create_extractor(name)
    message = str(caught.value)
    for part in (file, str(tmp_path / "cache"), "MALP_DISC_CACHE", "--fid-weights PATH", "https://", "no route", "--extractor squeezenet"):
        assert part in message


def published(content: bytes) -> PublishedFile:
    return PublishedFile(name="w.bin", url="https://example.invalid/w.bin", sha256=hashlib.sha256(content).hexdigest(), megabytes=1)


def test_a_download_lands_in_the_cache_once(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setenv("MALP_DISC_CACHE", str(tmp_path))
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda url, timeout: calls.append(url) or io.BytesIO(b"weights"))
    assert fetch(published(b"weights")).read_bytes() == b"weights"
    assert fetch(published(b"weights")) == tmp_path / "w.bin" and len(calls) == 1


def test_wrong_content_is_never_kept_nor_used(monkeypatch, tmp_path):
    monkeypatch.setenv("MALP_DISC_CACHE", str(tmp_path))
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"a login page"))
    with pytest.raises(ValueError, match="not the published w.bin"):
        fetch(published(b"weights"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "w.bin").write_bytes(b"half of it")
    with pytest.raises(ValueError, match="delete it and get https"):
        fetch(published(b"weights"))


def test_the_cache_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("MALP_DISC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(download.sys, "platform", "linux")
    assert cache_folder() == tmp_path / "malp-disc"
    monkeypatch.setenv("MALP_DISC_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"


def test_without_a_home_folder_the_cache_asks_for_one(monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MALP_DISC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ValueError, match="there is no home folder for the cache; set the variable MALP_DISC_CACHE to a folder"):
        cache_folder()


class PooledPixels(torch.nn.Module):
    """Stands in for clean-fid's TorchScript file: 2048 features that are the 3 channel means and nothing."""

    def forward(self, x):
        return F.pad(x.mean(dim=(2, 3)), (0, 2045))


class StandIn(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = PooledPixels()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.layers(x)


def test_clean_fid_gets_its_own_resize_and_scale(tmp_path, monkeypatch, images):
    """Grey level v must reach the network as (v − 128)/128, and an image resized as clean-fid resizes it."""
    from cleanfid.resize import build_resizer

    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(StandIn()).save(str(path))
    with pytest.raises(ValueError, match="not the published"):
        create_extractor("clean", weights=path)
    content = path.read_bytes()
    stand_in = PublishedFile(path.name, "https://example.invalid", hashlib.sha256(content).hexdigest(), 1)
    monkeypatch.setattr(inception, "CLEAN_FID_INCEPTION", stand_in)
    extractor = create_extractor("clean", weights=path)
    level = torch.full((1, 3, 32, 32), 64 / 127.5 - 1)
    assert torch.allclose(extractor(level)[0, :3], torch.full((3,), -0.5), atol=1e-5)
    image = quantize(images[:1])[0].permute(1, 2, 0).numpy()
    expected = (build_resizer("clean")(image).mean(axis=(0, 1)) - 128) / 128
    np.testing.assert_allclose(extractor(images[:1])[0, :3].numpy(), expected, atol=1e-4)
    assert (extractor.label, extractor.dims) == ("clean-FID", 2048)
    with pytest.raises(ValueError, match="gives 2048 features only, not 768"):
        create_extractor("clean-768", weights=path)


def test_clean_fids_scale_and_resize_hold_for_pytorch_fids_weights_too(tmp_path, monkeypatch, images):
    """Grey level v reaches the network as (v − 128)/128, where pytorch-fid has (v − 127.5)/127.5; and the two say so."""
    monkeypatch.setattr(inception, "load_inception", lambda dims, path: torch.nn.Identity())
    (tmp_path / "w.pth").touch()
    clean, legacy = (create_extractor(name, weights=tmp_path / "w.pth") for name in ("clean-64", "inception-64"))
    for extractor in (clean, legacy):
        extractor.register_parameter("anchor", torch.nn.Parameter(torch.zeros(1)))
    level = torch.full((1, 3, 32, 32), 64 / 127.5 - 1)
    torch.testing.assert_close(clean(level), torch.full((1, 3), -0.5))
    torch.testing.assert_close(legacy(level), torch.full((1, 3), 64 / 127.5 - 1))
    assert (clean.label, legacy.label) == ("clean-FID-64", "FID-64") and clean.resize != legacy.resize


def test_an_unknown_extractor_is_refused_with_the_choice():
    with pytest.raises(ValueError, match="choose from faces, clean, clean-64, .* inception-2048, squeezenet"):
        create_extractor("inception-128")


def test_images_on_another_scale_are_refused():
    with pytest.raises(ValueError, match="divide by 127.5 and subtract 1"):
        create_extractor("faces")(torch.full((1, 3, 64, 64), 200.0))
