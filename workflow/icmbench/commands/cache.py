"""What ``python -m icmbench cache`` does: inspect and prune the cache of classical codecs."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from icmbench.codecs.classical.cache import Cache
from icmbench.config.load import load_run

_DAY = 24 * 3600
_GB = 1e9


def open_cache(config: Path) -> Cache:
    """Return the cache that a configuration names."""
    run = load_run(config)
    directory = run.cache.directory or str(Path(run.results) / "cache")
    return Cache(Path(directory), run.cache.limit_gb)


def show(cache: Cache) -> str:
    """Return entries, size and age of the cache by implementation."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    used: dict[str, float] = {}
    for entry in cache.entries():
        name = ", ".join(entry.implementation.split(", ")[:2]) or "unreadable"
        counts[name] += 1
        sizes[name] += entry.size
        used[name] = max(used.get(name, 0.0), entry.used)
    total = sum(sizes.values()) / _GB
    lines = [
        f"{cache.folder}: {sum(counts.values())} images, {total:.3f} GB of {cache.limit_gb:g} GB"
    ]
    now = time.time()
    for name, size in sizes.most_common():
        days = (now - used[name]) / _DAY
        lines.append(f"  {counts[name]:>7}  {size / _GB:9.3f} GB  used {days:.1f} days ago  {name}")
    return "\n".join(lines)


def prune(
    cache: Cache,
    limit_gb: float | None = None,
    unused_days: float | None = None,
    implementation: str | None = None,
) -> str:
    """Remove entries and report how many.

    Args:
        cache: the cache.
        limit_gb: evict the least recently used entries down to this many 10^9 bytes.
        unused_days: remove entries unused for this many days.
        implementation: remove entries whose implementation contains this text.
    """
    before = sum(entry.size for entry in cache.entries())
    now = time.time()
    for entry in list(cache.entries()):
        old = unused_days is not None and now - entry.used > unused_days * _DAY
        named = implementation is not None and implementation in entry.implementation
        if old or named:
            cache.remove(entry)
    if limit_gb is not None:
        Cache(cache.folder, limit_gb).enforce_limit()
    left = list(cache.entries())
    after = sum(entry.size for entry in left)
    return (
        f"{cache.folder}: {(before - after) / _GB:.3f} GB removed, {len(left)} images with "
        f"{after / _GB:.3f} GB left; results have their own copies"
    )
