"""TensorFlow's files without TensorFlow. ``data/stgan_tensorflow`` was written by TensorFlow 2.18's own Saver."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from generators.tensorflow_files import is_tensorflow, read_variables
from tests.golden.seeded import weight

CHECKPOINT = Path(__file__).parent / "data" / "stgan_tensorflow"
DATA = "stgan_tensorflow.data-00000-of-00001"


@pytest.fixture
def copy(tmp_path) -> Path:
    """A checkpoint to damage."""
    for path in CHECKPOINT.parent.glob("stgan_tensorflow.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / "stgan_tensorflow"


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_variables_come_by_name_with_their_shapes_and_numbers(ending):
    """The kernel was drawn by its name under PyTorch's order, as the whole network was."""
    variables = read_variables(f"{CHECKPOINT}{ending}")
    assert len(variables) == 53 and variables["Genc/Conv/weights"].shape == (4, 4, 3, 2)
    assert torch.equal(variables["Genc/Conv/weights"], weight("Genc.Conv.weight", (2, 3, 4, 4)).permute(2, 3, 1, 0))
    assert torch.equal(
        variables["Gdec/Conv2d_transpose_1/BatchNorm/moving_variance"], weight("Gdec.Conv2d_transpose_1.BatchNorm.running_var", (4,))
    )


def test_numbers_of_every_kind():
    variables = {name: value for name, value in read_variables(CHECKPOINT).items() if name.startswith(("kinds/", "global", "beta1"))}
    expected = {
        "global_step": torch.tensor(1234),
        "beta1_power": torch.tensor(0.5),
        "kinds/half": torch.tensor([[0.5, -2, 65504]], dtype=torch.float16),
        "kinds/double": torch.tensor([1 / 3], dtype=torch.float64),
        "kinds/flag": torch.tensor([True, False]),
        "kinds/int": torch.tensor([-7, 8], dtype=torch.int32),
        "kinds/byte": torch.tensor([200], dtype=torch.uint8),
        "kinds/empty": torch.zeros(0, 3),
    }
    assert set(variables) == set(expected)
    for name, value in expected.items():
        assert variables[name].dtype == value.dtype and torch.equal(variables[name], value), name


def test_arrays_by_name_are_taken_too(tmp_path):
    np.savez(tmp_path / "variables.npz", **{"a/b": np.arange(3.0)})
    assert torch.equal(read_variables(tmp_path / "variables.npz")["a/b"], torch.arange(3.0, dtype=torch.float64))
    (tmp_path / "broken.npz").write_bytes(b"PK")
    np.savez(tmp_path / "objects.npz", a=np.array([object()]))
    for name in ("broken.npz", "objects.npz"):
        with pytest.raises(ValueError, match=f"{name} can't be read as plain arrays by name"):
            read_variables(tmp_path / name)


def test_what_is_tensorflows_is_known_by_its_name(copy, tmp_path):
    for name in ("stgan_tensorflow", "stgan_tensorflow.index", DATA, "variables.npz"):
        assert is_tensorflow(tmp_path / name)
    for name in ("G.pth", "stgan_tensorflow.pth", "200000-G.ckpt"):
        assert not is_tensorflow(tmp_path / name)


def test_missing_files_are_named(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected other.index beside its .data files"):
        read_variables(tmp_path / "other")
    (tmp_path / DATA).unlink()
    with pytest.raises(FileNotFoundError, match=f"stgan_tensorflow.index needs {DATA} beside it"):
        read_variables(copy)


def damage(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"stgan_tensorflow.index can't be read as a TensorFlow checkpoint \(.+\)") as caught:
        read_variables(path.with_name("stgan_tensorflow"))
    return str(caught.value)


def test_damaged_files_are_refused(copy, tmp_path):
    index, data = tmp_path / "stgan_tensorflow.index", tmp_path / DATA
    whole, numbers = index.read_bytes(), data.read_bytes()
    assert "from before TensorFlow 1.0" in damage(index, b"not a table")
    assert "from before TensorFlow 1.0" in damage(index, whole[:-1])
    damage(index, whole[700:])  # the end is right, what it points at isn't there
    damage(index, b"")
    index.write_bytes(whole)
    damage(data, numbers[:-4000])


def test_variables_in_slices_are_refused(tmp_path):
    """As TensorFlow writes a variable of shape (6, 2) that a partitioner split in two; here the index alone, which says it."""
    entry = bytes([8, 1, 18, 8, 18, 2, 8, 6, 18, 2, 8, 2, 58, 4, 10, 2, 8, 0])  # float32, (6, 2), slices
    index = table({b"": bytes([8, 1]), b"p": entry})
    (tmp_path / "stgan_tensorflow.index").write_bytes(index)
    with pytest.raises(ValueError, match="it has a variable in slices"):
        read_variables(tmp_path / "stgan_tensorflow")


def test_strings_are_left_out(tmp_path):
    """TensorFlow 2 keeps a description of its objects in one."""
    (tmp_path / "t.index").write_bytes(table({b"": bytes([8, 1]), b"_CHECKPOINTABLE_OBJECT_GRAPH": bytes([8, 7])}))
    assert read_variables(tmp_path / "t") == {}
    (tmp_path / "t.index").write_bytes(table({b"": bytes([8, 1]), b"x": bytes([8, 14])}))
    with pytest.raises(ValueError, match="numbers of TensorFlow's kind 14"):
        read_variables(tmp_path / "t")


def table(entries: dict[bytes, bytes]) -> bytes:
    """A sorted table of one block, its keys whole."""

    def block(some: dict[bytes, bytes]) -> bytes:
        body = b"".join(bytes([0, len(key), len(value)]) + key + value for key, value in some.items())
        return body + bytes(4) + bytes([1, 0, 0, 0])

    data = block(entries)
    assert len(data) < 128  # so that a length is one byte
    about = block({b"z": bytes([0, len(data)])})
    content = data + bytes(5) + about + bytes(5)
    return content + bytes([0, 0, len(data) + 5, len(about)]).ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
