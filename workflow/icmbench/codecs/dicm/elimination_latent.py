"""The obvious rival of DICM's feature codec: send redundancy elimination's own latent (ours)."""

from __future__ import annotations

from collections.abc import Sequence

import compressai
import numpy as np
import torch
from torch import Tensor

from icmbench.codecs.base import CodecOutput, Latents
from icmbench.codecs.dicm.codec import Dicm
from icmbench.codecs.dicm.elimination import Elimination
from icmbench.codecs.dicm.entries import DicmParameters
from icmbench.codecs.learned.base import bits_by_position
from icmbench.errors import UserError


class EliminationLatent(Dicm):
    """DICM up to redundancy elimination, whose integers are coded with their factorised prior.

    .. code-block:: none

        x -> head -> f1 -> RE's encoder -> Q -> prior ->|bits|-> RE's decoder -> f2

    Its features are those that DICM compresses, so it bounds DICM twice: in accuracy, and in rate,
    since a bitstream of DICM that is longer is useless.
    """

    def __init__(self, parameters: DicmParameters, rate: float | None = None) -> None:
        super().__init__(parameters, rate)
        if self.elimination is None:
            raise UserError(
                "codecs.dicm-elimination-latent: key 'eliminate' is false, but the codec sends the "
                "latent of redundancy elimination; set it to true"
            )

    @property
    def latent_stride(self) -> int:  # type: ignore[override]
        """Pixels per position of the latent: every stage of elimination halves the resolution."""
        return self.stride * 2 ** len(self.settings.elimination_depths)

    @property
    def reduction(self) -> Elimination:
        """Redundancy elimination, which this codec always has."""
        assert self.elimination is not None
        return self.elimination

    def forward(self, images: Tensor) -> CodecOutput:
        """Code a batch [B, 3, H, W] in [0, 1] whose sides are multiples of ``multiple``.

        Its terms are those of elimination, see :meth:`Dicm.forward`.
        """
        batch, _, height, width = images.shape
        features, terms = self._reduced(images, True)
        pixels = batch * height * width
        return CodecOutput(None, terms["elimination_bpp"] * pixels, pixels, features, terms)

    def prepare_coding(self) -> None:
        """Switch to evaluation mode and build coding tables; call it after training or loading."""
        self.reduction.prior.make_tables()
        super().prepare_coding()

    def implementation(self) -> str:
        """Return the range coder's version and the size of the latent."""
        widths = self.settings.elimination_widths
        return f"dicm, latent of elimination, compressai {compressai.__version__}, M={widths[-1]}"

    @property
    def symbols_per_position(self) -> int:
        """Upper bound on the symbols in the string."""
        return self.settings.elimination_widths[-1]

    def analyse(self, images: Tensor) -> Tensor:
        """Return the latent [1, M, h, w] of a padded image [1, 3, H, W]."""
        y: Tensor = self.reduction.encoder(self._reduced(images, False)[0])
        return y

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Latents, Tensor]:
        """Return the string of a latent, its decoded value int16 [M, h, w], and the rate map."""
        prior = self.reduction.prior
        symbols = y.round()
        strings: list[bytes] = prior.compress(symbols)
        latent = symbols[0].cpu().numpy().astype(np.int16)
        return strings, {"y": latent}, bits_by_position(prior(symbols)[1])

    def decompress_latent(self, strings: Sequence[bytes], rows: int, columns: int) -> Latents:
        """Return the latent ``y`` int16 [M, rows, columns]."""
        symbols = self.reduction.prior.decompress(list(strings), (rows, columns))
        return {"y": symbols[0].cpu().numpy().astype(np.int16)}

    @torch.no_grad()
    def features(self, latents: Latents) -> Tensor:
        """Return f2, float32 [1, channels, H / 4, W / 4] of the padded image."""
        decoded: Tensor = self.reduction.decoder(self.latent_tensor(latents, "y").float()).float()
        return decoded
