"""Small multiples: every line where its numbers are, one colour a name, bands only where there are intervals."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from malp_disc.plotting.line_panels import Line, Panel, _looks, lines_figure

ORANGE, BLUE, GREY = (213, 94, 0), (0, 114, 178), (138, 138, 138)


def panel(lines: dict[str, Line], x=(1, 2, 3), **options) -> Panel:
    return Panel(x, lines, "x", options.pop("y_label", "y"), **options)


def drawn(panels, path) -> np.ndarray:
    lines_figure(panels, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def places(page: np.ndarray, colour: tuple[int, int, int], below: int = 60) -> np.ndarray:
    """(row, column) of all pixels of exactly this colour under the legend."""
    where = np.argwhere((page == colour).all(-1))
    return where[where[:, 0] > below]


def test_a_higher_value_stands_higher_and_a_later_x_further_right(tmp_path):
    """0, 1, 0 peaks in the middle; 0 and 1 are at the ends of the same scale as a line at 0.5."""
    page = drawn([[panel({"a": Line([0, 1, 0]), "b": Line([0.5, 0.5, 0.5])})]], tmp_path / "a.png")
    orange, blue = places(page, ORANGE), places(page, BLUE)
    top, bottom = orange[:, 0].min(), orange[:, 0].max()
    peak = orange[orange[:, 0] <= top + 3, 1].mean()
    assert peak == pytest.approx((orange[:, 1].min() + orange[:, 1].max()) / 2, abs=3)
    assert np.median(blue[:, 0]) == pytest.approx((top + bottom) / 2, abs=3)


def test_a_name_keeps_its_colour_in_every_panel_and_baselines_are_grey(tmp_path):
    """The second panel has "b" only, which stays blue though it comes first there."""
    first = panel({"level": Line([0.2] * 3, baseline=True), "a": Line([0, 1, 1]), "b": Line([1, 0, 0])})
    page = drawn([[first, panel({"b": Line([1, 0, 1]), "level": Line([0.5] * 3, baseline=True)})]], tmp_path / "a.png")
    half = page.shape[1] // 2
    for colour, sides in ((ORANGE, {"left"}), (BLUE, {"left", "right"}), (GREY, {"left", "right"})):
        columns = places(page, colour)[:, 1]
        assert {"left" if column < half else "right" for column in columns} == sides


def test_the_band_is_as_high_as_the_interval(tmp_path):
    """±0.25 on a scale where 0 and 1 are drawn: the band is half as high as their distance. Without intervals there's no band."""
    scale = {"a": Line([0, 1, 0])}
    page = drawn([[panel(scale | {"b": Line([0.5] * 3, [(0.25, 0.75)] * 3)}, y_limits=(-0.1, 1.1))]], tmp_path / "a.png")
    plain = drawn([[panel(scale | {"b": Line([0.5] * 3)}, y_limits=(-0.1, 1.1))]], tmp_path / "b.png")
    orange = places(page, ORANGE)
    distance = orange[:, 0].max() - orange[:, 0].min()
    changed = np.argwhere((page != plain).any(-1))
    assert changed[:, 0].max() - changed[:, 0].min() == pytest.approx(distance / 2, rel=0.06)


def test_the_band_lies_where_the_interval_does_not_around_the_value(tmp_path):
    """A bootstrap's interval isn't symmetric: around an AUC near 1 it reaches far down and not beyond 1."""
    scale = {"a": Line([0, 1, 0])}
    page = drawn([[panel(scale | {"b": Line([0.75] * 3, [(0.25, 0.75)] * 3)}, y_limits=(-0.1, 1.1))]], tmp_path / "a.png")
    plain = drawn([[panel(scale | {"b": Line([0.75] * 3)}, y_limits=(-0.1, 1.1))]], tmp_path / "b.png")
    orange = places(page, ORANGE)[:, 0]
    top, bottom = orange.min(), orange.max()  # 1 and 0
    changed = np.argwhere((page != plain).any(-1))[:, 0]
    assert changed.max() == pytest.approx(bottom + 0.25 * (top - bottom), abs=0.04 * (bottom - top))
    assert changed.min() >= bottom + 0.75 * (top - bottom) - 0.04 * (bottom - top)


def test_what_was_not_measured_leaves_a_gap(tmp_path):
    page = drawn([[panel({"a": Line([0, 0, None, 0, 0], [(-0.1, 0.1), (-0.1, 0.1), None, (-0.1, 0.1), (-0.1, 0.1)])}, x=range(5))]], tmp_path / "a.png")
    columns = np.unique(places(page, ORANGE)[:, 1])
    gaps = np.diff(columns)
    assert (gaps > 0.3 * (columns[-1] - columns[0])).sum() == 1


def test_words_are_evenly_spaced_numbers_are_not_and_decades_are_on_a_log_axis(tmp_path):
    def peak(x, **options) -> float:
        orange = places(drawn([[panel({"a": Line([0, 1, 0])}, x=x, **options)]], tmp_path / "a.png"), ORANGE)
        left, right = orange[:, 1].min(), orange[:, 1].max()
        return (orange[orange[:, 0] <= orange[:, 0].min() + 3, 1].mean() - left) / (right - left)

    assert peak(("none", "90", "10")) == pytest.approx(0.5, abs=0.02)
    assert peak((1, 10, 100)) == pytest.approx(9 / 99, abs=0.03)
    assert peak((1, 10, 100), log_x=True) == pytest.approx(0.5, abs=0.02)


