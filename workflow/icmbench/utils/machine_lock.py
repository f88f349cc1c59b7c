"""Things of this machine that one job at a time may use: processor cores, GPUs."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path


def hold(thing: str) -> int | None:
    """Return an open file that keeps a thing from this user's other jobs until it is closed.

    Args:
        thing: its name, letters, digits and ``-`` only.

    Returns:
        The file's descriptor, which the end of the process closes too; None where another job holds
        the thing, and where no lock can be made.
    """
    path = Path(tempfile.gettempdir()) / f"icmbench-{os.getuid()}-{thing}.lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
