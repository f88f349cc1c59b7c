from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from track_results import ResultsFolder
from track_store import Store

from icmbench.track.store import open_store, resolve_address


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: making one takes seconds, so it is made once and copied."""
    root = tmp_path_factory.mktemp("store") / "smoke"
    root.mkdir()
    with open_store(resolve_address(root, None, None)):
        pass
    return root.parent / "mlflow.db"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("TRACKING_URI", "HTTP_REQUEST_MAX_RETRIES", "HTTP_REQUEST_TIMEOUT")
    for name in names:
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


@pytest.fixture
def results(tmp_path: Path, template: Path) -> ResultsFolder:
    """A results folder with a plan and an empty store."""
    folder = ResultsFolder(tmp_path)
    shutil.copy(template, folder.root.parent / "mlflow.db")
    return folder


@pytest.fixture
def store(results: ResultsFolder) -> Callable[[], Store]:
    return lambda: Store(results.root)
