"""The SLURM cluster that these tests start once and stop at the end."""

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
        pytest.skip(f"missing: {', '.join(missing)}; apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("only root can start a SLURM cluster")
    settings = Path("/etc/slurm/slurm.conf")
    if settings.exists() and SCRIPT.name not in settings.read_text().partition("\n")[0]:
        pytest.skip("/etc/slurm/slurm.conf exists: tests leave an installed SLURM alone")
    folder = tmp_path_factory.mktemp("slurm") / "cluster"
    subprocess.run([str(SCRIPT), "up", str(folder)], check=True)
    yield Cluster(folder)
    subprocess.run([str(SCRIPT), "down", str(folder)], check=True)
    assert not folder.exists() and not Path("/etc/slurm/slurm.conf").exists()


def which(name: str) -> str | None:
    """Find a program, also in the administrator's folders."""
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))
