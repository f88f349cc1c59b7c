"""The base of every configuration model: unknown keys are errors, values are not coerced."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

# Where a setting comes from: the paper, the paper's code or figures, or our own choice.
Origin = Literal["published", "figure", "ours"]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys, wrong types, infinity and NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False
    )
