"""A tracking server that is absent, refuses, hangs or dies: nothing is lost, nothing waits."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TRACK = Path(__file__).parents[1] / "track"
sys.path.insert(0, str(TRACK))

from track_results import RUNS, ResultsFolder  # noqa: E402

from icmbench.track import track  # noqa: E402

#: What no job may be delayed by more than.
LIMIT_S = 5.0
PASSWORD = "canary-5fd1c0ffee"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACKING_URI", "HTTP_REQUEST_MAX_RETRIES", "HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder(tmp_path).fill()


@pytest.fixture(scope="session", autouse=True)
def _import_time() -> None:
    """MLflow is imported beforehand: its seconds are not the server's."""
    import mlflow  # noqa: F401


Behaviour = Callable[[BaseHTTPRequestHandler], None]


class Misbehaving:
    """A server on loopback that answers as it is told.

    Attributes:
        requests: how many came.
        behave: what is done with the next ones.
    """

    def __init__(self, behave: Behaviour) -> None:
        self.requests, self.behave = 0, behave
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                outer.requests += 1
                outer.behave(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> Misbehaving:
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.http.shutdown()
        self.http.server_close()

    def hang(self, request: BaseHTTPRequestHandler) -> None:
        """Take the request and never answer."""
        self.ended.wait(60)

    def drip(self, request: BaseHTTPRequestHandler) -> None:
        """Answer with a status line, and then nothing."""
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        request.wfile.flush()
        self.ended.wait(60)


def refuse(status: int) -> Behaviour:
    """Return what answers every request with an error."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        body = b'{"error_code": "INTERNAL_ERROR", "message": "no"}'
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return behave


def _result_files(root: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "tracking.json" and path.suffix != ".lock"
    }


def _tracked(results: ResultsFolder, address: str) -> tuple[float, dict[str, Any]]:
    """Run the workflow's command; return its seconds and what it says."""
    before = _result_files(results.root)
    began = time.monotonic()
    assert track(results.root, uri=address) == 0
    seconds = time.monotonic() - began
    assert _result_files(results.root) == before
    return seconds, json.loads((results.root / "tracking.json").read_text())


def _with_password(address: str) -> str:
    return address.replace("://", f"://me:{PASSWORD}@")


def _closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_absent(results: ResultsFolder, capsys: pytest.CaptureFixture[str]) -> None:
    seconds, said = _tracked(results, _with_password(_closed_port()))
    assert seconds < LIMIT_S
    assert said["status"] == "failed"
    assert PASSWORD not in json.dumps(said) + "".join(capsys.readouterr())


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_refusing(results: ResultsFolder, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with Misbehaving(refuse(status)) as server:
        seconds, said = _tracked(results, _with_password(server.address))
        assert server.requests >= 2  # the question whether it is there, and MLflow's own
    assert seconds < LIMIT_S
    assert said["status"] == "failed"
    assert PASSWORD not in json.dumps(said) + "".join(capsys.readouterr())


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_hanging(results: ResultsFolder, how: str) -> None:
    with Misbehaving(refuse(500)) as server:
        server.behave = getattr(server, how)
        seconds, said = _tracked(results, server.address)
    assert seconds < LIMIT_S
    assert said["status"] == "failed"


def test_a_port_that_takes_connections_and_never_reads(results: ResultsFolder) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        seconds, said = _tracked(results, address)
    assert seconds < LIMIT_S
    assert said["status"] == "failed"


# --- a real server that dies in the middle ----------------------------------------------------


@contextmanager
def _mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'server.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **quiet}, start_new_session=True
        )
    try:
        _wait_for(port, server)
        yield server
    finally:
        _kill(server)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    import requests

    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.3)
    raise AssertionError("the server did not start")


