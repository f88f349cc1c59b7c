"""Copies of the checkout, and running them with the client of these tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from checkout import copy_files

BIN = Path(sys.executable).parent
PACKAGE = ("pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True)
class Client:
    """The installation of the client, and what it leaves in the user's environment."""

    base: Path
    channels: Path
    uv: str

    def environment(self, base_active: bool) -> dict[str, str]:
        """Return a user's variables: the client on PATH, its ``base`` active or not."""
        own = ("MLFLOW_", "ICMBENCH_", "CONDA_", "PYTHONPATH", "VIRTUAL_ENV")
        env = {k: v for k, v in os.environ.items() if not k.startswith(own)}
        path = [p for p in env["PATH"].split(os.pathsep) if Path(p) != BIN]
        env["PATH"] = os.pathsep.join([str(self.base / "bin"), *path])
        env["CONDA_CHANNEL_ALIAS"] = self.channels.as_uri()
        if base_active:
            env |= {"CONDA_PREFIX": str(self.base), "CONDA_SHLVL": "1"}
        return env


@dataclass(frozen=True)
class Checkout:
    """A copy of the workflow's files, run with the client."""

    folder: Path
    client: Client

    @property
    def environments(self) -> list[Path]:
        """The finished environments, oldest first."""
        flags = (self.folder / ".snakemake/conda").glob("*.env_setup_done")
        flags = sorted(flags, key=lambda flag: flag.stat().st_mtime)
        return [flag.with_suffix("") for flag in flags]

    def write_lock(self, text: str) -> None:
        """Replace the lock, as ``make lock`` does."""
        (self.folder / "envs/requirements.lock").write_text(text)
        subprocess.run([sys.executable, "envs/stamp.py"], cwd=self.folder, check=True)

    def snakemake(
        self, *arguments: str, base_active: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake as a user does whose shell has ``base`` active."""
        env = self.client.environment(base_active)
        env["PYTHONPATH"] = str(self.folder / "workflow")  # this copy plans, too
        return subprocess.run(
            [str(BIN / "snakemake"), "--cores", "2", *arguments],
            cwd=self.folder,
            env={**env, **environment},
            capture_output=True,
            text=True,
        )

    def packages(self, environment: Path) -> dict[str, str]:
        """Return what pip would list in an environment."""
        command = [self.client.uv, "pip", "freeze", "--python", str(environment / "bin/python")]
        text = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
        found = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", text))
        return found | dict.fromkeys(re.findall(r"(?m)^-e (file://\S+)$", text), "editable")


def copy_checkout(repository: Path, folder: Path, client: Client) -> Checkout:
    """Copy the files that a user's checkout has."""
    copy_files(repository, folder, PACKAGE)
    return Checkout(folder, client)


def requirement(lock: str, name: str) -> str:
    """Return the lines of one package of the lock."""
    found = re.search(rf"(?ms)^{name}==.*?(?=^[a-z0-9]|\Z)", lock)
    assert found, name
    return found.group(0)
