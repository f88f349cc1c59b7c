"""``python -m icmbench cache``: show and prune the cache of classical codecs."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

from icmbench.codecs.classical.cache import Cache, Entry
from icmbench.config.run import RunConfig

_DAY = 24 * 3600
_GB = 1e9


def open_cache(run: RunConfig) -> Cache:
    """Return the cache that a configuration names."""
    directory = run.cache.directory or str(Path(run.results) / "cache")
    return Cache(Path(directory), run.cache.limit_gb)


def show(cache: Cache) -> str:
    """Return number, size and age of the coded images by implementation, largest first."""
    groups: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in cache.entries():
        groups[", ".join(entry.implementation.split(", ")[:2]) or "unreadable"].append(entry)
    sizes = {name: _gigabytes(entries) for name, entries in groups.items()}
    count, total = sum(map(len, groups.values())), sum(sizes.values())
    lines = [f"{cache.folder}: {count} images, {total:.3f} GB of {cache.limit_gb:g} GB"]
    for name in sorted(groups, key=lambda name: -sizes[name]):
        days = (time.time() - max(entry.used for entry in groups[name])) / _DAY
        lines.append(
            f"  {len(groups[name]):>7}  {sizes[name]:9.3f} GB  used {days:.1f} days ago  {name}"
        )
    return "\n".join(lines)


def prune(
    cache: Cache,
    limit_gb: float | None = None,
    unused_days: float | None = None,
    implementation: str | None = None,
) -> str:
    """Remove entries and return a summary.

    Args:
        cache: the cache.
        limit_gb: remove the least recently used entries down to this many 10^9 bytes.
        unused_days: remove entries unused for this many days.
        implementation: remove entries whose implementation contains this text.
    """
    before = list(cache.entries())
    for entry in before:
        old = unused_days is not None and time.time() - entry.used > unused_days * _DAY
        if old or (implementation is not None and implementation in entry.implementation):
            entry.remove()
    if limit_gb is not None:
        Cache(cache.folder, limit_gb).enforce_limit()
    left = list(cache.entries())
    return (
        f"{cache.folder}: {_gigabytes(before) - _gigabytes(left):.3f} GB removed, {len(left)} "
        f"images with {_gigabytes(left):.3f} GB left; results have their own copies"
    )


def _gigabytes(entries: list[Entry]) -> float:
    return sum(entry.size for entry in entries) / _GB
