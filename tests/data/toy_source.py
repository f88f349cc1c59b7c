from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml

from icmbench.data.fetch import fetch


@dataclass
class Server:
    """A loopback file server that misbehaves on request."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: bool = True
    length: bool = True
    cut: list[int] = field(default_factory=list)  # bytes of the body after which each answer stops
    hold: int | None = None  # bytes of the body after which an answer waits
    status: int | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append((request.path, request.headers.get("Range")))
        body = self.files.get(request.path.lstrip("/"))
        if self.status is not None or body is None:
            request.send_error(self.status or 404)
            return
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = 0
        if wanted and self.ranges and request.headers.get("If-Range", tag) == tag:
            start = int(wanted[1])
        if start and start >= len(body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(body)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.etag:
            request.send_header("ETag", tag)
        if self.length:
            request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        rest = body[start:]
        rest = rest[: self.cut.pop(0)] if self.cut else rest
        held = len(rest) if self.hold is None else self.hold
        request.wfile.write(rest[:held])
        self.sent += len(rest[:held])
        if self.hold is not None:
            self.released.wait(20)


def zip_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


class Toy:
    """A data set of four images and a list, in one zip and one plain file."""

    def __init__(self, root: Path, server: Server) -> None:
        self.server, self.data_dir, self.catalogue = server, root / "data", root / "catalogue.yaml"
        # Several read chunks long, so that a break in the middle means something.
        noise = b"".join(hashlib.sha512(bytes([i % 256, i // 256])).digest() for i in range(4096))
        self.images = {f"{i}.png": bytes([i]) + noise for i in range(4)}
        self.list = b"0 1 2 3\n"
        self.zip = zip_bytes(
            {"top/readme.txt": b"not part of it"}
            | {f"top/img/{name}": content for name, content in self.images.items()}
        )
        server.files |= {"toy.zip": self.zip, "list.txt": self.list}
        self.entry: dict[str, Any] = {
            "title": "Toy",
            "version": "1",
            "homepage": "http://example.org/",
            "licence": "none",
            "licence_url": "http://example.org/",
            "account": {"needed": False},
            "citation": "nobody",
            "archives": [
                {
                    "name": "toy.zip",
                    "url": f"{server.address}/toy.zip",
                    "md5": hashlib.md5(self.zip).hexdigest(),
                    "bytes": len(self.zip),
                    "unpack": "zip",
                    "strip": 1,
                },
                {
                    "name": "list.txt",
                    "url": f"{server.address}/list.txt",
                    "sha256": hashlib.sha256(self.list).hexdigest(),
                    "unpack": "none",
                },
            ],
            "layout": [{"path": "img/*.png", "count": 4}, {"path": "list.txt"}],
        }
        self.save()

    @property
    def folder(self) -> Path:
        return self.data_dir / "toy"

    @property
    def manifest(self) -> Path:
        return self.data_dir / "toy.manifest.json"

    @property
    def part(self) -> Path:
        return self.data_dir / "downloads" / "toy" / "toy.zip.part"

    def save(self) -> None:
        self.catalogue.write_text(yaml.safe_dump({"toy": self.entry}))

    def fetch(self, mirror: Path | None = None, verify: bool = False) -> Path:
        return fetch(
            "toy", data_dir=self.data_dir, mirror=mirror, catalogue=self.catalogue, verify=verify
        )

    def change_zip(self, members: dict[str, bytes]) -> None:
        """Serve another archive, with its checksum in the catalogue."""
        self.zip = zip_bytes(members)
        self.server.files["toy.zip"] = self.zip
        self.entry["archives"][0] |= {
            "md5": hashlib.md5(self.zip).hexdigest(),
            "bytes": len(self.zip),
        }
        self.save()

    def write_unpacked(self, folder: Path, images: int = 4) -> None:
        (folder / "img").mkdir(parents=True)
        for name in list(self.images)[:images]:
            (folder / "img" / name).write_bytes(self.images[name])
        (folder / "list.txt").write_bytes(self.list)

    def assert_whole(self) -> None:
        found = {p.name: p.read_bytes() for p in (self.folder / "img").iterdir()}
        assert found == self.images
        assert (self.folder / "list.txt").read_bytes() == self.list
        assert sorted(p.name for p in self.folder.iterdir()) == ["img", "list.txt"]

    def assert_nothing(self) -> None:
        """No data set, no manifest, no temporary folder that a later run might take for one."""
        assert not self.folder.exists()
        assert not self.manifest.exists()
        assert not (self.data_dir / ".icmbench" / "toy.staging").exists()
