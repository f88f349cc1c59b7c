"""Time and memory of a job, for the last line of its log; their sum over a run."""

from __future__ import annotations

import re
import resource
import sys
import time
from pathlib import Path

_CPU_SECONDS = re.compile(r"took [\d.]+ s, ([\d.]+) CPU s")


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


def phase_seconds(logs: Path) -> str:
    """Return the CPU seconds of a run by phase, from the last lines of the logs of its jobs.

    Args:
        logs: ``<results>/<scale>/logs``, with a file or folder for each phase; the last time of
            each job counts.
    """
    phases: dict[str, float] = {}
    for path in sorted(logs.rglob("*.log")):
        name = path.relative_to(logs).parts[0].removesuffix(".log")
        found = _CPU_SECONDS.findall(path.read_text(encoding="utf-8", errors="replace"))
        if found:
            phases[name] = phases.get(name, 0.0) + float(found[-1])
    shares = ", ".join(f"{name} {seconds:,.0f}" for name, seconds in phases.items()) or "no logs"
    return f"CPU seconds: {sum(phases.values()):,.0f} ({shares})"
