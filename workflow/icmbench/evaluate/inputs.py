"""What a job's task is given for some images of a split: images, or features of a bitstream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from icmbench.codecs.base import Features
from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.evaluate.archive import ArchiveReader, latents_from_bytes
from icmbench.jobs import EvaluateJob
from icmbench.utils.files import reading
from icmbench.utils.tensors import to_tensor

Inputs = list[Tensor] | Features


def open_inputs(
    job: EvaluateJob, split: Split, device: torch.device
) -> Callable[[Sequence[int]], Inputs]:
    """Return a function from indices of images to what the task of an evaluation job reads.

    Images whose features are asked for together must be of one padded size.
    """
    if job.decoder is None:
        return lambda indices: [to_tensor(split.image(i))[0].to(device) for i in indices]
    return _FeatureReader(job, split, device)


class _FeatureReader:
    def __init__(self, job: EvaluateJob, split: Split, device: torch.device) -> None:
        from icmbench.networks.build import build_codec

        assert job.decoder is not None and job.coded is not None
        self._codec = build_codec(job.decoder).eval().to(device)
        self._split, self._device = split, device
        self._archive = ArchiveReader(Path(job.coded.latents))

    @torch.no_grad()
    def __call__(self, indices: Sequence[int]) -> Features:
        values, sizes = [], []
        for index in indices:
            name = f"{self._split.ids[index]}.npz"
            data = self._archive.read(name)
            with reading(f"{self._archive.path}: {name}"):
                latents = latents_from_bytes(data)
                height, width = (int(side) for side in latents["size"])
            values.append(self._codec.features(latents))
            sizes.append((height, width))
        multiple = self._codec.multiple
        padded = {tuple(side + -side % multiple for side in size) for size in sizes}
        if len(padded) > 1:
            raise UserError(
                f"features of images of different sizes, {sorted(padded)}, make no batch; ask for "
                "them one by one"
            )
        height, width = padded.pop()
        return Features(torch.cat(values), sizes, (height, width))
