"""The base of every configuration model: unknown keys are errors, values are not coerced."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from icmbench.errors import REMAKE, damaged_file, missing_file
from icmbench.utils.files import reading
from icmbench.utils.yaml import parse_yaml

Model = TypeVar("Model", bound=BaseModel)

# Where a setting comes from: the paper, the paper's code or figures, or our own choice.
Origin = Literal["published", "figure", "ours"]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys, wrong types, infinity and NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )


def first_fault(error: ValidationError) -> str:
    """Return the first fault that a validation found, as one line: key, problem, value."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"] if part != "[key]") or "(top level)"
    value = repr(fault["input"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{key}: {fault['msg']}, got {value if len(value) <= 80 else value[:77] + '...'}{more}"


def read_model(path: Path, model: type[Model], advice: str = REMAKE) -> Model:
    """Return the content of a JSON file that a job or the plan wrote.

    Raises:
        UserError: where it is missing; with ``advice``, how to get it again.
        DamagedFile: where it cannot be read or is not such a model.
    """
    try:
        with reading(path, advice):
            text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise missing_file(path, advice) from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"])) or "(top level)"
        raise damaged_file(path, f"key {key!r}: {fault['msg']}", advice) from None


def read_shipped(path: Path, model: type[Model]) -> Model:
    """Return the content of a YAML file that comes with the package.

    Raises:
        DamagedFile: where it is not such a model.
    """
    try:
        return model.model_validate(parse_yaml(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise damaged_file(path, first_fault(error), "correct it") from None
