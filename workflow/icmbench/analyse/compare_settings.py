"""How the settings and the environments of two result sets differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from icmbench.analyse.points import PointFiles
from icmbench.utils.files import read_json

#: Of config.yaml: what changes results. Where they lie and who watches does not.
_RUN_KEYS = ("seeds", "classical_codecs", "substitutes", "programs", "modules", "analysis")
_SCALE_KEYS = ("name", "datasets", "codecs", "tasks", "runtime")
_STUDY_KEYS = ("ladders", "schedules", "variants")
#: Words for readers, which decide nothing.
_WORDS = ("label", "note", "origin")
_ABSENT = "not there"


class Difference(NamedTuple):
    """One thing that differs, as texts."""

    what: str
    a: str
    b: str


def settings_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between two ``plan.json``, by dotted key.

    Studies that only one side has are left out: their operating points are reported.
    """
    both = sorted(a["studies"].keys() & b["studies"].keys())
    flat = [
        dict(_flatten(selected))
        for plan in (a, b)
        for selected in [
            {
                "config": {name: plan["run"].get(name) for name in _RUN_KEYS},
                "scale": {name: plan["scale"].get(name) for name in _SCALE_KEYS},
                "studies": {
                    study: {name: plan["studies"][study].get(name) for name in _STUDY_KEYS}
                    for study in both
                },
            }
        ]
    ]
    differences = []
    for key in sorted(flat[0].keys() | flat[1].keys()):
        mine, theirs = (side.get(key, _ABSENT) for side in flat)
        if mine != theirs:
            differences.append(Difference(key, mine, theirs))
    return differences


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested mappings as dotted keys and JSON texts."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in _WORDS:
                yield from _flatten(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, json.dumps(value)


def environment_of(points: Iterable[PointFiles]) -> dict[str, set[str]]:
    """Return the values that occur in a result set's points, by what they are of.

    Read from ``evaluate.json`` and ``run.json``: versions, platform, processor, device and commit
    of evaluations and trainings, and each codec's implementation.
    """
    found: dict[str, set[str]] = {}
    for point in points:
        for name, what in (("evaluate.json", "evaluation"), ("run.json", "training")):
            content = read_described(point.folder / name)
            for key, value in _flatten(content.get("environment", {})):
                key = key.removeprefix("versions.")
                found.setdefault(f"{what}: {key}", set()).add(value.strip('"'))
            if content.get("implementation"):
                found.setdefault(f"codec {point.codec}", set()).add(content["implementation"])
    return found


def read_described(path: Path) -> dict[str, Any]:
    """Return the mapping of a JSON file that describes results, {} where it is missing or cut."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
