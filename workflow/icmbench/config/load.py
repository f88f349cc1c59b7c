"""Read configuration files; every fault is one line that names file, key and value."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from icmbench.config.run import RunConfig
from icmbench.config.scale import Scale
from icmbench.config.study import Study
from icmbench.errors import UserError, missing_file, unknown
from icmbench.utils.files import reading
from icmbench.utils.models import Strict
from icmbench.utils.secrets import hide_secrets
from icmbench.utils.yaml import parse_yaml

Model = TypeVar("Model", bound=Strict)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: where the file is missing, is not YAML, or does not hold a mapping.
    """
    try:
        with reading(path, "restore the file"):
            text = path.read_text(encoding="utf-8")
            try:
                value = parse_yaml(text)
            except yaml.YAMLError as error:
                line = f"{path}: not valid YAML: {' '.join(str(error).split())}"
                raise UserError(line if len(line) < 500 else f"{line[:497]}...") from None
    except FileNotFoundError:
        raise missing_file(path, "give another path, or restore it") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a mapping of keys, not {type(value).__name__}")
    return value


def check(model: type[Model], value: dict[str, Any], where: str) -> Model:
    """Return ``value`` as a ``model``.

    Args:
        where: file (and section) that errors name.

    Raises:
        UserError: listing every fault, one line each.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = [_explain(fault, model, where) for fault in error.errors()]
        raise UserError("\n".join(lines)) from None


def _explain(fault: Any, model: type[Strict], where: str) -> str:
    path, inner = _locate(model, fault["loc"])
    key = ".".join(path) or "(top level)"
    if fault["type"] == "extra_forbidden":
        hint = unknown("key", path[-1], getattr(inner, "model_fields", {}))
        return f"{where}: key {key!r}: {hint}"
    if fault["type"] == "missing":
        return f"{where}: key {key!r} is missing; add it"
    found = hide_secrets(repr(fault["input"]))
    found = found if len(found) <= 120 else f"{found[:117]}..."
    return f"{where}: key {key!r}: {fault['msg']}; found {found}"


def _locate(annotation: Any, loc: Sequence[int | str]) -> tuple[list[str], Any]:
    """Return the path of a fault in the file, and the type that refused its last part.

    Pydantic's location also names the member of a union that was tried, which the file does not.
    """
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if not loc:
        return [], annotation
    first, rest = str(loc[0]), loc[1:]
    members = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) in (Union, UnionType):
        if len(members) == 1:
            return _locate(members[0], loc)
        return _locate(next((m for m in members if _has_tag(m, first)), None), rest)
    fields = getattr(annotation, "model_fields", None)
    if fields is not None and first not in fields:
        return [first], annotation
    if fields is None and get_origin(annotation) not in (dict, list):
        return [], annotation  # pydantic's name of a validator
    inner, last = _locate(members[-1] if fields is None else fields[first].annotation, rest)
    return [first, *inner], last if inner or rest else annotation


def _has_tag(member: Any, tag: str) -> bool:
    """Return whether pydantic names a member of a union so: by its type or its discriminator."""
    kinds = [field.annotation for field in getattr(member, "model_fields", {}).values()]
    return getattr(member, "__name__", "") == tag or any((tag,) == get_args(k) for k in kinds)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` laid on it: mappings are merged, everything else replaces."""
    merged = deepcopy(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = deepcopy(value)
    return merged


def load_run(path: Path, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Read config.yaml; ``overrides`` come from the command line."""
    where = str(path) if not overrides else f"{path} (with command-line overrides)"
    return check(RunConfig, merge(read_yaml(path), overrides or {}), where)


def load_scale(folder: Path, name: str) -> Scale:
    """Read the scale ``name`` from a folder of scale files."""
    path = _named(folder, name, "scale")
    value = read_yaml(path)
    if "extends" in value:
        value = merge(read_yaml(_named(folder, value.pop("extends"), "scale")), value)
    scale = check(Scale, value, str(path))
    if scale.name != name:
        raise UserError(f"{path}: key 'name' is {scale.name!r}; it must be the file's, {name!r}")
    return scale


def study_folder(folders: list[Path], name: str) -> Path:
    """Return which of several folders holds the study ``name``.

    Raises:
        UserError: where a folder is missing, none holds the study, or two do.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"config.yaml: key 'study_folders': {folder}: no such folder")
    holding = [folder for folder in folders if (folder / f"{name}.yaml").is_file()]
    if len(holding) > 1:
        places = " and ".join(str(folder / f"{name}.yaml") for folder in holding)
        raise UserError(f"study {name!r} is in two files, {places}; rename one")
    if not holding:
        known = [path.stem for folder in folders for path in folder.glob("*.yaml")]
        raise UserError(f"config.yaml: key 'studies': {unknown('study', name, known)}")
    return holding[0]


def load_study(folder: Path, name: str, scale: Scale) -> Study:
    """Read the study ``name`` and lay the scale's overrides over it."""
    path = _named(folder, name, "study")
    value = read_yaml(path)
    check(Study, value, str(path))
    over = scale.studies.get(name)
    where = str(path)
    if over is not None:
        value = merge(value, over)
        where = f"{path} with key 'studies.{name}' of scale {scale.name!r}"
    study = check(Study, value, where)
    if study.name != name:
        raise UserError(f"{path}: key 'name' is {study.name!r}; it must be the file's, {name!r}")
    return study.read_from(path)


def _named(folder: Path, name: str, what: str) -> Path:
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in folder.glob("*.yaml")]
        raise UserError(f"{folder}: {unknown(what, name, known)}")
    return path
