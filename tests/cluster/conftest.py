"""The cluster that these tests bring up, once, and take down."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import SCRIPT, Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if not which(name)]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("only root can bring a SLURM cluster up")
    settings = Path("/etc/slurm/slurm.conf")
    if settings.exists() and SCRIPT.name not in settings.read_text().partition("\n")[0]:
        pytest.skip("/etc/slurm/slurm.conf: this machine has a SLURM, which tests leave alone")
    folder = tmp_path_factory.mktemp("slurm") / "cluster"
    subprocess.run([str(SCRIPT), "up", str(folder)], check=True)
    yield Cluster(folder)
    subprocess.run([str(SCRIPT), "down", str(folder)], check=True)
    assert not folder.exists() and not Path("/etc/slurm/slurm.conf").exists()


def which(name: str) -> str | None:
    """Find a program also where an ordinary user's PATH does not lead."""
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))
