"""Features of a folder are computed once, from tensors just as from files, by one process just as by several; nothing is mixed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import debug_launcher
from PIL import Image
from torchvision.utils import save_image

from malp_disc.commands.fid import _notes
from malp_disc.distributed import rank_and_world_size
from malp_disc.levels import quantize
from malp_disc.metrics.extractor import extract_features, gather_features
from malp_disc.metrics.feature_sets import FeatureSet, cache_path, folder_features, read_features
from malp_disc.metrics.frechet import feature_statistics, frechet_distance
from malp_disc.metrics.image_folder import ImageFolder
from tests.metrics.conftest import Colours


@pytest.fixture
def folder(make_folder, tmp_path) -> ImageFolder:
    return ImageFolder.scan(make_folder(tmp_path / "a", 9))


def test_a_kept_reference_is_computed_once(folder, colours, cache):
    first = folder_features(folder, colours, keep=True)
    again = folder_features(folder, colours, batch_size=2)
    assert colours.seen == 9
    assert (again.n, again.features.dtype) == (9, np.float32)
    np.testing.assert_array_equal(again.features, first.features)
    assert cache_path(folder, colours).parent == cache / "features"


def test_images_of_several_sizes_have_the_rows_they_have_alone(make_folder, colours, tmp_path):
    a = make_folder(make_folder(tmp_path / "a", 5) / "odd", 3, seed=7, size=(20, 24)).parent
    folder = ImageFolder.scan(a)
    alone = [np.asarray(Image.open(path)).reshape(-1, 3).mean(0) for path in folder.paths]
    for batch_size in (1, 3, 8):
        np.testing.assert_allclose(folder_features(folder, colours, batch_size=batch_size).features, alone, rtol=1e-5)


def test_notes_count_images_and_tell_distinct_contents_apart(make_folder, colours, tmp_path):
    """A holds one of B's images five times: five of its images are in B, not one."""
    a, b = make_folder(tmp_path / "a", 4), make_folder(tmp_path / "b", 12, seed=1)
    for index in range(5):
        shutil.copy(b / "000.png", a / f"copy{index}.png")
    (a / "notes.txt").write_text("x")
    folders = [ImageFolder.scan(a), ImageFolder.scan(b)]
    colours.dims = 8
    notes = _notes([folder_features(folder, colours) for folder in folders], folders, colours)
    assert f"4 of 9 images in {a} are copies of others in it, so 5 are distinct by content" in notes
    assert f"5 of 9 images in {a} (1 distinct by content) are in {b} as well" in notes
    assert any(note.startswith("9 images (5 distinct by content) don't tell the covariance of 8 features") for note in notes)
    assert f"{a}: left out: 1 file of another kind (.txt)" in notes


