"""Images of any size: windows that cover everything once, and MaLP's own answers at its own size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from malp_disc.tiling import SMALLEST, count_windows, cut, inspect_levels, protect_levels, tile
from tests.commands.conftest import levels
from tests.tiny import SIZE, tiny_malp


@pytest.mark.parametrize("length", [16, 31, 32, 33, 40, 56, 57, 64, 100, 1000])
def test_windows_count_every_pixel_once_and_share_a_quarter(length):
    starts, fades = cut(length, 32)
    total = np.zeros(length)
    for start, fade in zip(starts, fades):
        total[start : start + fade.size] += fade
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert starts[0] == 0 and starts[-1] + fades.shape[1] == length
    assert all(0 < after - before <= 24 for before, after in zip(starts, starts[1:]))


@pytest.mark.parametrize(("length", "starts", "fresh"), [(20, [0], [1]), (32, [0], [1]), (64, [0, 32], [1, 1]), (72, [0, 32, 40], [1, 1, 0.25])])
def test_scored_windows_lie_on_the_templates_tiles(length, starts, fresh):
    found = tile(length, 32)
    assert found[0] == starts and found[1].tolist() == fresh


@pytest.mark.parametrize("side", [20, SIZE])
def test_one_window_is_malps_own_view(side):
    malp = tiny_malp(set_size=3).eval()
    image = levels(side, side)
    found = inspect_levels(malp, image)
    with torch.no_grad():
        out = malp(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)
    np.testing.assert_allclose(found.map / 65535, out.map[0, 0], atol=1e-5)
    if side == SIZE:
        assert found.score == pytest.approx(out.score.item(), abs=1e-5) and found.similarity == pytest.approx(out.similarity.item(), abs=1e-5)


class Pointwise(torch.nn.Module):
    """A detector that sees single pixels: its map is the red channel, its recovered template the sum of all."""

    def forward(self, images):
        return (images[:, :1] + 1) / 2, images.sum(1, keepdim=True)


@pytest.mark.parametrize("shape", [(33, 47), (130, 32), (20, 130), (75, 91)])
def test_windows_join_without_seams(shape):
    """A map that depends on single pixels must come out as if there were no windows."""
    malp = tiny_malp().eval()
    malp.cnn = Pointwise()
    image = levels(*shape)
    counted = []
    found = inspect_levels(malp, image, progress=counted.append)
    np.testing.assert_allclose(found.map / 65535, image[..., 0] / 255, atol=2e-5)
    assert sum(counted) == count_windows(malp, *shape) and len(found.windows) == count_windows(malp, *shape, with_map=False)


def test_the_template_is_looked_for_where_it_was_added():
    """On a grey image a detector that sees single pixels recovers the template itself: similarity 1 in every window, and the right number."""
    malp = tiny_malp(set_size=3).eval()
    malp.cnn = Pointwise()
    for index in range(3):
        found = inspect_levels(malp, protect_levels(malp, np.full((75, 91, 3), 127, np.uint8), index))
        assert found.template == index and min(window.similarity for window in found.windows) > 0.98
    assert inspect_levels(malp, np.full((75, 91, 3), 127, np.uint8)).similarity < 0.5


def test_a_tile_with_another_template_does_not_change_the_images_own():
    malp = tiny_malp(set_size=3).eval()
    malp.cnn = Pointwise()
    protected = [protect_levels(malp, np.full((64, 72, 3), 127, np.uint8), index) for index in range(2)]
    for index, other in ((0, 1), (1, 0)):
        image = protected[index].copy()
        image[:32, :32] = protected[other][:32, :32]
        found = inspect_levels(malp, image, with_map=False)
        assert found.template == index and [window.similarity > 0.98 for window in found.windows] == [False, True, True, True, True, True]


def test_a_window_counts_by_the_area_that_it_adds():
    """40 rows in windows of 32 end with one that adds a quarter, and so do 72 columns."""
    found = inspect_levels(tiny_malp().eval(), levels(40, 72), with_map=False)
    weights = [1, 1, 0.25, 0.25, 0.25, 0.0625]
    assert [window.box for window in found.windows] == [(left, top, left + 32, top + 32) for top in (0, 8) for left in (0, 32, 40)]
    assert found.score == pytest.approx(np.average([window.score for window in found.windows], weights=weights), rel=1e-6)
    assert found.similarity == pytest.approx(np.average([window.similarity for window in found.windows], weights=weights), rel=1e-6)


def test_a_passive_malp_is_not_asked_for_a_template():
    malp, image = tiny_malp(strength=0.0).eval(), levels(20, SIZE)
    found = inspect_levels(malp, image, with_map=False)
    with torch.no_grad():
        out = malp(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)
    assert found.score == pytest.approx(out.logit.sigmoid().item(), abs=1e-5) and found.windows[0].box == (0, 0, SIZE, 20)


def test_a_number_that_no_template_has_is_refused():
    for index in (-1, 3):
        with pytest.raises(ValueError, match=f"0 … 2, got {index}"):
            protect_levels(tiny_malp(set_size=3), levels(20, 20), index)


def test_the_worst_window_is_where_something_was_done():
    malp = tiny_malp().eval()
    malp.cnn = Pointwise()
    image = protect_levels(malp, np.full((96, 128, 3), 127, np.uint8), 0)
    image[60:90, 90:120] = 127  # the template is gone there
    left, top, right, bottom = inspect_levels(malp, image).worst.box
    assert left < 105 < right and top < 75 < bottom


@pytest.mark.parametrize("image", [np.zeros((20, 20), np.uint8), np.zeros((20, 20, 3), np.float32), np.zeros((SMALLEST - 1, 20, 3), np.uint8)])
def test_what_is_no_image_is_refused(image):
    for function in (lambda: protect_levels(tiny_malp(), image, 0), lambda: inspect_levels(tiny_malp(), image)):
        with pytest.raises(ValueError, match="expected an image"):
            function()
