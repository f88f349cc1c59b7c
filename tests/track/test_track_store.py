"""Addresses, dead servers, and what the workflow's command does about them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from track_results import ResultsFolder

from icmbench.errors import UserError
from icmbench.track import sync, track
from icmbench.track.store import Address, resolve_address


@pytest.fixture
def dead(tmp_path: Path) -> tuple[ResultsFolder, str]:
    """Results, and a loopback address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ResultsFolder(tmp_path).fill(), f"http://127.0.0.1:{port}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _files(root: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_a_dead_server_is_one_line_soon_and_touches_nothing(
    dead: tuple[ResultsFolder, str],
) -> None:
    results, uri = dead
    before = _files(results.root.parent)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"MLflow at .* failed") as error:
        sync(results.root, uri=uri)
    assert time.monotonic() - start < 10
    assert "\n" not in str(error.value)
    assert "MLFLOW_TRACKING_URI" in str(error.value)
    assert _files(results.root.parent) == before


def test_a_silent_server_is_given_up_within_about_ten_seconds(
    dead: tuple[ResultsFolder, str], silent: str
) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=r"MLflow at .* failed"):
        sync(dead[0].root, uri=silent)
    assert time.monotonic() - start < 14


def test_a_dead_database_server_is_told_soon(dead: tuple[ResultsFolder, str]) -> None:
    results, uri = dead
    address = uri.replace("http://", "postgresql://me:secret@") + "/runs"
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        sync(results.root, uri=address)
    assert time.monotonic() - start < 10
    assert "secret" not in str(error.value)


def test_the_users_own_patience_is_left_alone(
    dead: tuple[ResultsFolder, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, uri = dead
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError):
        sync(results.root, uri=uri)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_the_command_warns_and_marks_but_does_not_fail(
    dead: tuple[ResultsFolder, str], capsys: pytest.CaptureFixture[str]
) -> None:
    results, uri = dead
    assert track(results.root, uri=uri) == 0
    marker = json.loads((results.root / "tracking.json").read_text())
    assert marker["status"] == "failed"
    assert uri in marker["reason"]
    assert capsys.readouterr().err.startswith("warning: MLflow at")
    assert track(results.root, uri=uri, strict=True) == 1


def test_the_command_marks_what_it_did(results: ResultsFolder) -> None:
    results.fill()
    assert track(results.root, strict=True) == 0
    marker = json.loads((results.root / "tracking.json").read_text())
    assert (marker["status"], marker["runs"], marker["complete"]) == ("done", 9, True)


def test_a_defect_does_not_fail_the_workflow_either(
    results: ResultsFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def defect(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("icmbench.track.command.sync", defect)
    assert track(results.root) == 0
    assert "Traceback" in capsys.readouterr().err


def test_the_address_in_order_of_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "results" / "smoke"
    assert resolve_address(root, None, None).uri == f"sqlite:///{tmp_path}/results/mlflow.db"
    assert resolve_address(root, None, "http://config").uri == "http://config"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert resolve_address(root, None, "http://config").uri == "http://environment"
    assert resolve_address(root, "http://argument", "http://config").uri == "http://argument"


def test_artefacts_of_a_local_store_lie_beside_the_results(tmp_path: Path) -> None:
    local = Address("sqlite:///x.db", tmp_path)
    assert local.artifact_root == (tmp_path / "mlartifacts").as_uri()
    assert Address("https://host", tmp_path).artifact_root is None


def test_credentials_are_not_shown(tmp_path: Path) -> None:
    address = Address("https://me:secret@host:5000/x", tmp_path)
    assert address.shown == "https://***@host:5000/x"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path).fill()
    (results.root.parent / "mlflow.db").write_text("hello")
    with pytest.raises(UserError, match="not an SQLite database; move it away"):
        sync(results.root)


def test_the_file_store_that_mlflow_gave_up_is_one_line(tmp_path: Path) -> None:
    results = ResultsFolder(tmp_path).fill()
    with pytest.raises(UserError, match="MLflow at file:") as error:
        sync(results.root, uri=(tmp_path / "mlruns").as_uri())
    assert "\n" not in str(error.value)


def test_neither_networks_nor_mlflow_are_imported_with_the_package() -> None:
    code = (
        "import sys, icmbench.track\n"
        "assert not {'mlflow', 'torch', 'sqlalchemy'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
