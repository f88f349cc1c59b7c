"""What ran: versions, commit, machine. Saved next to every result."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

import icmbench

_PACKAGES = ("torch", "torchvision", "compressai", "pycocotools", "numpy", "pillow", "snakemake")


class Environment(TypedDict):
    """Versions, commit and machine; None where they cannot be found.

    ``git_problem`` is why there is no commit, unless there is no repository.
    """

    icmbench: str
    git_commit: str | None
    git_dirty: bool | None
    git_problem: NotRequired[str]
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
    commit, problem = _git("rev-parse", "HEAD")
    changes = None
    if commit is not None:
        changes, problem = _git("status", "--porcelain")
    found: Environment = {
        "icmbench": icmbench.__version__,
        "git_commit": commit,
        "git_dirty": None if changes is None else bool(changes),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "versions": {name: version(name) for name in _PACKAGES},
    }
    return {**found, "git_problem": problem} if problem else found


def version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> tuple[str | None, str | None]:
    """Return git's answer, or None and why there is none; neither outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    english = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=english)
    except FileNotFoundError:
        return None, "git is not installed"
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"git failed: {error}"
    if done.returncode == 0:
        return done.stdout.strip(), None
    if "not a git repository (or any" in done.stderr:
        return None, None
    return None, f"git refused: {(done.stderr.splitlines() or ['no reason given'])[0]}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
