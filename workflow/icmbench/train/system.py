"""Codec and task as one network that turns a batch into named loss terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from icmbench.codecs.base import Features
from icmbench.jobs import RateTarget
from icmbench.networks.batchnorm import freeze_statistics
from icmbench.networks.padding import stack_padded
from icmbench.train.batches import Batch
from icmbench.train.rate_control import Steering


class System(nn.Module):
    """A codec followed by a task network; either may be absent.

    A task with ``trains_codec`` trains the codec's own network: it receives the codec itself.

    Args:
        codec: a learned codec, or None where the images come decoded or uncoded.
        task: a task network with ``losses(images, targets)``, or None for reconstruction.
        codec_trains: False runs the codec as for coding: rounding, no gradient.
        loss: weights of the loss terms; those with a target are steered to it.
    """

    def __init__(
        self,
        codec: Any | None,
        task: Any | None,
        codec_trains: bool,
        loss: Mapping[str, float | RateTarget],
    ) -> None:
        super().__init__()
        self.codec, self.task = codec, task
        self.codec_trains = codec_trains
        self.weights = {name: w for name, w in loss.items() if not isinstance(w, RateTarget)}
        self.steering: dict[str, Steering] = {
            name: Steering(float(w.target), w.start, w.gain, w.steps)
            for name, w in loss.items()
            if isinstance(w, RateTarget)
        }
        # Registered for their state: a resumed run continues with the weights it had.
        self.steering_state = nn.ModuleDict(self.steering)
        if codec is not None:
            # Codecs with many terms compute only these; a task that reads images needs images.
            images = task is not None and getattr(task, "input_kind", "images") == "images"
            codec.wanted = frozenset(loss) | ({"mse"} if images else set())
            if hasattr(codec, "features_only"):
                codec.features_only = not codec_trains and "bpp" not in loss

    def loss(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the terms that have a weight."""
        weighted = [weight * terms[name] for name, weight in self.weights.items()]
        weighted += [steering.weight * terms[name] for name, steering in self.steering.items()]
        return torch.stack(weighted).sum()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return every loss term of a batch as a scalar.

        ``bpp``: estimated bits per pixel. ``bpp_coded``: those of bitstreams, from codecs that
        estimate them; it has no gradient. ``mse``: 255^2 times the mean squared error, so that
        lambda has the same unit as in CompressAI. ``task``: the sum of the task's own terms, which
        are returned by name as well.
        """
        if self.task is not None and self.task_takes_codec:
            losses: dict[str, Tensor] = self.task.with_codec(
                self.codec, batch.images, batch.targets
            )
            return {name: loss.float() for name, loss in losses.items()}
        inputs: list[Tensor] | Features = batch.images
        terms: dict[str, Tensor] = {}
        if self.codec is not None:
            inputs, terms = self._code(batch.images)
        if self.task is not None:
            targets = batch.targets
            if getattr(self.task, "compares", False):
                targets = [{"original": image} for image in batch.images]
            losses = self.task.losses(inputs, targets)
            terms["task"] = torch.stack([loss.float() for loss in losses.values()]).sum()
            terms.update({name: loss.float() for name, loss in losses.items()})
        return terms

    @property
    def task_takes_codec(self) -> bool:
        """Whether the task's losses are of the codec's own network."""
        return getattr(self.task, "trains_codec", False)

    def _code(self, images: list[Tensor]) -> tuple[list[Tensor] | Features, dict[str, Tensor]]:
        assert self.codec is not None
        with torch.set_grad_enabled(self.codec_trains and torch.is_grad_enabled()):
            stacked = stack_padded(images, self.codec.multiple)
            out = self.codec(stacked.contiguous(memory_format=torch.channels_last))
            # Rate and distortion per pixel of the images. Padding repeats edges: few bits.
            pixels = sum(image.shape[-2] * image.shape[-1] for image in images)
            terms = dict(out.terms)
            if not getattr(self.codec, "features_only", False):
                terms = {"bpp": out.bits / pixels, **terms}
            if out.coded_bits is not None:
                terms["bpp_coded"] = out.coded_bits / pixels
            decoded: list[Tensor] = []
            if out.images is not None:
                decoded = [
                    one[:, : image.shape[-2], : image.shape[-1]]
                    for one, image in zip(out.images, images, strict=True)
                ]
                squared = torch.stack(
                    [(a - b).square().sum() for a, b in zip(decoded, images, strict=True)]
                )
                terms["mse"] = 255**2 * squared.sum() / (3 * pixels)
        if getattr(self.task, "input_kind", "images") == "features":
            sizes = [(image.shape[-2], image.shape[-1]) for image in images]
            return Features(out.features, sizes, (stacked.shape[-2], stacked.shape[-1])), terms
        return decoded, terms


def part_parameters(codec: Any | None, task: Any | None, parts: list[str]) -> dict[str, list[Any]]:
    """Return the parameters to train by optimiser group: codec, task, auxiliary, adversary.

    The quantiles of a factorised prior have their own loss and optimiser, and so does a
    discriminator (``adversary``).
    """
    groups: dict[str, list[nn.Parameter]] = {}
    special = {
        "auxiliary": set(codec.auxiliary_parameters()) if codec is not None else set(),
        "adversary": set(getattr(codec, "adversary_parameters", list)()),
    }
    for owner, modules in trained_modules(codec, task, parts).items():
        for parameter in (p for module in modules for p in module.parameters()):
            names = [name for name, held in special.items() if parameter in held]
            groups.setdefault(names[0] if names else owner, []).append(parameter)
    return groups


def trained_modules(
    codec: Any | None, task: Any | None, parts: list[str]
) -> dict[str, list[nn.Module]]:
    """Return the modules that ``parts`` name, by owner (codec or task)."""
    modules: dict[str, list[nn.Module]] = {}
    for part in parts:
        owner, _, name = part.partition(".")
        network = task if owner == "task" else codec
        assert network is not None
        table = network.part_modules()
        for key in [name] if name else list(table):
            modules.setdefault(owner, []).extend(table[key])
    return modules


def set_modes(system: System, parts: list[str]) -> None:
    """Freeze what is not trained.

    Frozen parameters have no gradient, and frozen batch norm is in evaluation mode: a frozen
    detector that trains a codec must keep its statistics. Otherwise a task is in training mode,
    because only then detectors return losses; a codec trained in part quantises with noise.
    """
    owned = trained_modules(system.codec, system.task, parts)
    trained = nn.ModuleList([module for modules in owned.values() for module in modules])
    kept = {id(parameter) for parameter in trained.parameters()}
    system.train()
    if system.codec is not None and not system.codec_trains:
        system.codec.eval()
    freeze_statistics(system, trained=set(trained.modules()))
    for parameter in system.parameters():
        parameter.requires_grad_(id(parameter) in kept)
