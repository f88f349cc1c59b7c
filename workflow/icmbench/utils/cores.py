"""One processor core for each external program.

Some encoders start a thread for every core of the machine (x265 inside bpgenc); several at a time
then fight for the cores, which was measured to slow one down by a factor of ten or more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from icmbench.utils.machine_lock import hold


@contextmanager
def free_core() -> Iterator[int | None]:
    """Yield a core of this thread's own that no other job of this user holds, and hold it.

    Yields:
        its number; None where only one is allowed anyway, where all are held, and on systems
        without affinity.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for core in cores if len(cores) > 1 else []:
        handle = hold(f"core{core}")
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
