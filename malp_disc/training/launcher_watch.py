"""A training that `accelerate launch` started ends with its launcher.

The launcher for one process doesn't pass signals on: ``kill PID``, systemd or ``docker stop`` end it alone, and the training would go on without anybody.
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
_SECONDS = 0.5  # between two looks


def stop_with_launcher() -> bool:
    """Send this process SIGTERM, as the launcher was sent, once the `accelerate launch` that started it is gone.

    A training started any other way (a shell, nohup, setsid, torchrun, which passes signals on itself) isn't watched: its parent may end without meaning
    anything by it. Returns whether there is a launcher to watch.
    """
    if os.name != "posix" or not _is_launcher(os.getppid()):
        return False
    threading.Thread(target=_watch, args=(os.getppid(),), name="launcher-watch", daemon=True).start()
    return True


def _is_launcher(pid: int) -> bool:
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    script = [os.path.basename(part) for part in command[:3]]
    return "accelerate-launch" in script or ("accelerate" in script and "launch" in command) or "accelerate.commands.launch" in command


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_SECONDS)
    with contextlib.suppress(OSError):  # standard error may have gone with the launcher
        logger.warning("the launcher was ended: stopping too")
    os.kill(os.getpid(), signal.SIGTERM)
