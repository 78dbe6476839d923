"""Leave out what matplotlib draws in a report, two thirds of the time of a small one."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from unittest import mock

FIGURES = ("comparison_figure", "spectrum_figure", "samples_figure", "fakeness_figure", "curves_figure")


@contextlib.contextmanager
def without_figures(but: Collection[str] = ()) -> Iterator[None]:
    """Reports are written without their PNG files, except `but`; the charts of the page are drawn. For tests that look at the page alone."""
    with contextlib.ExitStack() as stack:
        for name in set(FIGURES) - set(but):
            stack.enter_context(mock.patch(f"malp_disc.report.writing.{name}"))
        yield


@contextlib.contextmanager
def without_charts(but: Collection[str] = ()) -> Iterator[None]:
    """Reports are computed and written in full, except that matplotlib draws nothing, or only the PNG files `but`.

    For tests that don't look at a report's figures. Those are drawn by the runs of test_recipes.py, test_judging.py and test_finetune_any.py, and by
    the tests of the report.
    """
    with without_figures(but), mock.patch("malp_disc.report.page.svg", return_value="<svg></svg>"):
        yield
