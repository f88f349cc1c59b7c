"""Batches that depend on (seed, step) alone, so that resuming needs no sampler state."""

from __future__ import annotations

import functools
import math
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from icmbench.codecs.base import RgbImage
from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.jobs import Schedule
from icmbench.train.targets import CROPPED, TARGETS, Targets

Part = tuple[int, int, int, int]  # top, left, height, width in pixels


@dataclass
class Batch:
    """Images [3, H, W] in [0, 1], one by one because sizes may differ, and the task's targets."""

    images: list[Tensor]
    targets: list[dict[str, Tensor]]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(
            [image.to(device, non_blocking=True) for image in self.images],
            [{k: v.to(device, non_blocking=True) for k, v in t.items()} for t in self.targets],
        )

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; called by loaders with ``pin_memory``."""
        return Batch(
            [image.pin_memory() for image in self.images],
            [{k: v.pin_memory() for k, v in t.items()} for t in self.targets],
        )


def indices_of_step(
    seed: int, step: int, batch_size: int, count: int, wide: bytes | None = None
) -> list[int]:
    """Return the image indices of a step: consecutive pieces of one shuffle per epoch.

    Args:
        seed: of the operating point.
        step: from 0.
        batch_size: images of a step.
        count: images of the split.
        wide: a byte per image, 1 where it is wider than high: batches are then of one orientation
            (one of each epoch may be mixed), so that little of them is padding.
    """
    if batch_size > count:
        raise UserError(
            f"batch_size {batch_size} is larger than the train split of {count} images; lower it"
        )
    per_epoch = count // batch_size
    epoch, position = divmod(step, per_epoch)
    order = _order(seed, epoch, count, batch_size, wide)
    return [int(i) for i in order[position * batch_size : (position + 1) * batch_size]]


@functools.lru_cache(maxsize=2)  # shuffling ImageNet takes as long as reading several images
def _order(seed: int, epoch: int, count: int, batch_size: int, wide: bytes | None) -> np.ndarray:
    rng = np.random.default_rng([seed, 1, epoch])
    order = rng.permutation(count)
    if wide is None:
        return order
    oriented = np.frombuffer(wide, np.bool_)[order]
    full, rest = [], []
    for group in (order[oriented], order[~oriented]):
        end = len(group) // batch_size * batch_size
        full.append(group[:end])
        rest.append(group[end:])
    mixed = np.concatenate([*full, *rest])[: count // batch_size * batch_size]
    return rng.permutation(mixed.reshape(-1, batch_size)).ravel()


def orientations(split: Split, schedule: Schedule, targets: Targets) -> bytes | None:
    """Return ``wide`` of :func:`indices_of_step`, of whole images whose sizes are known.

    None if they are square, all of one orientation, or cropped.
    """
    sizes = split.native_sizes
    if sizes is None or (schedule.crop is not None and targets in CROPPED):
        return None
    wide = bytes(width > height for width, height in sizes)
    return wide if len(set(wide)) == 2 else None


class _Steps(Dataset[Batch]):
    """Step number -> batch; a map-style data set so that a loader's workers can share the steps."""

    def __init__(
        self,
        split: Split,
        seed: int,
        schedule: Schedule,
        targets: Targets,
        places: range | None = None,
    ):
        self.split, self.seed, self.schedule = split, seed, schedule
        self.targets = targets
        self.places = range(schedule.batch_size) if places is None else places
        self.wide = orientations(split, schedule, targets)

    def __getitem__(self, step: int) -> Batch:
        schedule = self.schedule
        rng = np.random.default_rng([self.seed, 2, step])
        images, targets = [], []
        count = len(self.split)
        indices = indices_of_step(self.seed, step, schedule.batch_size, count, self.wide)
        for place, index in enumerate(indices[: self.places.stop]):
            if place not in self.places:  # of another rank: only its random numbers are drawn
                self._draw(index, None, rng)
                continue
            image, target = self.load(index, rng)
            images.append(image)
            targets.append(target)
        return Batch(images, targets)

    def load(self, index: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image and its target, drawn with ``rng``."""
        image, mirrored = self._image(index, rng)
        target = TARGETS[self.targets](self.split, index, image.shape[:2], mirrored)
        return torch.from_numpy(image.copy()).permute(2, 0, 1).float().div_(255), target

    def _image(self, index: int, rng: np.random.Generator) -> tuple[RgbImage, bool]:
        """Return the image, cropped if its target allows that, and whether it is mirrored."""
        image = self.split.image(index)
        mirrored, part, short_side = self._draw(index, image, rng)
        if short_side is not None and short_side < min(image.shape[:2]):
            image = _reduced(image, short_side)
        if part is not None:
            top, left, height, width = part
            image = image[top : top + height, left : left + width]
            side = self.schedule.crop
            if self.schedule.crop_area is not None and side is not None:
                resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
                image = np.asarray(resized)
        return (image[:, ::-1] if mirrored else image), mirrored

    def _draw(
        self, index: int, image: RgbImage | None, rng: np.random.Generator
    ) -> tuple[bool, Part | None, int | None]:
        """Return whether an image is mirrored, the part of it that is used, and its short side.

        None: all of it, in its own size.
        """
        schedule = self.schedule
        mirrored = bool(schedule.flip and rng.random() < 0.5 and self.targets != "index")
        if schedule.short_sides is not None:
            return mirrored, None, int(rng.choice(schedule.short_sides))
        crop, area = schedule.crop, schedule.crop_area
        if crop is None or self.targets not in CROPPED:
            return mirrored, None, None
        size = self.split.size(index) if image is None else image.shape[:2]
        if area is None:
            return mirrored, random_crop(size, crop, rng), None
        return mirrored, random_resized_crop(size, area, rng), None


def _reduced(image: RgbImage, short_side: int) -> RgbImage:
    """Return an image reduced to a short side, as data sets resize."""
    factor = short_side / min(image.shape[:2])
    height, width = (round(length * factor) for length in image.shape[:2])
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def random_crop(size: Sequence[int], side: int, rng: np.random.Generator) -> Part:
    """Return a square of ``side`` pixels at a random place, cut to the size of the image."""
    height, width = size
    top = int(rng.integers(max(height - side, 0) + 1))
    left = int(rng.integers(max(width - side, 0) + 1))
    return top, left, min(side, height), min(side, width)


def random_resized_crop(
    size: Sequence[int], area: Sequence[float], rng: np.random.Generator
) -> Part:
    """Return a random part of an image, to be resized to a square.

    Its share of the image's area lies between the bounds ``area``, its aspect ratio between 3/4 and
    4/3, as in torchvision's RandomResizedCrop; after ten draws that do not fit, it is the largest
    square in the middle.
    """
    height, width = size
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
    return top, left, h, w


def batches(
    split: Split,
    seed: int,
    schedule: Schedule,
    steps: range,
    targets: Targets,
    workers: int = 0,
    places: range | None = None,
    pinned: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of ``steps`` in order.

    Args:
        split: the train split.
        seed: of the operating point.
        schedule: of the study; gives batch size, crops and flips.
        steps: which steps; a resumed run begins in the middle.
        targets: what to yield with the images; only none and label allow random crops.
        workers: loader processes; 0 loads in this one.
        places: places in the batch of the images to yield; None yields all. Which images, crops
            and flips are at these places does not depend on it.
        pinned: put tensors into page-locked memory, from which a GPU copies while it computes.
    """
    source = _Steps(split, seed, schedule, targets, places)
    if workers:
        _allow_open_files()
    loader = DataLoader(
        source,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        pin_memory=pinned,
        persistent_workers=False,
    )
    yield from loader


def _allow_open_files() -> None:
    """Raise this process's limit on open files to its maximum.

    Loader workers hand over every tensor as an open file. With the usual limit of 1,024, a batch of
    256 images is lost, and the training run waits for it without end.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def validation_batches(
    split: Split, images: int, schedule: Schedule, targets: Targets
) -> Iterator[Batch]:
    """Yield the first ``images`` of the val split, unshuffled and unmirrored."""
    count = min(images, len(split))
    size = min(schedule.batch_size, count)
    plain = schedule.model_copy(update={"flip": False, "crop_area": None, "short_sides": None})
    source = _Steps(split, 0, plain, targets)
    rng = np.random.default_rng(0)
    for start in range(0, count, size):
        pairs = [source.load(i, rng) for i in range(start, min(start + size, count))]
        yield Batch([image for image, _ in pairs], [target for _, target in pairs])
