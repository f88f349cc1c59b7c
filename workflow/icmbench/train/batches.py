"""Batches whose content follows from (seed, step) alone: resuming needs no sampler state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.tasks.masks import decode_masks

# What a task's losses need beside the images.
Targets = Literal["none", "boxes", "masks"]


@dataclass
class Batch:
    """Images [3, H, W] in [0, 1], one by one because sizes may differ, and detection targets."""

    images: list[Tensor]
    targets: list[dict[str, Tensor]]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(
            [image.to(device, non_blocking=True) for image in self.images],
            [{k: v.to(device, non_blocking=True) for k, v in t.items()} for t in self.targets],
        )


def indices_of_step(seed: int, step: int, batch_size: int, count: int) -> list[int]:
    """Return the image indices of a step: consecutive pieces of one shuffle per epoch."""
    if batch_size > count:
        raise UserError(
            f"batch_size {batch_size} is larger than the train split of {count} images; lower it"
        )
    per_epoch = count // batch_size
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng([seed, 1, epoch]).permutation(count)
    return [int(i) for i in order[position * batch_size : (position + 1) * batch_size]]


class _Steps(Dataset[Batch]):
    """Step number -> batch; a map-style data set so that a loader's workers can share the steps."""

    def __init__(self, split: Split, seed: int, schedule: dict[str, Any], targets: Targets):
        self.split, self.seed, self.schedule = split, seed, schedule
        self.targets = targets

    def __getitem__(self, step: int) -> Batch:
        schedule = self.schedule
        rng = np.random.default_rng([self.seed, 2, step])
        images, targets = [], []
        for index in indices_of_step(self.seed, step, schedule["batch_size"], len(self.split)):
            image, target = self._one(index, rng)
            images.append(image)
            targets.append(target)
        return Batch(images, targets)

    def _one(self, index: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        picture = self.split.picture(index)
        height, width = picture.shape[:2]
        mirrored = self.schedule["flip"] and rng.random() < 0.5
        crop = self.schedule["crop"]
        if crop is not None and self.targets == "none":
            top = int(rng.integers(max(height - crop, 0) + 1))
            left = int(rng.integers(max(width - crop, 0) + 1))
            picture = picture[top : top + crop, left : left + crop]
        if mirrored:
            picture = picture[:, ::-1]
        image = torch.from_numpy(picture.copy()).permute(2, 0, 1).float().div_(255)
        if self.targets == "none":
            return image, {}
        boxes, labels = self.split.target(index, width, height)
        if mirrored:
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        target = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels)}
        if self.targets == "masks":
            native_width, native_height = self.split.native_size(index)
            masks = decode_masks(
                self.split.segmentations(index), (native_height, native_width), (height, width)
            )
            target["masks"] = masks.flip(-1) if mirrored else masks
        return image, target


def batches(
    split: Split,
    seed: int,
    schedule: dict[str, Any],
    steps: range,
    targets: Targets,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of ``steps`` in order.

    Args:
        split: the train split.
        seed: of the operating point.
        schedule: batch size, crop and flip of the study's schedule.
        steps: which steps; a resumed training begins in the middle.
        targets: what to yield beside the images; random crops are only taken with none.
        workers: loader processes; 0 loads in this one.
    """
    source = _Steps(split, seed, schedule, targets)
    loader = DataLoader(
        source,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
    )
    yield from loader


def validation_batches(
    split: Split, images: int, batch_size: int, crop: int | None, targets: Targets
) -> Iterator[Batch]:
    """Yield the first ``images`` of the val split, unshuffled and unmirrored."""
    count = min(images, len(split))
    size = min(batch_size, count)
    schedule = {"batch_size": size, "flip": False, "crop": crop}
    source = _Steps(split, 0, schedule, targets)
    rng = np.random.default_rng(0)
    for start in range(0, count, size):
        pairs = [source._one(i, rng) for i in range(start, min(start + size, count))]
        yield Batch([image for image, _ in pairs], [target for _, target in pairs])
