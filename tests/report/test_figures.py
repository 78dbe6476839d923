"""Figures as files: the right size, every pixel of every image where it belongs, colours as stated."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from malp_disc.data.faces import draw_faces
from malp_disc.plotting.image_grids import PINK_VMAX, draw_grid, fakeness_grid, sample_grid
from malp_disc.plotting.style import COLOURS
from malp_disc.report import build_record
from malp_disc.report.run_charts import comparison_figure, draw_deltas
from malp_disc.report.training_curves import curves_figure
from malp_disc.run_folder.arms import ARMS
from malp_disc.run_folder.measurement import Distance, ReferencePoints

PINK_ZERO, WHITE = (30, 0, 0), (255, 255, 255)  # the ends of matplotlib's "pink"


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def find(page: np.ndarray, patch: np.ndarray) -> tuple[int, int]:
    """Where `patch` (h, w, 3) stands in `page`, exactly and once, as (row, column)."""
    windows = np.lib.stride_tricks.sliding_window_view(page, patch.shape[:2], axis=(0, 1))  # (rows, columns, 3, h, w)
    start = np.argwhere((windows[..., 0, 0] == patch[0, 0]).all(-1))
    found = [(r, c) for r, c in start if np.array_equal(page[r : r + patch.shape[0], c : c + patch.shape[1]], patch)]
    assert len(found) == 1, f"found {len(found)} times"
    return tuple(found[0])


def eight_bit(images: torch.Tensor) -> np.ndarray:
    return ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return draw_faces(range(6), 32)[0]


def test_every_image_stands_unaltered_in_its_column_and_row(faces, tmp_path):
    sample_grid({"real": faces[:3], "after": faces[3:]}, tmp_path / "a.png", zoom=3)
    page = pixels(tmp_path / "a.png")
    places = [find(page, image.repeat(3, 0).repeat(3, 1)) for image in eight_bit(faces)]
    rows, columns = [place[0] for place in places], [place[1] for place in places]
    assert rows[:3] == rows[3:] == sorted(set(rows))
    assert len(set(columns[:3])) == len(set(columns[3:])) == 1
    assert columns[0] < columns[3]
    height, width = page.shape[:2]
    assert 3 * 96 < height < 3 * 96 + 80
    assert 2 * 96 < width < 2 * 96 + 60


def test_captions_take_room_at_the_left_and_headings_above(faces, tmp_path):
    for name, captions in (("plain", None), ("captioned", ["Blond_Hair", "Smiling"])):
        sample_grid({"real": faces[:2]}, tmp_path / f"{name}.png", captions=captions)
    plain, captioned = pixels(tmp_path / "plain.png"), pixels(tmp_path / "captioned.png")
    assert captioned.shape[0] == plain.shape[0]
    assert captioned.shape[1] > plain.shape[1] + 40
    first = eight_bit(faces[:1])[0].repeat(2, 0).repeat(2, 1)
    row, column = find(captioned, first)
    assert (captioned[row : row + 64, : column - 4] < 128).any()  # ink beside the image
    assert (captioned[: row - 2] < 128).any()  # and above it


def test_a_dollar_in_a_caption_is_a_dollar(faces, tmp_path):
    sample_grid({"$re_al": faces[:1]}, tmp_path / "a.png", captions=["$\\frac$"])
    assert pixels(tmp_path / "a.png").size


def test_an_image_a_little_over_the_range_is_clipped(tmp_path):
    images = torch.full((1, 3, 80, 80), 1.2)
    images[..., :40] = -1.2
    sample_grid({"a": images}, tmp_path / "a.png", zoom=1)
    page = pixels(tmp_path / "a.png")
    row, column = find(page, np.zeros((80, 40, 3), np.uint8))
    assert (page[row : row + 80, column + 40 : column + 80] == 255).all()


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {}, "at least one column"),
        ({"a": torch.zeros(2, 3, 8, 8), "b": torch.zeros(3, 3, 8, 8)}, {}, r"columns of one \(B, H, W\), got a \(2, 8, 8\), b \(3, 8, 8\)"),
        ({"a": torch.zeros(0, 3, 8, 8)}, {}, "at least one row"),
        ({"a": torch.zeros(2, 3, 8, 8)}, {"captions": ["x"]}, "expected 2 captions, one per row, got 1"),
        ({"a": torch.zeros(2, 3, 8, 8)}, {"zoom": 0}, "zoom of at least 1"),
        ({"a": torch.full((2, 3, 8, 8), 200.0)}, {}, r"expected column 'a' in \[-1, 1\]"),
    ],
)
def test_wrong_columns_are_refused_and_leave_no_file(columns, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sample_grid(columns, tmp_path / "a.png", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_pink_scale_runs_from_dark_at_zero_to_white_at_vmax_and_above(tmp_path):
    image = torch.zeros(1, 3, 80, 80)
    values = torch.zeros(1, 1, 80, 80)
    values[..., 20:40], values[..., 40:60], values[..., 60:] = PINK_VMAX / 2, PINK_VMAX, 1.0
    fakeness_grid(image, image, image, values, torch.zeros_like(values), torch.ones_like(values), tmp_path / "a.png", zoom=1)
    page = pixels(tmp_path / "a.png")
    top, grey = find_first(page, (128, 128, 128))
    step = 84
    row = page[top + 40]
    truth, on_encrypted, on_manipulated = (row[grey + i * step : grey + i * step + 80] for i in (3, 4, 5))
    assert (truth[:20] == PINK_ZERO).all()
    assert (truth[40:] == WHITE).all()
    middle = truth[30].astype(int)
    assert (truth[20:40] == truth[30]).all()
    assert middle[0] > middle[1] >= middle[2] > 60  # pink indeed: reddish, half bright
    assert (on_encrypted == PINK_ZERO).all()
    assert (on_manipulated == WHITE).all()
    bar = page[top + 80 + 8 :, grey + 3 * step : grey + 3 * step + 3 * step - 4]
    assert (bar[2, 0] == PINK_ZERO).all()
    assert (bar[2, -1] == WHITE).all()
    assert np.abs(bar[2, bar.shape[1] // 2].astype(int) - middle).max() <= 4


@pytest.mark.parametrize("maps", [1, 2, 3])
def test_the_text_of_a_narrow_colour_bar_stays_on_the_page(maps, tmp_path):
    """A benchmark of one localizer has two maps, of one that gives none only the true map."""
    image = np.full((1, 112, 112, 3), 128, np.uint8)
    draw_grid({name: image for name in ("real", "edited", *"abc"[:maps])}, tmp_path / "a.png", zoom=1, captions=None, vmax=0.5, maps=maps)
    page = pixels(tmp_path / "a.png")
    assert (page[-40:] < 128).any()
    assert (page[:, -8:] == 255).all() and (page[:, :8] == 255).all()


def find_first(page: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int]:
    """Upper left corner of the images of exactly this colour; single pixels of smoothed letters may have it too."""
    same = (page == colour).all(-1)
    where = np.argwhere(same[:-8, :-8] & same[8:, 8:] & same[8:, :-8] & same[:-8, 8:])
    return int(where[:, 0].min()), int(where[:, 1].min())


def test_one_scale_holds_for_every_row_and_can_be_chosen(tmp_path):
    """A faint map stays dark beside a strong one: nothing is stretched per image."""
    image = torch.zeros(2, 3, 80, 80)
    maps = torch.stack([torch.full((1, 80, 80), 0.1), torch.full((1, 80, 80), 0.5)])
    seen = []
    for vmax in (0.5, 0.1):
        fakeness_grid(image, image, image, maps, maps, maps, tmp_path / "a.png", zoom=1, vmax=vmax)
        page = pixels(tmp_path / "a.png")
        top, grey = find_first(page, (128, 128, 128))
        seen.append([page[top + 40 + y, grey + 3 * 84 + 40].sum() for y in (0, 84)])
    assert seen[0][0] < seen[0][1] == 3 * 255
    assert seen[1] == [3 * 255, 3 * 255]


@pytest.mark.parametrize(
    ("map_", "vmax", "message"),
    [
        (torch.zeros(2, 3, 8, 8), 0.5, r"expected M_GT, ground truth of shape \(B, 1, H, W\)"),
        (torch.full((2, 1, 8, 8), 2.0), 0.5, r"in \[0, 1\], got min 2 max 2"),
        (torch.full((2, 1, 8, 8), torch.nan), 0.5, r"in \[0, 1\]"),
        (torch.zeros(2, 1, 8, 9), 0.5, r"columns of one \(B, H, W\)"),
        (torch.zeros(2, 1, 8, 8), 0.0, r"vmax in \(0, 1\], got 0"),
    ],
)
def test_maps_of_another_shape_or_scale_are_refused(map_, vmax, message, tmp_path):
    image, good = torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8)
    with pytest.raises(ValueError, match=message):
        fakeness_grid(image, image, image, map_, good, good, tmp_path / "a.png", vmax=vmax)


def test_curves_get_a_panel_each_and_sparse_keys_no_complaint(tmp_path):
    def page(keys: int) -> np.ndarray:
        lines = [{"step": s, **{f"G/{k}": float(s + k) for k in range(keys)}} for s in range(0, 50, 10)]
        curves_figure(
            {"control": lines, "cotrain": [*lines, {"step": 60}, {"step": 70, "G/0": None, "note": "warm-up"}], "malp": []},
            tmp_path / "a.png",
        )
        return pixels(tmp_path / "a.png")

    one, four, five = page(1), page(4), page(5)
    assert one.shape[1] < four.shape[1] == five.shape[1]
    assert four.shape[0] < five.shape[0]
    for colour in ((71, 71, 71), (213, 94, 0)):  # control and cotrain
        assert (four == colour).all(-1).any()


def test_the_legend_of_the_curves_names_every_arm_inside_the_page(tmp_path):
    """Eleven arms and one panel: the arms that are drawn last lie over the others in the panel, so any other colour is the legend's."""
    curves_figure({arm: [{"step": 10 * i, "a": 1.0} for i in range(20)] for arm in ARMS}, tmp_path / "a.png")
    page = pixels(tmp_path / "a.png")
    assert (page[:, -4:] == 255).all()
    for arm, colour in COLOURS.items():
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (page == wanted).all(-1).any(), arm


