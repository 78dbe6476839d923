"""Images without attributes, and with references."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from malp_disc.data import PlainFolder, ProceduralFaces, WithReferences, default_reference_test_size, held_out_references
from malp_disc.data.decoding import BrokenImageError
from malp_disc.data.overlap import check_held_out, count_same_files, shared_files
from malp_disc.data.references import known_attributes
from malp_disc.data.sampling import StepBatches


def test_images_without_attributes_have_labels_of_no_column(tmp_path):
    for i in range(10):
        Image.new("RGB", (40, 32), (20 * i, 0, 0)).save(tmp_path / f"{i}.png")
    train, test = (PlainFolder(tmp_path, split=split, image_size=16, test_size=3) for split in ("train", "test"))
    assert len(train) == 7 and len(test) == 3 and not set(train.paths) & set(test.paths)
    image, label = train[0]
    assert image.shape == (3, 16, 16) and label.shape == (0,) and train.attribute_names == ()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images below"):
        PlainFolder(tmp_path / "empty")


def test_references_are_partners_by_name_or_spread_evenly(tmp_path):
    for i in range(6):
        for folder, blue in (("photos", 0), ("frames", 200)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), (40 * i, 0, blue)).save(tmp_path / folder / f"{i}.{'png' if folder == 'photos' else 'bmp'}")
    photos = PlainFolder(tmp_path / "photos", image_size=16, test_size=2)
    paired = WithReferences(photos, tmp_path / "frames", paired=True)
    for row in range(len(paired)):
        image, label, reference = paired[row]
        assert torch.equal(image[0], reference[0]) and (reference[2] - image[2]).mean() > 1 and label.shape == (0,)
    (tmp_path / "frames" / "9.bmp").write_bytes((tmp_path / "frames" / "0.bmp").read_bytes())
    loose = WithReferences(photos, tmp_path / "frames")
    assert len(set(loose.references)) == len(photos), "no reference twice while there are others"
    assert loose.references == WithReferences(photos, tmp_path / "frames").references
    assert "unpaired references of frames (7 images)" in loose.description
    photos.attribute_names = loose.attribute_names = ("Male",)
    assert (known_attributes(photos), known_attributes(loose)) == (1, 0), "references have no labels"
    partner = tmp_path / "frames" / f"{paired.dataset.paths[0].rpartition('/')[2].removesuffix('.png')}.bmp"
    partner.rename(tmp_path / "frames" / "else.bmp")
    with pytest.raises(ValueError, match=r"1 of 4 images have no partner in .*frames, first .*leave --paired out"):
        WithReferences(photos, tmp_path / "frames", paired=True)


def test_over_the_epochs_every_unpaired_reference_is_used_equally_often(tmp_path):
    """With more references than images, as in monet2photo, those beyond the number of images would otherwise never be seen."""
    for folder, count in (("photos", 6), ("frames", 16)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            Image.new("RGB", (16, 16), (10 * i, 0, 0)).save(tmp_path / folder / f"{i}.png")
    pairs = WithReferences(PlainFolder(tmp_path / "photos", image_size=16, test_size=2), tmp_path / "frames")
    rows = [row for batch in StepBatches(4, 2, seed=0, stop=8, distinguishes_epochs=pairs.distinguishes_epochs) for row in batch]
    shades = [pairs[row][2][0, 0, 0].item() for row in rows]
    assert len(set(shades)) == len(shades) == 16, "four epochs of four images, each with other references"
    assert sorted(row % 4 for row in rows[:4]) == [0, 1, 2, 3] and all(torch.equal(pairs[row][0], pairs[row % 4][0]) for row in rows)
    assert len(list(pairs)) == 4
    again = [row for batch in StepBatches(4, 2, seed=0, start=5, stop=8, distinguishes_epochs=True) for row in batch]
    assert again == rows[10:], "a resumed run goes on with the same ones"
    assert not WithReferences(pairs.dataset, tmp_path / "photos", paired=True).distinguishes_epochs


def test_references_that_leave_none_are_refused_by_their_own_flag(tmp_path):
    for i in range(6):
        Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    photos = PlainFolder(tmp_path, image_size=16, test_size=2)
    for made in (held_out_references, WithReferences):
        with pytest.raises(ValueError, match="^--reference-test-size 6 leaves nothing to train on"):
            made(photos, tmp_path, test_size=6)
        with pytest.raises(ValueError, match="expected --reference-test-size of at least 0, got -1"):
            made(photos, tmp_path, test_size=-1)


@pytest.fixture
def pairs(tmp_path):
    """Ten photos, and a frame of the same name for each."""
    for i in range(10):
        for folder, blue in (("photos", 0), ("frames", 200)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), (20 * i, 0, blue)).save(tmp_path / folder / f"{i}.png")
    return tmp_path


def names_of(paths) -> set[str]:
    return {Path(path).name for path in paths}


def test_unpaired_references_to_compare_with_are_none_that_training_sees(pairs):
    photos, held_out = (PlainFolder(pairs / "photos", image_size=16, test_size=4, split=split) for split in ("train", "test"))
    trained, compared = WithReferences(photos, pairs / "frames", test_size=3), held_out_references(held_out, pairs / "frames", test_size=3)
    assert len(compared) == 3 and not names_of(trained.references) & names_of(compared.paths)
    assert len(names_of(trained.references)) == 6, "as many of the other 7 as there are photos"
    assert names_of(held_out_references(held_out, pairs / "frames").paths) == {f"{i}.png" for i in range(10)}, "0 holds none back"
    assert default_reference_test_size(pairs / "frames", most=2000) == 5 and default_reference_test_size(pairs / "frames", most=4) == 4


def test_paired_references_to_compare_with_are_the_partners_of_the_held_out_images(pairs):
    photos, held_out = (PlainFolder(pairs / "photos", image_size=16, test_size=4, split=split) for split in ("train", "test"))
    trained = WithReferences(photos, pairs / "frames", paired=True)
    compared = held_out_references(held_out, pairs / "frames", paired=True)
    assert [Path(path).name for path in compared.paths] == [Path(path).name for path in held_out.paths]
    assert not names_of(trained.references) & names_of(compared.paths) and "partners of the held-out images" in compared.description


def test_a_folder_of_references_may_have_a_split_of_its_own(pairs):
    """trainB and testB of a published data set, linked as train and test."""
    (pairs / "zebras").mkdir()
    (pairs / "zebras" / "train").symlink_to(pairs / "photos")
    (pairs / "zebras" / "test").symlink_to(pairs / "frames")
    photos = PlainFolder(pairs / "photos", image_size=16, test_size=4)
    assert {Path(path).parent.name for path in WithReferences(photos, pairs / "zebras", test_size=2).references} == {"train"}
    assert {Path(path).parent.name for path in held_out_references(photos, pairs / "zebras", test_size=2).paths} == {"test"}


def test_held_out_images_may_be_neither_compared_with_nor_trained_on(tmp_path):
    """A folder against itself, links, copies under other names: what counts is the content of the files in use."""
    held_out, others = ([str(tmp_path / f"{name}{i}.png") for i in range(3)] for name in ("ours", "others"))
    for i, path in enumerate((*held_out, *others)):
        Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(path)
    link, copy = tmp_path / "link.png", tmp_path / "copy.png"
    link.symlink_to(held_out[1])
    copy.write_bytes(Path(held_out[2]).read_bytes())
    assert len({Path(path).stat().st_size for path in (*held_out, *others)}) < 6, "some differ in their content alone"
    assert shared_files(held_out, others) == []
    assert shared_files(held_out, [*others, copy, link]) == [(held_out[1], str(link)), (held_out[2], str(copy))]
    check_held_out(held_out, others, others, tmp_path)
    with pytest.raises(ValueError, match=r"3 of the 3 held-out images .* would come out best .*ours0.png\); leave --reference-root out"):
        check_held_out(held_out, held_out, others, tmp_path)
    with pytest.raises(ValueError, match=r"1 of the 3 held-out images .* discriminators get .*ours1.png is .*link.png\)"):
        check_held_out(held_out, others, [*others, str(link)], tmp_path)
    check_held_out(held_out, [*others[:2], str(copy)], others, tmp_path, paired=True)  # some pairs may be equal
    with pytest.raises(ValueError, match="--paired: all 3"):
        check_held_out(held_out, held_out, others, tmp_path, paired=True)
    check_held_out([], held_out, others, tmp_path, paired=True)


def test_a_single_image_of_many_that_is_also_a_reference_gives_a_warning(tmp_path, caplog):
    """Such as a blank tile that both domains have."""
    ours, theirs = ([tmp_path / f"{name}{i}.bin" for i in range(101)] for name in ("ours", "theirs"))
    for i, path in enumerate((*ours, *theirs)):
        path.write_bytes(bytes([i]))
    for path in (ours[7], theirs[3]):
        path.write_bytes(b"blank")
    check_held_out([str(path) for path in ours], [str(path) for path in theirs], (), tmp_path)
    assert "1 of the 101 held-out images are also among" in caplog.text
    with pytest.raises(ValueError, match="1 of the 100 held-out images"):
        check_held_out([str(path) for path in ours[:100]], [str(path) for path in theirs], (), tmp_path)


def test_damaged_references_are_left_out_where_damaged_images_are(pairs):
    photos = PlainFolder(pairs / "photos", image_size=16, test_size=4, on_broken="skip")
    (pairs / "frames" / "cut.png").write_bytes(b"\x89PNG")
    assert not any("cut.png" in path for path in WithReferences(photos, pairs / "frames").all_references)
    assert not any("cut.png" in path for path in held_out_references(photos, pairs / "frames").paths)
    with pytest.raises(BrokenImageError, match="cut.png .*with --on-broken skip"):
        WithReferences(PlainFolder(pairs / "photos", image_size=16, test_size=4), pairs / "frames")
    name = Path(photos.paths[0]).name
    (pairs / "frames" / name).write_bytes(b"\x89PNG")
    with pytest.raises(BrokenImageError, match="replace or delete it$"):
        WithReferences(photos, pairs / "frames", paired=True)


def test_drawn_faces_take_no_references(pairs):
    for made in (WithReferences, held_out_references):
        with pytest.raises(ValueError, match="use --data images, folder or celeba"):
            made(ProceduralFaces(4), pairs / "frames")


def test_the_description_says_how_many_references_are_inputs_too(pairs):
    photos = PlainFolder(pairs / "photos", image_size=16, test_size=0)
    (pairs / "frames" / "link.png").symlink_to(photos.paths[0])
    assert "(11 images, of which 1 are inputs of the generator as well)" in WithReferences(photos, pairs / "frames").description
    assert count_same_files(photos.paths, photos.paths) == len(photos)
