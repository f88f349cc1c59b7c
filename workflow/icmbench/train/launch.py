"""Start the processes that train one job together, on this host.

They find each other as under torchrun, whose environment variables these are, and torchrun may be
used in its place. This launcher differs in how it ends: a SIGTERM waits for the checkpoint however
long that takes, a failure is one line, and processes whose launcher was killed stop by themselves.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from icmbench.errors import UserError
from icmbench.jobs import TrainJob
from icmbench.utils.files import read_json, write_json

INTERRUPTED = 143  # what a shell reports of a process that SIGTERM ended
_LAUNCHER = "ICMBENCH_LAUNCHER"  # its process id
_FAULTS = "ICMBENCH_FAULTS"  # folder in which a process leaves why it failed
_POLL_S = 0.05
_GRACE_S = 20.0  # for the others to end after one has failed
_PR_SET_PDEATHSIG = 1


def wants_processes(job: TrainJob) -> bool:
    """Return whether a training needs several processes that nobody has started."""
    return job.schedule.devices > 1 and "TORCHELASTIC_RUN_ID" not in os.environ


def is_member() -> bool:
    """Return whether this is one of several processes of a job, ours or torchrun's."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def leads() -> bool:
    """Return whether this process speaks for its job."""
    return os.environ.get("RANK") == "0"


def take_part(work: Callable[[], int]) -> NoReturn:
    """Do one process's work and end the process with the exit status that it returns.

    It ends without destructors: that of DDP was seen waiting for ever for a thread of gloo, which
    itself waited for Python's lock (PyTorch 2.13), and after a failure they wait for the others.
    """
    if _LAUNCHER in os.environ:
        _end_with_parent()
    code = 1
    try:
        code = work()
    except Exception as error:
        _leave_word(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _leave_word(error: Exception) -> None:
    """Tell the launcher, which says what failed first; under torchrun say it here."""
    said = str(error) if isinstance(error, UserError) else None
    trace = traceback.format_exc()
    if _FAULTS not in os.environ:
        print(trace if said is None else f"icmbench: error: {said}", file=sys.stderr)
        return
    fault = {
        "time_ns": time.time_ns(),
        "said": said,
        "error": f"{type(error).__name__}: {error}",
        "trace": trace,
    }
    write_json(Path(os.environ[_FAULTS]) / f"{os.environ['RANK']}.json", fault)


def _end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the launcher is gone: checkpoint, then stop."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(os.environ[_LAUNCHER]):  # it was gone before
        os.kill(os.getpid(), signal.SIGTERM)


def launch(path: Path, job: TrainJob) -> int:
    """Run the verb ``train`` in as many processes as the schedule asks for.

    Args:
        path: the job's settings file.
        job: what is in it.

    Returns:
        The exit status: 0, or 143 after SIGTERM or SIGINT with the checkpoint saved.

    Raises:
        UserError: of the process that failed first.
    """
    size = job.schedule.devices
    with tempfile.TemporaryDirectory(prefix="icmbench-") as folder:
        group = _Group([sys.executable, "-m", "icmbench", "train", str(path)], size, Path(folder))
        codes = group.run()
        if not any(codes):
            return 0
        if group.signalled is not None:
            if set(codes) != {INTERRUPTED}:
                name = signal.Signals(group.signalled).name
                print(
                    f"icmbench: {job.key}: {name} before all processes were training; an "
                    "earlier checkpoint is kept",
                    file=sys.stderr,
                )
            return INTERRUPTED
        if set(codes) <= {0, INTERRUPTED}:
            return INTERRUPTED
        said = group.first_fault(job.key)
    _note_failure(Path(job.output) / "run.json", said)
    raise UserError(said)


class _Group:
    """Processes that live and end together."""

    def __init__(self, command: list[str], size: int, faults: Path) -> None:
        self.command, self.size, self.faults = command, size, faults
        self.processes: list[subprocess.Popen[bytes]] = []
        self.signalled: int | None = None
        self.at_failure: list[int | None] = []

    def run(self) -> list[int]:
        """Start them, wait for all, and return their exit statuses."""
        handled = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._forward) for number in handled}
        try:
            self._start()
            self._wait()
        finally:
            for process in self.processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
        return [process.returncode for process in self.processes]

    def first_fault(self, key: str) -> str:
        """Return in one line why the first that failed did; print its trace where it left one."""
        for rank, code in enumerate(self.at_failure):
            if code is not None and code < 0:
                name = signal.Signals(-code).name
                hint = "; memory may have run out" if -code == signal.SIGKILL else ""
                return f"{key}: process {rank} of {self.size} was ended by {name}{hint}"
        left = [path for path in self.faults.glob("*.json") if path.stem.isdigit()]
        faults = [(int(path.stem), read_json(path)) for path in left]
        if not faults:
            listing = ", ".join(str(code) for code in self.at_failure)
            return f"{key}: a process failed before it trained; exit statuses: {listing}"
        rank, fault = min(faults, key=lambda found: found[1]["time_ns"])
        if fault["said"] is not None:
            return str(fault["said"])
        print(fault["trace"], file=sys.stderr)
        return f"{key}: process {rank} of {self.size}: {fault['error'].splitlines()[0]}"

    def _start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {
            "WORLD_SIZE": str(self.size),
            "LOCAL_WORLD_SIZE": str(self.size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "icmbench",
            _LAUNCHER: str(os.getpid()),
            _FAULTS: str(self.faults),
        }
        # DDP warns of find_unused_parameters where all are used, which depends on the study.
        quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
        for rank in map(str, range(self.size)):
            own = {"RANK": rank, "LOCAL_RANK": rank}
            self.processes.append(
                subprocess.Popen(self.command, env={**quiet, **os.environ, **shared, **own})
            )
        if self.signalled is not None:  # it came while they were started
            self._send(self.signalled)

    def _wait(self) -> None:
        deadline: float | None = None
        while any(process.poll() is None for process in self.processes):
            codes = [process.poll() for process in self.processes]
            if deadline is None and any(c not in (None, 0, INTERRUPTED) for c in codes):
                self.at_failure = codes
                self._send(signal.SIGTERM)
                deadline = time.monotonic() + _GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                self._send(signal.SIGKILL)
            time.sleep(_POLL_S)
        if deadline is None:
            self.at_failure = [process.poll() for process in self.processes]

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.signalled = number
        self._send(number)

    def _send(self, number: int) -> None:
        for process in self.processes:
            process.send_signal(number)  # which leaves one that has ended alone


def _note_failure(run: Path, said: str) -> None:
    """Write the failure into run.json, whose writer may have been killed or knows only that the
    others are gone."""
    if run.is_file():
        content = read_json(run)
        if content["status"] in ("running", "failed"):
            write_json(run, {**content, "status": "failed", "finished": time.time(), "error": said})
