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
from icmbench.files import atomic_path

# MLflow's own defaults make every call to a dead server block for four minutes. The first call gets
# the stricter pair: refused at once, silent after 8 s. A user's own values are left alone.
_PROBE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "4"}
_WORK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
_CONNECT_S = 4.0
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
        if "@" not in parts.netloc:
            return self.uri
        return urlunsplit(parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}"))

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
def open_store(address: Address) -> Iterator[Any]:
    """Yield an ``mlflow.MlflowClient`` on a store that exists and answers, as its only writer.

    Every failure of the store inside the block becomes a :class:`UserError`.

    Raises:
        UserError: for a store that cannot be reached, opened or written, within about ten seconds
            where nothing answers.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    unset = [name for name in _PROBE if name not in os.environ]
    os.environ.update({name: _PROBE[name] for name in unset})
    try:
        with _one_writer(address), _one_line_errors(address):
            yield _connect(address, unset)
    finally:
        for name in unset:
            os.environ.pop(name, None)


def _connect(address: Address, unset: list[str]) -> Any:
    # Before the import of MLflow, which takes seconds: a dead address is known sooner.
    _require_answer(address)
    if address.sqlite_file is not None:
        _require_database(address, address.sqlite_file)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address.uri)
    client.search_experiments(max_results=1)
    os.environ.update({name: _WORK[name] for name in unset})
    return client


def _require_answer(address: Address) -> None:
    """Try the port of a database server: SQLAlchemy itself would retry for minutes."""
    parts = urlsplit(address.uri)
    if address.is_server or not parts.hostname or not parts.port:
        return
    try:
        socket.create_connection((parts.hostname, parts.port), _CONNECT_S).close()
    except OSError as error:
        raise _failure(address, error) from error


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
    if address.uri != address.shown:
        text = text.replace(urlsplit(address.uri).netloc.rpartition("@")[0], "***")
    if len(text) > 300:
        text = f"{text[:297]}..."
    return UserError(
        f"MLflow at {address.shown} failed: {text}; the results are complete without it: mend the "
        "server or set MLFLOW_TRACKING_URI, then import again"
    )
