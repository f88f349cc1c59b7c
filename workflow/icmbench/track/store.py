"""The MLflow store: where it is, its creation, one writer at a time, errors in one line."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from icmbench.errors import UserError
from icmbench.utils.files import atomic_path
from icmbench.utils.secrets import has_credentials, hide_secrets

# MLflow's own defaults make every call to a dead server block for four minutes. No job may wait
# longer than five seconds for one, whenever it dies; where a person waits, it gets more time. A
# user's own values are left alone.
_HASTY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "4"}
_PATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
_CONNECT_S = 4.0
_PROBE_S = (2.0, 2.5)  # to connect, and to answer
_LOCK_S = 600.0
_SQLITE_HEADER = b"SQLite format 3\0"


@dataclass(frozen=True)
class Address:
    """Where runs go: MLflow's tracking address and the folder that belongs to it.

    Attributes:
        uri: tracking address, with credentials where it has them.
        results: the folder of all scales, which holds ``mlartifacts`` and lock files.
    """

    uri: str
    results: Path

    @property
    def shown(self) -> str:
        """The address without credentials."""
        parts = urlsplit(self.uri)
        if self.sqlite_file is not None or not (has_credentials(self.uri) or parts.query):
            return self.uri
        host = parts.netloc.rpartition("@")[2]
        shown = parts._replace(
            netloc=f"***@{host}" if has_credentials(self.uri) else host,
            query="***" if parts.query else "",
        )
        return urlunsplit(shown)

    @property
    def is_server(self) -> bool:
        """Whether a tracking server stands between us and the store."""
        return urlsplit(self.uri).scheme in ("http", "https")

    @property
    def sqlite_file(self) -> Path | None:
        """The database file of an SQLite address, else None."""
        if not self.uri.startswith("sqlite:///"):
            return None
        name = self.uri.removeprefix("sqlite:///").partition("?")[0]
        return Path(name).absolute()

    @property
    def artifact_root(self) -> str | None:
        """Where new experiments keep artefacts; None leaves it to the server."""
        return None if self.is_server else (self.results / "mlartifacts").as_uri()


def resolve_address(root: Path, uri: str | None, configured: str | None) -> Address:
    """Choose the store: ``uri``, else MLFLOW_TRACKING_URI, else ``configured``, else SQLite.

    Args:
        root: ``<results>/<scale>``.
        uri: from the command line.
        configured: key ``tracking.uri`` of the configuration.
    """
    results = root.absolute().parent
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or configured
    return Address(chosen or f"sqlite:///{results / 'mlflow.db'}", results)


@contextmanager
def open_store(address: Address, patient: bool = False) -> Iterator[Any]:
    """Yield an ``mlflow.MlflowClient`` on a store that exists and answers, as its only writer.

    Every failure of the store inside the block becomes a :class:`UserError`.

    Args:
        address: of the store.
        patient: give a slow server 30 s a call and three tries, not 4 s and one.

    Raises:
        UserError: for a store that cannot be reached, opened or written; within five seconds where
            nothing answers, unless patient.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    limits = _PATIENT if patient else _HASTY
    unset = [name for name in limits if name not in os.environ]
    os.environ.update({name: limits[name] for name in unset})
    try:
        with _one_writer(address), _one_line_errors(address):
            yield _connect(address)
    finally:
        for name in unset:
            os.environ.pop(name, None)


def _connect(address: Address) -> Any:
    # Before the import of MLflow, which takes seconds: a dead address is known sooner.
    _require_answer(address)
    if address.sqlite_file is not None:
        _require_database(address, address.sqlite_file)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address.uri)
    client.search_experiments(max_results=1)
    return client


def _require_answer(address: Address) -> None:
    """Ask a server whether it is there, and try the port of a database server.

    Any answer will do, a refusal too: what it means is for MLflow to say. SQLAlchemy itself would
    retry for minutes.
    """
    parts = urlsplit(address.uri)
    if address.is_server:
        _require_server(address)
        return
    if not parts.hostname or not parts.port:
        return
    try:
        socket.create_connection((parts.hostname, parts.port), _CONNECT_S).close()
    except OSError as error:
        raise _failure(address, error) from error


def _require_server(address: Address) -> None:
    import requests

    verified = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1")
    url = f"{address.uri.rstrip('/')}/health"
    # Streamed, so that the limit of time is that of the first line of the answer.
    with requests.get(url, timeout=_PROBE_S, allow_redirects=False, stream=True, verify=verified):
        pass


def _require_database(address: Address, path: Path) -> None:
    """Create an SQLite store that is not there.

    MLflow fills a new file by some fifty migrations; a second process that looks on, or a kill in
    the middle, leaves it broken for good. So it is made beside its place and moved there.
    """
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as stream:
            if stream.read(len(_SQLITE_HEADER)) != _SQLITE_HEADER:
                raise UserError(
                    f"{path}: not an SQLite database; move it away and run again, the runs are "
                    "imported anew from the result files"
                )
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # After the import, which sets MLflow's own levels: two lines for each new store.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    with atomic_path(path) as temporary:
        store = SqlAlchemyStore(f"sqlite:///{temporary}", address.artifact_root)
        store.engine.dispose()


@contextmanager
def _one_writer(address: Address) -> Iterator[None]:
    """Hold the store's lock file: two importers at once would create the same run twice."""
    from filelock import FileLock, Timeout

    database = address.sqlite_file
    path = database.with_name(f"{database.name}.lock") if database else None
    path = path or address.results / "mlflow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=_LOCK_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{path}: another import has held this lock for {_LOCK_S:.0f} s; wait for it or end it"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _one_line_errors(address: Address) -> Iterator[None]:
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (RequestException, SQLAlchemyError, OSError) as error:
        raise _failure(address, error) from error
    except Exception as error:
        # Only MLflow's own; its class is compared by name because importing it takes seconds and
        # may be what has just failed.
        if type(error).__module__.partition(".")[0] != "mlflow":
            raise
        raise _failure(address, error) from error


def _failure(address: Address, error: Exception) -> UserError:
    first: BaseException = error  # what started it: "Connection refused" under three wrappings
    while first.__cause__ or first.__context__:
        first = first.__cause__ or first.__context__ or first
    text = " ".join(str(first).split()) or type(first).__name__
    text = hide_secrets(text, address.uri)
    if len(text) > 300:
        text = f"{text[:297]}..."
    return UserError(
        f"MLflow at {address.shown} failed: {text}; the results are complete without it: mend the "
        "server or set MLFLOW_TRACKING_URI, then import again"
    )