def test_panels_of_a_row_share_their_scale_if_they_measure_the_same(tmp_path):
    """0.4 … 0.6 beside 0 … 1 takes a fifth of the height; with another label it fills its own panel."""

    def height_of_blue(label: str) -> float:
        page = drawn([[panel({"a": Line([0, 1, 0])}), panel({"b": Line([0.4, 0.6, 0.4])}, y_label=label)]], tmp_path / "a.png")
        orange, blue = places(page, ORANGE)[:, 0], places(page, BLUE)[:, 0]
        return (blue.max() - blue.min()) / (orange.max() - orange.min())

    assert height_of_blue("y") == pytest.approx(0.2, abs=0.06)
    assert height_of_blue("z") == pytest.approx(1, abs=0.06)


def test_rows_and_columns_take_room_and_an_empty_place_stays_empty(tmp_path):
    one = panel({"a": Line([0, 1, 0])})
    small = drawn([[one, one, one]], tmp_path / "a.png")
    large = drawn([[one, one, one], [one, None, one]], tmp_path / "b.png")
    assert large.shape[1] == small.shape[1]
    assert large.shape[0] > 1.6 * small.shape[0]
    third, half = large.shape[1] // 3, large.shape[0] // 2
    lower_middle = (slice(half + 20, None), slice(third + 30, 2 * third - 30))
    assert (large[lower_middle] == 255).all()
    full = drawn([[one, one, one], [one, one, one]], tmp_path / "c.png")
    assert not (full[lower_middle] == 255).all()


def test_many_names_go_on_under_each_other_and_stay_inside_the_page(tmp_path):
    few = drawn([[panel({"a": Line([0, 1, 0])})]], tmp_path / "a.png")
    names = {f"quite a long name, number {i}": Line([0, 1, i]) for i in range(8)}
    many = drawn([[panel(names)]], tmp_path / "b.png")
    assert many.shape[1] == few.shape[1]
    assert many.shape[0] > few.shape[0] + 60  # three more rows of names, which take nothing from the panels
    assert (many[:, -4:] == 255).all()
    assert (many[:3] == 255).all()


def test_every_method_looks_different(tmp_path):
    """Thirteen methods, as in the largest benchmark, have six colours."""
    looks = _looks([panel({f"method {i}": Line([0, 1, 0]) for i in range(13)})])
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == 13


def test_a_number_without_neighbours_is_drawn_with_its_interval_and_baselines_too(tmp_path):
    single = {"a": Line([0.5], [(0.2, 0.8)]), "level": Line([0.1], baseline=True)}
    page = drawn([[panel(single, x=(1,))]], tmp_path / "a.png")
    assert len(places(page, GREY)) > 10
    bare = drawn([[panel({**single, "a": Line([0.5])}, x=(1,), y_limits=(0, 1))]], tmp_path / "b.png")
    banded = drawn([[panel(single, x=(1,), y_limits=(0, 1))]], tmp_path / "c.png")
    assert np.ptp(np.argwhere((bare != banded).any(-1))[:, 0]) > 60
    gaps = drawn([[panel({"a": Line([0, 1, 0]), "level": Line([None, 0.5, None], baseline=True)})]], tmp_path / "d.png")
    assert len(places(gaps, GREY)) > 10


def test_a_dollar_in_a_name_is_a_dollar(tmp_path):
    """Not mathematics, which "$\\frac$" isn't, so that drawing it would fail."""
    assert drawn([[panel({"$\\frac$": Line([0, 1, 0])})]], tmp_path / "a.png").size


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ([], "at least one panel with a line"),
        ([[panel({})]], "at least one panel with a line"),
        ([[None]], "at least one panel with a line"),
        ([[panel({"a": Line([1, 2, 3])})], []], r"rows of one length, got \[1, 0\]"),
        ([[panel({"a": Line([1, 2])})]], "expected 3 values of 'a', one per x, got 2"),
        ([[panel({"a": Line([1, 2, 3], [(1, 2)])})]], "expected 3 intervals of 'a', one per x, got 1"),
        ([[panel({"a": Line([1, 2])}, x=("none", 1))]], "numbers or words"),
        ([[panel({"a": Line([])}, x=())]], "at least one"),
        ([[panel({"a": Line([1, 2, 3])}, x=(0, 1, 2), log_x=True)]], "logarithmic axis takes numbers above 0"),
        ([[panel({"a": Line([1, 2])}, x=("1", "2"), log_x=True)]], "logarithmic axis takes numbers above 0"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(panels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        lines_figure(panels, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_pyplots_figures_and_the_callers_backend_alone(tmp_path):
    backend = matplotlib.get_backend()
    drawn([[panel({"$re_al": Line([0, 1, 0])}, title="$\\frac$")]], tmp_path / "a.png")
    assert pyplot.get_fignums() == []
    assert matplotlib.get_backend() == backend