@pytest.mark.parametrize(
    ("curves", "message"),
    [({}, "nothing|got none"), ({"control": [{"step": 1}]}, "got none"), ({"control": [{"a": 1.0}]}, "expected a step")],
)
def test_curves_without_numbers_or_steps_are_refused(curves, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        curves_figure(curves, tmp_path / "a.png")


def test_a_bar_is_as_high_as_its_distance(make_run, arms, tmp_path):
    """control 100, cotrain 50: half the orange of the dark bar, but for the reference point's line and outlines."""
    arms["control"]["frechet"]["value"], arms["cotrain"]["frechet"]["value"] = 100.0, 50.0
    points = ReferencePoints(unedited=Distance(value=10.0))
    compared = replace(build_record(make_run(), resamples=4), reference_points=points)
    comparison_figure(replace(compared, comparison={}), tmp_path / "a.png")
    alone = pixels(tmp_path / "a.png")
    dark, orange = ((alone == colour).all(-1).sum() for colour in ((71, 71, 71), (213, 94, 0)))
    assert orange / dark == pytest.approx(0.47, abs=0.04)  # the line takes as much from either
    comparison_figure(compared, tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").shape[1] > alone.shape[1]


def test_drawing_leaves_pyplots_figures_and_the_callers_backend_alone(faces, tmp_path):
    backend = matplotlib.get_backend()
    sample_grid({"real": faces}, tmp_path / "a.png")
    curves_figure({"control": [{"step": 1, "a": 1.0}]}, tmp_path / "b.png")
    assert pyplot.get_fignums() == []
    assert matplotlib.get_backend() == backend


def test_every_seed_has_a_dot_in_the_differences_also_of_the_generator_before(make_full_run):
    """It is measured once, but each seed's control is another one. Full run: six arms beside the control, three seeds."""
    record = build_record(make_full_run(), resamples=4)
    axes = Figure().subplots()
    draw_deltas(axes, record)
    dots = [line.get_xdata() for line in axes.get_lines() if line.get_markersize() == 3.2]
    assert [len(values) for values in dots] == [3] * 6
    assert np.mean(dots[0]) == pytest.approx(record.delta("before").value)
