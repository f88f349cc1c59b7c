"""A SLURM cluster on this machine, and the faults that it can inject."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

SCRIPT = Path(__file__).parent / "slurm.sh"
NODES = ("icmbench1", "icmbench2")
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A job in SLURM's queue; ``comment`` names Snakemake's rule and wildcards."""

    number: str
    comment: str
    state: str
    node: str


class Cluster:
    """The cluster that ``slurm.sh up`` brought up in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def jobs(self) -> list[Job]:
        """Return the waiting and running jobs."""
        text = _output("squeue", "--noheader", "--format=%i|%k|%T|%N")
        return [Job(*line.split("|")) for line in text.splitlines()]

    def ended(self) -> list[dict[str, str]]:
        """Return SLURM's record of each job that ended or was put back into the queue."""
        log = self.folder / "jobs.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]

    def facts(self, job: Job) -> dict[str, str]:
        """Return SLURM's description of a job in its queue."""
        text = _output("scontrol", "show", "job", job.number)
        return dict(re.findall(r"(\w+)=(\S*)", text))

    def states(self, number: str) -> list[str]:
        """Return how the runs of a job ended, in order."""
        return [job["JobState"] for job in self.ended() if job["JobId"] == number]

    def cancel(self, job: Job) -> None:
        """Cancel a job, as its owner would."""
        _output("scancel", job.number)

    def requeue(self, job: Job) -> None:
        """Put a running job back into the queue, as an administrator would."""
        _output("scontrol", "requeue", job.number)

    def limit(self, job: Job) -> None:
        """Cut a running job's time limit to one minute."""
        _output("scontrol", "update", f"JobId={job.number}", "TimeLimit=1")

    def pause(self, job: Job) -> list[int]:
        """Freeze a job's training run."""
        found = [p for p in _processes(f"SLURM_JOB_ID={job.number}") if _trains(p)]
        for process in found:
            os.kill(process, signal.SIGSTOP)
        return found

    def resume(self, job: Job) -> None:
        """Continue a job's frozen training run."""
        for process in _processes(f"SLURM_JOB_ID={job.number}"):
            if _trains(process) and _stopped(process):
                os.kill(process, signal.SIGCONT)

    def kill_daemon(self, node: str) -> None:
        """Kill a node's daemon; its jobs continue unseen."""
        os.kill(int((self.folder / f"{node}.pid").read_text()), signal.SIGKILL)

    def lose_node(self, node: str) -> None:
        """Kill a node's daemon and all its processes, as a power failure does."""
        numbers = [job.number for job in self.jobs() if job.node == node]
        self.kill_daemon(node)
        steps = [p for p in _all() if any(f"slurmstepd: [{n}." in _command(p) for n in numbers)]
        for process in [*steps, *_processes(f"SLURMD_NODENAME={node}")]:
            _kill(process)

    def start_daemon(self, node: str) -> None:
        """Start a node's daemon again."""
        subprocess.run([str(SCRIPT), "node", str(self.folder), node], check=True)


def wait_for(what: str, found: Callable[[], T | None], seconds: float = 1200) -> T:
    """Poll ``found`` until it returns a true value, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {seconds:.0f} s")


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _all() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _processes(variable: str) -> list[int]:
    """Return the processes with a variable in their environment."""
    wanted, found = variable.encode(), []
    for process in _all():
        try:
            environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in environment:
            found.append(process)
    return found


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _stopped(process: int) -> bool:
    return "\nState:\tT" in Path(f"/proc/{process}/status").read_text()


def _trains(process: int) -> bool:
    return re.match(r"\S*python\S* -m icmbench train ", _command(process)) is not None


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
