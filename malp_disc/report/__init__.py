"""The report on a run, computed from the JSON lines and features in its folder: ``report.json``, page, Markdown and figures.

    compare seeds                                   differences between arms with intervals; means over seeds
    verdict_rule verdict findings record            conclusions by fixed rules, and the whole as one JSON object
    folders                                         the configuration without absolute paths
    numbers cells tables sections                   text and tables, the same for all renderings
    markdown page images templates/                 the renderings
    run_charts training_curves grids                the figures
    writing                                         everything into the run's folder

Names are imported on first use, because matplotlib is heavy and the command line's help must not wait for it.
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

_MODULES = {"build_record": "record", "render_markdown": "markdown", "render_page": "page", "write_report": "writing"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
