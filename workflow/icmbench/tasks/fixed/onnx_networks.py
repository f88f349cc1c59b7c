"""Networks in ONNX files, run by onnxruntime on the CPU."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torchvision.ops import box_convert

from icmbench.data.classes import class_names
from icmbench.errors import UserError, damaged_file, missing_file
from icmbench.tasks.fixed.answers import Classifies, Detects, Fixed, Segments, labels_of_logits
from icmbench.tasks.fixed.entries import (
    OnnxClassifierParameters,
    OnnxDetectorParameters,
    OnnxParameters,
    OnnxSegmenterParameters,
)
from icmbench.tasks.fixed.preprocessing import Placed, prepare
from icmbench.tasks.fixed.yolox import yolox_boxes
from icmbench.utils.files import line_of, sha256_file


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open an ONNX file for the CPU.

    Raises:
        UserError: where it is damaged, or has more inputs than one.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # its own classes, which share no base
        reason = f"onnxruntime cannot open it ({line_of(error)})"
        raise damaged_file(path, reason, "export it again") from error
    if len(session.get_inputs()) != 1:
        names = ", ".join(own.name for own in session.get_inputs())
        raise UserError(f"{path}: has the inputs {names}; one, for images, is allowed")
    return session


class OnnxNetwork(Fixed):
    """A file with one input, images [1, 3, h, w] in float32.

    Args:
        parameters: file, checksum, classes, preprocessing.
        pretrained: not used; the weights are in the file.

    Raises:
        UserError: where the file is missing, damaged or of another checksum.
    """

    def __init__(self, parameters: OnnxParameters, pretrained: bool = False) -> None:
        super().__init__()
        self.settings: Any = parameters
        self.path = Path(parameters.file)
        if not self.path.is_file():
            raise missing_file(self.path, "put the ONNX file there, or correct 'file' of the task")
        if parameters.sha256 is not None and sha256_file(self.path) != parameters.sha256:
            advice = "restore the file, or correct 'sha256' of the task"
            raise damaged_file(self.path, "checksum mismatch with the task's 'sha256'", advice)
        self.classes = len(class_names(parameters.classes))

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The opened file."""
        return open_session(self.path)

    def run(self, image: Tensor) -> tuple[dict[str, np.ndarray], Placed]:
        """Return the outputs by name for an image [3, H, W] in [0, 1], and where it was placed."""
        placed = prepare(image.float().cpu(), self.settings.input)
        values = np.ascontiguousarray(placed.values[None].numpy())
        name = self.session.get_inputs()[0].name
        try:
            outputs = self.session.run(None, {name: values})
        except Exception as error:
            raise UserError(
                f"{self.path}: cannot read an input of shape {list(values.shape)} "
                f"({line_of(error)}); correct 'input' of the task"
            ) from error
        names = [own.name for own in self.session.get_outputs()]
        return dict(zip(names, outputs, strict=True)), placed

    def _first(self, outputs: dict[str, np.ndarray]) -> Tensor:
        return torch.from_numpy(next(iter(outputs.values())))

    def _check_form(self, found: Tensor, sizes: tuple[int, ...], form: str) -> None:
        if found.ndim not in sizes or found.shape[0] != 1:
            raise UserError(
                f"{self.path}: its first output has the shape {list(found.shape)}, not {form}; "
                "choose another form of output for the task"
            )

    def _check_classes(self, found: int) -> None:
        if found != self.classes:
            raise UserError(
                f"{self.path}: answers in {found} classes, the task's 'classes' are "
                f"{self.classes}; correct them"
            )


class Detector(Detects, OnnxNetwork):
    """A detector: boxes, or YOLOX's raw grid."""

    settings: OnnxDetectorParameters

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Return boxes in the pixels of the image, scores and labels of each image."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Tensor) -> dict[str, Tensor]:
        outputs, placed = self.run(image)
        own = self.settings
        if own.output == "yolox":
            raw = self._first(outputs)
            self._check_form(raw, (3,), "[1, cells, 5 + classes], YOLOX's raw grid")
            grid = raw[0]
            self._check_classes(grid.shape[-1] - 5)
            size = placed.values.shape[-2], placed.values.shape[-1]
            found = yolox_boxes(grid, size, own.min_score, own.nms)
        else:
            found = {}
            for what in ("boxes", "scores", "labels"):
                name = own.names.get(what, what)
                if name not in outputs:
                    raise UserError(
                        f"{self.path}: no output {name!r}, it has {', '.join(outputs)}; set "
                        "'names' of the task"
                    )
                value = torch.from_numpy(outputs[name])
                found[what] = value.reshape(-1, 4) if what == "boxes" else value.reshape(-1)
            found["boxes"] = box_convert(found["boxes"], own.box_format, "xyxy")
            largest = int(found["labels"].max()) if len(found["labels"]) else 0
            if largest >= self.classes:
                self._check_classes(largest + 1)
        return {**found, "boxes": placed.to_image(found["boxes"])}


class Classifier(Classifies, OnnxNetwork):
    """A classifier."""

    settings: OnnxClassifierParameters

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> Tensor:
        """Return the logits [B, classes]."""
        rows = [self._first(self.run(image)[0]) for image in images]
        self._check_form(rows[0], (2, 4), "[1, classes], logits")
        rows = [row.flatten(1) for row in rows]
        self._check_classes(rows[0].shape[-1])
        return torch.cat(rows)


class Segmenter(Segments, OnnxNetwork):
    """A network for semantic segmentation."""

    settings: OnnxSegmenterParameters

    @torch.no_grad()
    def predict(self, images: list[Tensor]) -> list[Tensor]:
        """Return the labels [H, W] of each image."""
        return [self._segment(image) for image in images]

    def _segment(self, image: Tensor) -> Tensor:
        found = self._first(self.run(image)[0])
        self._check_form(found, (3, 4), "[1, classes, h, w], logits, or [1, h, w], labels")
        height, width = image.shape[-2:]
        if found.ndim == 4 and found.shape[1] > 1:
            self._check_classes(found.shape[1])
            return labels_of_logits(found, height, width)
        labels = found.reshape(1, 1, *found.shape[-2:]).float()
        resized = torch.nn.functional.interpolate(labels, (height, width), mode="nearest")
        return resized[0, 0].byte()
