"""The duration of a training over all of its tries."""

from __future__ import annotations

import time
from pathlib import Path

from malp_disc.serialization.files import write_json
from malp_disc.serialization.reading import read_json


class TrainingClock:
    """Counts seconds from its construction, and those of earlier tries up to the step that the training resumes from.

    Args:
        path: JSON file with the seconds until each checkpoint, by step. It lies beside the checkpoints, which are the same to the byte however long they took.
        start: the step that is resumed from, 0 for none. Of a run of an earlier version, which has no such file, the earlier tries don't count.
    """

    def __init__(self, path: Path, *, start: int = 0) -> None:
        known = read_json(path, what="the seconds until each checkpoint") if start and path.is_file() else {}
        self.path, self.until = path, {step: seconds for step, seconds in known.items() if int(step) <= start}
        self._earlier, self._began = float(self.until.get(str(start), 0.0)), time.perf_counter()

    @property
    def seconds(self) -> float:
        """The seconds until now, rounded to tenths."""
        return round(self._earlier + time.perf_counter() - self._began, 1)

    def save(self, step: int) -> None:
        """Record the seconds until the checkpoint of `step`."""
        self.until[str(step)] = self.seconds
        write_json(self.path, self.until)
