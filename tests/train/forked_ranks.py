"""Run training jobs, each in as many ranks as it asks for: one import serves them all.

python forked_ranks.py [--quiet] JOB...

The ranks are forked from this process and find each other as torchrun's do. --quiet removes what
differs between ranks by design: noise of quantisation, random views, and batch norm's statistics of
a rank's own part of the batch. In a job whose file is called nan.json the last rank's loss becomes
NaN at the second step. Prints the exit statuses by job.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

# What a training run imports, so that no fork has to.
import torchvision.models.detection  # noqa: F401
from compressai.entropy_models import EntropyModel
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

import icmbench.codecs.dicm.codec
import icmbench.codecs.learned.hyperprior
import icmbench.tasks.detectors  # noqa: F401
from icmbench.jobs import TrainJob, read_job
from icmbench.plugins import load_modules
from icmbench.tasks.contrastive.views import Views
from icmbench.train import launch
from icmbench.train.system import System
from icmbench.utils.logs import setup_logging


def make_quiet() -> None:
    original = EntropyModel.quantize

    def quantize(self: Any, inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
        return inputs if mode == "noise" else original(self, inputs, mode, means)

    def view(self: Views, image: Tensor, box: Tensor | None) -> Tensor:
        return v2.functional.resize(image, [self.side, self.side], antialias=True)

    def batch_norm(self: nn.BatchNorm2d, x: Tensor) -> Tensor:
        stored = (self.running_mean, self.running_var, self.weight, self.bias)
        return functional.batch_norm(x, *stored, training=False, eps=self.eps)

    EntropyModel.quantize = quantize
    Views.__call__ = view  # type: ignore[method-assign]
    nn.BatchNorm2d.forward = batch_norm  # type: ignore[method-assign]


def break_loss() -> None:
    original, steps = System.forward, []

    def forward(self: System, batch: Any) -> dict[str, Tensor]:
        steps.append(1)
        terms = original(self, batch)
        return {n: t * float("nan") if len(steps) == 2 else t for n, t in terms.items()}

    System.forward = forward  # type: ignore[method-assign]


def run(path: str) -> list[int]:
    load_modules([])
    job = read_job(Path(path), TrainJob)
    size = job.schedule.devices
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            if size > 1:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
                place |= {"LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in place.items()})
                os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="test")
                os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
                if rank == size - 1 and Path(path).name == "nan.json":
                    break_loss()
            os._exit(launch.run(job))
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


if __name__ == "__main__":
    setup_logging()
    jobs = sys.argv[1:]
    if jobs[0] == "--quiet":
        make_quiet()
        jobs = jobs[1:]
    print(json.dumps({job: run(job) for job in jobs}))
