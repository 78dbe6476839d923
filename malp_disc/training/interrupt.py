"""Stopping a training on request: the step in progress is finished and saved first."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType

import torch

from malp_disc.distributed import mean_over_processes, rank_and_world_size

logger = logging.getLogger("malp_disc")


class GracefulInterrupt:
    """Catches Ctrl-C, SIGTERM (from a scheduler) and SIGHUP (from a closed terminal, unless nohup ignores it), so that the loop can save before it stops.

    with GracefulInterrupt() as interrupt:
        for … in steps(…):
            …
            if interrupt.requested():      # all processes get the same answer
                save; raise KeyboardInterrupt

    A second Ctrl-C stops at once.
    """

    def __enter__(self) -> GracefulInterrupt:
        self._requested = False
        self._previous = {}
        if threading.current_thread() is threading.main_thread():  # signals can be caught only there
            wanted = [signal.SIGINT, signal.SIGTERM]
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                wanted.append(signal.SIGHUP)
            self._previous = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether any process has received a signal. All processes must call this together."""
        if rank_and_world_size()[1] == 1:
            return self._requested
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        return bool(mean_over_processes(torch.tensor(float(self._requested), device=device)) > 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = True
        logger.warning("stopping: the current step is finished and saved first (Ctrl-C again stops at once)")
