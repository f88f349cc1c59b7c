"""Read configuration files; every fault is one line that names file, key and value.

The configuration of a run has layers, each laid over those before it: ``config.yaml``, files that
the command line names, and its ``KEY=VALUE`` entries. Snakemake and the verbs read the same layers.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from icmbench.config.run import Layer, RunConfig, source
from icmbench.config.scale import Scale
from icmbench.config.study import Study
from icmbench.errors import UserError, missing_file, unknown
from icmbench.utils.files import reading
from icmbench.utils.models import Strict
from icmbench.utils.places import here_or_shipped
from icmbench.utils.secrets import hide_secrets
from icmbench.utils.yaml import parse_yaml

Model = TypeVar("Model", bound=Strict)

_COMMAND_LINE = "--config"
_ENTRY = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


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


def check(
    model: type[Model], value: dict[str, Any], where: str | Callable[[Sequence[str]], str]
) -> Model:
    """Return ``value`` as a ``model``.

    Args:
        model: of the configuration.
        value: what a file holds.
        where: file (and section) that errors name, or a function that returns it for a key.

    Raises:
        UserError: listing every fault, one line each.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = [_explain(fault, model, where) for fault in error.errors()]
        raise UserError("\n".join(dict.fromkeys(lines))) from None


def _explain(fault: Any, model: type[Strict], given: str | Callable[[Sequence[str]], str]) -> str:
    path, inner = _locate(model, fault["loc"])
    where = given if isinstance(given, str) else given(path)
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
    if first == "[key]" or (fields is None and get_origin(annotation) not in (dict, list)):
        return [], annotation  # pydantic's name of a validator, or of what it checks
    inner, last = _locate(members[-1] if fields is None else fields[first].annotation, rest)
    return [first, *inner], last if inner or rest else annotation


def _has_tag(member: Any, tag: str) -> bool:
    """Return whether pydantic names a member of a union so: by its type or its discriminator."""
    while get_origin(member) is Annotated:
        member = get_args(member)[0]
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


def main_config() -> Path:
    """Return ``config.yaml`` of the working directory, or else the shipped one."""
    return here_or_shipped("config.yaml")


def load_run(path: Path, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Read one file as the whole configuration; ``overrides`` are laid over it."""
    return combine([Layer(str(path), read_yaml(path)), Layer(_COMMAND_LINE, overrides or {})])


def load_given(given: Sequence[str]) -> RunConfig:
    """Return the configuration of a verb: ``config.yaml`` and what its ``--config`` names.

    Args:
        given: files, and entries ``KEY=VALUE``, which come after all files.
    """
    files = [Path(text) for text in given if not _ENTRY.fullmatch(text)]
    entries = [text for text in given if _ENTRY.fullmatch(text)]
    main = main_config()
    layers = [Layer(str(main), read_yaml(main))]
    layers += [Layer(str(path), read_yaml(path)) for path in files]
    return combine([*layers, from_command_line(entries)])


def from_command_line(entries: Sequence[str]) -> Layer:
    """Return the layer of entries ``KEY=VALUE``.

    A value is YAML, as in a file; where the key takes a single text, it is that text.

    Raises:
        UserError: for a dotted key, with its right spelling, and for damaged YAML.
    """
    values: dict[str, Any] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        if (nested := nested_spelling(entry)) is not None:
            raise UserError(f"{_COMMAND_LINE} {entry!r}: a dotted key; write {nested}")
        field = RunConfig.model_fields.get(key)
        plain = field is not None and field.annotation is str and text[:1] not in ("'", '"')
        try:
            values = merge(values, {key: text if plain else parse_yaml(text)})
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{_COMMAND_LINE} {entry!r}: not valid YAML: {reason}") from None
    return Layer(_COMMAND_LINE, values)


def nested_spelling(entry: str) -> str | None:
    """Return how an entry with a dotted key is written for a shell; None for other entries.

    >>> nested_spelling("tracking.mlflow=false")
    "'tracking={mlflow: false}'"
    """
    found = _ENTRY.fullmatch(entry)
    if found is None or "." not in found[1]:
        return None
    first, *others = found[1].split(".")
    value = found[2]
    for name in reversed(others):
        value = f"{{{name}: {value}}}"
    return shlex.quote(f"{first}={value}")


def combine(layers: Sequence[Layer]) -> RunConfig:
    """Return the configuration of several layers; errors name the one that set the key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer.values)
    run = check(RunConfig, merged, lambda path: source(layers, path))
    return run.read_from(layers)


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


def study_folder(folders: list[Path], name: str, run: RunConfig) -> Path:
    """Return which of several folders holds the study ``name`` of a run.

    Raises:
        UserError: where a folder is missing, none holds the study, or two do.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{run.where('study_folders')}: {folder}: no such folder")
    holding = [folder for folder in folders if (folder / f"{name}.yaml").is_file()]
    if len(holding) > 1:
        places = " and ".join(str(folder / f"{name}.yaml") for folder in holding)
        raise UserError(f"study {name!r} is in two files, {places}; rename one")
    if not holding:
        known = [path.stem for folder in folders for path in folder.glob("*.yaml")]
        raise UserError(f"{run.where('studies')}: {unknown('study', name, known)}")
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
