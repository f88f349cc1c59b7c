"""The MLflow store: its address, its creation, one importer at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from icmbench.errors import not_installed
from icmbench.utils.files import atomic_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SETTINGS = {
    # With MLflow's own limits each call to a dead server blocks for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_LOCK_S = 600.0
_SQLITE = "sqlite:///"


def store_address(root: Path, uri: str | None, configured: str | None) -> str:
    """Return ``uri``, else MLFLOW_TRACKING_URI, else ``configured``, else an SQLite file.

    Args:
        root: ``<results>/<scale>``.
        uri: from the command line.
        configured: key ``tracking.uri`` of the configuration.
    """
    default = f"{_SQLITE}{root.absolute().parent / 'mlflow.db'}"
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or configured or default


def artifact_root(root: Path, uri: str) -> str | None:
    """Return where new experiments keep artefacts; None leaves it to a server."""
    if uri.startswith(("http://", "https://")):
        return None
    return (root.absolute().parent / "mlartifacts").as_uri()


@contextmanager
def open_store(root: Path, uri: str) -> Iterator[MlflowClient]:
    """Yield a client of a store, as its only importer on this machine.

    Args:
        root: ``<results>/<scale>``; the lock file lies beside it.
        uri: see :func:`store_address`. The file of an SQLite store is created.

    Raises:
        UserError: where MLflow is not installed.
    """
    if find_spec("mlflow") is None:
        raise not_installed("mlflow")
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    with FileLock(root.absolute().parent / "mlflow.lock", timeout=_LOCK_S):
        if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists():
            # MLflow fills a new file in many steps; a kill between them would leave it broken.
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            with atomic_path(uri.removeprefix(_SQLITE)) as temporary:
                SqlAlchemyStore(f"{_SQLITE}{temporary}", artifact_root(root, uri)).engine.dispose()
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri=uri)
