"""A linear start: transforms that begin as a classical transform coder (ours).

Most of a short training run goes into finding any transform at all. Here a linear transform of
blocks is added to a network's own transforms. It begins as the principal components of training
data, the best linear transform for a Gaussian source, and the network's own last layers begin near
zero. So the first step is a transform coder already, and everything is trained from there.

.. code-block:: none

    x -+-> linear, P x P, stride P -> refine -+-> * gain -> y
       +-> the network's analysis ------------+

    y_hat -> * gain -+-> refine -> linear, transposed -+-> deblock -> x_hat
                     +-> the network's synthesis ------+

Refine and deblock are residual blocks that begin as the identity. Each channel's gain decides its
quantisation step, and so the rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor, nn
from torch.nn import functional

from icmbench.errors import UserError

LEAST_WIDTH = 0.12  # of a latent's channel, in steps; narrower densities do not train
# Initial weights of the network's own last layers, relative to their usual ones.
SHARE = 0.01
# Gains are exp(_SPEED * parameter): they move this much faster than other weights, since the rate
# follows them, and would otherwise follow its weight in the loss over thousands of steps only.
_SPEED = 10.0
_HIDDEN = 32  # channels inside refinements of the latent
_DEBLOCK = 16  # and of the decoded input


class Gain(nn.Module):
    """A positive trainable factor for each channel.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.zeros(channels))

    def set(self, value: float) -> None:
        """Set all channels to a value."""
        with torch.no_grad():
            self.logarithm.fill_(torch.tensor(value).log().item() / _SPEED)

    def multiply(self, factor: float) -> None:
        """Multiply all channels by a factor."""
        with torch.no_grad():
            self.logarithm.add_(math.log(factor) / _SPEED)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` [B, C, H, W] times the gain of its channel."""
        factor: Tensor = torch.exp(_SPEED * self.logarithm)
        return x * factor[:, None, None]


class Refinement(nn.Module):
    """A residual block that begins as the identity.

    Args:
        channels: of input and output.
        hidden: between the two 3 x 3 convolutions.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` [B, C, H, W] plus what was learned."""
        added: Tensor = self.second(functional.leaky_relu(self.first(x), 0.1))
        return x + added


class _LinearPath(nn.Module):
    """A linear transform of blocks, beside a network's own transform or alone."""

    def __init__(
        self,
        own: nn.Module | None,
        inputs: int,
        outputs: int,
        stride: int,
        hidden: int = _HIDDEN,
    ) -> None:
        super().__init__()
        self.own = own
        self.build(inputs, outputs, stride, hidden)

    def build(self, inputs: int, outputs: int, stride: int, hidden: int) -> None:
        """Make the modules, in the order in which they take random numbers."""
        raise NotImplementedError

    def with_own(self, linear: Tensor, x: Tensor) -> Tensor:
        """Return the linear path's output plus that of the network's own transform of ``x``."""
        return linear if self.own is None else linear + self.own(x)


