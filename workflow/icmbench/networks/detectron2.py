"""Weights of Detectron2's Mask R-CNN (X101-32x8d-FPN) in the layout of torchvision's.

Names, the order of colours and the numbering of classes differ. What differs in the computation is
chosen by the task's parameter ``layout: detectron2``, see :mod:`icmbench.tasks.detector_parts`.
Detectron2 is Wu et al., 2019; its model zoo gives 44.3 box and 39.5 mask mAP for this network.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from icmbench.errors import UserError, damaged_file, missing_file
from icmbench.networks.weights import load_tensors
from icmbench.utils.files import atomic_path, reading

_ADVICE = "give a Mask R-CNN of Detectron2's model zoo"

# COCO's category ids in the order of Detectron2's classes; ids of 91 that no category has are left.
_ABSENT = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
CATEGORIES = [identity for identity in range(1, 91) if identity not in _ABSENT]
_CLASSES = 91
_NEVER = -1e4  # logit of a class that COCO does not have

# Of torchvision, RGB, for images in [0, 1].
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_NAMES = (
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.(.+)", r"backbone.body.bn1.\1"),
    (r"backbone\.bottom_up\.stem\.conv1\.weight", r"backbone.body.conv1.weight"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.norm\.(.+)",
     r"backbone.body.layer<\1-1>.\2.downsample.1.\3"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.shortcut\.weight",
     r"backbone.body.layer<\1-1>.\2.downsample.0.weight"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.norm\.(.+)",
     r"backbone.body.layer<\1-1>.\2.bn\3.\4"),
    (r"backbone\.bottom_up\.res(\d)\.(\d+)\.conv(\d)\.weight",
     r"backbone.body.layer<\1-1>.\2.conv\3.weight"),
    (r"backbone\.fpn_lateral(\d)\.(.+)", r"backbone.fpn.inner_blocks.<\1-2>.0.\2"),
    (r"backbone\.fpn_output(\d)\.(.+)", r"backbone.fpn.layer_blocks.<\1-2>.0.\2"),
    (r"proposal_generator\.rpn_head\.conv\.(.+)", r"rpn.head.conv.0.0.\1"),
    (r"proposal_generator\.rpn_head\.objectness_logits\.(.+)", r"rpn.head.cls_logits.\1"),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.(.+)", r"rpn.head.bbox_pred.\1"),
    (r"roi_heads\.box_head\.fc1\.(.+)", r"roi_heads.box_head.fc6.\1"),
    (r"roi_heads\.box_head\.fc2\.(.+)", r"roi_heads.box_head.fc7.\1"),
    (r"roi_heads\.box_predictor\.(.+)", r"roi_heads.box_predictor.\1"),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.(.+)", r"roi_heads.mask_head.<\1-1>.0.\2"),
    (r"roi_heads\.mask_head\.deconv\.(.+)", r"roi_heads.mask_predictor.conv5_mask.\1"),
    (r"roi_heads\.mask_head\.predictor\.(.+)", r"roi_heads.mask_predictor.mask_fcn_logits.\1"),
)  # fmt: skip
_CONSTANTS = re.compile(r"pixel_mean|pixel_std|proposal_generator\.anchor_generator\..*")


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return Detectron2's weights by the names and in the shapes of torchvision's Mask R-CNN.

    Args:
        state: Detectron2's state dict of a Mask R-CNN with a pyramid and COCO's 80 classes.

    Raises:
        UserError: for a weight that this network does not have, or another normalisation of images.
    """
    _check_normalisation(state)
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        if _CONSTANTS.fullmatch(name):
            continue
        own = _own_name(name)
        if own == "backbone.body.conv1.weight":
            value = value.flip(1)  # from BGR
        elif own.startswith("roi_heads.box_predictor.cls_score"):
            value = _numbered(value, torch.full(value.shape[1:], _absent(own)), last=True)
        elif own.startswith("roi_heads.box_predictor.bbox_pred"):
            boxes = value.reshape(-1, 4, *value.shape[1:])
            value = _numbered(boxes, torch.zeros(boxes.shape[1:])).flatten(0, 1)
        elif own.startswith("roi_heads.mask_predictor.mask_fcn_logits"):
            value = _numbered(value, torch.zeros(value.shape[1:]))
        converted[f"network.{own}"] = value.contiguous()
    return converted


