"""One processor core for each external program.

Some encoders start a thread for every core of the machine (x265 inside bpgenc); several at a time
then fight for the cores, which was measured to slow one down by a factor of ten or more.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def free_core() -> Iterator[int | None]:
    """Yield a core of this thread's own that no other job of this user holds, and hold it.

    Yields:
        its number; None where only one is allowed anyway, where all are held, and on systems
        without affinity.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for core in cores if len(cores) > 1 else []:
        handle = _hold(core)
        if handle is not None:
            try:
                yield core
            finally:
                os.close(handle)
            return
    yield None


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Keep the calling thread, and the programs it starts meanwhile, on one core."""
    if core is None:
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _hold(core: int) -> int | None:
    """Return an open file that locks a core until it is closed, or None."""
    path = Path(tempfile.gettempdir()) / f"icmbench-{os.getuid()}-core{core}.lock"
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
