"""Attribute prediction and parsing of faces, one or both, on latents or on images (zhang2022).

The loss terms are ``attributes``, the mean binary cross-entropy, and ``parsing``, the mean
cross-entropy of a pixel.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from icmbench.codecs.base import Features
from icmbench.codecs.layered.codec import Layered, LayeredNetwork
from icmbench.data.dataset import Split
from icmbench.data.readers.faces import open_faces
from icmbench.errors import UserError
from icmbench.evaluate.predict import Predictor
from icmbench.evaluate.statistics import ConfusionStatistics, MeanStatistics, Statistics
from icmbench.jobs import EvaluateJob
from icmbench.metrics.segmentation import confusion_matrix
from icmbench.networks.padding import stack_padded
from icmbench.tasks.base import Outcome
from icmbench.tasks.entries import (
    FaceOnFeaturesParameters,
    FaceOnUnquantisedParameters,
    FaceParameters,
)
from icmbench.tasks.faces.networks import (
    AttributeNetwork,
    ImageStem,
    LatentStem,
    ParsingNetwork,
    load_imagenet,
)
from icmbench.tasks.segmentation import class_results
from icmbench.utils.images import as_png
from icmbench.utils.logs import progress

Target = dict[str, Tensor]
Stem = TypeVar("Stem", LatentStem, ImageStem)
Inputs = TypeVar("Inputs", Features, list[Tensor])

_IGNORED = -100  # cross_entropy's default: padding has no class
_MAPS_SHOWN = 12  # parsing maps kept for the report


class FaceAnalysis(nn.Module, Generic[Stem, Inputs]):
    """A stem that both analyses share, and a network for each.

    Args:
        parameters: number of attributes and of classes (0 leaves an analysis out), backbone.
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
        """Return the modules of each trainable part: the stem, and one per analysis."""
        parts: dict[str, list[nn.Module]] = {"stem": [self.stem]}
        if self.attributes is not None:
            parts["attributes"] = [self.attributes]
        if self.parsing is not None:
            parts["parsing"] = [self.parsing]
        return parts

    def losses(self, inputs: Inputs, targets: list[Target]) -> dict[str, Tensor]:
        """Return the loss of each analysis, scalars.

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
        """Analyse every face; see :func:`analyse_faces`."""
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
        """Load torchvision's ImageNet weights for stem and trunks; heads stay random."""
        networks = [n for n in (self.attributes, self.parsing) if n is not None]
        load_imagenet(self.stem, [network.trunk for network in networks])

    def _read(self, inputs: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        sizes = [(image.shape[-2], image.shape[-1]) for image in inputs]
        return self.stem(stack_padded(inputs, self.stem.stride)), sizes


class FaceOnRearranged(FaceAnalysis[LatentStem, list[Tensor]]):
    """Reads images [3, H, W] in [0, 1] as the network on latents reads those: a control.

    Blocks of 16 x 16 pixels become channels (``pixel_unshuffle``): the stride of latents, with
    nothing lost.
    """

    input_kind = "images"

    def __init__(self, parameters: FaceParameters, pretrained: bool = False) -> None:
        super().__init__(parameters, LatentStem(parameters, 3 * LatentStem.stride**2))

    def _read(self, inputs: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        sizes = [(image.shape[-2], image.shape[-1]) for image in inputs]
        images = stack_padded(inputs, self.stem.stride)
        return self.stem(functional.pixel_unshuffle(images, self.stem.stride)), sizes


class FaceOnUnquantised(FaceAnalysis[LatentStem, list[Tensor]]):
    """Reads images [3, H, W] in [0, 1] as latents of the layered codec before rounding: a control.

    The codec's analysis belongs to the network and is not trained: its weights are those of a
    codec. It computes in float32, so that nothing but rounding is left out.
    """

    input_kind = "images"

    def __init__(self, parameters: FaceOnUnquantisedParameters, pretrained: bool = False) -> None:
        assert parameters.layered is not None  # the plan has the scale's
        sizes = parameters.layered
        super().__init__(parameters, LatentStem(parameters, sizes.semantic + sizes.texture))
        # Under the codec's names.
        self.network = nn.ModuleDict({"g_a": LayeredNetwork(sizes).g_a})

    def _read(self, inputs: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        sizes = [(image.shape[-2], image.shape[-1]) for image in inputs]
        images = stack_padded(inputs, Layered.multiple)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            latents = self.network["g_a"](images)
        return self.stem(latents), sizes


def _stack_maps(maps: list[Tensor], size: Sequence[int]) -> Tensor:
    """Stack maps [H, W] into [B, *size]; the loss ignores the padding."""
    return torch.stack(
        [
            functional.pad(
                own, (0, size[1] - own.shape[1], 0, size[0] - own.shape[0]), value=_IGNORED
            )
            for own in maps
        ]
    )


# --- evaluation -----------------------------------------------------------------------------------


def analyse_faces(job: EvaluateJob, split: Split, predictor: Predictor) -> Outcome:
    """Return the metrics of a face network on a split, groups ``attributes`` and ``parsing``.

    ``attribute_accuracy``: share of correct attributes at a threshold of one half.
    ``majority_accuracy``: the same for each attribute's more frequent value in the train split, if
    there is one. ``miou``, ``fwiou`` and ``pixel_accuracy``: see
    :mod:`icmbench.metrics.segmentation`.

    Raises:
        UserError: where the data set lacks what the task predicts.
    """
    correct: list[float] = []
    matrices: list[np.ndarray] = []
    predictions: list[dict[str, object]] = []
    for index in progress(range(len(split)), f"{job.key}: analyse faces"):
        (result,) = predictor.predict(predictor.inputs([index]))
        row: dict[str, object] = {"image_id": split.ids[index]}
        if "attributes" in result:
            probabilities = result["attributes"].float().cpu().numpy()
            truth = split.attributes(index)
            _check("attributes", probabilities.size, truth.size, job)
            correct.append(float(np.mean((probabilities > 0.5) == truth)))
            row["attributes"] = [round(float(value), 4) for value in probabilities]
        if "parsing" in result:
            found = result["parsing"].cpu().numpy()
            classes = len(split.faces.parsing_names)
            _check("parsing", predictor.network.classes, classes, job)
            matrices.append(confusion_matrix(split.parsing(index), found, classes))
            if index < _MAPS_SHOWN:
                row["parsing"] = base64.b64encode(as_png(found)).decode("ascii")
        predictions.append(row)
    statistics: dict[str, Statistics] = {}
    if correct:
        values: dict[str, Sequence[float]] = {"attribute_accuracy": correct}
        guess = _majority(job)
        if guess is not None:
            table = np.stack([split.attributes(index) for index in range(len(split))])
            values["majority_accuracy"] = (table == guess).mean(1)
        statistics["attributes"] = MeanStatistics(split.ids, values)
    if matrices:
        statistics["parsing"] = ConfusionStatistics(split.ids, np.stack(matrices))
    metrics = {k: v for group in statistics.values() for k, v in group.metrics().items()}
    per_class = []
    if matrices:
        summed = np.sum(matrices, axis=0, dtype=np.int64)
        per_class = class_results(summed, list(split.faces.parsing_names))
    return Outcome(statistics, metrics, predictions, predictor.compute.name, per_class)


def _check(what: str, own: int, given: int, job: EvaluateJob) -> None:
    if own != given:
        role = job.dataset.role
        raise UserError(
            f"{job.key}: task parameter {what!r} is {own}, but the data set of role {role!r} "
            f"has {given}; set it to {given}, or to 0 to leave it out"
        )


def _majority(job: EvaluateJob) -> np.ndarray | None:
    """Return uint8 [A], the more frequent value of each attribute in the train split."""
    dataset = job.dataset
    if dataset.fetched is not None and "train" not in dataset.fetched.splits:
        return None
    table = open_faces(dataset, "train").attribute_table()
    return (table.mean(0) > 0.5).astype(np.uint8) if len(table) else None
