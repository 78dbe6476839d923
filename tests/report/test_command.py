"""`malp-disc report RUN`."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tyro

from malp_disc.commands.report import Report, report


def test_a_runs_report_is_made_again_and_its_verdict_is_printed(make_full_run, capsys):
    folder = make_full_run(seeds=(0,))
    options = tyro.cli(Report, args=[str(folder), "--resamples", "20"])
    report(options)
    printed = capsys.readouterr().out
    assert printed.startswith("cotrain improved (") and printed.rstrip().endswith("report.html")
    assert {"report.html", "report.md", "report.json", "bootstrap.jsonl"} <= {path.name for path in folder.iterdir()}


def test_no_run_and_no_resamples_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="give its path"):
        report(Report(run=tmp_path))
    with pytest.raises(ValueError, match="--resamples of at least 2, got 1"):
        report(Report(run=tmp_path, resamples=1))


def test_the_commands_help_waits_for_nothing_heavy():
    code = "import sys; import malp_disc.commands.report; print([name for name in ('torch', 'matplotlib', 'scipy', 'PIL') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
