"""Views for contrastive training: ContrastiveCrop, MoCo v2's augmentation, and boxes of a split.

Peng et al., "Crafting better contrastive views for siamese representation learning", CVPR 2022: a
box around what the network responds to limits the place of a crop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightly.utils import dist
from torch import Tensor, nn
from torch.distributions import Beta
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from icmbench.data.dataset import Split
from icmbench.utils.images import to_tensor

_RATIO = (3 / 4, 4 / 3)
AREA = (0.2, 1.0)
_BATCH = 64

Crop = tuple[int, int, int, int]  # top, left, height, width in pixels


def heat_map_boxes(features: Tensor, threshold: float) -> Tensor:
    """Return the box that a network responds to in each image.

    The heat map is the sum over channels, min-max normalised per image; the box is the smallest
    that contains all its cells above ``threshold``.

    Args:
        features: [B, C, h, w], of the last stage.
        threshold: in [0, 1).

    Returns:
        [B, 4], float32: x1, y1, x2, y2 in units of the image's width and height; the whole image
        for a flat heat map.
    """
    heat = features.float().sum(1)
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    hot = (heat - low > threshold * (high - low)) | (high <= low)
    x1, x2 = _extent(hot.any(1))
    y1, y2 = _extent(hot.any(2))
    return torch.stack([x1, y1, x2, y2], 1)


def _extent(hot: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and last edge of the true cells of each row of [B, n], in [0, 1]."""
    cells = hot.int()
    count = hot.shape[1]
    return cells.argmax(1) / count, (count - cells.flip(1).argmax(1)) / count


def sample_crop(
    image: Tensor, box: Sequence[float] | None, alpha: float, area: Sequence[float] = AREA
) -> Crop:
    """Draw one crop of an image [3, H, W] from torch's global generator.

    Area and aspect ratio (3/4 to 4/3) are those of a random resized crop. Without a box the place
    is uniform. With a box, each coordinate of the centre is Beta(alpha, alpha) over the part of the
    box where the crop stays inside the image, or else the nearest such centre.

    Args:
        image: gives H and W.
        box: x1, y1, x2, y2 in [0, 1], or None.
        alpha: of the Beta distribution; below 1 the two views of an image are pushed apart.
        area: bounds of the crop's share of the image's area.
    """
    # Only for drawing; it never resizes.
    drawn = v2.RandomResizedCrop(1, scale=tuple(area), ratio=_RATIO).make_params([image])
    top, left, height, width = (int(drawn[n]) for n in ("top", "left", "height", "width"))
    if box is None:
        return top, left, height, width
    x1, y1, x2, y2 = box
    u, v = Beta(alpha, alpha).sample((2,)).tolist()
    top = _place(y1, y2, height, image.shape[-2], u)
    left = _place(x1, x2, width, image.shape[-1], v)
    return top, left, height, width


def _place(low: float, high: float, length: int, total: int, share: float) -> int:
    """Return the beginning of a crop of ``length`` with its centre at a share of usable places."""
    first, last = length / 2, total - length / 2
    low, high = (min(max(edge * total, first), last) for edge in (low, high))
    begin = round(low + (high - low) * share - length / 2)
    return min(max(begin, 0), total - length)


class CropBoxes(nn.Module):
    """The boxes of all images of the train split; empty until they are first computed.

    They are state: a resumed training run must crop as an uninterrupted one. Loading adopts the
    number of boxes in the state dict.
    """

    boxes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("boxes", torch.zeros(0, 4))

    def of(self, indices: Tensor) -> list[list[float] | None]:
        """Return the box of each image of a batch, or None while boxes are not known."""
        if not len(self.boxes):
            return [None] * len(indices)
        return list(self.boxes[indices].tolist())  # waits for the GPU once, not per image

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        held = state_dict.get(f"{prefix}boxes")
        if held is not None:
            self.boxes = self.boxes.new_zeros(held.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Views:
    """Makes a view of an image, on its device, with torch's global generator.

    MoCo v2's augmentation: crop, colour jitter, grey, blur, flip.

    Args:
        side: of the view in pixels.
        alpha: of the Beta distribution that places a crop in its box.
        area: bounds of a crop's share of the image's area.
    """

    def __init__(self, side: int, alpha: float, area: Sequence[float] = AREA) -> None:
        self.side, self.alpha, self.area = side, alpha, tuple(area)
        # A tenth of the side as in SimCLR, odd; the papers use 23 for 224.
        kernel = 2 * (side // 20) + 1
        self._change = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                v2.RandomGrayscale(0.2),
                v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], p=0.5),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __call__(self, image: Tensor, box: Sequence[float] | None) -> Tensor:
        """Return a view [3, side, side] in [0, 1] of an image [3, H, W] in [0, 1].

        Args:
            image: the whole image.
            box: x1, y1, x2, y2 of the centre's range in units of the image; None: anywhere.
        """
        # The blur is a convolution, which autocast would compute in bfloat16.
        with torch.autocast(image.device.type, enabled=False):
            crop = sample_crop(image, box, self.alpha, self.area)
            view = v2.functional.resized_crop(
                image.float(), *crop, [self.side, self.side], antialias=True
            )
            changed: Tensor = self._change(view)
        return changed.clamp(0, 1)


class _Squares(Dataset[Tensor]):
    """Every image of a split as a square; boxes are relative, so the shape does not matter."""

    def __init__(self, split: Split, side: int) -> None:
        self.split, self.side = split, side

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Tensor:
        image = to_tensor(self.split.image(index))[0]
        return v2.functional.resize(image, [self.side, self.side], antialias=True)


@torch.no_grad()
def compute_boxes(
    codec: Any,
    split: Split,
    side: int,
    threshold: float,
    eliminate: bool,
    device: torch.device,
    workers: int = 0,
) -> Tensor:
    """Return the boxes [N, 4] of all images, see :func:`heat_map_boxes`.

    Runs in evaluation mode, draws no random numbers, and restores the codec's modes. Several
    processes share the images.
    """
    rank, world = dist.rank(), dist.world_size()
    own = range(rank, len(split), world)
    loader = DataLoader(
        _Squares(split, side),
        batch_size=_BATCH,
        sampler=own,
        num_workers=workers,
        generator=torch.Generator(),  # else the loader draws from the global one
    )
    boxes = torch.zeros(len(split), 4, device=device)
    done = 0
    with _evaluation(codec):
        for images in loader:
            features, _ = codec.self_supervised(images.to(device), eliminate)
            places = torch.tensor(own[done : done + len(images)], device=device)
            boxes[places] = heat_map_boxes(features, threshold)
            done += len(images)
    if world > 1:
        torch.distributed.all_reduce(boxes)
    return boxes


@contextmanager
def _evaluation(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
