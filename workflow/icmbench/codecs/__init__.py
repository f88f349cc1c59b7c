"""Codecs: an image to a bitstream, a bitstream to an image or to features.

This file registers the built-in ones and their parameters; it imports no network library.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from icmbench.codecs.dicm.parameters import DicmParameters
from icmbench.codecs.layered.parameters import LayeredParameters
from icmbench.registry import CODECS, CodecEntry
from icmbench.utils.models import Strict


class NoParameters(Strict):
    """A codec without settings."""


class LearnedParameters(Strict):
    """Size of a learned codec, how it is trained and how its rate is counted."""

    n: int = Field(128, ge=8, description="Channels of the transforms (N).")
    m: int = Field(192, ge=8, description="Channels of the latent (M); cheng2020 has M = N.")
    quantisation: Literal["noise", "mixed"] = Field(
        "noise",
        description="In training: noise is uniform noise for rate and decoder, as in CompressAI; "
        "mixed gives the decoder rounded latents with a straight-through gradient (Minnen and "
        "Singh, ICIP 2020), which matters at rates where most latents round to zero.",
    )
    rate: Literal["bitstream", "estimate"] = Field(
        "bitstream",
        description="What is counted: the length of a real bitstream that another process "
        "decodes, or the entropy model's estimate where a sequential decoder is too slow for the "
        "images of a scale. Records and report say which.",
    )
    latent_gain: float = Field(
        1.0,
        gt=0,
        description="Factor on the random initial weights of the last analysis layer. Initial "
        "latents are so small that all round to zero; a short training from random weights loses "
        "most of its steps until they do not (ours).",
    )
    metric: Literal["mse", "ms-ssim"] = Field(
        "mse", description="Which of CompressAI's pretrained weights 'pretrained' means."
    )
    qualities: list[int] = Field(
        [1, 2, 3, 4],
        description="CompressAI quality of each rate index for pretrained weights; n and m then "
        "follow from it.",
    )


class ElicParameters(LearnedParameters):
    """ELIC's size; its quantisation in training is always the mixed one."""

    n: int = Field(192, ge=8, description="Channels of the transforms (N).")
    m: int = Field(320, ge=8, description="Channels of the latent (M).")
    groups: list[int] = Field(
        [16, 16, 32, 64, 192], min_length=2, description="Channels of each group; their sum is M."
    )

    @model_validator(mode="after")
    def _groups_make_m(self) -> ElicParameters:
        if sum(self.groups) != self.m:
            raise ValueError(f"groups sum to {sum(self.groups)}, but m is {self.m}")
        return self


def _register(
    name: str,
    implementation: str,
    parameters: type[LearnedParameters] = LearnedParameters,
    starts_from: tuple[str, ...] = (),
) -> None:
    CODECS.register(
        CodecEntry(
            name=name,
            kind="learned",
            parameters=parameters,
            implementation=f"icmbench.codecs.learned.{implementation}",
            parts=("analysis", "synthesis", "entropy"),
            starts_from=starts_from,
            loss_terms=("bpp", "mse"),
        )
    )


CODECS.register(
    CodecEntry(
        name="uncoded",
        kind="none",
        parameters=NoParameters,
        implementation="icmbench.codecs.uncoded:Uncoded",
    )
)
# The first four share their transforms, and mbt2018 its entropy model with cheng2020.
_GDN = ("bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")
_register("bmshj2018-factorized", "factorized:Factorized", starts_from=_GDN)
_register("bmshj2018-hyperprior", "hyperprior:Hyperprior", starts_from=_GDN)
_register("mbt2018-mean", "hyperprior:MeanHyperprior", starts_from=_GDN)
_register("mbt2018", "autoregressive:Autoregressive", starts_from=_GDN)
_register("cheng2020-anchor", "autoregressive:ChengAnchor")
_register("cheng2020-attn", "autoregressive:ChengAttention", starts_from=("cheng2020-anchor",))
_register("elic2022", "elic:Elic", ElicParameters)


def _register_dicm(name: str, starts_from: tuple[str, ...] = (), **defaults: bool) -> None:
    CODECS.register(
        CodecEntry(
            name=name,
            kind="learned",
            parameters=DicmParameters,
            implementation="icmbench.codecs.dicm.codec:Dicm",
            parts=("backbone", "elimination", "compression"),
            starts_from=starts_from,
            loss_terms=(
                "bpp",
                "elimination_bpp",
                "elimination_l1",
                "elimination_mse",
                "feature_mse",
                *(f"layer{stage}_mse" for stage in (2, 3, 4)),
            ),
            outputs=("features",),
            feature_channels=lambda parameters: 4 * parameters.backbone_width,
            defaults=defaults,
        )
    )


_register_dicm("dicm")
_register_dicm("dicm-no-elimination", ("dicm",), eliminate=False)
_register_dicm("dicm-no-context", ("dicm",), context=False)


def _all_channels(parameters: LayeredParameters) -> int:
    return parameters.semantic + parameters.texture


def _semantic_channels(parameters: LayeredParameters) -> int:
    return parameters.semantic


for _name, _class, _channels in (
    ("layered", "Layered", _all_channels),
    ("layered-semantic", "LayeredSemantic", _semantic_channels),
):
    CODECS.register(
        CodecEntry(
            name=_name,
            kind="learned",
            parameters=LayeredParameters,
            implementation=f"icmbench.codecs.layered.codec:{_class}",
            parts=("analysis", "synthesis", "entropy", "discriminator"),
            shares_weights_with=("layered", "layered-semantic"),
            loss_terms=("bpp", "mse", "mae", "ssim", "perceptual", "adversarial"),
            outputs=("features", "images"),
            feature_channels=_channels,
        )
    )
