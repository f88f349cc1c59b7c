"""Weights from an address: fetched once, verified, from a mirror if it has them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from toy_source import Toy

from icmbench.data.weights import fetch_weights
from icmbench.errors import UserError


def test_weights_are_fetched_once_and_verified(toy: Toy, tmp_path: Path) -> None:
    url, digest = f"{toy.server.address}/toy.zip", hashlib.sha256(toy.zip).hexdigest()
    output = tmp_path / "data/weights/w.pth"
    assert fetch_weights(url, digest, output, None) == output
    assert output.read_bytes() == toy.zip
    asked = len(toy.server.requests)
    fetch_weights(url, digest, output, None)
    assert len(toy.server.requests) == asked
    output.write_bytes(b"other")
    with pytest.raises(UserError, match=r"w\.pth.*sha256"):
        fetch_weights(url, digest, output, None)
    output.unlink()
    with pytest.raises(UserError, match=r"toy\.zip.*sha256"):
        fetch_weights(url, "0" * 64, output, None)
    assert not output.exists()


def test_weights_of_a_mirror_need_no_server(toy: Toy, tmp_path: Path) -> None:
    digest, mirror = hashlib.sha256(b"weights").hexdigest(), tmp_path / "mirror"
    (mirror / "weights").mkdir(parents=True)
    (mirror / "weights/w.pth").write_bytes(b"weights")
    output = tmp_path / "data/weights/w.pth"
    fetch_weights(f"{toy.server.address}/gone", digest, output, mirror)
    assert output.read_bytes() == b"weights"
    assert not toy.server.requests
