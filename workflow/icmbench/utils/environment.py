"""What ran: versions, commit, machine. Saved next to every result."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from typing_extensions import TypedDict

import icmbench

_PACKAGES = ("torch", "torchvision", "compressai", "pycocotools", "numpy", "pillow", "snakemake")


class Environment(TypedDict):
    """Versions, commit and machine; None where they cannot be found."""

    icmbench: str
    git_commit: str | None
    git_dirty: bool | None
    python: str
    platform: str
    processor: str
    versions: dict[str, str | None]


class JobEnvironment(Environment):
    """The environment of a job, with the device that it computed on."""

    device: str


@lru_cache(maxsize=1)
def describe_environment() -> Environment:
    """Return the versions of icmbench and its libraries, the git commit and the platform."""
    commit = _git("rev-parse", "HEAD")
    return {
        "icmbench": icmbench.__version__,
        "git_commit": commit,
        "git_dirty": None if commit is None else bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
