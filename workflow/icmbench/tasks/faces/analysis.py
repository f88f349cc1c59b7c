"""Attribute prediction and parsing of faces, one or both, on latents or on images (zhang2022).

The loss terms are ``attributes``, the mean binary cross-entropy, and ``parsing``, the mean
cross-entropy of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from icmbench.codecs.base import Features
from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.jobs import EvaluateJob
from icmbench.networks.padding import stack_padded
from icmbench.tasks.base import Outcome
from icmbench.tasks.faces.networks import (
    AttributeNetwork,
    ImageStem,
    LatentStem,
    ParsingNetwork,
    load_imagenet,
)
from icmbench.tasks.faces.parameters import FaceOnFeaturesParameters, FaceParameters

Target = dict[str, Tensor]
Stem = TypeVar("Stem", LatentStem, ImageStem)
Inputs = TypeVar("Inputs", Features, list[Tensor])

_IGNORED = -100  # cross_entropy's default: padding has no class


class FaceAnalysis(nn.Module, Generic[Stem, Inputs]):
    """A stem that both tasks share and one network for each; what reads what is in subclasses.

    Args:
        parameters: number of attributes and of classes (0 leaves a task out), backbone.
        stem: turns inputs into features at ``stem.stride``.
    """

    targets = "faces"
    input_kind: Literal["images", "features"]

    def __init__(self, parameters: FaceParameters, stem: Stem) -> None:
        super().__init__()
        self.stem: Stem = stem
        self.classes = parameters.parsing
        self.attributes: AttributeNetwork | None = None
        self.parsing: ParsingNetwork | None = None
        if parameters.attributes:
            self.attributes = AttributeNetwork(parameters, stem.stride)
        if parameters.parsing:
            self.parsing = ParsingNetwork(parameters, stem.stride)

    def part_modules(self) -> dict[str, list[nn.Module]]:
        """Return the modules of each trainable part: stem, and the tasks that there are."""
        parts: dict[str, list[nn.Module]] = {"stem": [self.stem]}
        if self.attributes is not None:
            parts["attributes"] = [self.attributes]
        if self.parsing is not None:
            parts["parsing"] = [self.parsing]
        return parts

    def load_pretrained(self) -> None:
        """Refuse: nobody publishes weights for a codec's latents."""
        raise UserError(
            "task 'face-analysis' on features: there are no published weights; start from random "
            "or from another variant"
        )

    def losses(self, inputs: Inputs, targets: list[Target]) -> dict[str, Tensor]:
        """Return the loss of each task, scalars.

        Args:
            inputs: of B images.
            targets: for each, ``attributes`` [A] float32 of 0 and 1, ``parsing`` [H, W] int64.
        """
        features, _ = self._read(inputs)
        terms: dict[str, Tensor] = {}
        if self.attributes is not None:
            wanted = torch.stack([target["attributes"] for target in targets])
            logits = self.attributes(features).float()
            terms["attributes"] = functional.binary_cross_entropy_with_logits(logits, wanted)
        if self.parsing is not None:
            maps = self.parsing(features).float()
            truth = _stack_maps([target["parsing"] for target in targets], maps.shape[-2:])
            terms["parsing"] = functional.cross_entropy(maps, truth, ignore_index=_IGNORED)
        return terms

    @torch.no_grad()
    def predict(self, inputs: Inputs) -> list[dict[str, Tensor]]:
        """Return ``attributes``, probabilities [A], and ``parsing``, classes uint8 [H, W]."""
        self.eval()
        features, sizes = self._read(inputs)
        results: list[dict[str, Tensor]] = [{} for _ in sizes]
        if self.attributes is not None:
            for result, row in zip(results, self.attributes(features).float(), strict=True):
                result["attributes"] = row.sigmoid()
        if self.parsing is not None:
            classes = self.parsing(features).argmax(1).to(torch.uint8)
            for result, (height, width), own in zip(results, sizes, classes, strict=True):
                result["parsing"] = own[:height, :width]
        return results

    def _read(self, inputs: Inputs) -> tuple[Tensor, list[tuple[int, int]]]:
        """Return the stem's output and the size, without padding, of each image."""
        raise NotImplementedError

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Analyse every face; see :func:`icmbench.tasks.faces.evaluation.analyse_faces`."""
        from icmbench.evaluate.predict import Predictor
        from icmbench.tasks.faces.evaluation import analyse_faces

        return analyse_faces(job, split, Predictor(job, split))


class FaceOnFeatures(FaceAnalysis[LatentStem, Features]):
    """Reads a codec's latents [B, C, H/16, W/16]; no image is decoded."""

    input_kind = "features"

    def __init__(self, parameters: FaceOnFeaturesParameters, pretrained: bool = False) -> None:
        assert parameters.feature_channels is not None  # the plan has the codec's
        super().__init__(parameters, LatentStem(parameters, parameters.feature_channels))

    def _read(self, inputs: Features) -> tuple[Tensor, list[tuple[int, int]]]:
        return self.stem(inputs.values), inputs.sizes


class FaceOnImages(FaceAnalysis[ImageStem, list[Tensor]]):
    """Reads images [3, H, W] in [0, 1], decoded or not."""

    input_kind = "images"

    def __init__(self, parameters: FaceParameters, pretrained: bool = False) -> None:
        super().__init__(parameters, ImageStem(parameters))
        self.backbone = parameters.backbone

    def load_pretrained(self) -> None:
        """Take torchvision's ImageNet weights for stem and trunks; heads stay random."""
        if self.backbone != "resnet50":
            raise UserError(
                f"face analysis with backbone {self.backbone!r}: torchvision has weights for "
                "resnet50 only; use that, or train it"
            )
        networks = [n for n in (self.attributes, self.parsing) if n is not None]
        load_imagenet(self.stem, [network.trunk for network in networks])

    def _read(self, inputs: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        sizes = [(image.shape[-2], image.shape[-1]) for image in inputs]
        return self.stem(stack_padded(inputs, self.stem.stride)), sizes


def _stack_maps(maps: list[Tensor], size: Sequence[int]) -> Tensor:
    """Stack maps [H, W] into [B, *size]; what is padded is ignored by the loss."""
    return torch.stack(
        [
            functional.pad(
                own, (0, size[1] - own.shape[1], 0, size[0] - own.shape[0]), value=_IGNORED
            )
            for own in maps
        ]
    )
