"""Registered weights: the files of a model version, and what ``mlflow.pyfunc`` loads from them.

The folder of a version holds ``MLmodel``, and ``run.json`` and ``weights.pt`` of the training run.
Nothing in it is executed: the loader is this module.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icmbench.errors import UserError
from icmbench.utils.files import read_object

if TYPE_CHECKING:
    import torch


def mlmodel(run_id: str) -> str:
    """Return the file ``MLmodel`` of a run's final weights."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype("float32"), (-1, 3, -1, -1))
    flavour = {"loader_module": __name__, "python_version": platform.python_version()}
    model = Model(
        artifact_path="model",
        run_id=run_id,
        flavors={"python_function": flavour},
        signature=ModelSignature(inputs=Schema([images])),
    )
    return str(model.to_yaml())


class CodedVision:
    """The networks of a training run: what it trained, and the codec whose features a task reads.

    Args:
        folder: holds ``run.json`` and ``weights.pt``.

    Raises:
        UserError: for weights that are missing or damaged, also of the codec.
    """

    def __init__(self, folder: Path) -> None:
        from icmbench.networks.build import build_codec, build_task
        from icmbench.networks.weights import load_tensors
        from icmbench.plugins import load_modules
        from icmbench.registry import CODECS, TASKS

        job = read_object(folder / "run.json", "job")["job"]
        load_modules(job["modules"])
        weights = folder / "weights.pt"
        trained = load_tensors(weights, "register it again")
        entry = TASKS[job["task"]["name"]]
        self.reads_features = entry.input_kind == "features"
        self.outputs = CODECS[job["codec"]["name"]].outputs
        self.codec = self.task = None

        def own(part: str) -> dict[str, Any]:
            settings = job[part]
            here = {"weights": str(weights), "weights_of": settings["name"], "weights_part": part}
            return {**settings, **here} if trained[part] is not None else settings

        if trained["codec"] is not None or self.reads_features:
            self.codec = build_codec(own("codec"))
            self.codec.prepare_coding()
            self.codec.requires_grad_(False)
        # What trains a codec's own network is not a task for images.
        if trained["task"] is not None and not entry.trains_codec:
            self.task = build_task(own("task")).eval().requires_grad_(False)

    def predict(self, images: np.ndarray) -> list[dict[str, Any]]:
        """Code images and run the task on what is decoded.

        Args:
            images: float32 [N, 3, H, W] in [0, 1].

        Returns:
            One dictionary for each image. With a codec: ``bits``, the length of the bitstream, and
            ``image``, float32 [3, H, W] in [0, 1], or ``features``, float32 [C, h, w]. With a task:
            its predictions as arrays, e.g. ``boxes``, ``labels``, ``scores`` or ``logits``.
        """
        import torch

        with torch.inference_mode():
            return [self._one(torch.from_numpy(image)) for image in images]

    def _one(self, image: torch.Tensor) -> dict[str, Any]:
        import torch

        from icmbench.codecs.base import Features
        from icmbench.utils.tensors import to_image, to_tensor

        result: dict[str, Any] = {}
        inputs: Any = [image]
        if self.codec is not None:
            encoded = self.codec.encode(to_image(image))
            decoded = self.codec.decode(encoded.data)
            result["bits"] = encoded.bits
            if "features" in self.outputs:
                features = self.codec.features(decoded)
                height, width = image.shape[-2:]
                multiple = self.codec.multiple
                padded = (height + -height % multiple, width + -width % multiple)
                result["features"] = features[0]
                inputs = Features(features, [(height, width)], padded)
                decoded = self.codec.image(decoded) if "images" in self.outputs else None
            if decoded is not None:
                result["image"] = to_tensor(decoded)[0]
                inputs = inputs if self.reads_features else [result["image"]]
        if self.task is not None:
            (predicted,) = self.task.predict(inputs)
            result |= predicted if isinstance(predicted, dict) else {"logits": predicted}
        return {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in result.items()}


def _load_pyfunc(path: str) -> CodedVision:
    """Return the model of a folder; MLflow's interface for loaders."""
    return CodedVision(Path(path))
