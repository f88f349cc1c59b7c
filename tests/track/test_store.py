"""Addresses, creation and failures of a store."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from results_folder import ResultsFolder

from icmbench.track import track
from icmbench.track.store import artifact_root, store_address
from icmbench.utils.files import read_json


def test_store_address_takes_the_nearest_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "results" / "smoke"
    assert store_address(root, None, None) == f"sqlite:///{tmp_path}/results/mlflow.db"
    assert store_address(root, None, "http://config") == "http://config"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert store_address(root, None, "http://config") == "http://environment"
    assert store_address(root, "http://argument", "http://config") == "http://argument"


def test_artifact_root_is_the_servers_or_beside_the_results(tmp_path: Path) -> None:
    root = tmp_path / "results" / "smoke"
    beside = (tmp_path / "results" / "mlartifacts").as_uri()
    assert artifact_root(root, "sqlite:///x.db") == beside
    assert artifact_root(root, "https://host") is None


def test_track_into_a_store_that_fails_is_a_warning_without_the_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = ResultsFolder(tmp_path).fill().root
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert track(root, f"http://me:canary-1234@127.0.0.1:{port}") == 0
    marker = read_json(root / "tracking.json")
    assert marker["status"] == "failed" and str(port) in marker["problems"][0]
    assert "canary-1234" not in str(marker) + caplog.text


def test_package_imports_neither_mlflow_nor_networks() -> None:
    code = (
        "import sys, icmbench.track\n"
        "assert not {'mlflow', 'torch', 'sqlalchemy'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
