"""A conda-compatible client on py-rattler with a local channel, and a checkout that uses it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conda_checkout import CondaCheckout

from checkout import copy_files

HERE = Path(__file__).parent
FREE = 8 * 2**30  # an environment takes 6 GB where uv cannot link it from its cache


@pytest.fixture(scope="module")
def conda_checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> CondaCheckout:
    """Install the client, make the channel, and copy the workflow's files."""
    if sys.platform != "linux" or sys.version_info[:2] != (3, 11):
        pytest.skip("envs/icmbench.yaml asks for Python 3.11, and the channel holds this Python")
    uv = shutil.which("uv", path=os.pathsep.join([os.environ["PATH"], str(repository / ".uv/bin")]))
    if uv is None:
        pytest.skip("uv is neither on PATH nor in .uv/bin")
    folder = tmp_path_factory.mktemp("conda")
    if shutil.disk_usage(folder).free < FREE:
        pytest.skip(f"{folder} has less than {FREE >> 30} GB free")
    venv, base, channels = folder / "client", folder / "base", folder / "channels"
    done = subprocess.run(
        [uv, "sync", "--quiet", "--frozen", "--only-group", "conda", "--no-install-project",
         "--python", sys.executable],
        cwd=repository,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(venv)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"group conda cannot be installed: {done.stderr.strip()[-300:]}")
    (base / "bin").mkdir(parents=True)
    shutil.copy(HERE / "client" / "activate", base / "bin" / "activate")
    conda = base / "bin" / "conda"
    conda.write_text(f"#!{venv}/bin/python\n{(HERE / 'client' / 'conda.py').read_text()}")
    conda.chmod(0o755)
    done = subprocess.run(
        [venv / "bin/python", HERE / "make_channel.py", channels / "conda-forge"],
        capture_output=True,
        text=True,
    )
    if "cannot be moved" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    more = ("pyproject.toml", "README.md", "LICENSE", "data/photographs")
    copy_files(repository, folder / "run", more)
    return CondaCheckout(folder / "run", base, channels, uv)
