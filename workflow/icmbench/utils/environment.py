"""What ran: versions, commit, machine. Saved next to every result."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

import icmbench
from icmbench.utils.files import sha256_bytes, write_text
from icmbench.utils.places import is_installed
from icmbench.utils.secrets import hide_assigned, hide_secrets

_PACKAGES = ("torch", "torchvision", "compressai", "pycocotools", "numpy", "pillow", "snakemake")
_FOLDER = "provenance"
_LONGEST = 1_000_000  # bytes of a diff
# Files that may hold nothing but secrets; a diff leaves them out, whatever is in them.
_PRIVATE = (
    "*.env",
    "*.env.*",
    "*.pem",
    "*.key",
    "*secret*",
    "*credential*",
    "*password*",
    "*token*",
)


class Environment(TypedDict):
    """Versions, commit and machine; None where they cannot be found.

    Attributes:
        git_problem: why there is no commit, unless there is no repository.
        sources: file of the results folder with the changes to the commit and all packages.
    """

    icmbench: str
    git_commit: str | None
    git_dirty: bool | None
    git_problem: NotRequired[str]
    python: str
    platform: str
    processor: str
    versions: dict[str, str | None]
    sources: NotRequired[str]


class JobEnvironment(Environment):
    """The environment of a job, with the device that it computed on."""

    device: str


def describe_environment(output: Path) -> Environment:
    """Return the versions of icmbench and its libraries, the git commit and the platform.

    Args:
        output: folder of the job. If it is in a results folder, ``sources`` is written there, once
            for all jobs that ran the same.
    """
    parents = output.absolute().parents
    return _describe(next((path for path in parents if (path / "plan.json").is_file()), None))


@lru_cache(maxsize=1)
def _describe(root: Path | None) -> Environment:
    # A repository around an installed package is another project's.
    installed = is_installed()
    commit, problem = (_installed_commit(), None) if installed else _git("rev-parse", "HEAD")
    changes = None
    if commit is not None:
        changes, problem = ("", None) if installed else _git("status", "--porcelain")
    found: Environment = {
        "icmbench": icmbench.__version__,
        "git_commit": commit,
        "git_dirty": None if changes is None else bool(changes),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "versions": {name: version(name) for name in _PACKAGES},
    }
    if problem:
        found["git_problem"] = problem
    if root is not None:
        text = _sources(commit or f"none: {problem or 'not in a git repository'}", changes or "")
        found["sources"] = f"{_FOLDER}/{sha256_bytes(text.encode())[:12]}.txt"
        if not (root / found["sources"]).is_file():
            write_text(root / found["sources"], text)
    return found


def _sources(commit: str, changed: str) -> str:
    """Return commit, packages and the changes to the commit, without what looks like a secret.

    ``git apply`` reads the changes and skips the rest.
    """
    installed = {f"{own.name}=={own.version}" for own in metadata.distributions()}
    diff = ""
    if changed:
        private = [f":(top,exclude,icase){pattern}" for pattern in _PRIVATE]
        diff = (
            _git("diff", "HEAD", "--no-color", "--no-ext-diff", "--", ":(top)", *private)[0] or ""
        )
    parts = {
        "Commit": commit,
        "Changed and untracked files": changed or "none",
        "Packages": "\n".join(sorted(installed, key=str.lower)),
        "Changes (files named like secrets are left out)": hide_assigned(diff) or "none",
    }
    return hide_secrets("\n\n".join(f"# {name}\n\n{text}" for name, text in parts.items()) + "\n")


def version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _installed_commit() -> str | None:
    """Return the commit that the package was installed from, or None (PEP 610)."""
    try:
        origin = metadata.distribution("icmbench").read_text("direct_url.json")
    except metadata.PackageNotFoundError:  # unpacked by hand
        return None
    commit: str | None = json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")
    return commit


def _git(*arguments: str) -> tuple[str | None, str | None]:
    """Return git's answer, cut to a length, or None and why; neither outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    english = {**os.environ, "LC_ALL": "C"}
    with tempfile.TemporaryFile() as output:  # a diff may be larger than the memory
        try:
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=10, env=english
            )
        except FileNotFoundError:
            return None, "git is not installed"
        except (OSError, subprocess.SubprocessError) as error:
            return None, f"git failed: {error}"
        size = os.fstat(output.fileno()).st_size
        output.seek(0)
        text = output.read(_LONGEST).decode(errors="replace").rstrip("\n")
    if done.returncode == 0:
        cut = f"{text.rpartition(chr(10))[0]}\n# cut after {_LONGEST} of {size} bytes"
        return text if size <= _LONGEST else cut, None
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