def _own_name(name: str) -> str:
    for theirs, ours in _NAMES:
        found = re.fullmatch(theirs, name)
        if found is not None:
            # <3-1>: stages, levels and layers are counted from other numbers.
            words = found.expand(ours)
            return re.sub(r"<(\d+)-(\d)>", lambda m: str(int(m[1]) - int(m[2])), words)
    raise UserError(f"weight {name!r} is not of a Mask R-CNN with a pyramid; {_ADVICE}")


def _absent(name: str) -> float:
    return _NEVER if name.endswith("bias") else 0.0


def _numbered(value: Tensor, absent: Tensor, last: bool = False) -> Tensor:
    """Return rows by COCO's numbering, 0 the background, from rows of 80 classes.

    Args:
        value: [80 or 81, ...], with ``last`` the background after the classes.
        absent: row of numbers that no category has, and of the background if there is none.
        last: whether there is a background.
    """
    if len(value) != len(CATEGORIES) + last:
        raise UserError(f"{len(value)} classes, not COCO's {len(CATEGORIES)}; {_ADVICE}")
    rows = absent.to(value.dtype).expand(_CLASSES, *absent.shape).clone()
    rows[CATEGORIES] = value[: len(CATEGORIES)]
    if last:
        rows[0] = value[-1]
    return rows


def _check_normalisation(state: Mapping[str, Tensor]) -> None:
    """Require that images are normalised as torchvision does, but for the order of colours."""
    wanted = {"pixel_mean": _MEAN, "pixel_std": _STD}
    for name, values in wanted.items():
        if name in state:
            theirs = state[name].flatten().double()
            ours = 255 * torch.tensor(values[::-1], dtype=torch.float64)
            if theirs.shape != ours.shape or not torch.allclose(theirs, ours, atol=0.01):
                raise UserError(
                    f"{name} {theirs.tolist()}: images must be normalised by {ours.tolist()}, as "
                    "of X101-32x8d-FPN"
                )


def convert_file(source: Path, target: Path) -> Path:
    """Write the weights of Detectron2's file as a weights file of this package.

    Raises:
        UserError: where the file is missing, or of another network.
        DamagedFile: where it cannot be read, or has more than arrays in it.
    """
    if not source.is_file():
        raise missing_file(source, "download it from Detectron2's model zoo")
    state = _pickled(source) if source.suffix == ".pkl" else load_tensors(source, _ADVICE)
    model = state.get("model", state)
    if not isinstance(model, Mapping):
        raise damaged_file(source, "its 'model' is not a dictionary", _ADVICE)
    weights = convert({str(name): torch.as_tensor(value) for name, value in model.items()})
    with atomic_path(target) as temporary:
        torch.save({"codec": None, "task": weights}, temporary)
    return target


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries of NumPy arrays; anything that could run code is refused."""

    _ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "scalar"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("collections", "OrderedDict"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few names that arrays need."""
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"contains {module}.{name}, which could run code")
        return super().find_class(module, name)


def _pickled(path: Path) -> dict[str, Any]:
    def load(file: BinaryIO) -> Any:
        return _ArraysOnly(file, encoding="latin1").load()

    with reading(path, _ADVICE), path.open("rb") as file:
        try:
            content = load(file)
        except pickle.UnpicklingError as error:
            raise damaged_file(path, str(error), _ADVICE) from None
    if not isinstance(content, dict):
        raise damaged_file(path, "not a dictionary", _ADVICE)
    model = content.get("model", content)
    if isinstance(model, Mapping) and any(
        not isinstance(value, np.ndarray) for value in model.values()
    ):
        raise damaged_file(path, "contains more than arrays", _ADVICE)
    return content
