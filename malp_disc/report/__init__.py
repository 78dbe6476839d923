"""The report on a run: before, controls and after. JSON lines first; the page, Markdown and figures are made from them.

    arms views                      what is compared, and through which eyes it is looked at
    inputs measure localizing       measure a generator
    folder compare seeds            a run's folder; differences with intervals; means over seeds
    verdict findings record         what follows, by rule
    cells tables sections           the facts in words, once for all renderings
    markdown page images          the renderings
    charts run_charts training_curves grids gallery figures    what is drawn

Names are imported when they are first asked for: drawing and extracting features are heavy, and the command line's help must not wait.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from malp_disc.report.markdown import render_markdown
    from malp_disc.report.page import render_page
    from malp_disc.report.record import build_record
    from malp_disc.report.writing import write_report

__all__ = ["build_record", "render_markdown", "render_page", "write_report"]

_ROOMS = {"build_record": "record", "render_markdown": "markdown", "render_page": "page", "write_report": "writing"}


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value
