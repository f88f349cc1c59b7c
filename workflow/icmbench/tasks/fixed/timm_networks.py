"""Classifiers of timm, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import get_pretrained_cfg
from torch import Tensor

from icmbench.data.classes import class_names
from icmbench.errors import UserError, unknown
from icmbench.networks.pretrained import hub_weights
from icmbench.tasks.fixed.answers import Classifies, Fixed
from icmbench.tasks.fixed.entries import TimmClassifierParameters
from icmbench.utils.images import to_image


class Classifier(Classifies, Fixed):
    """A classifier as ``timm.create_model`` builds it, behind its own preprocessing.

    Args:
        parameters: name, classes.
        pretrained: leave the network to :meth:`load_pretrained`.

    Raises:
        UserError: for a name that timm does not have.
    """

    def __init__(self, parameters: TimmClassifierParameters, pretrained: bool = False) -> None:
        super().__init__()
        if not timm.is_model(parameters.model):
            raise UserError(unknown("classifier of timm", parameters.model, timm.list_models()))
        self._given = parameters
        self.network: Any = None if pretrained else self._build(False)

    def load_pretrained(self) -> None:
        """Build the network with timm's published weights.

        Raises:
            UserError: where it has another number of classes.
        """
        self.network = self._build(True)
        count = len(class_names(self._given.classes))
        if self.network.num_classes != count:
            raise UserError(
                f"timm's {self._given.model} has {self.network.num_classes} classes, the task's "
                f"'classes' {count}; correct them"
            )

    def _build(self, published: bool) -> Any:
        own = {} if published else {"num_classes": len(class_names(self._given.classes))}
        settings: dict[str, Any] = {**own, **self._given.arguments}
        if published and (file := self._cached()) is not None:
            # Without asking the hub whether it has a newer file.
            settings.setdefault("pretrained_cfg_overlay", {"file": str(file)})
        return timm.create_model(self._given.model, pretrained=published, **settings)

    def _cached(self) -> Path | None:
        config = get_pretrained_cfg(self._given.model)
        return hub_weights(config.hf_hub_id) if config and config.hf_hub_id else None

    def preset(self) -> Any:
        """Return timm's published preprocessing, with the settings of the parameters."""
        config: dict[str, Any] = resolve_model_data_config(self.network)
        return create_transform(**{**config, **self._given.preprocessing}, is_training=False)

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> Tensor:
        """Return the logits [B, classes] of images [3, H, W] in [0, 1]."""
        self.eval()
        preset = self.preset()
        inputs = [preset(Image.fromarray(to_image(image))).to(image.device) for image in images]
        return torch.cat([self.network(own[None]) for own in inputs])
