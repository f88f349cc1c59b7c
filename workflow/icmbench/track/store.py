"""The MLflow store: its address, its creation, one importer at a time, errors in one line."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from icmbench.errors import UserError, damaged_file
from icmbench.utils.files import atomic_path
from icmbench.utils.secrets import hide_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

# With MLflow's own limits each call to a dead server blocks for four minutes. A workflow must not
# wait for one; with ``--strict`` or ``--watch`` a person does.
_HASTY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
_PATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
_CONNECT_S = 3.0
_LOCK_S = 600.0
_SQLITE = "sqlite:///"
# Modules whose errors are failures of the store and not defects of the importer.
_FOREIGN = ("mlflow", "sqlalchemy", "filelock")


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
def open_store(root: Path, uri: str, patient: bool = False) -> Iterator[MlflowClient]:
    """Yield a client of a store that exists and answers, as its only importer here.

    Args:
        root: ``<results>/<scale>``; the lock file of a server's store lies beside it.
        uri: see :func:`store_address`.
        patient: give a slow server 30 s a call and three tries, not 3 s and one.

    Raises:
        UserError: for every failure of the store, without credentials.
    """
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        **(_PATIENT if patient else _HASTY),
    }.items():
        os.environ.setdefault(name, value)
    database = Path(uri.removeprefix(_SQLITE).partition("?")[0]).absolute()
    local = uri.startswith(_SQLITE)
    lock = database if local else root.absolute().parent / "mlflow"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{lock}.lock", timeout=_LOCK_S):
            if local:
                _require_database(database, artifact_root(root, uri))
            else:
                _require_port(uri)
            from mlflow import MlflowClient

            yield MlflowClient(tracking_uri=uri)
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if isinstance(error, UserError) or not (isinstance(error, OSError) or library in _FOREIGN):
            raise
        raise _failure(uri, error) from error


def _require_database(path: Path, artifacts: str | None) -> None:
    """Create an SQLite store that does not exist.

    MLflow fills a new file by some fifty migrations. A kill in the middle, or a second process that
    opens the file meanwhile, leaves it broken, so it is renamed into place when it is complete.
    """
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as stream:
            if not stream.read(16).startswith(b"SQLite format 3"):
                # SQLAlchemy would retry for most of an hour.
                advice = "move it away and import again: all runs come from the result files"
                raise damaged_file(path, "not an SQLite database", advice)
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # After the import, which sets MLflow's own levels.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    with atomic_path(path) as temporary:
        SqlAlchemyStore(f"{_SQLITE}{temporary}", artifacts).engine.dispose()


def _require_port(uri: str) -> None:
    """Connect to a database server once: SQLAlchemy would retry for minutes.

    HTTP servers need no such check: the limits above hold for MLflow's first call.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") and parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), _CONNECT_S).close()


def _failure(uri: str, error: Exception) -> UserError:
    first: BaseException = error  # the cause: "Connection refused" under three wrappers
    while first.__cause__ or first.__context__:
        first = first.__cause__ or first.__context__ or first
    text = hide_secrets(" ".join(str(first).split()) or type(first).__name__, uri)
    return UserError(
        f"MLflow at {hide_secrets(uri, uri)} failed: {text[:300]}; the results are complete "
        "without it: repair the server or set MLFLOW_TRACKING_URI, then import again"
    )
