from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from results_folder import ResultsFolder
from stored import Stored

from icmbench.track import track
from icmbench.track.store import open_store, store_address


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: making one takes seconds, so it is made once and copied."""
    root = tmp_path_factory.mktemp("store") / "smoke"
    root.mkdir()
    with open_store(root, store_address(root, None, None)):
        pass
    return root.parent / "mlflow.db"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No MLflow settings of the caller, and none left by an import."""
    names = [
        f"MLFLOW_{n}" for n in ("TRACKING_URI", "HTTP_REQUEST_MAX_RETRIES", "HTTP_REQUEST_TIMEOUT")
    ]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    yield
    for name in names:
        os.environ.pop(name, None)


@pytest.fixture
def results(tmp_path: Path, template: Path) -> ResultsFolder:
    """A results folder with a plan and an empty store."""
    folder = ResultsFolder(tmp_path)
    shutil.copy(template, folder.root.parent / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, template: Path
) -> tuple[ResultsFolder, Stored]:
    """The results of a finished workflow, imported once; only read by tests."""
    folder = ResultsFolder(tmp_path_factory.mktemp("finished"))
    shutil.copy(template, folder.root.parent / "mlflow.db")
    assert track(folder.fill().root, strict=True) == 0
    return folder, Stored(folder.root)


@pytest.fixture
def stored(results: ResultsFolder) -> Callable[[], Stored]:
    return lambda: Stored(results.root)
