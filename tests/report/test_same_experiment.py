"""A report compares arms of one experiment, and of a run that is going on it takes what is complete."""

from __future__ import annotations

import json

import pytest

from malp_disc.commands.report import Report, report
from malp_disc.report.writing import write_report
from malp_disc.run_folder.join import join_runs
from malp_disc.run_folder.lock import LOCK_FILE
from malp_disc.run_folder.same_experiment import check_one_experiment
from tests.charts import without_charts
from tests.report.typed import measurements


def alter(folder, **changes) -> None:
    """Change the lines of arms: arm={key: value}."""
    lines = [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]
    (folder / "measurements.jsonl").write_text("".join(json.dumps({**line, **changes.get(line["arm"], {})}) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"control": {"experiment": "ab"}, "cotrain": {"experiment": "cd"}}, "results of 2 experiments.* experiment ab: control of seed 0; experiment cd: cotrain of seed 0"),
        ({"cotrain": {"steps": 9}}, "different numbers of steps.* steps 9: cotrain of seed 0"),
    ],
)
def test_results_of_two_experiments_are_not_compared(make_full_run, changed, words):
    folder = make_full_run(seeds=(0,))
    alter(folder, **changed)
    with pytest.raises(ValueError, match=words):
        write_report(folder, resamples=4)
    assert not (folder / "report.json").exists()


def test_lines_without_a_hash_and_before_go_with_any():
    check_one_experiment({0: measurements({"before": {"steps": 0, "experiment": "ab"}, "control": {"steps": 5}, "cotrain": {"steps": 5, "experiment": "ab"}})}, "run")


def test_runs_of_two_experiments_are_not_joined(make_full_run):
    folder, other = make_full_run(name="one", seeds=(0,)), make_full_run(name="two", seeds=(1,))
    alter(folder, control={"experiment": "ab"})
    alter(other, control={"experiment": "cd"})
    before = (folder / "measurements.jsonl").read_bytes()
    with pytest.raises(ValueError, match="can't be joined: results of 2 experiments"):
        join_runs(folder, [other])
    assert (folder / "measurements.jsonl").read_bytes() == before


def test_a_run_that_is_going_on_is_reported_and_not_joined_to(make_full_run, monkeypatch, capsys):
    folder = make_full_run(seeds=(0,))
    with open(folder / "curves" / "0" / "control.jsonl", "a") as file:
        file.write('{"step": 260, "G/adv')  # caught in the middle of a line
    monkeypatch.setattr("malp_disc.run_folder.lock.is_locked", lambda run: True)
    with without_charts():
        report(Report(run=folder, resamples=4))
    assert "the run is going on" in capsys.readouterr().out and not (folder / LOCK_FILE).exists()
    with pytest.raises(ValueError, match="a run is working in"):
        report(Report(run=folder, resamples=4, join=(folder,)))
