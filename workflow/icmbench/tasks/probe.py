"""Linear probe of frozen features (protocol of MoCo, He et al., CVPR 2020, section 4.1)."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from icmbench.codecs.base import Features
from icmbench.data.dataset import Split
from icmbench.jobs import EvaluateJob
from icmbench.networks.backbone import SplitResNet
from icmbench.networks.batchnorm import freeze_statistics
from icmbench.networks.padding import stack_padded
from icmbench.tasks.base import Outcome
from icmbench.tasks.classification import classify
from icmbench.tasks.entries import ProbeParameters

MULTIPLE = 64  # images are padded to it, as the codec pads those whose features are read


class OnBackbone(nn.Module):
    """A task behind a codec's backbone, on features of stride 4.

    Attributes:
        input_kind: features, or images, which a subclass turns into features.
        batch_norm: frozen: running averages, also while the tail is trained. trained: in training
            the statistics of the batch of all processes.
    """

    input_kind = "features"
    batch_norm: Literal["frozen", "trained"] = "frozen"
    network: SplitResNet

    @staticmethod
    def rename_weight(name: str) -> str:
        """Return the name here of a weight of a codec, of MoCo or of torchvision's ResNet.

        These are ``backbone.*``, ``module.encoder_q.*`` (the query network of a checkpoint) and
        bare names. Other names, e.g. of classifiers, do not change.

        >>> OnBackbone.rename_weight("backbone.layer2.0.conv1.weight")
        'network.layer2.0.conv1.weight'
        """
        for prefix in ("module.encoder_q.", "encoder_q.", "backbone.", ""):
            rest = name.removeprefix(prefix)
            if name.startswith(prefix) and rest.startswith(("conv1.", "bn1.", "layer")):
                return f"network.{rest}"
        return name

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen batch norm stays in evaluation mode."""
        super().train(mode)
        if self.batch_norm == "frozen":
            freeze_statistics(self)
        return self

    def features(self, inputs: Any) -> Features:
        """Return features of stride 4: the inputs themselves."""
        features: Features = inputs
        return features


class OnImages(OnBackbone):
    """Mixin before such a task: reads images [3, H, W] in [0, 1] through the backbone's head."""

    input_kind = "images"

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        return {"head": self.network.head_modules(), **super().part_modules()}  # type: ignore[misc]

    def features(self, inputs: Any) -> Features:
        """Return the head's features of a list of images, padded as a codec pads."""
        stacked = stack_padded(inputs, MULTIPLE).contiguous(memory_format=torch.channels_last)
        sizes = [(image.shape[-2], image.shape[-1]) for image in inputs]
        padded = (stacked.shape[-2], stacked.shape[-1])
        return Features(self.network.head(stacked), sizes, padded)


class FeatureProbe(OnBackbone):
    """Tail, global average pool and a linear layer, on features of stride 4.

    Args:
        parameters: size of the backbone, classes.
        pretrained: not used; the backbone's weights are a codec's.

    Attributes:
        targets: what its losses need.
    """

    targets = "label"

    def __init__(self, parameters: ProbeParameters, pretrained: bool = False) -> None:
        super().__init__()
        self.network = SplitResNet(
            parameters.backbone_blocks, parameters.backbone_width, parameters.classes
        )
        if self.input_kind == "features":
            remove_head(self.network)
        # As in MoCo; the problem is convex, so this only sets the starting point.
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    @property
    def classifier(self) -> nn.Linear:
        """The linear layer."""
        assert self.network.fc is not None
        return self.network.fc

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part."""
        return {"tail": self.network.tail_modules(), "classifier": [self.classifier]}

    def forward(self, inputs: Any) -> Tensor:
        """Return the logits [B, classes], float32."""
        features = self.features(inputs)
        last = self.network.tail(features.values)[-1]
        logits: Tensor = self.classifier(_pool(last, features))
        return logits.float()

    def losses(self, inputs: Any, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return ``cross_entropy`` for inputs of :attr:`input_kind` and their ``label``."""
        labels = torch.stack([target["label"] for target in targets])
        return {"cross_entropy": functional.cross_entropy(self(inputs), labels)}

    @torch.no_grad()
    def predict(self, inputs: Any) -> Tensor:
        """Return the logits [B, classes], float32."""
        self.eval()
        logits: Tensor = self(inputs)
        return logits

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Classify every image of a split; see :func:`icmbench.tasks.classification.classify`."""
        return classify(job, split)


class Probe(OnImages, FeatureProbe):
    """The same on images [3, H, W] in [0, 1]."""


def remove_head(network: SplitResNet) -> None:
    """Remove the modules that only images need."""
    for name in ("conv1", "bn1", "layer1"):
        delattr(network, name)


def _pool(last: Tensor, features: Features) -> Tensor:
    """Return the mean [B, C] over the cells that are not only padding."""
    pooled = []
    for values, size in zip(last, features.sizes, strict=True):
        height, width = (
            math.ceil(length * cells / padded)
            for length, cells, padded in zip(size, values.shape[-2:], features.padded, strict=True)
        )
        pooled.append(values[:, :height, :width].mean((1, 2)))
    return torch.stack(pooled)
