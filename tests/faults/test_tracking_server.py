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

from results_folder import RUNS, ResultsFolder  # noqa: E402
from stored import Stored  # noqa: E402

from icmbench.track import track  # noqa: E402
from icmbench.utils.files import read_json  # noqa: E402

#: The import may take longer by this: one call that fails after 10 s.
LIMIT_S = 15.0
PASSWORD = "canary-5fd1c0ffee"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import mlflow  # noqa: F401  # the seconds of its import are not the server's

    limits = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")
    for name in ("MLFLOW_TRACKING_URI", *limits):
        monkeypatch.delenv(name, raising=False)
    yield
    for name in limits:
        os.environ.pop(name, None)


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder(tmp_path).fill()


Behaviour = Callable[[BaseHTTPRequestHandler], None]


class Misbehaving:
    """A server on loopback.

    Attributes:
        behave: answers a request.
        requests: number of requests.
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
    """Return a behaviour that answers every request with an error."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        body = b'{"error_code": "INTERNAL_ERROR", "message": "no"}'
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return behave


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _server(kind: str) -> Iterator[str]:
    """Yield the address of a server that does not work."""
    if kind == "absent":
        yield f"http://127.0.0.1:{_free_port()}"
        return
    with Misbehaving(refuse(500)) as server:
        if kind != "refuses":
            server.behave = getattr(server, kind)
        yield server.address


@pytest.mark.parametrize("kind", ["absent", "refuses", "hang", "drip"])
def test_track_does_not_wait_for_a_server(
    results: ResultsFolder, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = {path: path.read_bytes() for path in results.root.rglob("*") if path.is_file()}
    with _server(kind) as address:
        began = time.monotonic()
        status = track(results.root, uri=address.replace("://", f"://me:{PASSWORD}@"))
    assert time.monotonic() - began < LIMIT_S
    assert status == 0
    marker = read_json(results.root / "tracking.json")
    assert marker["status"] == "failed"
    assert address.removeprefix("http://") in marker["problems"][0]
    assert PASSWORD not in json.dumps(marker) + caplog.text
    assert all(path.read_bytes() == content for path, content in files.items())


# --- a real server that dies in the middle ----------------------------------------------------


@contextmanager
def _mlflow_server(folder: Path, port: int) -> Iterator[None]:
    import requests

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
        end = time.monotonic() + 120
        while True:
            assert time.monotonic() < end and server.poll() is None, "the server did not start"
            with suppress(requests.RequestException):
                if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok:
                    break
            time.sleep(0.3)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # with its workers
        server.wait(30)


class Proxy(Misbehaving):
    """Passes the first ``limit`` requests to a server; then it hangs."""

    def __init__(self, target: str, limit: int) -> None:
        super().__init__(self._pass)
        self.target, self.limit = target, limit
        self.broke: float | None = None

    def _pass(self, request: BaseHTTPRequestHandler) -> None:
        import requests

        if self.requests > self.limit:
            self.broke = self.broke or time.monotonic()
            self.hang(request)
            return
        length = int(request.headers.get("Content-Length") or 0)
        answer = requests.request(
            request.command,
            self.target + request.path,
            data=request.rfile.read(length),
            headers={k: v for k, v in request.headers.items() if k.lower() != "host"},
            timeout=60,
        )
        request.send_response(answer.status_code)
        request.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        request.send_header("Content-Length", str(len(answer.content)))
        request.end_headers()
        request.wfile.write(answer.content)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_track_completes_what_a_dying_server_interrupted(
    results: ResultsFolder, tmp_path: Path
) -> None:
    undisturbed = f"sqlite:///{tmp_path / 'undisturbed.db'}"
    assert track(results.root, uri=undisturbed, strict=True) == 0
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        del os.environ[name]
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    with _mlflow_server(tmp_path, port):
        for limit in (5, 20, 40):
            with Proxy(address, limit) as proxy:
                assert track(results.root, uri=proxy.address) == 0
                ended = time.monotonic()
            assert read_json(results.root / "tracking.json")["status"] == "failed"
            assert proxy.broke is not None and ended - proxy.broke < LIMIT_S
        assert track(results.root, uri=address, strict=True) == 0
        stored = Stored(results.root, address).content()
    assert len(stored) == RUNS
    expected = Stored(results.root, undisturbed).content()
    for run in (*stored.values(), *expected.values()):
        run["versions"] = len(run["versions"])
    assert stored == expected
