from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from toy_source import Server, Toy

from icmbench.data import archives
from icmbench.data.specs import DatasetSpec


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{http.server_address[1]}"
    yield state
    state.released.set()
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def toy(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.setattr(archives, "_TRIES", 3)
    monkeypatch.setattr(archives, "_BACKOFF_S", 0.01)
    monkeypatch.setattr(archives, "_TIMEOUT_S", 5.0)
    return Toy(tmp_path, server)


@pytest.fixture(scope="session")
def fetched() -> Any:
    """Return a function that gives the spec of a fetched data set with one place per split."""

    def make(folder: Path, name: str, place: dict[str, Any], **settings: Any) -> DatasetSpec:
        splits = dict.fromkeys(("train", "test"), place)
        return DatasetSpec.model_validate(
            {
                "role": "images",
                "folder": str(folder),
                "manifest": f"{folder}.manifest.json",
                "settings": {"source": "catalogue", "name": name, "splits": splits, **settings},
            }
        )

    return make
