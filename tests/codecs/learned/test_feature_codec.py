"""A feature codec needs only its networks; the base does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from icmbench.codecs.base import CodecOutput, Latents
from icmbench.codecs.learned.base import LearnedFeatureCodec, bits_by_position, bits_of
from icmbench.codecs.learned.fast_entropy import SteadyBottleneck


class Smallest(LearnedFeatureCodec):
    """One convolution each way and a factorised prior."""

    multiple = latent_stride = 8

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 6, 8, stride=8)
        self.prior = SteadyBottleneck(6)
        self.decoder = nn.Conv2d(6, 4, 1)

    def part_modules(self) -> dict[str, list[nn.Module]]:
        return {"all": [self]}

    def forward(self, images: Tensor) -> CodecOutput:
        y, likelihoods = self.prior(self.encoder(images))
        pixels = images.shape[0] * images.shape[2] * images.shape[3]
        return CodecOutput(None, bits_of(likelihoods), pixels, self.decoder(y))

    def implementation(self) -> str:
        return "smallest"

    @property
    def symbols_per_position(self) -> int:
        return 6

    def prepare_coding(self) -> None:
        self.prior.update(force=True)
        super().prepare_coding()

    def analyse(self, images: Tensor) -> Tensor:
        return self.encoder(30 * images)

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Latents, Tensor]:
        strings = self.prior.compress(y)
        rate_map = bits_by_position(self.prior(y)[1])
        return strings, self.decompress_latent(strings, *y.shape[-2:]), rate_map

    def decompress_latent(self, strings: Sequence[bytes], rows: int, columns: int) -> Latents:
        return {"y": self.prior.decompress(list(strings), (rows, columns))[0].numpy()}

    def features(self, latents: Latents) -> Tensor:
        return self.decoder(self.latent_tensor(latents, "y"))


def test_feature_codec_codes_and_trains_with_its_networks_alone() -> None:
    torch.manual_seed(0)
    codec: Any = Smallest()
    codec.prepare_coding()
    image = np.random.default_rng(0).integers(0, 255, (21, 30, 3), np.uint8)
    encoded = codec.encode(image)
    decoded = codec.decode(encoded.data)
    assert decoded["size"].tolist() == [21, 30] and decoded["y"].shape == (6, 3, 4)
    assert np.array_equal(decoded["y"], encoded.reconstruction["y"]) and decoded["y"].std() > 1
    assert encoded.pixels_coded == 24 * 32
    assert codec.features(decoded).shape == (1, 4, 3, 4)
    assert [p is codec.prior.quantiles for p in codec.auxiliary_parameters()] == [True]
    codec.auxiliary_loss().backward()
    assert codec.prior.quantiles.grad is not None and codec.encoder.weight.grad is None
