"""What the networks of a training take and give, as tensors: the signature of its weights.

It follows from the registries and the job, without a network library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from icmbench.plugins import load_modules
from icmbench.registry import CODECS, TASKS


@dataclass(frozen=True)
class TensorOf:
    """One input or output.

    Attributes:
        name: e.g. ``boxes``.
        type: NumPy's name of the type.
        shape: -1 for what the image decides.
    """

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs; outputs of a task are those of one image."""

    inputs: tuple[TensorOf, ...]
    outputs: tuple[TensorOf, ...]


_IMAGES = (-1, 3, -1, -1)
_BOXES = (
    TensorOf("boxes", "float32", (-1, 4)),
    TensorOf("labels", "int64", (-1,)),
    TensorOf("scores", "float32", (-1,)),
)


def signature_of(job: dict[str, Any]) -> Signature:
    """Return the signature of a training job's networks.

    Args:
        job: the job as ``run.json`` keeps it.

    Raises:
        UserError: for a codec or task that no module registers.
    """
    load_modules(job["modules"])
    outputs = (*_of_codec(job["codec"]), *_of_task(job["task"]))
    return Signature((TensorOf("images", "float32", _IMAGES),), outputs)


def _of_codec(codec: dict[str, Any]) -> tuple[TensorOf, ...]:
    entry = CODECS[codec["name"]]
    outputs: tuple[TensorOf, ...] = ()
    if entry.kind == "none":
        return outputs
    if "images" in entry.outputs:
        outputs += (TensorOf("reconstructions", "float32", _IMAGES),)
    if entry.feature_channels is not None:
        channels = entry.feature_channels(entry.parameters.model_validate(codec["parameters"]))
        outputs += (TensorOf("features", "float32", (-1, channels, -1, -1)),)
    return outputs


def _of_task(task: dict[str, Any]) -> tuple[TensorOf, ...]:
    """Return what a task predicts, which its metrics tell; nothing for metrics not known here."""
    metrics, settings = TASKS[task["name"]].metrics, task["parameters"]
    outputs: tuple[TensorOf, ...] = ()
    if "box_map" in metrics:
        outputs += _BOXES
    if "mask_map" in metrics:
        outputs += (TensorOf("masks", "float32", (-1, 1, -1, -1)),)
    if "top1" in metrics:
        outputs += (TensorOf("logits", "float32", (-1, settings.get("classes", -1))),)
    if "attribute_accuracy" in metrics:
        outputs += (TensorOf("attributes", "float32", (settings.get("attributes", -1),)),)
    if "miou" in metrics:
        outputs += (TensorOf("parsing", "uint8", (-1, -1)),)
    return outputs
