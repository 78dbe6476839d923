"""Stops a training when the `accelerate launch` that started it has ended.

The launcher for one process doesn't forward signals: ``kill PID``, systemd or ``docker stop`` end only the launcher, and the training would keep running.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time

import psutil

logger = logging.getLogger("malp_disc")
_INTERVAL = 0.5  # seconds between checks


def stop_with_launcher() -> bool:
    """Send this process SIGTERM once the `accelerate launch` that started it has ended. Returns whether there is such a launcher.

    Other parents (a shell, nohup, setsid, or torchrun, which forwards signals itself) aren't watched: they may end while the training should continue.
    """
    if os.name != "posix" or launcher() is None:
        return False
    threading.Thread(target=_watch, args=(os.getppid(),), name="launcher-watch", daemon=True).start()
    return True


def launcher() -> psutil.Process | None:
    """The `accelerate launch` that started this process, or None."""
    try:
        parent = psutil.Process(os.getppid())
        command = parent.cmdline()
    except psutil.Error:
        return None
    script = [os.path.basename(part) for part in command[:3]]
    found = "accelerate-launch" in script or ("accelerate" in script and "launch" in command) or "accelerate.commands.launch" in command
    return parent if found else None


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_INTERVAL)
    with contextlib.suppress(OSError):  # standard error may have gone with the launcher
        logger.warning("the launcher has ended: stopping too")
    os.kill(os.getpid(), signal.SIGTERM)
