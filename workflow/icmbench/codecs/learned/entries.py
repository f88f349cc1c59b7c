"""Register the image codecs with CompressAI's networks; imports no network library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from icmbench.registry import CODECS, CodecEntry
from icmbench.utils.models import Strict


class LearnedParameters(Strict):
    """Size of a learned codec, how it is trained and how its rate is counted."""

    n: int = Field(128, ge=8, description="Channels of the transforms (N).")
    m: int = Field(192, ge=8, description="Channels of the latent (M).")
    quantisation: Literal["noise", "mixed"] = Field(
        "noise",
        description="In training: noise adds uniform noise for rate and decoder, as in CompressAI; "
        "mixed gives the decoder rounded latents with a straight-through gradient (Minnen and "
        "Singh, ICIP 2020), which matters at rates where most latents round to zero. A codec "
        "with a context model rounds around a first guess of the predicted means (ours), since "
        "coding subtracts them.",
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


class ChengParameters(LearnedParameters):
    """Size of cheng2020."""

    m: int = Field(
        0,
        ge=0,
        description="Channels of the latent (M). 0: N of them, as published; another number is "
        "ours, for a linear start beside narrow transforms.",
    )


class ElicParameters(LearnedParameters):
    """Size of ELIC."""

    n: int = Field(192, ge=8, description="Channels of the transforms (N).")
    m: int = Field(320, ge=8, description="Channels of the latent (M).")
    quantisation: Literal["mixed"] = Field(
        "mixed",
        description="In training, as in CompressAI: noise for the rate, rounded latents with a "
        "straight-through gradient for everything that reads them. It cannot be changed.",
    )
    groups: list[int] = Field(
        [16, 16, 32, 64, 192], min_length=2, description="Channels of each group; their sum is M."
    )

    @model_validator(mode="after")
    def _groups_make_m(self) -> ElicParameters:
        if sum(self.groups) != self.m:
            raise ValueError(f"groups sum to {sum(self.groups)}, but m is {self.m}")
        return self


class BlockParameters(LearnedParameters):
    """Size of a codec of blocks, which begins as a transform coder."""

    n: int = Field(32, ge=8, description="Channels of the hyper-latent (N).")
    m: int = Field(
        96, ge=8, le=192, description="Channels of the latent (M), of the 192 numbers of a block."
    )
    hidden: int = Field(64, ge=8, description="Channels inside the refinements of the latent.")
    quantisation: Literal["noise", "mixed"] = Field(
        "mixed", description="In training; see bmshj2018-hyperprior."
    )
    linear_start: Literal[True] = Field(
        True, description="Its transforms begin as principal components."
    )


class VariableParameters(LearnedParameters):
    """Size of a codec of variable rate."""

    quantisation: Literal["mixed"] = Field(
        "mixed",
        description="In training, as in CompressAI: noise for the rate, rounded latents with a "
        "straight-through gradient for the synthesis. Entropy parameters come from a hyper-latent "
        "with noise, or from a rounded one without ``variable_hyper``. It cannot be changed.",
    )
    variable_hyper: bool = Field(
        True,
        description="The quantisation step of the hyper-latent follows from the gain, as in "
        "CompressAI's published weights.",
    )


# The lambda of each of CompressAI's qualities, from 1, in its documentation of the model zoo.
_LAMBDAS = {
    "mse": (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18),
    "ms-ssim": (2.4, 4.58, 8.73, 16.64, 31.73, 60.5, 115.37, 220.0),
}


def published_rates(parameters: LearnedParameters, qualities: int = 8) -> dict[str, list[float]]:
    """Return the values of a ladder that CompressAI publishes weights for, by parameter."""
    return {
        "quality": [float(quality) for quality in range(1, qualities + 1)],
        "lambda": list(_LAMBDAS[parameters.metric][:qualities]),
    }


def published_quality(parameters: LearnedParameters, rate: float | None) -> int:
    """Return CompressAI's quality for a value of a ladder over quality or lambda.

    Raises:
        ValueError: where there is none; the plan checks it.
    """
    for values in published_rates(parameters).values():
        if rate in values:
            return values.index(rate) + 1
    raise ValueError(f"no quality of CompressAI's has the rate {rate}")


def _register(
    name: str,
    implementation: str,
    parameters: type[LearnedParameters] = LearnedParameters,
    starts_from: Mapping[str, tuple[str, ...]] | None = None,
    qualities: int = 8,
    **defaults: str,
) -> None:
    CODECS.register(
        CodecEntry(
            name=name,
            kind="learned",
            parameters=parameters,
            implementation=f"icmbench.codecs.learned.{implementation}",
            parts=("analysis", "synthesis", "entropy"),
            starts_from=starts_from or {},
            loss_terms=("bpp", "mse"),
            pretrained=lambda _: qualities > 0,
            published_rates=lambda own: published_rates(own, qualities),
            defaults=defaults,
        )
    )


# These four share their transforms. What they have beyond them begins at random where it differs.
_TRANSFORMS = ("network.g_a.", "network.g_s.")
_GDN = dict.fromkeys(("bmshj2018-hyperprior", "mbt2018-mean", "mbt2018"), _TRANSFORMS)
_register("bmshj2018-factorized", "hyperprior:Factorized", starts_from=_GDN)
_register("bmshj2018-hyperprior", "hyperprior:Hyperprior", starts_from=_GDN)
_register(
    "bmshj2018-hyperprior-noise",
    "hyperprior:Hyperprior",
    starts_from={"bmshj2018-hyperprior": ("network.",)},
    qualities=0,
    quantisation="noise",
)
_register("mbt2018-mean", "hyperprior:MeanHyperprior", starts_from=_GDN)
_register("mbt2018", "autoregressive:Autoregressive", starts_from=_GDN)
_register("cheng2020-anchor", "autoregressive:ChengAnchor", ChengParameters, qualities=6)
# Positions in its transforms of the layers of cheng2020-anchor, beside a linear path or not.
PLACES = {"g_a": (0, 1, 2, 4, 5, 6, 7), "g_s": (1, 2, 3, 4, 6, 7, 8, 9)}
_ANCHOR_LAYERS = tuple(
    f"network.{transform}.{own}{place}."
    for transform, places in PLACES.items()
    for place in places
    for own in ("", "own.")
)
_register(
    "cheng2020-attn",
    "autoregressive:ChengAttention",
    ChengParameters,
    # Between its layers, the transforms have attention blocks, which begin at random.
    starts_from={
        "cheng2020-anchor": (
            *_ANCHOR_LAYERS,
            "network.h_a.",
            "network.h_s.",
            "network.context_prediction.",
            "network.entropy_parameters.",
            "network.entropy_bottleneck.",
        )
    },
    qualities=6,
)
_register("elic2022", "elic:Elic", ElicParameters, qualities=0)
_register("block-hyperprior", "blocks:BlockHyperprior", BlockParameters, qualities=0)


def _register_variable(name: str, implementation: str) -> None:
    base = name.removesuffix("-vbr")
    hyper = ("network.h_a.", "network.h_s.", "network.entropy_bottleneck.")
    CODECS.register(
        CodecEntry(
            name=name,
            kind="learned",
            parameters=VariableParameters,
            implementation=f"icmbench.codecs.learned.variable:{implementation}",
            parts=("analysis", "synthesis", "entropy"),
            starts_from={base: (*_TRANSFORMS, *hyper)},
            loss_terms=("bpp", "mse", "gain_mse"),
            pretrained=lambda parameters: parameters.metric == "mse",
            rate_parameter="gain",
            lower_rate="smaller",
        )
    )


_register_variable("bmshj2018-hyperprior-vbr", "VariableHyperprior")
_register_variable("mbt2018-mean-vbr", "VariableMeanHyperprior")
