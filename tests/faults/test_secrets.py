"""Credentials in the environment or in addresses are not written to any file or log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fault_study import prepare_short
from test_tracking_server import Misbehaving, refuse

from checkout import HERE
from icmbench.cli import main
from icmbench.utils.files import read_json

CANARY = "canary7fe41d0c2b"
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "DATABRICKS_TOKEN", "HF_TOKEN",
           "GITHUB_TOKEN")  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_secret_is_written(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole workflow runs with canaries in the environment; then all files are searched."""
    for name in SECRETS:
        monkeypatch.setenv(name, f"{CANARY}-{name}")
    checkout = prepare_short(tmp_path, repository)
    checkout.run(*HERE)  # into SQLite
    env = {**os.environ, "PYTHONPATH": str(checkout.folder / "workflow")}
    env |= {f"MLFLOW_TRACKING_{name}": f"{CANARY}-{name}" for name in ("PASSWORD", "TOKEN")}
    with Misbehaving(refuse(500)) as server:
        address = server.address.replace("://", f"://someone:{CANARY}@")
        command = [sys.executable, "-m", "icmbench", "track", "results/smoke", "--uri", address]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert read_json(checkout.root / "tracking.json")["status"] == "failed"
    assert len(done.stderr) > 20 and CANARY not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]


def test_credentials_in_the_configuration_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(f"tracking: {{uri: 'http://someone:{CANARY}@host:5000'}}\n")
    assert main(["plan", "--config", str(config)]) == 1
    printed = "".join(capfd.readouterr())
    assert "tracking.uri" in printed and CANARY not in printed
