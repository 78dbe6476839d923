"""`malp-disc fid` gives what pytorch-fid and clean-fid give on the same folders, by their own listing, decoding, resize and distance."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid import fid_score
from pytorch_fid import inception as their_inception
from torch import nn

from malp_disc.cli import main

WEIGHTS = "weights/fid_inception_2015_12_05/fid_inception_to_mixed_7a.safetensors"
CPU = torch.device("cpu")


def ours(monkeypatch, a: Path, b: Path, *flags: object) -> dict:
    """The JSON of ``malp-disc fid A B``."""
    target = a.parent / "ours.json"
    monkeypatch.setattr(sys, "argv", ["malp-disc", "fid", str(a), str(b), "--json", str(target), "--device", "cpu", *map(str, flags)])
    main()
    return json.loads(target.read_text())


def pytorch_fids(monkeypatch, a: Path, b: Path, blocks: list[nn.Module], dims: int) -> float:
    """pytorch-fid's, whose network's blocks are given instead of downloaded; what its class does around them stays."""

    class Theirs(their_inception.InceptionV3):
        def __init__(self, output_blocks: list[int]) -> None:
            nn.Module.__init__(self)
            self.resize_input = self.normalize_input = True
            self.output_blocks, self.last_needed_block = output_blocks, max(output_blocks)
            self.blocks = nn.ModuleList(blocks)

    monkeypatch.setattr(fid_score, "InceptionV3", Theirs)
    return fid_score.calculate_fid_given_paths([str(a), str(b)], 16, CPU, dims, num_workers=0)


def clean_fids(a: Path, b: Path, mode: str, features) -> float:
    """clean-fid's, by an extractor of images (B, 3, 299, 299) in [0, 255]."""
    from cleanfid import fid

    return fid.compute_fid(str(a), str(b), mode=mode, custom_feat_extractor=features, num_workers=0, device=CPU, verbose=False)


@pytest.fixture
def folders(make_folder, tmp_path) -> tuple[Path, Path]:
    """80 and 90 images, more than the stand-in's 64 features; some grey, some JPEG: all that both packages must read alike."""
    a, b = make_folder(tmp_path / "a", 80), make_folder(tmp_path / "b", 85, seed=1, shift=9)
    make_folder(b, 5, seed=2, suffix=".jpg")
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (20, 24), np.uint8)).save(a / "079.png")
    (tmp_path / "weights.pth").write_bytes(b"stands for a file that the stand-in doesn't read")
    return a, b


def test_legacy_mode_is_pytorch_fid(folders, stand_in, packages_sqrtm, monkeypatch):
    expected = pytorch_fids(monkeypatch, *folders, [stand_in], 64)
    record = ours(monkeypatch, *folders, "--mode", "legacy_pytorch", "--dims", 64, "--fid-weights", folders[0].parent / "weights.pth")
    assert record["fid"]["value"] == pytest.approx(expected, rel=1e-5)
    assert (record["fid"]["label"], record["fid"]["n"], record["fid"]["n_reference"]) == ("FID-64", 80, 90)


def test_clean_mode_is_clean_fid_and_legacy_mode_its_legacy_pytorch(folders, stand_in, packages_sqrtm, monkeypatch):
    flags = ("--dims", 64, "--fid-weights", folders[0].parent / "weights.pth")
    with torch.no_grad():
        clean = clean_fids(*folders, "clean", lambda images: stand_in((images - 128) / 128).flatten(1))
        legacy = clean_fids(*folders, "legacy_pytorch", lambda images: stand_in(2 * images / 255 - 1).flatten(1))
    record = ours(monkeypatch, *folders, *flags)
    assert record["fid"]["value"] == pytest.approx(clean, rel=1e-5)
    assert (record["fid"]["mode"], record["fid"]["label"]) == ("clean", "clean-FID-64")
    assert ours(monkeypatch, *folders, *flags, "--mode", "legacy_pytorch")["fid"]["value"] == pytest.approx(legacy, rel=1e-5)
    assert abs(clean - legacy) > 0.01 * clean, "the two resizes must not come out alike here, or the test tells nothing"


@pytest.mark.parametrize("mode", ["clean", "legacy_pytorch"])
def test_folders_of_mixed_sizes_arrays_and_links_are_clean_fids_too(folders, make_folder, stand_in, packages_sqrtm, monkeypatch, mode):
    """Each image is resized by itself, so neither its neighbours in the batch nor their order matter."""
    a, b = folders
    for index, size in enumerate(((30, 20), (20, 31), (64, 48))):
        make_folder(a / f"size{index}", 4, seed=10 + index, size=size)
    np.save(a / "080.npy", np.random.default_rng(4).integers(0, 256, (22, 26, 3), np.uint8))
    make_folder(a.parent / "elsewhere", 3, seed=20)
    (b / "linked").symlink_to(a.parent / "elsewhere")
    scale = {"clean": lambda images: (images - 128) / 128, "legacy_pytorch": lambda images: 2 * images / 255 - 1}[mode]
    with torch.no_grad():
        expected = clean_fids(a, b, mode, lambda images: stand_in(scale(images)).flatten(1))
    record = ours(monkeypatch, a, b, "--mode", mode, "--dims", 64, "--fid-weights", a.parent / "weights.pth", "--batch-size", 7)
    assert (record["fid"]["n"], record["fid"]["n_reference"]) == (93, 93)
    assert record["fid"]["value"] == pytest.approx(expected, rel=1e-5)
    assert any("5 sizes" in note and "each is resized by itself" in note for note in record["notes"])