def _refinements(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(Refinement(channels, hidden), Refinement(channels, hidden))


class LinearAnalysis(_LinearPath):
    """A linear transform of blocks beside an analysis transform.

    Args:
        own: the network's transform, [B, inputs, H, W] to [B, outputs, H / stride, W / stride];
            None leaves the linear transform alone.
        inputs: channels of the input.
        outputs: channels of the latent; at most ``inputs * stride ** 2``.
        stride: side of the blocks.
        hidden: channels inside the refinements.

    Attributes:
        fitted: a buffer, whether :func:`fit` was called; later training runs do not fit again.
    """

    fitted: Tensor

    def build(self, inputs: int, outputs: int, stride: int, hidden: int) -> None:
        """Make the modules, in the order in which they take random numbers."""
        if outputs > inputs * stride**2:
            raise UserError(
                f"linear start: a latent of {outputs} channels is more than the {inputs} x "
                f"{stride} x {stride} numbers of a block; use fewer channels"
            )
        self.linear = nn.Conv2d(inputs, outputs, stride, stride)
        self.refine = _refinements(outputs, hidden)
        self.gain = Gain(outputs)
        self.register_buffer("fitted", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        """Return the latent."""
        y: Tensor = self.gain(self.with_own(self.refine(self.linear(x)), x))
        return y


class LinearSynthesis(_LinearPath):
    """The inverse of :class:`LinearAnalysis` beside a synthesis transform; arguments as there."""

    def build(self, inputs: int, outputs: int, stride: int, hidden: int) -> None:
        """Make the modules, in the order in which they take random numbers."""
        self.refine = _refinements(outputs, hidden)
        self.linear = nn.ConvTranspose2d(outputs, inputs, stride, stride)
        # Removes what is left of the blocks' borders.
        self.deblock = _refinements(inputs, _DEBLOCK)
        self.gain = Gain(outputs)

    def forward(self, y: Tensor) -> Tensor:
        """Return the decoded input."""
        scaled = self.gain(y)
        x: Tensor = self.deblock(self.with_own(self.linear(self.refine(scaled)), scaled))
        return x


class Normalised(nn.Module):
    """A hyper-analysis that reads latents divided by the initial width of their channel.

    Args:
        own: the network's hyper-analysis.
        channels: channels of the latent.
    """

    widths: Tensor

    def __init__(self, own: nn.Module, channels: int) -> None:
        super().__init__()
        self.own = own
        self.register_buffer("widths", torch.ones(channels))

    def forward(self, y: Tensor) -> Tensor:
        """Return the hyper-latent."""
        z: Tensor = self.own(y / self.widths[:, None, None])
        return z


def fit(
    analysis: LinearAnalysis,
    synthesis: LinearSynthesis,
    samples: Iterable[Tensor],
    step: float,
    keep: tuple[type[nn.Module], ...] = (),
) -> Tensor:
    """Set both linear transforms to principal components; let the network's own begin near zero.

    Args:
        analysis, synthesis: of one codec.
        samples: tensors [B, inputs, H, W] of training data.
        step: quantisation step in the unit of the samples.
        keep: parts of the network's own transforms that are not made small, such as attention,
            which passes on what is.

    Returns:
        The standard deviation of each channel of the latent, in steps, [outputs].
    """
    outputs, inputs, block, _ = analysis.linear.weight.shape
    means, basis, widths = principal_components(samples, block, outputs)
    shape = (outputs, inputs, block, block)
    with torch.no_grad():
        analysis.linear.weight.copy_(basis.reshape(shape))
        offset = means.repeat_interleave(block**2)
        assert analysis.linear.bias is not None
        assert synthesis.linear.bias is not None
        analysis.linear.bias.copy_(-(basis @ offset))
        synthesis.linear.weight.copy_(basis.reshape(shape))
        synthesis.linear.bias.copy_(means)
        analysis.fitted.fill_(True)
    analysis.gain.set(1 / step)
    synthesis.gain.set(step)
    for own in (analysis.own, synthesis.own):
        if own is not None:
            set_last(own, share=SHARE, keep=keep)
    return widths / step


@torch.no_grad()
def deviations(analysis: nn.Module, samples: Iterable[Tensor]) -> Tensor:
    """Return the standard deviation of each channel of what an analysis makes of samples."""
    latents = [analysis(sample).transpose(0, 1).flatten(1) for sample in samples]
    return torch.cat(latents, 1).std(1)


def fit_bounded(
    analysis: LinearAnalysis, synthesis: LinearSynthesis, samples: Iterable[Tensor], step: float
) -> Tensor:
    """As :func:`fit`, with a step that the samples bound.

    The largest component spans two steps at least, so that something is coded, and 32 at most, so
    that four standard deviations are within eight bits.
    """
    widths = fit(analysis, synthesis, samples, 1.0)
    largest = float(widths[0])
    step = min(largest / 2, max(largest / 32, step))
    analysis.gain.set(1 / step)
    synthesis.gain.set(step)
    return (widths / step).clamp_min(LEAST_WIDTH)


def set_densities(bottleneck: EntropyBottleneck, widths: Tensor) -> None:
    """Let the densities of a factorised prior begin with these standard deviations."""
    # CompressAI's begin as logistic densities; init_scale is their scale s.
    scale = widths * math.sqrt(3) / math.pi
    sizes = (1, *bottleneck.filters, 1)
    share = (scale / bottleneck.init_scale).clamp_max(1)[:, None, None]
    with torch.no_grad():
        # Random biases shift a density by a part of CompressAI's usual width.
        for bias in bottleneck.biases:
            bias.mul_(share)
        for matrix, outputs in zip(bottleneck.matrices, sizes[1:], strict=True):
            layer = scale ** (1 / (len(sizes) - 1))
            value = torch.log(torch.expm1(1 / layer / outputs))
            matrix.copy_(value[:, None, None].expand_as(matrix))
        tail = scale * math.log(2 / bottleneck.tail_mass)
        bottleneck.quantiles.copy_(torch.stack([-tail, 0 * tail, tail], 1)[:, None])


def set_last(
    network: nn.Module,
    bias: Tensor | None = None,
    share: float = 0.1,
    keep: tuple[type[nn.Module], ...] = (),
) -> None:
    """Scale the weights of a network's last convolution; set its bias, to zero by default.

    Convolutions in children of the types ``keep`` do not count.
    """
    last = last_convolution(network, keep)
    with torch.no_grad():
        last.weight.mul_(share)
        if last.bias is not None:
            last.bias.copy_(torch.zeros_like(last.bias) if bias is None else bias)


def last_convolution(
    network: nn.Module, keep: tuple[type[nn.Module], ...] = ()
) -> nn.Conv2d | nn.ConvTranspose2d:
    """Return the convolution that was added to a network last, outside children of some types."""
    children = [child for child in network.children() if not isinstance(child, keep)] or [network]
    modules = (module for child in children for module in child.modules())
    return [m for m in modules if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))][-1]


def principal_components(
    samples: Iterable[Tensor], block: int, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the principal components of blocks.

    Args:
        samples: tensors [B, C, H, W].
        block: side of the blocks.
        count: number of components, at most ``C * block ** 2``.

    Returns:
        The mean of each of the C channels; the components [count, C * block ** 2], orthonormal, of
        decreasing variance; the standard deviation of each.
    """
    number = 0
    total = products = torch.zeros(())
    for sample in samples:
        blocks = functional.unfold(sample.detach().float().cpu(), block, stride=block)
        rows = blocks.transpose(1, 2).flatten(0, 1)
        total = total + rows.sum(0, dtype=torch.float64)
        products = products + (rows.T @ rows).double()
        number += len(rows)
    mean, second = total / number, products / number
    means = mean.reshape(-1, block**2).mean(1)
    offset = means.repeat_interleave(block**2)
    covariance = second - torch.outer(mean, offset) - torch.outer(offset, mean)
    covariance += torch.outer(offset, offset)
    variances, vectors = torch.linalg.eigh(covariance)
    basis = vectors.flip(1)[:, :count].T
    # The sign of a component is arbitrary; a fixed one does not depend on the linear algebra used.
    basis = basis * torch.where(basis.sum(1) < 0, -1.0, 1.0)[:, None]
    deviations = variances.flip(0)[:count].clamp_min(0).sqrt()
    return means.float(), basis.float(), deviations.float()
