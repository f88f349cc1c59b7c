"""Shared by the sections of ``gpu.py``: places to compute, peak memory, a time limit, tables."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from icmbench.errors import UserError

_OPTIONS = "first, tf32, threads=N, noise=X"


@dataclass
class Table:
    """A section's result.

    Attributes:
        title: its subject.
        columns: of the table.
        rows: cells as text, one list for each row.
        notes: method, and what was left out and why.
        data: the same and more as numbers, for the JSON file.
    """

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)

    def add(self, cells: Sequence[Any], **data: Any) -> None:
        """Add a row, and its numbers."""
        self.rows.append([str(cell) for cell in cells])
        self.data.append(data)

    def leave_out(self, what: str, error: BaseException | str) -> None:
        """Add a note of what was not measured, and why, in one line."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self.notes.append(f"left out: {what}: {lines[0]}")

    def markdown(self) -> str:
        """Return the section in Markdown."""
        lines = [f"### {self.title}", ""]
        if self.rows:
            lines += [_row(self.columns), "|" + "---|" * len(self.columns)]
            lines += [*map(_row, self.rows), ""]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


class TimeCap:
    """A time limit, after which nothing is started."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()

    def check(self) -> None:
        """Raise if no time is left."""
        if self.left() <= 0:
            raise UserError(f"--minutes {self.minutes:g} are over; give more")


@dataclass(frozen=True)
class Place:
    """A device, and how it computes.

    Attributes:
        name: as on the command line.
        device: cpu or cuda.
        first: weights with channels first in memory (they are last otherwise), which makes
            convolutions add in another order.
        tf32: convolutions and products on a GPU may round their factors to 10 bits.
        threads: of the CPU; None leaves them.
        noise: every weight is changed by this share, in either direction: it imitates another
            arithmetic where there is one device only.
    """

    name: str
    device: torch.device
    first: bool = False
    tf32: bool = False
    threads: int | None = None
    noise: float = 0.0

    def enter(self) -> None:
        """Compute in this way from now on."""
        torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def put(self, network: Any) -> Any:
        """Return a network, moved here in place."""
        layout = torch.contiguous_format if self.first else torch.channels_last
        if self.noise:
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for weight in network.parameters():
                    signs = torch.rand(weight.shape, generator=generator).round() * 2 - 1
                    weight.mul_(1 + self.noise * signs)
        return network.to(self.device).to(memory_format=layout)

    def run(self, work: Callable[[], Any]) -> Any:
        """Return the result of ``work`` at this place."""
        self.enter()
        with torch.no_grad():
            return work()


def parse_place(text: str) -> Place:
    """Return the place of a name like ``cuda``, ``cuda+tf32`` or ``cpu+first+threads=2``.

    Raises:
        UserError: for unknown names, and for a missing GPU.
    """
    name, *options = text.split("+")
    settings: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if option in ("first", "tf32"):
            settings[option] = True
        elif key == "threads" and value.isdigit() and int(value) > 0:
            settings[key] = int(value)
        elif key == "noise" and _is_share(value):
            settings[key] = float(value)
        else:
            raise UserError(f"place {text!r}: unknown option {option!r}; allowed: {_OPTIONS}")
    return Place(text, parse_device(name), **settings)


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def parse_device(name: str) -> torch.device:
    """Return cpu or cuda; ``auto`` is a GPU if there is one.

    Raises:
        UserError: for unknown names, and for a missing GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {name!r} is unknown; allowed: auto, cpu, cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs"
        raise UserError(
            f"device 'cuda': torch {torch.__version__}, {built}, sees no GPU; install a build for "
            "this driver, or name the device cpu"
        )
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def synchronise(device: torch.device) -> None:
    """Wait until a device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """Peak memory since the object was created, beyond the memory in use at that time.

    On a GPU: memory from PyTorch's allocator; on a CPU: the process's resident memory, which
    includes memory that allocators keep.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            synchronise(device)
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
            self._before = _status_bytes("VmRSS")

    def gigabytes(self) -> float:
        """Return it in GB (2^30 bytes)."""
        if self._device.type == "cuda":
            synchronise(self._device)
            peak = torch.cuda.max_memory_allocated(self._device)
        else:
            peak = _status_bytes("VmHWM")
        return (peak - self._before) / 2**30


def _status_bytes(name: str) -> int:
    """Return a number of /proc/self/status in bytes; without that file, the peak memory."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return median and range of some values."""
    numbers = (median(values), min(values), max(values))
    middle, low, high = (f"{value:.{digits}f}" for value in numbers)
    return f"{middle} ({low} to {high})"
