"""What takes long to make of a fetched data set, kept in a file until the data change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from icmbench.data.manifest import Manifest, read_manifest
from icmbench.errors import UserError
from icmbench.utils.files import digest_json, write_text

T = TypeVar("T")


def derived(
    folder: Path,
    cache: Path,
    what: list[Any],
    make: Callable[[Manifest], dict[str, Any]],
    read: Callable[[dict[str, Any]], T],
) -> T:
    """Return what ``make`` makes of a data set, from ``cache`` where that fits.

    Otherwise ``cache`` is written, atomically: processes that come at once each make it, and the
    last one's file, which is the same, stays. The data set's manifest (``<folder>.manifest.json``)
    says what the data are.

    Args:
        folder: the data set's folder.
        cache: a JSON file of this alone.
        what: decides, beside the data, what is made: the version of its form, and its settings.
        make: returns the content, of JSON's types, for the manifest.
        read: returns what the content stands for; a TypeError, KeyError or ValueError says that
            it is damaged.

    Raises:
        UserError: where there is no manifest.
    """
    path = folder.with_name(f"{folder.name}.manifest.json")
    manifest = read_manifest(path)
    if manifest is None:
        raise UserError(f"{path}: no such manifest: fetch the data set first")
    key = digest_json([*what, manifest.digest])
    try:
        stored = json.loads(cache.read_text(encoding="utf-8"))
        seal = stored.pop("sha256")
        if stored.pop("key") == key and seal == digest_json(stored):
            return read(stored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # there is none yet, or it is damaged: it is made again
    content = make(manifest)
    content = json.loads(json.dumps(content))  # as it will be read, for the digest
    write_text(cache, json.dumps({"key": key, "sha256": digest_json(content), **content}) + "\n")
    return read(content)
