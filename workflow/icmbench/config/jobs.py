"""The settings file of a job: written by ``plan``, checked before a verb follows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icmbench.errors import UserError
from icmbench.utils.checksums import SumsFile
from icmbench.utils.files import line_of, reading

#: The list of what ``plan`` wrote, in ``<results>/<scale>``.
SUMS = "plan.sha256"

_DATASET: Mapping[str, type] = {"role": str, "folder": str, "manifest": str, "source": str}
_CURVE: Mapping[str, type] = {"jobs": list}
#: What a job of each verb has at least.
_NEEDED: dict[str, Mapping[str, type]] = {
    "data": _DATASET,
    "train": {
        **dict.fromkeys(("key", "output"), str),
        **dict.fromkeys(("codec", "task", "loss", "schedule", "dataset", "runtime"), dict),
        "parts": list,
        "seed": int,
    },
    "encode": _CURVE,
    "decode": _CURVE,
    "evaluate": _CURVE,
    "code": {
        **dict.fromkeys(("key", "output", "split"), str),
        **dict.fromkeys(("codec", "dataset", "cache"), dict),
        "chunks": int,
        "modules": list,
    },
}
_POINT: Mapping[str, type] = {"key": str, "output": str, "dataset": dict, "split": str}


def read_job(path: Path, verb: str) -> dict[str, Any]:
    """Return the settings of a job.

    Those below ``<results>/<scale>/plan`` must be what ``plan`` wrote there; a copy elsewhere may
    hold settings of your own.

    Raises:
        UserError: where the file is missing, damaged, changed in its place, or no job of ``verb``.
    """
    again = "`python -m icmbench plan` writes it again"
    try:
        with reading(path, again):
            data = path.read_bytes()
            job = json.loads(data.decode("utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: cannot read this job's settings ({line_of(error)}); {again}"
        ) from error
    for folder in path.absolute().parents:
        if (folder / SUMS).is_file():
            SumsFile(folder / SUMS).check_bytes(
                path, data, f"{again}; to change settings copy the file out of this folder first"
            )
            break
    _require(path, job, _NEEDED.get(verb, {}), "")
    if "jobs" in _NEEDED.get(verb, {}):
        if not job["jobs"]:
            raise UserError(f"{path}: key 'jobs' is empty; {again}")
        for number, point in enumerate(job["jobs"]):
            _require(path, point, _POINT, f"jobs.{number}.")
    dataset = job.get("dataset")
    if dataset is not None:
        _require(path, dataset, _DATASET, "dataset.")
    modules = job.get("modules", [])
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        raise UserError(f"{path}: key 'modules' must be a list of names; {again}")
    return dict(job)


def read_plan(root: Path) -> dict[str, Any]:
    """Return the content of ``plan.json`` in ``<results>/<scale>``.

    Raises:
        UserError: where it is missing, damaged or not what the workflow wrote.
    """
    path = root / "plan.json"
    again = "run the workflow again, it writes the plan"
    try:
        with reading(path, again):
            data = path.read_bytes()
            plan = json.loads(data.decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {again}") from None
    SumsFile(root / SUMS).check_bytes(path, data, again)
    _require(path, plan, {"run": dict, "scale": dict, "studies": dict, "points": list}, "")
    return dict(plan)


def _require(path: Path, value: Any, needed: Mapping[str, type], prefix: str) -> None:
    if not isinstance(value, dict):
        where = f"key {prefix[:-1]!r} is" if prefix else "holds"
        raise UserError(
            f"{path}: {where} no mapping but {type(value).__name__}; `python -m icmbench plan` "
            "writes this file again"
        )
    for name, kind in needed.items():
        if not isinstance(value.get(name), kind) or isinstance(value[name], bool):
            raise UserError(
                f"{path}: key '{prefix}{name}' must be {kind.__name__}; found "
                f"{str(value.get(name))[:80]!r}; `python -m icmbench plan` writes this file again"
            )
