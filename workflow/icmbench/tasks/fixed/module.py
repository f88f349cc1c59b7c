"""A class of one's own as a task network."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.jobs import EvaluateJob
from icmbench.tasks.base import Outcome
from icmbench.tasks.fixed.answers import Classifies, Detects, Fixed, Segments
from icmbench.tasks.fixed.entries import ModuleParameters

_BY_ANSWER: dict[str, Any] = {
    "boxes": Detects, "masks": Detects, "logits": Classifies, "maps": Segments
}  # fmt: skip


class Module(Fixed):
    """An ``nn.Module`` with ``predict``, see :mod:`icmbench.tasks.fixed.answers`.

    Args:
        parameters: ``module:Class``, its arguments.
        pretrained: not used; the class loads its weights itself.

    Raises:
        UserError: where the class cannot be imported.
    """

    def __init__(self, parameters: ModuleParameters, pretrained: bool = False) -> None:
        super().__init__()
        module, _, name = parameters.implementation.partition(":")
        try:
            own = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"task parameter 'implementation': cannot import {parameters.implementation!r} "
                f"({error}); put its folder on PYTHONPATH"
            ) from error
        self.network: Any = own(**parameters.arguments)
        if not hasattr(self.network, "predict"):
            raise UserError(
                f"task parameter 'implementation': {parameters.implementation!r} has no method "
                "predict(images); see docs/own-networks.md"
            )

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> Any:
        """Return what the class returns."""
        self.eval()
        return self.network.predict(images)

    @staticmethod
    def evaluate(job: EvaluateJob, split: Split) -> Outcome:
        """Judge every image by the kind of answer."""
        outcome: Outcome = _BY_ANSWER[str(job.task.parameters["answer"])].evaluate(job, split)
        return outcome
