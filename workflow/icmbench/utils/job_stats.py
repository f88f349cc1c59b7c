"""Time and memory of a job, for the last line of its log."""

from __future__ import annotations

import resource
import sys
import time


def job_stats(started: float) -> str:
    """Return seconds, CPU seconds and peak memory of this process and the programs it ran.

    Args:
        started: value of ``time.monotonic()`` when the job started.
    """
    own, programs = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_s = own.ru_utime + own.ru_stime + programs.ru_utime + programs.ru_stime
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes on macOS, kilobytes on Linux
    memory_mb = max(own.ru_maxrss, programs.ru_maxrss) / unit
    return f"took {time.monotonic() - started:.1f} s, {cpu_s:.1f} CPU s, {memory_mb:.0f} MB"
