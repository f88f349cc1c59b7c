"""Codecs: an image to a bitstream, a bitstream to an image or to features.

This file registers the built-in ones and their parameters; it imports no network library.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from icmbench.config.base import Strict
from icmbench.registry import CODECS, CodecEntry


class NoParameters(Strict):
    """A codec without settings."""


class HyperpriorParameters(Strict):
    """Size of the scale hyperprior of Ballé et al. (ICLR 2018), bmshj2018-hyperprior."""

    n: int = Field(128, ge=8, description="Channels of the transforms (N).")
    m: int = Field(192, ge=8, description="Channels of the latent (M).")
    quantisation: Literal["noise", "mixed"] = Field(
        "noise",
        description="In training: noise is uniform noise for rate and decoder, as in CompressAI; "
        "mixed gives the decoder rounded latents with a straight-through gradient (Minnen and "
        "Singh, ICIP 2020), which matters at rates where most latents round to zero.",
    )
    metric: Literal["mse", "ms-ssim"] = Field(
        "mse", description="Which of CompressAI's pretrained weights 'pretrained' means."
    )
    qualities: list[int] = Field(
        [1, 2, 3, 4],
        description="CompressAI quality of each rate index for pretrained weights; n and m then "
        "follow from it.",
    )


class JpegParameters(Strict):
    """JPEG as Pillow writes it."""

    subsampling: Literal["4:4:4", "4:2:0"] = Field(
        "4:2:0", description="Chroma subsampling; 4:2:0 is Pillow's default and CompressAI's."
    )
    optimize: bool = Field(False, description="Optimised Huffman tables.")


CODECS.register(
    CodecEntry(
        name="uncoded",
        kind="none",
        parameters=NoParameters,
        implementation="icmbench.codecs.uncoded:Uncoded",
    )
)
CODECS.register(
    CodecEntry(
        name="bmshj2018-hyperprior",
        kind="learned",
        parameters=HyperpriorParameters,
        implementation="icmbench.codecs.hyperprior:Hyperprior",
        parts=("analysis", "synthesis", "entropy"),
        loss_terms=("bpp", "mse"),
    )
)
CODECS.register(
    CodecEntry(
        name="jpeg",
        kind="anchor",
        parameters=JpegParameters,
        implementation="icmbench.codecs.jpeg:Jpeg",
        rate_parameter="quality",
    )
)
