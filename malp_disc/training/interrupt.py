"""What a run keeps: checkpoints, a way to stop it, and the way back into it."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType

import torch

from malp_disc.distributed import mean_over_processes

logger = logging.getLogger("malp_disc")


class GracefulInterrupt:
    """Ctrl-C, a scheduler's SIGTERM, or a closed terminal's SIGHUP (unless nohup ignores it), answered after the step in hand. A second Ctrl-C stops at once.

    with Stopping() as stopping:
        for … in steps(…):
            …
            if stopping.asked():      # all processes get the same answer
                save; raise KeyboardInterrupt
    """

    def __enter__(self) -> GracefulInterrupt:
        self._asked = False
        self._previous = {}
        if threading.current_thread() is threading.main_thread():  # elsewhere signals can't be caught, and aren't
            wanted = [signal.SIGINT, signal.SIGTERM]
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                wanted.append(signal.SIGHUP)
            self._previous = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Whether any process was asked to stop. All processes have to call this together."""
        device = "cuda" if torch.distributed.is_initialized() and torch.distributed.get_backend() == "nccl" else "cpu"
        return bool(mean_over_processes(torch.tensor(float(self._asked), device=device)) > 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        logger.warning("asked to stop: the step in hand is finished and saved first (Ctrl-C again stops at once)")
