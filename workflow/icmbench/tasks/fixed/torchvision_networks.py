"""Detectors, classifiers and segmentation networks of torchvision, by name."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models

from icmbench.data.classes import class_names, find_labels
from icmbench.errors import UserError, unknown
from icmbench.networks.pretrained import check_cached
from icmbench.tasks.fixed.answers import Classifies, Detects, Fixed, Segments, labels_of_logits
from icmbench.tasks.fixed.entries import TorchvisionParameters
from icmbench.utils.images import to_image


class TorchvisionNetwork(Fixed):
    """A network as ``torchvision.models.get_model`` builds it, in evaluation mode.

    Args:
        parameters: name, weights, classes.
        pretrained: leave the network to :meth:`load_pretrained`: torchvision builds some networks
            in another way for its weights.

    Raises:
        UserError: for a name that torchvision does not have.
    """

    kind = ""  # module of torchvision.models
    what = "classifier"

    def __init__(self, parameters: Any, pretrained: bool = False) -> None:
        super().__init__()
        self.parameters_given: TorchvisionParameters = parameters
        self.weights = self._published(parameters)
        self.network: Any = None if pretrained else self._random()

    @classmethod
    def _published(cls, parameters: TorchvisionParameters) -> Any:
        names = list_models(module=_module(cls.kind))
        if parameters.model not in names:
            raise UserError(unknown(f"{cls.what} of torchvision", parameters.model, names))
        found = get_model_weights(parameters.model)
        if parameters.weights not in found.__members__:
            what = f"weights of torchvision's {parameters.model}"
            raise UserError(unknown(what, parameters.weights, found.__members__))
        return found[parameters.weights]

    def _random(self) -> nn.Module:
        own = self.parameters_given
        count = len(class_names(own.classes))  # type: ignore[attr-defined]
        without: dict[str, Any] = {"weights": None, "num_classes": count}
        if self.kind:
            without["weights_backbone"] = None
        network: nn.Module = get_model(own.model, **{**without, **own.arguments})
        return network

    def load_pretrained(self) -> None:
        """Build the network with torchvision's published weights.

        Raises:
            UserError: where their classes are not those of the parameters.
        """
        own, categories = self.parameters_given, self.weights.meta["categories"]
        classes = own.classes  # type: ignore[attr-defined]
        found = find_labels(categories, classes)
        wrong = [name for label, name in enumerate(categories) if found.get(name, label) != label]
        if wrong or len(categories) != len(class_names(classes)):
            raise UserError(
                f"torchvision's {own.model} has {len(categories)} classes, {categories[0]!r} to "
                f"{categories[-1]!r}, not those of the task's 'classes'; correct them"
            )
        check_cached(self.weights.url)
        settings: dict[str, Any] = {**own.arguments, "weights": self.weights, "progress": False}
        self.network = get_model(own.model, **settings)

    def preset(self) -> Any:
        """Return torchvision's published preprocessing, with the settings of the parameters."""
        return self.weights.transforms(**self.parameters_given.preprocessing)

    def preprocessed(self, image: Tensor) -> Tensor:
        """Return the network's input [1, 3, h, w] of an image [3, H, W] in [0, 1].

        By way of an 8-bit image, which published accuracies are measured on.
        """
        transformed: Tensor = self.preset()(Image.fromarray(to_image(image)))
        return transformed[None].to(image.device)


class Detector(Detects, TorchvisionNetwork):
    """A detector; it resizes and normalises inside."""

    kind, what = "detection", "detector"

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Return boxes, scores and labels, and masks of Mask R-CNN, of each image."""
        self.eval()
        found: list[dict[str, Tensor]] = self.network(images)
        return found


class Classifier(Classifies, TorchvisionNetwork):
    """A classifier."""

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> Tensor:
        """Return the logits [B, classes]."""
        self.eval()
        return torch.cat([self.network(self.preprocessed(image)) for image in images])


class Segmenter(Segments, TorchvisionNetwork):
    """A network for semantic segmentation."""

    kind, what = "segmentation", "segmentation network"

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[Tensor]:
        """Return the labels [H, W] of each image."""
        self.eval()
        return [
            labels_of_logits(self.network(self.preprocessed(image))["out"], *image.shape[-2:])
            for image in images
        ]


def _module(kind: str) -> Any:
    import torchvision.models

    return getattr(torchvision.models, kind) if kind else torchvision.models
