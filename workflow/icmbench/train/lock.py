"""One process per training run, also across the hosts of a cluster: a lock file with a heartbeat.

SLURM can start a requeued job while the first one still runs, and ``snakemake --unlock`` allows a
second run beside the first. ``flock`` is not reliable on network file systems. So the owner
rewrites its lock file every few seconds, and others watch whether the content still changes. They
compare contents, never clocks, because the clocks of two hosts differ.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path

from icmbench.errors import UserError

logger = logging.getLogger(__name__)


class TakenOver(UserError):
    """Another process owns this training run now, and its files with it."""


class TrainingLock:
    """Context manager that owns the lock file while it is entered.

    A second process waits while the owner's heart beats. It takes the lock over when the heart has
    stopped, or at once when the owner ran on the same host and its process has ended.

    Args:
        path: the lock file; None for a process that does not lock.
        beat: seconds between two beats.
        patience: beats without a change after which an owner counts as dead.
    """

    def __init__(self, path: Path | None, beat: float = 5.0, patience: int = 6) -> None:
        self.path, self.beat, self.patience = path, beat, patience
        self.lost = False
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._last_beat = time.monotonic()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> TrainingLock:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not self._create(self.path):
                self._wait_for_owner(self.path)
            self._last_beat = time.monotonic()
            self._heart = threading.Thread(target=self._keep_beating, args=[self.path], daemon=True)
            self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.path is not None and self._heart is not None:
            self._stop.set()
            self._heart.join()
            if not self.lost:
                self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise :class:`TakenOver` if another process has taken the lock over."""
        if self.path is None:
            return
        if not self.lost and time.monotonic() - self._last_beat > 2 * self.beat:
            # The whole process was stopped, its heart too: only the file shows who owns it now.
            self.lost = self._token not in (_read(self.path) or "")
        if self.lost:
            raise TakenOver(f"{self.path}: another process took this training run over")

    def _content(self, beats: int) -> str:
        owner = {"host": _host(), "pid": os.getpid(), "token": self._token}
        return json.dumps({**owner, "beat": beats})

    def _create(self, path: Path) -> bool:
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(self._content(0))
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return True

    def _keep_beating(self, path: Path) -> None:
        temporary = path.with_name(f"{path.name}.{self._token}")
        beats = 0
        while not self._stop.wait(self.beat):
            if self._token not in (_read(path) or ""):
                self.lost = True
                return
            beats += 1
            with contextlib.suppress(OSError):  # a full disk may have room at the next beat
                temporary.write_text(self._content(beats))
                os.replace(temporary, path)
                self._last_beat = time.monotonic()

    def _wait_for_owner(self, path: Path) -> None:
        """Return when the lock file is gone, removed here if its owner is dead."""
        logger.info("%s: another process is training this; waiting for it", path)
        seen, unchanged = _read(path), 0
        while seen is not None:
            if unchanged >= self.patience or _has_ended(seen):
                self._remove(path, seen)
                return
            time.sleep(self.beat)
            now = _read(path)
            unchanged = unchanged + 1 if now == seen else 0
            seen = now

    def _remove(self, path: Path, seen: str) -> None:
        """Remove a dead owner's file, unless another process did so and owns a new one."""
        removed = path.with_name(f"{path.name}.{self._token}")
        try:
            path.rename(removed)  # atomic: only one of several waiting processes succeeds
        except FileNotFoundError:
            return
        if removed.read_text() != seen and not path.exists():
            removed.rename(path)  # the file of a new, living owner: put it back
        else:
            removed.unlink(missing_ok=True)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _host() -> str:
    """Return an identifier of the running system that a process id belongs to.

    The host name is not enough: containers may share one, and a reboot starts process ids over.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return " ".join(parts)


def _has_ended(content: str) -> bool:
    """Return whether the owner ran on this host and its process has ended."""
    try:
        owner = json.loads(content)
    except json.JSONDecodeError:
        return False  # half written: watch its heartbeat
    if owner.get("host") != _host():
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
