"""Batches whose content follows from (seed, step) alone: resuming needs no sampler state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from icmbench.codecs.base import Picture
from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.train.targets import CROPPED, TARGETS, Targets


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
        picture, mirrored = self._picture(index, rng)
        target = TARGETS[self.targets](self.split, index, picture.shape[:2], mirrored)
        return torch.from_numpy(picture.copy()).permute(2, 0, 1).float().div_(255), target

    def _picture(self, index: int, rng: np.random.Generator) -> tuple[Picture, bool]:
        """Return the picture, cropped where its target allows that, and whether it is mirrored."""
        schedule = self.schedule
        picture = self.split.picture(index)
        mirrored = bool(schedule["flip"] and rng.random() < 0.5 and self.targets != "index")
        crop, area = schedule["crop"], schedule.get("crop_area")
        if crop is not None and self.targets in CROPPED:
            if area is None:
                picture = random_crop(picture, crop, rng)
            else:
                picture = random_resized_crop(picture, crop, area, rng)
        return (picture[:, ::-1] if mirrored else picture), mirrored


def random_crop(picture: Picture, side: int, rng: np.random.Generator) -> Picture:
    """Return a square of ``side`` pixels at a random place, or less where there is less."""
    height, width = picture.shape[:2]
    top = int(rng.integers(max(height - side, 0) + 1))
    left = int(rng.integers(max(width - side, 0) + 1))
    return picture[top : top + side, left : left + side]


def random_resized_crop(
    picture: Picture, side: int, area: Sequence[float], rng: np.random.Generator
) -> Picture:
    """Return a random part of the picture, resized to a square of ``side`` pixels.

    The part has a share of the area between the bounds ``area`` and an aspect ratio of 3/4 to 4/3,
    as in torchvision's RandomResizedCrop; after ten draws that do not fit, it is the largest square
    in the middle.
    """
    height, width = picture.shape[:2]
    for _ in range(10):
        share = rng.uniform(area[0], area[1]) * height * width
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(share * ratio)), round(math.sqrt(share / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = (int(rng.integers(room + 1)) for room in (height - h, width - w))
            break
    else:
        w = h = min(height, width)
        top, left = (height - h) // 2, (width - w) // 2
    part = Image.fromarray(picture[top : top + h, left : left + w])
    return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))


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
