"""Hyperpriors of variable rate: one set of weights, and a gain that sets the quantisation step.

bmshj2018-hyperprior-vbr, mbt2018-mean-vbr: Kamisli, Racapé, Choi, "Variable-rate learned image
compression with multi-objective optimization and quantization-reconstruction offsets", DCC 2024,
with CompressAI's networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from compressai.models.vbr import MeanScaleHyperpriorVbr, ScaleHyperpriorVbr
from compressai.zoo import image_vbr
from torch import Tensor, nn

from icmbench.codecs.base import CodecOutput
from icmbench.codecs.learned.base import bits_by_position, bits_of, rounded
from icmbench.codecs.learned.compressai_codec import with_sizes
from icmbench.codecs.learned.entries import LearnedParameters, VariableParameters
from icmbench.codecs.learned.hyperprior import Hyperprior, MeanHyperprior
from icmbench.networks.pretrained import load_published
from icmbench.networks.weights import load_resized

# The factorised prior of variable step has single parameters where the other has lists.
_LISTED = re.compile(r"(.*entropy_bottleneck\.)(matrices|biases|factors)\.(\d)$")
_SINGULARS = {"matrices": "matrix", "biases": "bias", "factors": "factor"}
_ZERO = 1e-4  # magnitudes below are zero, and reconstructed without an offset


class VariableHyperprior(Hyperprior):
    """A hyperprior whose latent is multiplied by a gain before it is rounded.

    .. code-block:: none

        y -> x gain -> Q -> GC ->|bits|-> GC -> + offset -> / gain -> y_hat

        The scales (and means) of GC are multiplied as well. A small network predicts the offset of
        the reconstruction from scale and gain; the step of the hyper-latent follows from the gain.

    Training draws one of CompressAI's eight gains for every step. Its loss term ``gain_mse`` is
    ``gain^2 255^2 MSE``: with weight lambda, the trade-off at gain 1 is that of lambda, and at a
    lower gain that of ``gain^2 lambda``, as in the paper.

    Attributes:
        gain: of the current step in training; else the point's, or the middle one.
    """

    zoo = "bmshj2018-hyperprior-vbr"
    settings: VariableParameters

    def __init__(self, parameters: VariableParameters, rate: float | None = None) -> None:
        super().__init__(parameters, rate)
        # The levels are fixed: CompressAI's loss has no gradient for them either.
        levels = self.network.Gain.detach()
        del self.network.Gain
        self.network.register_buffer("Gain", levels)
        self.gain = float(levels[len(levels) // 2]) if rate is None else rate

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N and M channels."""
        return ScaleHyperpriorVbr(*sizes, vr_entbttlnck=self.settings.variable_hyper)

    @classmethod
    def published_parameters(
        cls, parameters: LearnedParameters, rate: float | None
    ) -> LearnedParameters:
        """Return the parameters in the size of CompressAI's weights, which have every rate."""
        sized = with_sizes(parameters, *image_vbr.cfgs[cls.zoo])
        return sized.model_copy(update={"variable_hyper": True})

    @classmethod
    def parameters_of(
        cls, parameters: LearnedParameters, state: Mapping[str, Tensor]
    ) -> LearnedParameters:
        """Return the parameters in the size of a state dict, as far as it is of such a network."""
        variable = any("gayn2zqstep." in name for name in state)
        sized = super().parameters_of(parameters, state)
        return sized.model_copy(update={"variable_hyper": variable})

    def load_pretrained(self, rate: float | None) -> None:
        """Load CompressAI's published weights."""
        state = load_published(image_vbr.model_urls[self.zoo][self.settings.metric])
        renamed = {self.own_name(name): value for name, value in state.items()}
        renamed.pop("QuantOffset", None)  # of an older form, which CompressAI drops as well
        load_resized(self.network, renamed)

    def own_name(self, name: str) -> str:
        """Return the name here of a weight in a file of any version of CompressAI."""
        return self.rename_weight(super().own_name(name))

    def rename_weight(self, name: str) -> str:  # type: ignore[override]
        """Return the name here of a weight of the codec of one rate, whose entropy model it has."""
        if not self.settings.variable_hyper:
            return name
        return _LISTED.sub(lambda m: f"{m[1]}_{_SINGULARS[m[2]]}{m[3]}", name)

    # --- training -----------------------------------------------------------------------------

    def forward(self, images: Tensor) -> CodecOutput:
        """Code a batch [B, 3, H, W] in [0, 1] whose sides are multiples of ``multiple``."""
        if self.training:
            levels = self.network.Gain.tolist()
            self.gain = levels[int(torch.randint(len(levels), ()))]
        output = super().forward(images)
        assert output.images is not None
        error = (output.images - images).square().mean()
        output.terms["gain_mse"] = self.gain**2 * 255**2 * error
        return output

    def model_latent(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantised latent and the bits of y and z."""
        z = self.hyper_latent(y)
        step = self._hyper_step()
        bottleneck = self.network.entropy_bottleneck
        if step is None:
            z_hat, likelihoods = bottleneck(z)
            medians = bottleneck.quantiles[:, :, 1].reshape(1, -1, 1, 1)
            z_hat = rounded(z - medians) + medians
        else:
            z_hat, likelihoods = bottleneck(z, qs=step)
        scales, means = self.statistics(z_hat)
        conditional, gain = self.network.gaussian_conditional, self._gain(y)
        centred = y if means is None else y - means
        y_hat = self._reconstruct(rounded(centred * gain), scales, means)
        scaled = None if means is None else means * gain
        y_likelihoods = conditional(y * gain, scales * gain, means=scaled)[1]
        return y_hat, bits_of(y_likelihoods) + bits_of(likelihoods)

    def _gain(self, like: Tensor) -> Tensor:
        return torch.tensor(self.gain, dtype=like.dtype, device=like.device)

    def _hyper_step(self) -> Tensor | None:
        """Return the quantisation step of the hyper-latent, a scalar; None where it is 1."""
        if not self.settings.variable_hyper:
            return None
        inverse = 1 / self._gain(self.network.Gain)
        step: Tensor = self.network.lower_bound_zqstep(self.network.gayn2zqstep(inverse.view(1)))
        return step[0]

    def _reconstruct(self, symbols: Tensor, scales: Tensor, means: Tensor | None) -> Tensor:
        """Return the decoded latent of rounded values [B, M, h, w]."""
        gain, size = self._gain(symbols), symbols.abs()
        scaled = self.network.gaussian_conditional.lower_bound_scale(scales * gain)
        pairs = torch.stack((scaled, gain.expand_as(scaled)), -1)
        offsets = self.network.QuantABCD(pairs)[..., 0]
        offsets = torch.where(size < _ZERO, torch.zeros_like(offsets), offsets)
        decoded = symbols.detach().sign() * (size - offsets) / gain
        return decoded if means is None else decoded + means

    # --- coding -------------------------------------------------------------------------------

    def prepare_coding(self) -> None:
        """Switch to evaluation mode and build coding tables for the gain."""
        super().prepare_coding()
        if (step := self._hyper_step()) is not None:
            with torch.no_grad():
                self.network.entropy_bottleneck.update_variable(force=True, qs=step)

    def compress_latent(self, y: Tensor) -> tuple[list[bytes], Tensor, Tensor]:
        """Return the strings of y and z, the decoded y and the rate map of both."""
        bottleneck, step = self.network.entropy_bottleneck, self._hyper_step()
        arguments: dict[str, Any] = {} if step is None else {"qs": step}
        z = self.hyper_latent(y)
        z_string = bottleneck.compress(z, **arguments)[0]
        z_hat = bottleneck.decompress([z_string], z.shape[-2:], **arguments)
        scales, means = self.statistics(z_hat)
        conditional, gain = self.network.gaussian_conditional, self._gain(y)
        scaled = None if means is None else means * gain
        indexes = conditional.build_indexes(scales * gain)
        string = conditional.compress(y * gain, indexes, means=scaled)[0]
        symbols = conditional.quantize(y * gain, "symbols", scaled).to(y.dtype)
        likelihoods = conditional(y * gain, scales * gain, means=scaled)[1]
        decoded = self._reconstruct(symbols, scales, means)
        rate_map = bits_by_position(likelihoods, bottleneck(z, **arguments)[1])
        return [string, z_string], decoded, rate_map

    def decompress_latent(self, strings: Sequence[bytes], rows: int, columns: int) -> Tensor:
        """Return y."""
        scales, means = self.statistics(self.decompress_hyper_latent(strings[1], rows, columns))
        conditional = self.network.gaussian_conditional
        indexes = conditional.build_indexes(scales * self._gain(scales))
        symbols = conditional.decompress([strings[0]], indexes)
        return self._reconstruct(symbols, scales, means)

    def decompress_hyper_latent(self, string: bytes, rows: int, columns: int) -> Tensor:
        """Return the decoded z of a latent of ``rows`` x ``columns`` positions."""
        step = self._hyper_step()
        if step is None:
            return super().decompress_hyper_latent(string, rows, columns)
        factor = self.multiple // self.latent_stride
        shape = (rows // factor, columns // factor)
        z_hat: Tensor = self.network.entropy_bottleneck.decompress([string], shape, qs=step)
        return z_hat

    def implementation(self) -> str:
        """Return CompressAI's version, the network's size, the gain and what the rate is."""
        return f"{super().implementation()}, gain {self.gain:g}"


class VariableMeanHyperprior(VariableHyperprior, MeanHyperprior):
    """The same with means: mbt2018-mean-vbr."""

    zoo = "mbt2018-mean-vbr"

    def build(self, *sizes: int) -> nn.Module:
        """Return CompressAI's network with N and M channels."""
        return MeanScaleHyperpriorVbr(*sizes, vr_entbttlnck=self.settings.variable_hyper)
