"""A benchmark's suite as a TOML file."""

from pathlib import Path

import pytest

from malp_disc.benchmark.suite import generator_entry, read_suite
from malp_disc.data import DataOptions

SUITE = """
images = 20
scaled_size = 64

[data]
data = "images"
data_root = "photos"
crop_size = 100

[[localizers]]
localizer = "malp_both=malp"
name = "MaLP"
threshold = 0.2

[[generators]]
generator = "stgan"
checkpoint = "stgan.ckpt"
image_size = 128
edits = ["Bald"]
trained_on = true

[[generators]]
generator = "my_module:make"
name = "mine"
data = "faces"
"""


def read(tmp_path: Path, text: str):
    path = tmp_path / "suite.toml"
    path.write_text(text)
    return read_suite(path, DataOptions(image_size=32))


def test_a_suite_has_its_generators_with_the_common_data_and_their_own(tmp_path):
    (tmp_path / "malp").mkdir()
    (tmp_path / "stgan.ckpt.index").touch()
    suite = read(tmp_path, SUITE)
    stgan, mine = suite.generators
    assert (suite.images, suite.scaled_size) == (20, 64)
    assert stgan.name == "STGAN" and stgan.trained_on and stgan.edits == ("Bald",)
    assert stgan.data == DataOptions(data="images", data_root=tmp_path / "photos", image_size=128, crop_size=100)
    assert stgan.missing is None, "a TensorFlow checkpoint is several files"
    assert mine.name == "mine" and mine.missing is None
    assert mine.data == DataOptions(data="faces", image_size=32), "a folder and a crop of other images aren't its own"
    (localizer,) = suite.localizers
    assert localizer.localizer == f"malp_both={tmp_path / 'malp'}" and localizer.threshold == 0.2


def test_files_with_functions_are_relative_to_the_suite_as_all_paths_are(tmp_path):
    for name in ("maps.py", "generators/mine.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = SUITE.replace("malp_both=malp", "maps.py:make").replace("my_module:make", "generators/mine.py:make")
    suite = read(tmp_path, text)
    assert suite.localizers[0].localizer == f"{tmp_path}/maps.py:make"
    assert suite.generators[1].generator == f"{tmp_path}/generators/mine.py:make"
    (tmp_path / "weights").mkdir()
    assert read(tmp_path, text.replace("maps.py:make", "maps.py:make=weights")).localizers[0].localizer == f"{tmp_path}/maps.py:make={tmp_path}/weights"
    assert read(tmp_path, SUITE).generators[1].generator == "my_module:make"


def test_a_missing_checkpoint_is_named(tmp_path):
    assert generator_entry("sean").missing == "no checkpoint given"
    assert generator_entry("sean", checkpoint=tmp_path / "sean.pth").missing == f"no file {tmp_path / 'sean.pth'}"


def test_a_target_is_only_the_entrys_own(tmp_path):
    """Without one, what the generator declares holds, which is known once it is loaded."""
    (tmp_path / "stgan.ckpt.index").touch()
    given = SUITE.replace('name = "mine"', 'target = "change"', 1)
    assert [entry.target for entry in read(tmp_path, given).generators] == [None, "change"]


def test_names_are_the_papers():
    assert [generator_entry(name).name for name in ("council_gan", "fast_srgan", "path/to/file.py:make")] == [
        "CounGAN",
        "fast_srgan",
        "file.py:make",
    ]


@pytest.mark.parametrize(
    "was, now, said",
    [
        ("images = 20", 'images = "20"', "images: expected a whole number above 0, got '20'"),
        ("scaled_size = 64", "scaled = 64", "unknown entry 'scaled'; did you mean scaled_size\\?"),
        ("trained_on = true", 'trained_on = "yes"', "generator 1: expected trained_on = true or false"),
        ('edits = ["Bald"]', 'edits = "Bald"', "generator 1, edits: expected a list of names"),
        ("threshold = 0.2", "threshold = 2", "localizer 1: expected a threshold in \\(0, 1\\], got 2"),
        ('generator = "stgan"\n', "", "generator 1, generator: expected text, got nothing"),
        ("image_size = 128", "image_sise = 128", "did you mean image_size\\?"),
        ('name = "mine"', 'target = "label"', "generator 2: expected a target out of labels, change, domain, none, got 'label'"),
        ("images = 20", "images = ", "is no TOML file"),
        ("[[localizers]]", "[localizers]", "expected at least one \\[\\[localizers\\]\\]"),
    ],
)
def test_a_wrong_entry_is_named_with_its_place(tmp_path, was, now, said):
    assert was in SUITE
    with pytest.raises(ValueError, match=said):
        read(tmp_path, SUITE.replace(was, now, 1))
