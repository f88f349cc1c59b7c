"""Register DICM and its ablations; imports no network library.

The default sizes are those of the released networks, 72.86 M parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from icmbench.registry import CODECS, CodecEntry
from icmbench.utils.models import Strict


class DicmParameters(Strict):
    """Size of the DICM codec, and which pieces it has."""

    backbone_blocks: list[int] = Field(
        [3, 4, 6, 3],
        min_length=4,
        max_length=4,
        description="Bottleneck blocks of the backbone's four stages; [3, 4, 6, 3] is ResNet-50.",
    )
    backbone_width: int = Field(
        64, ge=4, description="Channels of the backbone's stem; its features have four times that."
    )
    backbone_classes: int = Field(
        1000, ge=0, description="Outputs of the backbone's classifier; 0 leaves it out."
    )
    eliminate: bool = Field(
        True, description="Redundancy elimination before compression; false is an ablation."
    )
    elimination_depths: list[int] = Field(
        [1, 1, 2],
        min_length=1,
        max_length=3,
        description="Blocks of each stage of redundancy elimination, encoder and decoder alike. A "
        "stage halves the resolution: three, as published, give its latent stride 32, two stride "
        "16, for images of a few hundred pixels (ours).",
    )
    elimination_widths: list[int] = Field(
        [128, 128, 128, 192],
        min_length=2,
        max_length=4,
        description="Channels of each stage of redundancy elimination, and of its latent.",
    )
    elimination_block: Literal["conv2former", "convformer"] = Field(
        "conv2former",
        description="Block of redundancy elimination: Conv2Former's, as in the authors' code, or "
        "MetaFormer's ConvFormer block, as in their text.",
    )
    elimination_gain: float = Field(
        1.0,
        gt=0,
        description="Factor on the initial latent of redundancy elimination. It is normalised to "
        "a variance of one, which integers resolve coarsely, and a short training run does not "
        "change it much (ours).",
    )
    layer_scale: float = Field(
        1e-6,
        gt=0,
        description="Initial factor on the branches of all convolutional blocks. 1e-6 is the "
        "authors'; a short training run needs larger ones (ours).",
    )
    linear_start: bool = Field(
        False,
        description="Begin as transform coders: principal components of the features of train "
        "images beside the networks of redundancy elimination and of compression, each fitted when "
        "it is first trained (ours; see docs/training.md).",
    )
    widths: list[int] = Field(
        [128, 192],
        min_length=2,
        max_length=2,
        description="Channels inside the compression network, and of its latent.",
    )
    orders: list[int] = Field(
        [2, 3, 4],
        min_length=3,
        max_length=3,
        description="Order of the recursive gated convolution of each of the three blocks, in the "
        "compression encoder and in its decoder; the third has a global filter.",
    )
    drop_path: list[float] = Field(
        [0.0, 0.25, 0.5],
        min_length=3,
        max_length=3,
        description="Probability of stochastic depth in these blocks.",
    )
    hyper_dim: int = Field(384, ge=8, description="Channels of the transformers.")
    heads: int = Field(6, ge=1, description="Attention heads of the transformers.")
    hyper_depths: list[int] = Field(
        [1, 1, 1],
        min_length=3,
        max_length=3,
        description="Transformer blocks of each stage of hyper-encoder and hyper-decoder, in the "
        "order in which each runs them.",
    )
    context: bool = Field(
        True,
        description="Checkerboard context: half of the latent is coded given the other half; "
        "false is an ablation.",
    )
    context_depth: int = Field(6, ge=1, description="Transformer blocks of the context model.")
    top_k: int = Field(
        32,
        ge=8,
        description="Keys that a query attends to at most, at the latent's resolution; half of "
        "that at each coarser one. Training draws it from [top_k / 2, 2 top_k).",
    )

    @model_validator(mode="after")
    def _channels_divide(self) -> DicmParameters:
        if self.hyper_dim % self.heads:
            raise ValueError(
                f"hyper_dim is {self.hyper_dim}, which does not divide by heads {self.heads}"
            )
        if len(self.elimination_widths) != len(self.elimination_depths) + 1:
            raise ValueError(
                f"elimination_widths are {self.elimination_widths}; with the "
                f"{len(self.elimination_depths)} stages of elimination_depths there must be "
                f"{len(self.elimination_depths) + 1}, the last of the latent"
            )
        inner, latent = self.widths
        outer = 4 * self.backbone_width
        if min(self.orders) < 1:
            raise ValueError(f"orders are {self.orders}; the smallest order is 1")
        for name, channels in (("encoder", [outer, inner, latent]), ("decoder", [latent, inner])):
            for width, order in zip(channels, self.orders, strict=False):
                if width % 2 ** (order - 1):
                    raise ValueError(
                        f"widths: a block of the compression {name} has {width} channels, which "
                        f"order {order} cannot halve {order - 1} times"
                    )
        # A global filter takes half of the channels that it gates, C (2 - 2^(1 - order)).
        for width in (latent, outer):
            if width % 2 ** self.orders[2]:
                raise ValueError(
                    f"widths: the third blocks have {latent} and {outer} channels, which must be "
                    f"multiples of {2 ** self.orders[2]} at order {self.orders[2]}"
                )
        if not all(0 <= rate < 1 for rate in self.drop_path):
            raise ValueError(f"drop_path is {self.drop_path}; each must be in [0, 1)")
        return self


_TERMS = ("elimination_bpp", "elimination_l1", "elimination_mse")


def _register(
    name: str,
    implementation: str = "codec:Dicm",
    starts_from: Mapping[str, tuple[str, ...]] | None = None,
    shares_weights_with: tuple[str, ...] = (),
    loss_terms: tuple[str, ...] = _TERMS,
    **defaults: bool,
) -> None:
    CODECS.register(
        CodecEntry(
            name=name,
            kind="learned",
            parameters=DicmParameters,
            implementation=f"icmbench.codecs.dicm.{implementation}",
            parts=("backbone", "elimination", "compression"),
            starts_from=starts_from or {},
            shares_weights_with=shares_weights_with,
            loss_terms=("bpp", *loss_terms),
            outputs=("features",),
            feature_channels=lambda parameters: 4 * parameters.backbone_width,
            defaults=defaults,
        )
    )


_ALL_TERMS = (*_TERMS, "feature_mse", "layer2_mse", "layer3_mse", "layer4_mse")
_register("dicm", loss_terms=_ALL_TERMS)
_register(
    "dicm-no-elimination",
    starts_from={"dicm": ("backbone.",)},
    loss_terms=_ALL_TERMS,
    eliminate=False,
)
_register(
    "dicm-no-context",
    starts_from={"dicm": ("backbone.", "elimination.")},
    loss_terms=_ALL_TERMS,
    context=False,
)
_register(
    "dicm-elimination-latent",
    "elimination_latent:EliminationLatent",
    shares_weights_with=("dicm",),
)