def _kill(server: subprocess.Popen[bytes]) -> None:
    """Kill the server with its workers, whose process group is its own."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(30)


class Proxy(Misbehaving):
    """Passes requests on to a server, until it has passed so many; then it breaks."""

    def __init__(self, target: str, after: int, how: str) -> None:
        super().__init__(self._pass)
        self.target, self.after, self.how = target, after, how
        self.broke: float | None = None

    def _pass(self, request: BaseHTTPRequestHandler) -> None:
        import requests

        if self.requests > self.after:
            self.broke = self.broke or time.monotonic()
            if self.how == "hang":
                self.hang(request)
            request.close_connection = True
            request.connection.close() if self.how == "close" else None
            return
        length = int(request.headers.get("Content-Length") or 0)
        headers = {k: v for k, v in request.headers.items() if k.lower() != "host"}
        answer = requests.request(
            request.command,
            self.target + request.path,
            data=request.rfile.read(length),
            headers=headers,
            timeout=60,
        )
        request.send_response(answer.status_code)
        request.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        request.send_header("Content-Length", str(len(answer.content)))
        request.end_headers()
        request.wfile.write(answer.content)


def _stored(address: str) -> dict[str, Any]:
    """Return what a store holds, without its identifiers."""
    from track_store import Store

    store = Store.__new__(Store)
    from mlflow import MlflowClient

    store.client = MlflowClient(address)
    content = store.content()
    for run in content.values():
        run["metrics"] = {name: sorted(values) for name, values in run["metrics"].items()}
        run.pop("weights")
        # Where it went on is the number of bytes sent; how often it began is not part of it.
        run["tags"].pop("mlflow.note.content", None)
    return content


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["hang", "close"])
def test_dying_in_the_middle_and_completed_by_a_later_import(
    results: ResultsFolder, tmp_path: Path, how: str
) -> None:
    undisturbed = f"sqlite:///{tmp_path / 'undisturbed.db'}"
    assert track(results.root, uri=undisturbed, strict=True) == 0
    port = int(_closed_port().rpartition(":")[2])
    address = f"http://127.0.0.1:{port}"
    with _mlflow_server(tmp_path / "server", port):
        for after in (5, 20, 40):
            with Proxy(address, after, how) as proxy:
                _, said = _tracked(results, proxy.address)
                ended = time.monotonic()
            assert said["status"] == "failed", after
            assert proxy.broke is not None
            assert ended - proxy.broke < LIMIT_S, after
        # The command of docs/tracking.md.
        done = subprocess.run(
            [sys.executable, "-m", "icmbench", "track", str(results.root), "--strict"],
            env={**os.environ, "MLFLOW_TRACKING_URI": address},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        stored = _stored(address)
    assert len(stored) == RUNS
    assert stored == _stored(undisturbed)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_killed_in_the_middle_and_started_again(results: ResultsFolder, tmp_path: Path) -> None:
    """The server's own processes are killed while runs are being sent to it."""
    port = int(_closed_port().rpartition(":")[2])
    address = f"http://127.0.0.1:{port}"
    killed: list[float] = []
    with _mlflow_server(tmp_path / "server", port) as server:
        proxy = Proxy(address, 10**9, "hang")
        passing = proxy.behave

        def kill_later(request: BaseHTTPRequestHandler) -> None:
            if proxy.requests == 40:
                _kill(server)
                killed.append(time.monotonic())
            try:
                passing(request)
            except OSError:  # nobody is there to pass it on to
                request.close_connection = True

        proxy.behave = kill_later
        with proxy:
            _, said = _tracked(results, proxy.address)
            ended = time.monotonic()
    assert said["status"] == "failed"
    assert killed and ended - killed[0] < LIMIT_S
    with _mlflow_server(tmp_path / "server", port):
        assert track(results.root, uri=address, strict=True) == 0
        stored = _stored(address)
        again = track(results.root, uri=address, strict=True)
        assert again == 0 and _stored(address) == stored
    assert len(stored) == RUNS
    said = json.loads((results.root / "tracking.json").read_text())
    assert (said["status"], said["created"], said["values"]) == ("done", 0, 0)
