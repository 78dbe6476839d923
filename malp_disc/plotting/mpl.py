"""matplotlib for figures in files, in its default style, whatever the user's environment sets.

Colab and Kaggle pass ``MPLBACKEND=module://matplotlib_inline.backend_inline`` to every process, and ``import matplotlib`` fails where that
package isn't installed; an unreadable ``matplotlibrc`` makes it fail too. Nothing here opens a window, so both can be ignored. Every module
that draws imports matplotlib from here, never directly and never pyplot.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import ParamSpec, TypeVar

_Parameters, _Result = ParamSpec("_Parameters"), TypeVar("_Result")


def _import_matplotlib() -> None:
    """Import matplotlib without the user's backend and restore it afterwards if it exists; without their ``matplotlibrc`` if it is unreadable."""
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.get("MPLBACKEND")
    with _changed_environment("MPLBACKEND", None):
        try:
            matplotlib = importlib.import_module("matplotlib")
        except (UnicodeError, OSError):
            for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:  # half imported
                del sys.modules[name]
            with _only_default_configuration():
                matplotlib = importlib.import_module("matplotlib")
    if backend:
        with contextlib.suppress(ValueError):  # not installed: matplotlib chooses another one when a window is needed
            matplotlib.rcParams["backend"] = backend


@contextlib.contextmanager
def _changed_environment(name: str, value: str | None) -> Iterator[None]:
    """Context with the environment variable `name` set to `value`, or removed."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def _only_default_configuration() -> Iterator[None]:
    """matplotlib reads the ``matplotlibrc`` of the current folder, ``$MATPLOTLIBRC`` or the user; leave only its own."""
    package = importlib.util.find_spec("matplotlib").submodule_search_locations[0]
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as empty, _changed_environment("MATPLOTLIBRC", os.path.join(package, "mpl-data", "matplotlibrc")):
        os.chdir(empty)
        try:
            yield
        finally:
            os.chdir(here)


_import_matplotlib()

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

__all__ = ["Axes", "Figure", "FigureCanvasAgg", "FigureCanvasSVG", "Line2D", "LogLocator", "in_default_style", "matplotlib"]


def in_default_style(draw: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorator for a function that makes a figure and saves it: matplotlib's default style inside, the caller's settings again outside."""

    @wraps(draw)
    def drawn(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with matplotlib.rc_context():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", matplotlib.MatplotlibDeprecationWarning)  # of settings, not of anything that we call
                # Not rcdefaults(), which would read the user's style files on its way.
                matplotlib.rcParams.update({name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"})
            return draw(*args, **kwargs)

    return drawn
