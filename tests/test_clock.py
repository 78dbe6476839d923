"""The duration of a training counts all of its tries."""

from __future__ import annotations

import pytest

from malp_disc.training import clock
from malp_disc.training.clock import TrainingClock


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The time, which a test sets."""
    time = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: time[0])
    return time


def test_a_resumed_training_counts_the_seconds_until_the_checkpoint_that_it_goes_on_from(tmp_path, now):
    first = TrainingClock(tmp_path / "seconds.json")
    for step, time in ((10, 103.0), (20, 107.0)):
        now[0] = time
        first.save(step)
    now[0] = 500.0
    resumed = TrainingClock(tmp_path / "seconds.json", start=10)
    now[0] = 502.0
    assert resumed.seconds == 3 + 2
    resumed.save(15)
    assert TrainingClock(tmp_path / "seconds.json", start=15).seconds == 5
    assert TrainingClock(tmp_path / "seconds.json", start=20).seconds == 0, "of the tries that were abandoned"


def test_a_new_training_and_one_that_an_earlier_version_began_count_from_now(tmp_path, now):
    TrainingClock(tmp_path / "seconds.json").save(10)
    now[0] = 200.0
    assert TrainingClock(tmp_path / "seconds.json").seconds == TrainingClock(tmp_path / "absent.json", start=10).seconds == 0
