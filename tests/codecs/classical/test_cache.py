"""The cache of coded images: whole entries only, bounded, never a wrong image."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from icmbench.codecs.base import decoded_digest
from icmbench.codecs.classical.base import Implementation
from icmbench.codecs.classical.cache import Cache, CachedImage, entry_key
from icmbench.commands.cache import prune, show

FACTS = {"implementation": "toy 1.0, quality 3, effort 2", "bits": 24}
IMAGE = CachedImage(b"bits" * 100, b"png" * 100, FACTS)
KEYS = ["aa" * 32, "bb" * 32, "cc" * 32]


def set_age(cache: Cache, key: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(cache.folder / key[:2] / f"{key}.zip", (then, then))


def test_entry_key_changes_with_image_program_and_setting() -> None:
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


def test_cache_finds_what_was_stored(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 1)
    assert cache.find(KEYS[0]) is None
    for _ in range(2):  # twice, as two jobs may
        cache.store(KEYS[0], IMAGE)
        assert cache.find(KEYS[0]) == IMAGE
    assert len([*(tmp_path / "cache").rglob("*.zip")]) == 1


@pytest.mark.parametrize("position", [45, 460, 800, -30])
def test_cache_removes_a_damaged_entry(tmp_path: Path, position: int) -> None:
    cache = Cache(tmp_path, 1)
    cache.store(KEYS[0], IMAGE)
    (entry,) = cache.entries()
    data = bytearray(entry.path.read_bytes())
    data[position] ^= 1
    entry.path.write_bytes(data)
    assert cache.find(KEYS[0]) in (None, IMAGE)  # never another image
    cache.store(KEYS[0], IMAGE)
    assert cache.find(KEYS[0]) == IMAGE


def test_enforce_limit_removes_the_least_recently_used(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1)
    for age, key in zip((30, 20, 10), KEYS, strict=True):
        cache.store(key, IMAGE)
        set_age(cache, key, age)
    assert cache.find(KEYS[0]) is not None  # now it is the last one used
    size = next(cache.entries()).size
    cache = Cache(tmp_path, 2.5 * size / 1e9)
    cache.enforce_limit()
    assert [cache.find(key) is not None for key in KEYS] == [True, False, True]


def test_show_and_prune_by_implementation_and_age(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1)
    for key, text in zip(KEYS, (FACTS["implementation"], "other 2, qp 4", "third 3"), strict=True):
        cache.store(key, CachedImage(b"", b"", {"implementation": text}))
    set_age(cache, KEYS[0], 10 * 24 * 3600)
    shown = show(cache)
    assert "3 images" in shown and "toy 1.0, quality 3" in shown
    assert "2 images" in prune(cache, unused_days=7)
    assert "1 images" in prune(cache, implementation="other 2")
    assert "third 3" in show(cache)
    assert "0 images" in prune(cache, limit_gb=0)
