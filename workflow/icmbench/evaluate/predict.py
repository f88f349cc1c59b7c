"""Run a job's task network on the images of a split, or on the features of their bitstreams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icmbench.codecs.base import Features
from icmbench.data.dataset import Split
from icmbench.errors import UserError
from icmbench.evaluate.coded import LATENTS, Archives, latents_from_bytes
from icmbench.jobs import EvaluateJob
from icmbench.networks.build import build_codec, build_task
from icmbench.utils.device import Compute, choose_compute
from icmbench.utils.files import reading
from icmbench.utils.images import RgbImage, to_tensor

Inputs = list[Tensor] | Features


class Predictor:
    """The task network of a job, in evaluation mode on a device.

    Args:
        job: of the evaluation.
        split: its images, decoded if the job has coded images.
        compute: device and precision; chosen by the job's settings if None.

    Attributes:
        network: of the task.
        compute: device and precision.
    """

    def __init__(self, job: EvaluateJob, split: Split, compute: Compute | None = None) -> None:
        self.compute = choose_compute(job) if compute is None else compute
        if job.task.weights.source == "random":  # the same network for every variant
            torch.manual_seed(job.seed)
        self.network: Any = build_task(job.task).eval().to(self.compute.device)
        if not self.network.state_dict():  # another library computes, on the CPU
            self.compute = Compute(torch.device("cpu"), "fp32")
        self._split = split
        self._codec: Any = None
        if job.decoder is not None:
            assert job.coded is not None
            self._codec = build_codec(job.decoder).eval().to(self.compute.device)
            self._latents = Archives(*(Path(folder) / LATENTS for folder in job.coded.folders))

    def inputs(self, indices: Sequence[int]) -> Inputs:
        """Return what the network reads of some images.

        Returns:
            a list of images [3, H, W], float32 in [0, 1]; or features of images of one padded size.

        Raises:
            UserError: if features of images of several sizes are wanted together.
        """
        if self._codec is not None:
            return self._features(indices)
        return [self._tensor(self._split.image(index)) for index in indices]

    def originals(self, indices: Sequence[int]) -> list[Tensor]:
        """Return the original images at the coded size, as :meth:`inputs` returns images."""
        return [self._tensor(self._split.original(index)) for index in indices]

    def _tensor(self, image: RgbImage) -> Tensor:
        return to_tensor(image)[0].to(self.compute.device)

    @torch.no_grad()
    def predict(self, inputs: Inputs) -> Any:
        """Return the predictions of the network, without gradients."""
        with self.compute.autocast():
            return self.network.predict(inputs)

    @torch.no_grad()
    def _features(self, indices: Sequence[int]) -> Features:
        values, sizes = [], []
        for index in indices:
            name = f"{self._split.ids[index]}.npz"
            data = self._latents.read(name)
            with reading(name):
                latents = latents_from_bytes(data)
                height, width = (int(side) for side in latents["size"])
            values.append(self._codec.features(latents))
            sizes.append((height, width))
        multiple = self._codec.multiple
        padded = {tuple(side + -side % multiple for side in size) for size in sizes}
        if len(padded) > 1:
            raise UserError(
                f"features of images of different sizes, {sorted(padded)}, do not fit in one "
                "batch; ask for them one by one"
            )
        height, width = padded.pop()
        return Features(torch.cat(values), sizes, (height, width))
