"""Parameters of the generated faces; imports no drawing code."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from icmbench.config.base import Strict


class EmbeddedFaces(Strict):
    """Generated faces with attributes and parsing maps; needs no download."""

    source: Literal["embedded-faces"]
    size: int = Field(128, ge=64, le=512, description="Side of the square images, in pixels.")
    train: int = Field(ge=0, description="Images of the train split.")
    val: int = Field(ge=0, description="Images of the val split.")
    test: int = Field(ge=1, description="Images of the test split.")
    seed: int = Field(2021, ge=0, description="Seed of the generator.")
