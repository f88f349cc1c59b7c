"""The cache of coded images: whole entries only, bounded, never a wrong image."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from icmbench.codecs.base import decoded_digest
from icmbench.codecs.classical.base import Implementation
from icmbench.codecs.classical.cache import BITSTREAM, DECODED, Cache, entry_key
from icmbench.commands.cache import prune, show
from icmbench.utils.files import link

FACTS = {"implementation": "toy 1.0, quality 3, effort 2", "bits": 24}


def test_key_changes_with_image_program_and_setting() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    turned = image.reshape(6, 4, 3)  # the same bytes in another shape
    base = Implementation("toy", "1.0", {"qp": 37}, {"toy": "aa"})
    others = [
        Implementation("toy", "1.1", {"qp": 37}, {"toy": "aa"}),
        Implementation("toy", "1.0", {"qp": 38}, {"toy": "aa"}),
        Implementation("toy", "1.0", {"qp": 37}, {"toy": "ab"}),
    ]
    keys = {entry_key(decoded_digest(image), item.identity()) for item in [base, *others]}
    keys.add(entry_key(decoded_digest(turned), base.identity()))
    assert len(keys) == 5


def test_finds_what_was_stored(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1)
    assert cache.find("ab" * 32) is None
    cache.store("ab" * 32, b"bits", b"png", FACTS)
    entry = cache.find("ab" * 32)
    assert entry is not None and entry.facts["bits"] == 24
    assert (entry.folder / BITSTREAM).read_bytes() == b"bits"
    assert (entry.folder / DECODED).read_bytes() == b"png"
    assert not list((tmp_path / "cache").glob(".new-*"))


def test_storing_twice_keeps_one(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1)
    cache.store("ab" * 32, b"bits", b"png", FACTS)
    entry = cache.store("ab" * 32, b"bits", b"png", FACTS)
    assert (entry.folder / BITSTREAM).read_bytes() == b"bits"
    assert len(list(cache.entries())) == 1


@pytest.mark.parametrize("damage", ["bitstream", "image", "facts", "missing"])
def test_a_damaged_entry_is_no_entry(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path, 1)
    entry = cache.store("ab" * 32, b"bits", b"png", FACTS)
    if damage == "missing":
        (entry.folder / DECODED).unlink()
    else:
        name = {"bitstream": BITSTREAM, "image": DECODED, "facts": "entry.json"}[damage]
        (entry.folder / name).write_bytes(b"{")
    assert cache.find("ab" * 32) is None
    assert not entry.folder.exists()
    cache.store("ab" * 32, b"bits", b"png", FACTS)
    assert cache.find("ab" * 32) is not None


def test_limit_removes_what_was_not_used_for_longest(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2500 / 1e9)
    names = ["aa" * 32, "bb" * 32, "cc" * 32]
    for age, name in zip((30, 20, 10), names, strict=True):
        entry = cache.store(name, bytes(500), bytes(500), FACTS)
        then = time.time() - age
        os.utime(entry.folder / "entry.json", (then, then))
    assert cache.find(names[0]) is not None  # now it is the one used last
    assert cache.enforce_limit() == 1000
    assert [cache.find(name) is not None for name in names] == [True, False, True]


def test_results_keep_what_was_pruned(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1)
    entry = cache.store("ab" * 32, b"bits", b"png", FACTS)
    target = tmp_path / "result" / "decoded" / "1.png"
    link(entry.folder / DECODED, target)
    link(entry.folder / DECODED, target)  # again, as a repeated job does
    assert target.stat().st_nlink == 2
    said = prune(cache, limit_gb=0)
    assert "0 images" in said
    assert target.read_bytes() == b"png"


def test_link_copies_where_links_do_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    source = tmp_path / "a"
    source.write_bytes(b"png")
    link(source, tmp_path / "far" / "b")
    assert (tmp_path / "far" / "b").read_bytes() == b"png"


def test_show_and_prune_by_implementation_and_age(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1)
    old = cache.store("aa" * 32, bytes(10), bytes(10), FACTS)
    cache.store("bb" * 32, bytes(10), bytes(10), {**FACTS, "implementation": "other 2, qp 4, x"})
    cache.store("cc" * 32, bytes(10), bytes(10), {**FACTS, "implementation": "third 3, qp 4, x"})
    then = time.time() - 10 * 24 * 3600
    os.utime(old.folder / "entry.json", (then, then))
    assert "3 images" in show(cache) and "toy 1.0, quality 3" in show(cache)
    assert "2 images" in prune(cache, unused_days=7)
    assert "1 images" in prune(cache, implementation="other 2")
    assert "third 3" in show(cache)
