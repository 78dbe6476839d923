"""A checkpoint that TensorFlow itself wrote, and what becomes of its names and kernels."""

from __future__ import annotations

import base64

import pytest
import torch

from generators.tensorflow_files import is_tensorflow
from generators.tensorflow_names import load_tensorflow, torch_key

# Written by tf.compat.v1.train.Saver of TensorFlow 2.21: gen/conv0/kernel (2, 2, 1, 3) of 0 … 11, gen/conv0/bias of 0.5, 1, 2 and
# its slot of Adam, gen/bn_conv0/moving_variance of 1, 2, 3, beta1_power and global_step.
INDEX = (
    "000IE0U81b0RRgNVr6t;F<)?RcV%)20TKWx1T_XYCm#SD5ocv?FJf+AV{dMDFfVOyc4=;BUv^<~X<=?-We5Qh1QG%W10Vz_3^j9GiE#u95o2#|b}%nuX<>5+0TKif0tf>j5GV{a"
    "=E;{Y4h0b}L1bZV2mulV5&{SVARH(RHJL#@4GIPwYh`k7Wo!rm5)cvs2m%rU2m%rU2mulT2m>G}C@?kGrd8Yl3Jq*;Vqt7wb97~J2niAZAXq2}HM`fJ5dZ)H00961003jgBccER"
    "000310002M@}aN*0Rw0N(E$Je000310000p=G+w40SMy(4*&oF0000000000000000000000000000000000000012`+$oibw}F"
)
DATA = "0000#004kL0000$002Nh0000#004kL0000$00000000000000000000004kL0000$002Nh004kM005vs006*1007`X0000%000m{001CC001yS2LJ#700000"


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "model-7.index").write_bytes(base64.b85decode(INDEX))
    (tmp_path / "model-7.data-00000-of-00001").write_bytes(base64.b85decode(DATA))
    return tmp_path / "model-7"


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_what_tensorflow_wrote_is_read_without_it(checkpoint, ending):
    path = f"{checkpoint}{ending}"
    assert is_tensorflow(path) and not is_tensorflow(checkpoint.with_name("other.pth"))
    tensors = load_tensorflow(path)
    assert set(tensors) == {"gen.conv0.weight", "gen.conv0.bias", "gen.bn_conv0.running_var"}
    assert tensors["gen.conv0.bias"].tolist() == [0.5, 1, 2] and tensors["gen.bn_conv0.running_var"].tolist() == [1, 2, 3]
    height_width_in_out = torch.arange(12.0).view(2, 2, 1, 3)
    assert tensors["gen.conv0.weight"].shape == (3, 1, 2, 2)
    assert all(
        tensors["gen.conv0.weight"][o, 0, h, w] == height_width_in_out[h, w, 0, o] for o in range(3) for h in range(2) for w in range(2)
    )


def test_a_part_that_is_missing_or_damaged_is_named(checkpoint):
    data = checkpoint.with_name("model-7.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:40])
    with pytest.raises(ValueError, match="model-7"):
        load_tensorflow(checkpoint)
    data.unlink()
    with pytest.raises(FileNotFoundError, match="model-7.data-00000-of-00001"):
        load_tensorflow(checkpoint)
    index = checkpoint.with_name("model-7.index")
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(ValueError, match="model-7.index can't be read as a TensorFlow checkpoint"):
        load_tensorflow(checkpoint)
    index.unlink()
    with pytest.raises(FileNotFoundError, match="no TensorFlow checkpoint at .*model-7"):
        load_tensorflow(checkpoint)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("A_g_e1_conv/w", "A_g_e1_conv.weight"),
        ("A_g_e1_conv/biases", "A_g_e1_conv.bias"),
        ("A_g_bn_e2/scale", "A_g_bn_e2.weight"),
        ("A_g_bn_e2/center", "A_g_bn_e2.bias"),
        ("gen/bn_conv0/moving_mean", "gen.bn_conv0.running_mean"),
        ("gen/conv0/kernel/Adam_1", None),
        ("beta1_power", None),
        ("global_step", None),
    ],
)
def test_names(name, key):
    assert torch_key(name) == key
