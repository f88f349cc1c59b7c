"""Addresses, creation and failures of a store."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from results_folder import ResultsFolder

from icmbench.errors import UserError
from icmbench.track import sync
from icmbench.track.store import artifact_root, store_address


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


def test_sync_into_a_dead_database_server_fails_soon_and_hides_the_password(
    tmp_path: Path,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(UserError, match=str(port)) as error:
        sync(ResultsFolder(tmp_path).root, f"postgresql://me:secret@127.0.0.1:{port}/runs")
    assert time.monotonic() - begin < 5
    assert "secret" not in str(error.value)


def test_sync_into_a_file_that_is_not_a_database_names_it(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path)
    (results.root.parent / "mlflow.db").write_text("hello")
    with pytest.raises(UserError, match=r"mlflow\.db"):
        sync(results.root)


def test_sync_into_a_file_store_fails_in_one_line(tmp_path: Path) -> None:
    """MLflow has given it up."""
    with pytest.raises(UserError, match="mlruns") as error:
        sync(ResultsFolder(tmp_path).fill().root, (tmp_path / "mlruns").as_uri())
    assert "\n" not in str(error.value)


def test_package_imports_neither_mlflow_nor_networks() -> None:
    code = (
        "import sys, icmbench.track\n"
        "assert not {'mlflow', 'torch', 'sqlalchemy'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