def test_kid_is_clean_fids_where_all_images_fit_into_a_subset(make_folder, tmp_path, stand_in, monkeypatch):
    """Sets of equal size up to 1000: each of clean-fid's subsets is the whole, in another order."""
    from cleanfid.fid import get_folder_features, kernel_distance

    a, b = make_folder(tmp_path / "a", 20), make_folder(tmp_path / "b", 20, seed=1, shift=30)
    (tmp_path / "w.pth").touch()

    def features(folder: Path) -> np.ndarray:
        def net(images: torch.Tensor) -> torch.Tensor:
            return stand_in((images - 128) / 128).flatten(1)

        return get_folder_features(str(folder), net, num_workers=0, device=CPU, mode="clean", verbose=False)

    expected = kernel_distance(features(b), features(a), num_subsets=3)
    record = ours(monkeypatch, a, b, "--dims", 64, "--fid-weights", tmp_path / "w.pth", "--kid")
    assert record["kid"]["value"] == pytest.approx(expected, rel=1e-4)
    assert (record["kid"]["std"], record["kid"]["subset_size"], record["kid"]["label"]) == (None, 20, "clean-KID-64")


def test_without_scipys_root_at_all(folders, stand_in, monkeypatch):
    """SciPy 1.18 refuses the packages' call; here none is made."""

    def gone(*_, **__):
        raise TypeError("sqrtm() got an unexpected keyword argument 'disp'")

    flags = ("--mode", "legacy_pytorch", "--dims", 64, "--fid-weights", folders[0].parent / "weights.pth")
    before = ours(monkeypatch, *folders, *flags)
    monkeypatch.setattr("scipy.linalg.sqrtm", gone)
    with pytest.raises(TypeError):
        pytorch_fids(monkeypatch, *folders, [stand_in], 64)
    assert ours(monkeypatch, *folders, *flags)["fid"]["value"] == pytest.approx(before["fid"]["value"])


def test_features_of_2048_are_pytorch_fids_own(monkeypatch, tmp_path):
    """The whole network at random weights, in both packages' input scales, on an image of Inception's size: no resize can differ."""
    from malp_disc.metrics.features import create_extractor
    from malp_disc.metrics.inception import build_inception
    from malp_disc.serialization.state_dicts import save_tensors

    torch.manual_seed(0)
    state = build_inception(2048).state_dict()
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}  # as pytorch-fid's file has them
    save_tensors(tmp_path / "w.safetensors", state)
    monkeypatch.setattr(their_inception, "load_state_dict_from_url", lambda *_, **__: state)
    theirs = their_inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    levels = torch.randint(0, 256, (1, 3, 299, 299), generator=torch.Generator().manual_seed(1)).float()
    for name, label, scaled in (("inception-2048", "FID", 2 * (levels / 255) - 1), ("clean-2048", "clean-FID", (levels - 128) / 128)):
        extractor = create_extractor(name, weights=tmp_path / "w.safetensors")
        with torch.no_grad():
            expected = theirs(scaled)[0].flatten(1)
        torch.testing.assert_close(extractor(levels / 127.5 - 1), expected, rtol=1e-4, atol=1e-6)
        assert expected.std() > 0 and extractor.label == label


@pytest.mark.slow
@pytest.mark.parametrize("dims", [64, 192])
def test_real_weights_on_real_images(dims, shared, packages_sqrtm, monkeypatch, tmp_path):
    """220 photographs of faces a side, the genuine network: to 1e-3 of both packages."""
    from malp_disc.metrics.inception import load_inception

    weights = shared(WEIGHTS)
    for side, split in (("a", "test"), ("b", "train")):
        (tmp_path / side).mkdir()
        for path in sorted(shared(f"data/celeba_crop144/{split}").iterdir())[:220]:
            (tmp_path / side / path.name).symlink_to(path)
    a, b, net = tmp_path / "a", tmp_path / "b", load_inception(dims, weights)
    index = their_inception.InceptionV3.BLOCK_INDEX_BY_DIM[dims]
    blocks = [nn.Identity()] * index + [net]
    flags = ("--dims", dims, "--fid-weights", weights)
    legacy = ours(monkeypatch, a, b, *flags, "--mode", "legacy_pytorch")["fid"]["value"]
    assert legacy == pytest.approx(pytorch_fids(monkeypatch, a, b, blocks, dims), rel=1e-3)
    with torch.no_grad():
        clean = clean_fids(a, b, "clean", lambda images: net((images - 128) / 128).mean(dim=(2, 3)))
    assert ours(monkeypatch, a, b, *flags, "--mode", "clean")["fid"]["value"] == pytest.approx(clean, rel=1e-3)
    assert legacy > 0
