"""Registered weights: the files of a model version, and what ``mlflow.pyfunc`` loads from them.

The folder of a version holds ``MLmodel``, and ``run.json`` and ``weights.pt`` of the training run.
Nothing in it is executed: MLflow imports this module and calls :func:`_load_pyfunc`.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icmbench.summaries import TrainingSummary
from icmbench.utils.models import read_model

if TYPE_CHECKING:
    import torch


def mlmodel(run_id: str) -> str:
    """Return the content of ``MLmodel`` for the final weights of a run."""
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


class TrainedNetworks:
    """The networks that a training run trained, and the codec whose features its task reads.

    Args:
        folder: holds ``run.json`` and ``weights.pt``.

    Raises:
        UserError: for weights that are missing or damaged. A codec that only feeds the task is read
            from where the training run read it.
    """

    def __init__(self, folder: Path) -> None:
        from icmbench.jobs import WeightsSpec
        from icmbench.networks.build import build_codec, build_task
        from icmbench.networks.weights import load_tensors
        from icmbench.plugins import load_modules
        from icmbench.registry import CODECS, TASKS

        job = read_model(folder / "run.json", TrainingSummary).job
        load_modules(job.modules)
        weights = folder / "weights.pt"
        trained = load_tensors(weights, "import the run again")
        entry = TASKS[job.task.network]
        self.reads_features = entry.input_kind == "features"
        self.outputs = CODECS[job.codec.name].outputs
        self.codec = self.task = None
        codec, task = job.codec, job.task
        if trained["codec"] is not None:
            own = WeightsSpec(source=str(weights), of=codec.name, part="codec")
            codec = codec.model_copy(update={"weights": own})
        if trained["codec"] is not None or self.reads_features:
            self.codec = build_codec(codec)
            self.codec.prepare_coding()
            self.codec.requires_grad_(False)
        if trained["task"] is not None and not entry.trains_codec:
            own = WeightsSpec(source=str(weights), of=task.name, part="task")
            task = task.model_copy(update={"weights": own})
            self.task = build_task(task).eval().requires_grad_(False)

    def predict(self, images: np.ndarray) -> list[dict[str, object]]:
        """Code images and run the task on what is decoded.

        Args:
            images: float32 [N, 3, H, W] in [0, 1].

        Returns:
            One dictionary for each image. With a codec: ``bits`` of its bitstream, and ``image``,
            float32 [3, H, W] in [0, 1], or ``features``, float32 [C, h, w]. With a task: its
            predictions as arrays, e.g. ``boxes``, ``labels`` and ``scores``, or ``logits``.
        """
        import torch

        with torch.no_grad():
            return [self._one(torch.from_numpy(image)) for image in images]

    def _one(self, image: torch.Tensor) -> dict[str, object]:
        import torch

        from icmbench.codecs.base import Features
        from icmbench.utils.images import to_image, to_tensor

        result: dict[str, object] = {}
        inputs: Any = [image]
        if self.codec is not None:
            encoded = self.codec.encode(to_image(image), reconstruct=False)
            decoded = self.codec.decode(encoded.data)
            result["bits"] = encoded.bits
            features: Any = None
            if "features" in self.outputs:
                features = self.codec.features(decoded)
                result["features"] = features[0]
                decoded = self.codec.image(decoded) if "images" in self.outputs else None
            if decoded is not None:
                result["image"] = to_tensor(decoded)[0]
                inputs = [result["image"]]
            if self.reads_features:
                size = (image.shape[-2], image.shape[-1])
                height, width = (side + -side % self.codec.multiple for side in size)
                inputs = Features(features, [size], (height, width))
        if self.task is not None:
            (predicted,) = self.task.predict(inputs)
            result |= predicted if isinstance(predicted, dict) else {"logits": predicted}
        return {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in result.items()}


def _load_pyfunc(path: str) -> TrainedNetworks:
    """Return the networks of a folder; MLflow's interface of a loader."""
    return TrainedNetworks(Path(path))
