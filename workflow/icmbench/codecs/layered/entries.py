"""Register the layered codec, whole and its first layer alone; imports no network library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator

from icmbench.registry import CODECS, CodecEntry
from icmbench.utils.models import Strict

STRIDED = 4  # layers of stride 2: the latent has a sixteenth of the image's side


class LayeredParameters(Strict):
    """Sizes of the layered codec and how it is trained; zhang2022 publishes none of them."""

    widths: list[int] = Field(
        [60, 120, 240, 480, 480],
        min_length=1 + STRIDED,
        max_length=1 + STRIDED,
        description="Channels of the analysis: of the 7 x 7 layer at full resolution, then of each "
        "of the four layers of stride 2. The synthesis has them in reverse. HiFiC: 60, 120, 240, "
        "480, 960.",
    )
    residual_blocks: int = Field(
        9, ge=0, description="Residual blocks of the synthesis, in its last width; HiFiC: 9."
    )
    semantic: int = Field(
        32,
        ge=1,
        description="Latent channels of the first layer, called semantic in the paper. No loss "
        "makes it so: the layers are a partition of the channels.",
    )
    texture: int = Field(
        32,
        ge=1,
        description="Latent channels of the second layer, called texture in the paper; HiFiC has "
        "220 in its only one.",
    )
    hyper: int = Field(
        64, ge=4, description="Channels of each layer's hyper-latent and hyper-networks."
    )
    discriminator: int = Field(
        64,
        ge=2,
        description="Channels of the discriminator's first layer; the next have 2, 4 and 8 times "
        "as many. HiFiC: 64.",
    )
    perceptual: Literal["vgg16", "random", "none"] = Field(
        "vgg16",
        description="Features of the term 'perceptual'. vgg16: relu2_2 and relu3_3 with "
        "torchvision's ImageNet weights, downloaded when the term is first needed. random: a fixed "
        "pyramid of random orthogonal filters, for scales that train without published weights. "
        "none: the term does not exist.",
    )
    quantisation: Literal["noise", "mixed"] = Field(
        "mixed",
        description="In training: noise is uniform noise for rate, synthesis and tasks; mixed "
        "gives the latter two rounded latents with a straight-through gradient, as in HiFiC.",
    )
    latent_gain: float = Field(
        1.0,
        gt=0,
        description="Factor on the random initial weights of the last analysis layer, so that not "
        "all latents of a short training run round to zero (ours).",
    )
    linear_start: bool = Field(
        False,
        description="Begin as a transform coder: principal components of blocks of train images "
        "beside the network's own transforms, at the quantisation step that has the rate asked "
        "for (ours; see docs/methods.md).",
    )

    @model_validator(mode="after")
    def _widths_are_positive(self) -> LayeredParameters:
        if min(self.widths) < 2:
            raise ValueError(f"widths are {self.widths}, but each must be at least 2")
        return self


def _register(name: str, implementation: str, channels: Callable[[LayeredParameters], int]) -> None:
    CODECS.register(
        CodecEntry(
            name=name,
            kind="learned",
            parameters=LayeredParameters,
            implementation=f"icmbench.codecs.layered.codec:{implementation}",
            parts=("analysis", "synthesis", "entropy", "discriminator"),
            shares_weights_with=("layered", "layered-first"),
            loss_terms=("bpp", "mse", "mae", "ssim", "perceptual", "adversarial"),
            outputs=("features", "images"),
            feature_channels=channels,
        )
    )


_register("layered", "Layered", lambda sizes: sizes.semantic + sizes.texture)
_register("layered-first", "LayeredFirst", lambda sizes: sizes.semantic)
