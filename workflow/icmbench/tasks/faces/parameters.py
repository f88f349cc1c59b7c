"""Parameters of the analysis of faces; imports no network library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from icmbench.utils.models import Strict


class FaceParameters(Strict):
    """A shared stem and one trunk for each task."""

    attributes: int = Field(40, ge=0, description="Attributes to predict; 0 leaves the task out.")
    parsing: int = Field(
        19, ge=0, description="Classes of the parsing map with the background; 0 leaves it out."
    )
    backbone: Literal["small", "resnet50"] = Field(
        "resnet50",
        description="resnet50: the stages of ResNet-50. small: one block per stage, which trains "
        "on a CPU in a minute (ours).",
    )
    width: int = Field(16, ge=4, description="Channels of the small backbone's first stage.")

    @model_validator(mode="after")
    def _some_task(self) -> FaceParameters:
        if not self.attributes and not self.parsing:
            raise ValueError("attributes and parsing are both 0; give a number of one of them")
        if self.parsing == 1:
            raise ValueError("parsing is 1; a map needs two classes at least, 0 leaves it out")
        return self


class FaceOnFeaturesParameters(FaceParameters):
    """The same on a codec's latents, a sixteenth of the image's width and height."""

    feature_channels: int | None = Field(
        None, ge=1, description="Channels of the latents; null means those of the variant's codec."
    )