def test_animations_and_suffixes_that_the_packages_do_not_list_are_noted(colours, tmp_path):
    frames = [Image.new("RGB", (24, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.gif")
    frames[0].save(tmp_path / "x.png")
    folder = ImageFolder.scan(tmp_path)
    features = folder_features(folder, colours)
    assert features.features.round().tolist() == [[255, 0, 0]] * 3  # of the animation the first frame, which is red
    notes = _notes([features], [folder], colours)
    assert f"of 1 animated or multi-page file in {tmp_path} the first frame is taken" in notes
    assert f"2 of 3 images in {tmp_path} have a suffix that pytorch-fid and clean-fid don't look for" in notes


def test_the_cache_knows_the_images_by_content(folder, colours, tmp_path):
    folder_features(folder, colours, keep=True)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    (tmp_path / "copy" / "000.png").rename(tmp_path / "copy" / "zzz.png")
    folder_features(ImageFolder.scan(tmp_path / "copy"), colours)
    assert colours.seen == 9
    Image.new("RGB", (24, 20), "red").save(tmp_path / "copy" / "zzz.png")  # as many images, one of them another
    folder_features(ImageFolder.scan(tmp_path / "copy"), colours)
    assert colours.seen == 9 + 9


def test_another_network_or_resize_computes_its_own(folder, colours):
    folder_features(folder, colours, keep=True)
    other_weights, other_resize = Colours("colours, other weights"), Colours()
    other_resize.resize = "another"
    for other in (other_weights, other_resize):
        folder_features(folder, other)
        assert other.seen == 9


def test_nothing_is_kept_of_the_evaluated_images(folder, colours, cache):
    folder_features(folder, colours)
    assert not cache.exists()


def test_a_damaged_file_in_the_cache_is_computed_again(folder, colours, caplog):
    first = folder_features(folder, colours, keep=True)
    path = cache_path(folder, colours)
    path.write_bytes(path.read_bytes()[:-20])
    again = folder_features(folder, colours, keep=True)
    assert "damaged" in caplog.text and colours.seen == 18
    np.testing.assert_array_equal(again.features, first.features)
    assert folder_features(folder, colours).n == 9 and colours.seen == 18  # and it was mended


def test_a_cache_that_cannot_be_written_costs_only_a_warning(folder, colours, monkeypatch, caplog, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MALP_DISC_CACHE", str(tmp_path / "file" / "cache"))
    assert folder_features(folder, colours, keep=True).n == 9
    assert "MALP_DISC_CACHE names another folder" in caplog.text


def test_a_cache_on_a_full_disk_costs_only_a_warning(folder, colours, caplog, cache, largest_file):
    with largest_file(10):
        assert folder_features(folder, colours, keep=True, quiet=True).n == 9
    assert f"can't write features to the cache {cache / 'features'} (File too large)" in caplog.text
    assert not cache_path(folder, colours).exists()


def test_tensors_give_what_the_images_saved_from_them_give(tmp_path, colours):
    """A generator's floats, straight, and through PNG files: the same rows, bit for bit."""
    images = (
        torch.rand(8, 3, 12, 10, generator=torch.Generator().manual_seed(0)) * 2.04 - 1.02
    )  # a little out of range, as nets without tanh are
    (tmp_path / "png").mkdir()
    for index, image in enumerate(images):
        save_image((image.clamp(-1, 1) + 1) / 2, tmp_path / "png" / f"{index}.png")
    files = folder_features(ImageFolder.scan(tmp_path / "png"), colours).features
    tensors = extract_features(colours, images.split(3))
    assert {tuple(row) for row in files.tolist()} == {tuple(row) for row in tensors.tolist()}
    assert frechet_distance(files, tensors) == pytest.approx(0, abs=1e-6)
    assert not torch.equal(quantize(images).float() / 127.5 - 1, images), "the floats must lie off the grid, or the test tells nothing"


def test_a_kept_file_stands_for_its_folder(folder, colours):
    kept = folder_features(folder, colours, keep=True)
    read = read_features(cache_path(folder, colours), colours)
    assert read.n == 9
    np.testing.assert_array_equal(read.features, kept.features)


def test_a_kept_file_of_another_resize_is_never_compared_with(folder, colours):
    folder_features(folder, colours, keep=True)
    other = Colours()
    other.resize = "antialiased"
    with pytest.raises(ValueError, match="of another resize: 'none', expected 'antialiased'"):
        read_features(cache_path(folder, colours), other)


def test_statistics_of_pytorch_fid_stand_for_their_folder(folder, colours, tmp_path):
    features = folder_features(folder, colours).features
    mean, covariance = feature_statistics(features)
    np.savez_compressed(tmp_path / "stats.npz", mu=mean, sigma=covariance)
    read = read_features(tmp_path / "stats.npz", colours)
    other = FeatureSet("", 9, features + np.float32(3.0))
    assert (read.n, read.features) == (None, None)
    assert other.frechet_from(read) == pytest.approx(27, rel=1e-4) == read.frechet_from(other)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.npz", {"mu": np.zeros(2048), "sigma": np.eye(2048)}, r"statistics of shapes \(2048,\).* use the --dims"),
        ("s.npz", {"mean": np.zeros(3)}, "holds no statistics as pytorch-fid saves them"),
        ("s.npz", b"no zip", "it is a text file .*Expected a .npz with statistics as pytorch-fid saves them"),
        ("s.npz", b"", "it is an empty file"),
        ("s.npz", {"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "statistics that are not finite"),
        ("f.safetensors", b"version https://git-lfs.github.com/spec/v1", "it is a git-lfs pointer.*run `git lfs pull`"),
        ("f.safetensors", b"no tensors", "neither a folder of images nor a feature file"),
    ],
)
def test_other_files_are_refused(tmp_path, colours, name, content, message):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.savez(tmp_path / name, **content)
    with pytest.raises(ValueError, match=message):
        read_features(tmp_path / name, colours)


def test_a_file_with_objects_in_it_is_not_unpickled(tmp_path, colours):
    np.savez(tmp_path / "s.npz", mu=np.array([{}], dtype=object), sigma=np.eye(1))
    with pytest.raises(ValueError, match="objects in it, which would have to be unpickled"):
        read_features(tmp_path / "s.npz", colours)


def in_two_processes(target: Path, folder: ImageFolder) -> None:
    colours, (rank, world) = Colours(), rank_and_world_size()
    features = folder_features(folder, colours, batch_size=2, keep=True, quiet=True).features
    alone = gather_features(np.full((1 - rank, 2), 7, np.float32), 1)
    np.savez(target / f"{rank}.npz", features=features, seen=colours.seen, processes=world, alone=alone)


def test_two_processes_share_the_work_and_get_the_same_rows(folder, colours, tmp_path, cache):
    """9 images, an odd number: 5 and 4. And a single one, which leaves the second process without work."""
    debug_launcher(in_two_processes, (tmp_path, folder), num_processes=2)
    results = [np.load(tmp_path / f"{rank}.npz") for rank in (0, 1)]
    expected = folder_features(folder, colours)
    assert colours.seen == 0, "kept by the two"
    assert [(int(r["processes"]), int(r["seen"])) for r in results] == [(2, 5), (2, 4)]
    np.testing.assert_array_equal(expected.features, extract_features(Colours(), folder.batches(9)))
    for result in results:
        np.testing.assert_array_equal(result["features"], expected.features)
        np.testing.assert_array_equal(result["alone"], [[7, 7]])


def test_a_process_with_another_share_is_refused():
    with pytest.raises(ValueError, match="features of 5 images from process 0 of 1"):
        gather_features(np.zeros((4, 3), np.float32), 5)
