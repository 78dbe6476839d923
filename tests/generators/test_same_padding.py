"""TensorFlow's SAME padding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generators.same_padding import SameConv2d, SameConvTranspose2d, same_padding


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (256, 3, 2, (0, 1)),
        (256, 5, 2, (1, 2)),
        (32, 4, 1, (1, 2)),
        (32, 4, 2, (1, 1)),
        (7, 3, 2, (1, 1)),
        (1, 3, 2, (1, 1)),
        (8, 1, 2, (0, 0)),
    ],
)
def test_the_larger_part_comes_after(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (4, 2), (4, 1)])
@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 2)])
def test_the_transposed_convolution_is_the_transpose(kernel, stride, size):
    """<conv(x), y> = <x, transposed(y)> for all x and y pins the place of a transposed convolution's output, odd paddings included."""
    torch.manual_seed(0)
    conv = SameConv2d(3, 4, kernel, stride, bias=False).double()
    transposed = SameConvTranspose2d(4, 3, kernel, stride, bias=False).double()
    transposed.weight.data = conv.weight.data
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    forth = conv(x)
    assert forth.shape[2:] == tuple(-(-side // stride) for side in size)
    y = torch.randn_like(forth)
    back = transposed(y, size)
    assert back.shape == x.shape
    assert torch.allclose((forth * y).sum(), (x * back).sum(), atol=1e-10)


def test_an_even_side_doubles_without_being_told():
    assert SameConvTranspose2d(1, 1, 3)(torch.zeros(1, 1, 4, 5)).shape == (1, 1, 8, 10)
    with pytest.raises(ValueError, match=r"stride \(2, 2\) doesn't bring \(7, 10\) to \(3, 5\)"):
        SameConvTranspose2d(1, 1, 3)(torch.zeros(1, 1, 3, 5), (7, 10))


def test_a_kernel_of_three_looks_right_and_down():
    """At an even side TensorFlow pads after only: output (0, 0) sees pixels 0, 1 and 2."""
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    x = torch.arange(36.0).view(1, 1, 6, 6)
    assert conv(x)[0, 0, 0, 0] == x[0, 0, :3, :3].sum()
    assert torch.allclose(conv(x), F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, stride=2))
