"""Runs external programs: within a time limit, on one core, with faults told in one line."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from icmbench.errors import UserError
from icmbench.utils.cores import free_core, pinned

_KEPT_BYTES = 1 << 15
_SHOWN = 300
_VERSION = re.compile(r"[Vv]ersion \[?([\w.+-]+)")
# A container may take its time to start.
_VERSION_LIMIT_S = 60.0

CHECK_PROGRAM = "check that this program runs here and knows these arguments"


def ending(said: str) -> str:
    """Return the last 300 characters of what a program said, as one line."""
    return " ".join(said.split())[-_SHOWN:].strip()


def run_program(
    command: Sequence[str],
    *,
    what: str,
    time_limit_s: float,
    cwd: Path,
    advice: str = CHECK_PROGRAM,
    telling: Callable[[str], str] = ending,
) -> str:
    """Run a program to its end and return its standard output, then its standard error.

    Of each, the first and last 32 KiB are kept: samples and bitstreams belong in files. It has no
    input, and a process group of its own that is killed as a whole when it takes too long or this
    process is interrupted: a wrapper has children.

    Args:
        command: words; the first is the program.
        what: what is being done, to begin a message with.
        time_limit_s: seconds of wall clock.
        cwd: directory to run in.
        advice: what to do where it fails, to end a message with.
        telling: finds what to show of its standard error, or of its output without any.

    Raises:
        UserError: where it cannot start, fails or takes too long, with what it said.
    """
    line = f"{what}: `{shlex.join(command)}`"
    try:
        ended = _run(command, time_limit_s, cwd)
    except OSError as error:
        raise UserError(f"{line} cannot start ({error.strerror}); {CHECK_PROGRAM}") from None
    if ended.late:
        how = f"took longer than {time_limit_s:g} s"
        advice = "raise time_limit_s or free the machine"
    elif ended.code < 0:
        how = f"was killed by signal {_signal_name(-ended.code)}"
    elif ended.code > 0:
        how = f"ended with exit code {ended.code}"
    else:
        return ended.output + ended.errors
    said = telling(ended.errors.strip() or ended.output)
    if said or not ended.late:
        how = f"{how}: {said or 'it said nothing'}"
    raise UserError(f"{line} {how}; {advice}")


@contextmanager
def workspace() -> Iterator[Path]:
    """Yield a temporary directory that is gone afterwards, whatever happens.

    Raises:
        UserError: for what goes wrong with files inside, a full disk above all.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="icmbench-") as name:
            yield Path(name)
    except OSError as error:
        folder = tempfile.gettempdir()
        raise UserError(
            f"{folder}: cannot keep temporary files there ({error.strerror or error}); free some "
            "space, or set TMPDIR to another folder"
        ) from error


def read_output(path: Path, what: str, size: int | None = None, advice: str = "") -> bytes:
    """Return what a program wrote to a file.

    Args:
        path: the file.
        what: which program wrote it, to begin a message with.
        size: bytes that it must have; by default any but none.
        advice: what to do where they are missing.

    Raises:
        UserError: where it is missing, empty or of another size: a disk may be full.
    """
    found = path.stat().st_size if path.is_file() else None
    if found is None or found == 0 or (size is not None and found != size):
        wrote = "no file" if found is None else f"{found} bytes as"
        expected = "a file that is not empty" if size is None else f"{size} bytes"
        raise UserError(
            f"{what}: wrote {wrote} {path.name}, expected {expected}; "
            f"{advice or f'check the free space in {tempfile.gettempdir()}, and the program'}"
        )
    return path.read_bytes()


@cache
def program_version(command: tuple[str, ...], arguments: tuple[str, ...] = ()) -> str:
    """Return the version that a program's banner names, or ``unknown version``; runs it once.

    Its exit code means nothing: some fail without arguments, having said their version.
    """
    with workspace() as folder:
        try:
            ended = _run([*command, *arguments], _VERSION_LIMIT_S, folder)
        except OSError:
            return "unknown version"
    found = _VERSION.search(ended.output) or _VERSION.search(ended.errors)
    return found[1] if found else "unknown version"


@dataclass(frozen=True)
class _Ended:
    code: int
    late: bool
    output: str
    errors: str


def _run(command: Sequence[str], time_limit_s: float, cwd: Path) -> _Ended:
    with (
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
        free_core() as core,
        _termination_raises(),
    ):
        # Not by preexec_fn: that is unsafe beside threads, and forks a large process slowly.
        with pinned(core):
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=cwd,
                start_new_session=True,
            )
        late = threading.Event()
        # Not by wait(timeout): that polls, and up to 50 ms more would count as coding time.
        timer = threading.Timer(time_limit_s, _stop_late, (process, late))
        timer.daemon = True
        try:
            timer.start()
            code = process.wait()
        finally:
            timer.cancel()
            if process.returncode is None:
                _kill_group(process)
                process.wait()
        return _Ended(code, late.is_set(), _text(output), _text(errors))


def _stop_late(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    if process.returncode is None:
        late.set()
        _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


@contextmanager
def _termination_raises() -> Iterator[None]:
    """Turn SIGTERM, where nothing handles it, into an exception: no program outlives its job."""
    default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def _text(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    start = stream.read(_KEPT_BYTES)
    stream.seek(max(len(start), size - _KEPT_BYTES))
    return (start + stream.read()).decode("utf-8", "replace")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
