"""A checkout whose user has a conda-compatible client on PATH."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
CONFIG = ("--config", "scale=smoke", "studies=[chamain2021]")


@dataclass(frozen=True)
class CondaCheckout:
    """A copy of the workflow's files, run by a user whose shell has conda's ``base`` active."""

    folder: Path
    base: Path
    channels: Path
    uv: str

    def snakemake(
        self, *arguments: str, python_path: tuple[Path, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake from this interpreter's environment, with ``python_path`` exported."""
        own = ("MLFLOW_", "ICMBENCH_", "CONDA_", "PYTHONPATH", "VIRTUAL_ENV")
        env = {k: v for k, v in os.environ.items() if not k.startswith(own)}
        path = [p for p in env["PATH"].split(os.pathsep) if Path(p) != BIN]
        env |= {
            "PATH": os.pathsep.join([str(self.base / "bin"), *path]),
            "PYTHONPATH": os.pathsep.join(map(str, (self.folder / "workflow", *python_path))),
            "CONDA_CHANNEL_ALIAS": self.channels.as_uri(),
            "CONDA_PREFIX": str(self.base),
            "CONDA_SHLVL": "1",
        }
        return subprocess.run(
            [str(BIN / "snakemake"), "--cores", "2", *arguments, *CONFIG],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
        )

    @property
    def environment(self) -> Path:
        """The only finished environment."""
        (flag,) = (self.folder / ".snakemake/conda").glob("*.env_setup_done")
        return flag.with_suffix("")

    def packages(self) -> dict[str, str]:
        """Return the packages of the environment with their versions."""
        python = str(self.environment / "bin/python")
        command = [self.uv, "pip", "freeze", "--python", python]
        text = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
        found = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)$", text))
        return found | dict.fromkeys(re.findall(r"(?m)^-e (file://\S+)$", text), "editable")
