"""The base of every configuration model: unknown keys are errors, values are not coerced."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

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
