"""Runs external programs within a time limit; a failure becomes one line."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from icmbench.errors import UserError

_KEPT_BYTES = 1 << 15
_SHOWN = 300
_VERSION = re.compile(r"[Vv]ersion \[?([\w.+-]+)")
_NUMBER = re.compile(r"(?<![\w.])v?(\d+\.\d[\w.+-]*)")
_VERSION_LIMIT_S = 60.0  # containers start slowly
_PROCESSOR = 36  # of the fields of proc(5)'s stat after the name

CHECK_PROGRAM = "check that this program runs here and knows these arguments"


def last_message(output: str) -> str:
    """Return the last 300 characters of a program's output, as one line."""
    return " ".join(output.split())[-_SHOWN:].strip()


def run_program(
    command: Sequence[str],
    *,
    what: str,
    time_limit_s: float,
    cwd: Path,
    advice: str = CHECK_PROGRAM,
    summary: Callable[[str], str] = last_message,
    one_core: bool = False,
) -> str:
    """Run a program to its end and return its standard output, then its standard error.

    Of each, the first and last 32 KiB are kept: samples and bitstreams belong in files. The program
    has no input. Its process group is killed as a whole if it takes too long or this process is
    interrupted, since a wrapper has children.

    Args:
        command: words; the first is the program.
        what: what is being done; the error message begins with it.
        time_limit_s: seconds of wall clock.
        cwd: directory to run in.
        advice: what the user can do about a failure; the error message ends with it.
        summary: returns the part of standard error, or of standard output if that is empty, that
            the error message quotes.
        one_core: keep the program on one processor core.

    Raises:
        UserError: where it cannot start, fails or takes too long.
    """
    line = f"{what}: `{shlex.join(command)}`"
    try:
        ended = _run(command, time_limit_s, cwd, one_core)
    except OSError as error:
        raise UserError(f"{line} cannot start ({error.strerror}); {CHECK_PROGRAM}") from None
    if ended.late:
        how = f"took longer than {time_limit_s:g} s"
        advice = "raise time_limit_s or free the machine"
    elif ended.code < 0:
        how = f"was killed by signal {_signal_name(-ended.code)}"
    elif ended.code > 0:
        how = f"failed with exit code {ended.code}"
    else:
        return ended.output + ended.errors
    message = summary(ended.errors.strip() or ended.output)
    if message or not ended.late:
        how = f"{how}: {message or 'no message'}"
    raise UserError(f"{line} {how}; {advice}")


@contextmanager
def workspace() -> Iterator[Path]:
    """Yield a temporary directory, which is always removed.

    Raises:
        UserError: for errors of files inside, above all a full disk.
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
    """Return the content of a file that a program wrote.

    Args:
        path: the file.
        what: the program, for the error message.
        size: expected bytes; None accepts any number above 0.
        advice: what the user can do if they are missing.

    Raises:
        UserError: where it is missing, empty or of another size, e.g. on a full disk.
    """
    found = path.stat().st_size if path.is_file() else None
    if found is None or found == 0 or (size is not None and found != size):
        wrote = "no file" if found is None else f"{found} bytes as"
        expected = "at least one byte" if size is None else f"{size} bytes"
        raise UserError(
            f"{what}: wrote {wrote} {path.name}, expected {expected}; "
            f"{advice or f'check the free space in {tempfile.gettempdir()}, and the program'}"
        )
    return path.read_bytes()


@cache
def program_version(command: tuple[str, ...], arguments: tuple[str, ...] = ()) -> str:
    """Return the version in a program's banner, or ``unknown version``; runs it once.

    The exit code is ignored: some programs fail without arguments, after printing their version.
    """
    with workspace() as folder:
        try:
            ended = _run([*command, *arguments], _VERSION_LIMIT_S, folder, one_core=False)
        except OSError:
            return "unknown version"
    found = _VERSION.search(ended.output) or _VERSION.search(ended.errors)
    return found[1] if found else "unknown version"


@cache
def asked_version(command: tuple[str, ...], key: str) -> str:
    """Return the version that a command prints; runs it once.

    That is what follows the word ``version``, else the first number with a point in it, else the
    first line.

    Args:
        command: words; the first is the program.
        key: of the command in config.yaml.

    Raises:
        UserError: where it cannot start, prints nothing, or fails without printing a number.
    """
    advice = f"change key {key!r}, or set it to null"
    with workspace() as folder:
        try:
            ended = _run(command, _VERSION_LIMIT_S, folder, one_core=False)
        except OSError as error:
            raise UserError(
                f"`{shlex.join(command)}` cannot start ({error.strerror}); {advice}"
            ) from None
    printed = f"{ended.output}\n{ended.errors}".strip()
    if not printed:
        raise UserError(f"`{shlex.join(command)}` prints no version; {advice}")
    found = _VERSION.search(printed) or _NUMBER.search(printed)
    if found is None and ended.code != 0:
        raise UserError(
            f"`{shlex.join(command)}` failed with exit code {ended.code}: {last_message(printed)}; "
            f"{advice}"
        )
    return found[1] if found else printed.splitlines()[0].strip()[:80]


@dataclass(frozen=True)
class _Ended:
    code: int
    late: bool
    output: str
    errors: str


def _run(command: Sequence[str], time_limit_s: float, cwd: Path, one_core: bool) -> _Ended:
    with (
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
        _termination_raises(),
    ):
        with _this_core() if one_core else nullcontext():
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=cwd,
                start_new_session=True,
            )
        late = threading.Event()
        # wait(timeout) would poll, which adds up to 50 ms to the coding time.
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
def _this_core() -> Iterator[None]:
    """Keep programs started inside the block on the core that this thread is running on.

    Some encoders start one thread per core of the machine (x265 inside bpgenc). Several of them at
    a time compete for the cores, which made one ten times slower or more. This thread only waits
    for the program, so the core that the scheduler chose for it is free. Not done by
    ``preexec_fn``, which is unsafe beside threads and forks a large process slowly.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    status = Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()
    os.sched_setaffinity(0, {int(status[_PROCESSOR])})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def _termination_raises() -> Iterator[None]:
    """Turn an unhandled SIGTERM into an exception, so that no program outlives its job."""
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
