"""Register the image codecs with CompressAI's networks; imports no network library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from icmbench.registry import CODECS, CodecEntry
from icmbench.utils.models import Strict


class LearnedParameters(Strict):
    """Size of a learned codec, how it is trained and how its rate is counted."""

    n: int = Field(128, ge=8, description="Channels of the transforms (N).")
    m: int = Field(192, ge=8, description="Channels of the latent (M); cheng2020 has M = N.")
    quantisation: Literal["noise", "mixed"] = Field(
        "noise",
        description="In training: noise adds uniform noise for rate and decoder, as in CompressAI; "
        "mixed gives the decoder rounded latents with a straight-through gradient (Minnen and "
        "Singh, ICIP 2020), which matters at rates where most latents round to zero.",
    )
    rate: Literal["bitstream", "estimate"] = Field(
        "bitstream",
        description="What is counted: the length of a real bitstream that another process "
        "decodes, or the entropy model's estimate if a sequential decoder is too slow for the "
        "images of a scale. Records and report state which.",
    )
    latent_gain: float = Field(
        1.0,
        gt=0,
        description="Factor on the random initial weights of the last analysis layer. Initial "
        "latents are so small that all round to zero; a short training run from random weights "
        "spends most of its steps on enlarging them (ours).",
    )
    linear_start: bool = Field(
        False,
        description="Begin as a transform coder: principal components of blocks of train images "
        "beside the network's own transforms (ours; see docs/training.md).",
    )
    metric: Literal["mse", "ms-ssim"] = Field(
        "mse", description="Which of CompressAI's pretrained weights 'pretrained' means."
    )
    qualities: list[int] = Field(
        [1, 2, 3, 4],
        description="CompressAI quality of each rate index for pretrained weights, which also "
        "sets n and m.",
    )


class ElicParameters(LearnedParameters):
    """Size of ELIC; its quantisation in training is always the mixed one."""

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
    in_zoo: bool = True,
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
            pretrained=lambda _: in_zoo,
        )
    )


# The first four share their transforms, and mbt2018 its entropy model with cheng2020.
_GDN = ("bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")
_register("bmshj2018-factorized", "hyperprior:Factorized", starts_from=_GDN)
_register("bmshj2018-hyperprior", "hyperprior:Hyperprior", starts_from=_GDN)
_register("mbt2018-mean", "hyperprior:MeanHyperprior", starts_from=_GDN)
_register("mbt2018", "autoregressive:Autoregressive", starts_from=_GDN)
_register("cheng2020-anchor", "autoregressive:ChengAnchor")
_register("cheng2020-attn", "autoregressive:ChengAttention", starts_from=("cheng2020-anchor",))
_register("elic2022", "elic:Elic", ElicParameters, in_zoo=False)
