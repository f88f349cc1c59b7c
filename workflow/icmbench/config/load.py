"""Read configuration files and turn every fault into one line that names file, key and value."""

from __future__ import annotations

import difflib
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from icmbench.config.run import RunConfig
from icmbench.config.scale import Scale
from icmbench.config.study import Study
from icmbench.errors import UserError
from icmbench.utils.files import reading
from icmbench.utils.models import Strict
from icmbench.utils.secrets import hide_secrets
from icmbench.utils.yaml import parse_yaml

Model = TypeVar("Model", bound=Strict)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: where the file is missing, is no YAML, or holds no mapping.
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
        raise UserError(f"{path}: no such file") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold a mapping of keys, not {type(value).__name__}")
    return value


def check(model: type[Model], value: dict[str, Any], where: str) -> Model:
    """Return ``value`` as a ``model``.

    Args:
        where: file (and section) that errors name.

    Raises:
        UserError: for every fault at once, one line each.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = [_explain(fault, model, where) for fault in error.errors()]
        raise UserError("\n".join(lines)) from None


def _explain(fault: Any, model: type[Strict], where: str) -> str:
    # Union members (discriminator tags, type names) stand in pydantic's path but not in the file.
    path = [part for part in fault["loc"] if not _is_tag(part)]
    key = ".".join(str(part) for part in path) or "(top level)"
    if fault["type"] == "extra_forbidden":
        allowed = _fields(model, path[:-1])
        close = difflib.get_close_matches(str(path[-1]), allowed, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        listing = f"; allowed: {', '.join(allowed)}" if allowed else ""
        return f"{where}: unknown key {key!r}{listing}{hint}"
    if fault["type"] == "missing":
        return f"{where}: key {key!r} is missing; add it"
    found = hide_secrets(repr(fault["input"]))
    found = found if len(found) <= 120 else f"{found[:117]}..."
    return f"{where}: key {key!r}: {fault['msg']}; found {found}"


_SOURCES = {"embedded-scenes", "embedded-faces", "catalogue"}
_CLAIMS = {"bd", "at_rate", "point", "count", "order", "difference", "trend"}
_TAGS = _SOURCES | _CLAIMS | {"Weights", "RateTarget", "int", "str", "float"}


def _is_tag(part: Any) -> bool:
    return isinstance(part, str) and (part in _TAGS or part.startswith(("literal[", "function-")))


def _fields(model: type[Strict], path: list[Any]) -> list[str]:
    """Return the field names of the model at ``path`` inside ``model``, as far as it is typed."""
    current: Any = model
    for part in path:
        fields = getattr(current, "model_fields", None)
        if fields is None:
            return []
        if part in fields:
            current = _inner_model(fields[part].annotation)
        # a key of a mapping or an index of a list: the inner model stays
    return sorted(getattr(current, "model_fields", {}))


def _inner_model(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


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
    scale = check(Scale, read_yaml(path), str(path))
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
        allowed = ", ".join(sorted(path.stem for f in folders for path in f.glob("*.yaml")))
        places = ", ".join(map(str, folders))
        raise UserError(f"unknown study {name!r}: no {name}.yaml in {places}; allowed: {allowed}")
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
        allowed = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise UserError(f"unknown {what} {name!r}: no file {path}; allowed: {allowed}")
    return path
