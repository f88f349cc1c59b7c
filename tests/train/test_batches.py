"""Batches depend on seed and step alone, however they are loaded."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
import pytest
import torch

from icmbench.data.dataset import Split
from icmbench.data.specs import DatasetSpec
from icmbench.errors import UserError
from icmbench.jobs import Optimiser, Schedule
from icmbench.train.batches import Batch, batches, indices_of_step, validation_batches


def schedule(batch_size: int, **values: Any) -> Schedule:
    optimisers = {"codec": Optimiser(name="adam", lr=0.1)}
    return Schedule(steps=9, batch_size=batch_size, optimisers=optimisers, origin="ours", **values)


def test_epoch_visits_every_image_once() -> None:
    steps = [indices_of_step(3, step, 4, 12) for step in range(6)]
    for epoch in (steps[:3], steps[3:]):
        assert sorted(i for step in epoch for i in step) == list(range(12))
    assert steps[:3] != steps[3:]
    with pytest.raises(UserError, match="batch_size 13"):
        indices_of_step(0, 0, 13, 12)


def test_batches_are_of_one_orientation() -> None:
    """Every image once in an epoch, at most one batch mixed, and the batches in a new order."""
    wide = bytes([1] * 7 + [0] * 6)  # 13 images in batches of 3: 2 + 2 full ones, 1 + 0 left over
    epochs = [[indices_of_step(3, 4 * e + step, 3, 13, wide) for step in range(4)] for e in (0, 1)]
    for epoch in epochs:
        seen = [index for batch in epoch for index in batch]
        assert len(seen) == len(set(seen)) == 12
        assert all(len({wide[index] for index in batch}) == 1 for batch in epoch)
    assert epochs[0] != epochs[1]
    # Both orientations leave two: one batch is mixed, and none of it is lost.
    wide = bytes([1] * 5 + [0] * 5)
    batch_list = [indices_of_step(0, step, 3, 10, wide) for step in range(3)]
    assert sorted(len({wide[i] for i in batch}) for batch in batch_list) == [1, 1, 2]


def test_boxes_are_mirrored_with_their_image(scenes: DatasetSpec) -> None:
    split = Split(scenes, "train")
    a = next(batches(split, 0, schedule(8, flip=True), range(1), targets="boxes"))
    b = next(batches(split, 0, schedule(8, flip=False), range(1), targets="boxes"))
    mirrored = 0
    for x, y, s, t in zip(a.images, b.images, a.targets, b.targets, strict=True):
        if torch.equal(x, y):
            assert torch.equal(s["boxes"], t["boxes"])
            continue
        mirrored += 1
        assert torch.equal(x.flip(-1), y)
        assert torch.equal(128 - s["boxes"][:, [2, 0]], t["boxes"][:, [0, 2]])
    assert 0 < mirrored < 8


def test_detectors_train_on_several_sizes(scenes: DatasetSpec) -> None:
    """Boxes and masks follow their image, no image is enlarged, and validation has its own size."""
    split = Split(scenes, "train")
    settings = schedule(8, flip=False, short_sides=[64, 96, 200])
    whole = next(batches(split, 0, schedule(8, flip=False), range(1), targets="masks"))
    several = next(batches(split, 0, settings, range(1), targets="masks"))
    for image, target, own in zip(several.images, several.targets, whole.targets, strict=True):
        factor = image.shape[-1] / 128
        torch.testing.assert_close(target["boxes"], factor * own["boxes"])
        assert target["masks"].shape == (len(own["masks"]), *image.shape[1:])
        # A mask fills about the same share of its image.
        shares = (found.float().mean((1, 2)) for found in (target["masks"], own["masks"]))
        torch.testing.assert_close(*shares, atol=0.02, rtol=0)
    assert {image.shape for image in several.images} == {(3, s, s) for s in (64, 96, 128)}
    val = next(validation_batches(Split(scenes, "val"), 2, settings, "boxes"))
    assert {image.shape[1:] for image in val.images} == {(128, 128)}


@pytest.mark.parametrize(
    "sizes",
    [{"crop": 48}, {"crop": 48, "crop_area": [0.2, 1.0]}, {"short_sides": [64, 80, 96]}],
)
def test_workers_and_ranks_share_the_same_batch(scenes: DatasetSpec, sizes: Any) -> None:
    settings = schedule(6, **sizes)
    whole = list(batches(Split(scenes, "train"), 3, settings, range(2), "none"))
    loaded = list(batches(Split(scenes, "train"), 3, settings, range(2), "none", workers=2))
    pieces = [
        list(batches(Split(scenes, "train"), 3, settings, range(2), "none", places=places))
        for places in (range(0, 2), range(2, 4), range(4, 6))
    ]
    for step in range(2):
        joined = [image for piece in pieces for image in piece[step].images]
        for a, b, c in zip(whole[step].images, loaded[step].images, joined, strict=True):
            assert torch.equal(a, b) and torch.equal(a, c)


def test_workers_may_hand_over_many_files(scenes: DatasetSpec) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        next(batches(Split(scenes, "train"), 0, schedule(2), range(1), "boxes", workers=1))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_pinned_loader_pins_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader pins tensors inside a class of ours only if the class has the method."""
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    pinned = pin_memory(Batch([torch.zeros(3, 2, 2)], [{"labels": torch.zeros(1)}]))
    assert np.all(pinned.images[0].numpy() == 1) and float(pinned.targets[0]["labels"]) == 1
