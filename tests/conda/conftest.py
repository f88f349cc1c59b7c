"""A conda-compatible client on py-rattler and a local channel, where they can be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conda_checkout import Client

HERE = Path(__file__).parent
FREE = 8 * 2**30  # an environment takes 6 GB where uv cannot link it from its cache


@pytest.fixture(scope="session")
def client(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """Install the client where an index has its packages, and make the channel."""
    if sys.platform != "linux" or sys.version_info[:2] != (3, 11):
        pytest.skip("the channel holds this Python; envs/icmbench.yaml asks for 3.11 on Linux")
    uv = shutil.which("uv", path=os.pathsep.join([os.environ["PATH"], str(repository / ".uv/bin")]))
    if uv is None:
        pytest.skip("uv is neither on PATH nor in .uv/bin")
    folder = tmp_path_factory.mktemp("conda")
    if shutil.disk_usage(folder).free < FREE:
        pytest.skip(f"{folder} has less than {FREE >> 30} GB free")
    venv = folder / "client"
    done = subprocess.run(
        [uv, "sync", "--quiet", "--frozen", "--only-group", "conda", "--no-install-project",
         "--python", sys.executable],
        cwd=repository,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(venv)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"the packages of group conda cannot be had: {done.stderr.strip()[-300:]}")
    base = folder / "base"
    (base / "bin").mkdir(parents=True)
    shutil.copy(HERE / "client" / "activate", base / "bin" / "activate")
    conda = base / "bin" / "conda"
    conda.write_text(f"#!{venv}/bin/python\n{(HERE / 'client' / 'conda.py').read_text()}")
    conda.chmod(0o755)
    channels = folder / "channels"
    done = subprocess.run(
        [venv / "bin/python", HERE / "make_channel.py", channels / "conda-forge"],
        capture_output=True,
        text=True,
    )
    if "cannot be moved" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return Client(base, channels, uv)
