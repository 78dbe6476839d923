"""``malp-disc report RUN``: write every table and figure of a run again from its JSON lines.

Heavy modules are imported only when the command runs, so that --help is fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


# The string below each field is the help of its flag.
@dataclass(kw_only=True)
class Report:
    """Write the report of a run again: report.html, report.md, report.json, and the figures."""

    run: Annotated[Path, Positional, arg(metavar="RUN")]
    """Folder of a run, with its measurements.jsonl."""
    join: tuple[Path, ...] = ()
    """Folders of runs with other seeds or arms on the same images, which are merged into RUN first."""
    resamples: int = 200
    """Number of resamples of the paired bootstrap, 2 or more.
    If the run's features are gone, the intervals of the earlier report are kept."""
    bootstrap_seed: int = 0
    """Seed of the bootstrap."""


def report(options: Report) -> None:
    """Write the report and print its verdict."""
    if options.resamples < 2:
        raise ValueError(f"expected --resamples of at least 2, got {options.resamples}")
    from malp_disc.report.writing import write_report
    from malp_disc.run_folder.join import join_runs
    from malp_disc.run_folder.lock import is_locked

    running = is_locked(options.run)
    if running and options.join:
        raise ValueError(f"a run is working in {options.run}; let it end before other runs are joined to it")
    join_runs(options.run, options.join)
    record = write_report(options.run, resamples=options.resamples, seed=options.bootstrap_seed)
    print(f"{record.verdict}\nreport: {options.run / 'report.html'}" + " (of what has been measured so far: the run is going on)" * running)
