"""A lock with a heartbeat: one process per training, also across hosts.

SLURM was seen leaving an orphan beside its requeued twin, and ``snakemake --unlock`` starting a
second job beside the first. ``flock`` alone is not enough on network file systems, so the owner
touches its file and others watch whether it still does. They compare what they see with what they
saw, never with their own clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType

from icmbench.errors import UserError


class TakenOver(UserError):
    """Another process has the lock, and what lies in the folder is its own now.

    Attributes:
        final: there is no result to wait for, or no time.
    """

    final = False


class TrainingLock:
    """Context manager that owns ``path`` while it is entered.

    A second process waits as long as the owner's heart beats, and takes over when it stopped or
    when its process on the same host is gone.

    Args:
        path: the lock file.
        beat: seconds between two beats.
        patience: beats without change after which an owner counts as dead.
    """

    def __init__(self, path: Path, beat: float = 5.0, patience: int = 6) -> None:
        self.path, self.beat, self.patience = path, beat, patience
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._count = 0
        self._beaten = time.monotonic()
        self.lost = False

    def __enter__(self) -> TrainingLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._create():
            self._wait_for_owner()
        self._beaten = time.monotonic()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self.lost:
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise :class:`TakenOver` where another process has taken the lock over."""
        if not self.lost and time.monotonic() - self._beaten > 2 * self.beat:
            # This process stood still, so its heart did as well and cannot tell.
            self.lost = self._token not in (self._read() or "")
        if self.lost:
            raise TakenOver(f"{self.path}: another process took this training over; stopping here")

    def _content(self) -> str:
        owner = {"host": _host(), "pid": os.getpid(), "token": self._token}
        return json.dumps({**owner, "beat": self._count})

    def _create(self) -> bool:
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(self._content())
        except OSError:
            self.path.unlink(missing_ok=True)  # nobody's
            raise
        return True

    def _wait_for_owner(self) -> None:
        print(f"{self.path}: another process trains this; waiting for it", file=sys.stderr)
        seen, unchanged = self._read(), 0
        while seen is not None:
            if unchanged >= self.patience or _gone(seen):
                self._break(seen)
                return
            time.sleep(self.beat)
            now = self._read()
            unchanged = unchanged + 1 if now == seen else 0
            seen = now

    def _break(self, seen: str) -> None:
        """Remove a dead owner's file, unless somebody else did so first."""
        grave = self.path.with_name(f"{self.path.name}.{self._token}")
        try:
            self.path.rename(grave)  # atomic: only one process gets it
        except FileNotFoundError:
            return
        if grave.read_text() != seen and not self.path.exists():
            grave.rename(self.path)  # a living owner's file: put it back
            return
        grave.unlink(missing_ok=True)

    def _read(self) -> str | None:
        try:
            return self.path.read_text()
        except FileNotFoundError:
            return None

    def _beat(self) -> None:
        while not self._stop.wait(self.beat):
            current = self._read()
            if current is None or self._token not in current:
                self.lost = True
                return
            self._count += 1
            temporary = self.path.with_name(f"{self.path.name}.{self._token}")
            # A full disk may have room again at the next beat.
            with contextlib.suppress(OSError):
                temporary.write_text(self._content())
                os.replace(temporary, self.path)
                self._beaten = time.monotonic()


def _host() -> str:
    """Return what tells where a process number means something.

    Containers and virtual machines may share a name, and a machine that started anew has new
    processes.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return " ".join(parts)


def _gone(content: str) -> bool:
    """Return whether the owner ran on this host and its process is no more."""
    try:
        owner = json.loads(content)
    except json.JSONDecodeError:
        return False  # half written: its heart will tell
    if owner.get("host") != _host():
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
