"""What a training run starts with: networks, optimisers, data, and the state it resumes from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from icmbench.codecs.learned.base import LearnedCodec, pad_to_multiple
from icmbench.data.dataset import Split, data_digest
from icmbench.data.images import ImageFiles
from icmbench.evaluate.coded import coded_fingerprint, decoded_archives
from icmbench.jobs import TrainJob
from icmbench.networks.build import build_codec, build_task
from icmbench.registry import TASKS
from icmbench.summaries import DataSummary, TrainingSummary
from icmbench.train import TRAINING_VERSION, distributed
from icmbench.train.batches import Batch, batches
from icmbench.train.checkpoint import load_checkpoint
from icmbench.train.progress import Clock, MetricsLog, RunFile
from icmbench.train.rate_control import first_loss_weights
from icmbench.train.schedule import make_optimiser
from icmbench.train.system import System, part_parameters, set_modes
from icmbench.train.targets import Targets
from icmbench.utils.device import Compute, choose_compute, resolve_precision, uses_cuda
from icmbench.utils.environment import describe_environment, version
from icmbench.utils.files import digest_json
from icmbench.utils.images import to_tensor

_START_IMAGES = 200  # that initial weights may depend on


def fingerprint_of(job: TrainJob) -> str:
    """Return a digest of everything that decides the result: settings, data, weights, code."""
    settings = job.model_dump(include={"codec", "task", "parts", "loss", "schedule", "seed"})
    if job.schedule.short_sides is None:
        del settings["schedule"]["short_sides"]  # weights from before there was this are the same
    dataset = job.dataset.model_dump(exclude={"folder", "manifest"})
    runtime = job.runtime
    return digest_json(
        {
            "settings": settings,
            "dataset": dataset,
            "data": data_digest(job.dataset),
            "files": [part.weights.digest() for part in (job.codec, job.task)],
            "coded": coded_fingerprint(job.coded),
            "precision": resolve_precision(runtime.precision, uses_cuda(runtime)),
            "code": [TRAINING_VERSION, *map(version, ("torch", "torchvision", "compressai"))],
        }
    )


@dataclass
class Training:
    """Everything that a training run holds.

    Attributes:
        job: its settings.
        fingerprint: see :func:`fingerprint_of`.
        compute: device and precision.
        system: codec and task.
        model: the forward pass of the system, see :func:`distributed.data_parallel`.
        parameters, optimisers: by group (codec, task, auxiliary, adversary).
        split: the train split.
        log, run, clock: what is reported.
        first_step: steps done before this process.
        final: the values that were logged last.
    """

    job: TrainJob
    fingerprint: str
    compute: Compute
    system: System
    model: Callable[[Batch], dict[str, Tensor]]
    parameters: dict[str, list[nn.Parameter]]
    optimisers: dict[str, torch.optim.Optimizer]
    split: Split
    log: MetricsLog
    run: RunFile
    clock: Clock
    first_step: int
    final: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.job.output)

    @cached_property
    def validation_split(self) -> Split:
        """The val split, opened at the first validation."""
        return Split(self.job.dataset, "val", needs=self.job.task.needs)

    @property
    def targets(self) -> Targets:
        """What the task needs beside the images."""
        return "none" if self.system.task is None else self.system.task.targets

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """Yield the steps that are left, from 0, each with this rank's part of its batch."""
        schedule, device = self.job.schedule, self.compute.device
        steps = range(self.first_step, schedule.steps)
        source = batches(
            self.split,
            self.job.seed,
            schedule,
            steps,
            self.targets,
            workers=self.job.runtime.workers,
            places=distributed.places(schedule.batch_size),
            pinned=device.type == "cuda",
        )
        for step, batch in zip(steps, source, strict=True):
            yield step, batch.to(device)


def prepare(job: TrainJob, fingerprint: str) -> Training:
    """Return a training run, resumed from its checkpoint if there is one.

    Raises:
        UserError: for impossible settings, missing data or weights, a checkpoint of other settings.
    """
    compute = choose_compute(job.runtime, warn=distributed.is_rank_zero())
    torch.manual_seed(job.seed)
    codec = build_codec(job.codec) if job.codec.kind == "learned" else None
    task = build_task(job.task) if TASKS[job.task.network].trainable else None
    codec_trains = any(part.split(".")[0] == "codec" for part in job.parts)
    system = System(codec, task, codec_trains, first_loss_weights(job))
    set_modes(system, job.parts)
    if task is not None and getattr(task, "batch_norm", "frozen") == "trained":
        distributed.synchronise_batch_norm(task, uses_cuda(job.runtime))

    folder = Path(job.output)
    resumed = load_checkpoint(folder / "checkpoint.pt", fingerprint)
    if resumed is not None:
        system.load_state_dict(resumed["model"])
    split = Split(job.dataset, "train", _coded(job), needs=job.task.needs)
    if resumed is None and codec is not None and codec_trains:
        weights = {name: float(steered.weight) for name, steered in system.steering.items()}
        images = start_images(split, codec.multiple)
        codec.initialise(codec_parts(job, codec), images, {**system.weights, **weights})
        reach_rate(job, system, split)
    system.to(compute.device)
    parameters = part_parameters(codec, task, job.parts)
    optimisers = {
        name: make_optimiser(job.schedule.optimiser(name), group)
        for name, group in parameters.items()
    }
    for name, optimiser in optimisers.items():
        if resumed is not None:
            optimiser.load_state_dict(resumed["optimisers"][name])
    separate = [p for name in ("auxiliary", "adversary") for p in parameters.get(name, [])]

    first_step = resumed["step"] if resumed else 0
    totals = resumed["totals"] if resumed else {"wall_seconds": 0.0, "cpu_seconds": 0.0}
    writes = distributed.is_rank_zero()
    run = TrainingSummary(
        key=job.key,
        started=time.time(),
        fingerprint=fingerprint,
        steps=job.schedule.steps,
        steps_done=first_step,
        parameters={
            name: sum(p.numel() for p in part.parameters())
            for name, part in (("codec", codec), ("task", task))
            if part is not None
        },
        weights={
            name: part.loaded
            for name, part in (("codec", codec), ("task", task))
            if part is not None and part.loaded is not None
        },
        job=job,
        dataset=DataSummary(
            role=job.dataset.role, name=job.dataset.name, digest=data_digest(job.dataset)
        ),
        environment={**describe_environment(folder), "device": _device_name(job, compute)},
        **totals,
    )
    return Training(
        job=job,
        fingerprint=fingerprint,
        compute=compute,
        system=system,
        model=distributed.data_parallel(system, separate),
        parameters=parameters,
        optimisers=optimisers,
        split=split,
        log=MetricsLog(folder / "metrics.jsonl" if writes else None, first_step),
        run=RunFile(folder / "run.json" if writes else None, run),
        clock=Clock(totals, job.schedule.devices),
        first_step=first_step,
    )


def _coded(job: TrainJob) -> Sequence[Path] | ImageFiles:
    """Return the archives of decoded images, or what decodes their bitstreams."""
    if job.coded is None or job.decoder is None:
        return decoded_archives(job.coded)
    from icmbench.evaluate.classical import DecodingFiles

    return DecodingFiles(job.coded, job.decoder)


def codec_parts(job: TrainJob, codec: LearnedCodec) -> set[str]:
    """Return the names of the codec's parts that a job trains."""
    parts = {part.partition(".")[2] for part in job.parts if part.split(".")[0] == "codec"}
    return set(codec.part_modules()) if "" in parts else parts


def reach_rate(job: TrainJob, system: System, split: Split) -> None:
    """Set the codec's quantisation step for the rate that is steered to, if one is.

    After a pilot the weight is fixed, and the rate is what comes of it.
    """
    steering, codec = system.steering.get("bpp"), system.codec
    if (
        steering is not None
        and steering.steps is None
        and codec is not None
        and system.codec_trains
    ):
        images = start_images(split, codec.multiple)
        steering.follow_step(codec.reach_rate(codec_parts(job, codec), images, steering.target))


def start_images(split: Split, multiple: int) -> Iterator[Tensor]:
    """Yield the first train images as padded batches of one [1, 3, H, W], in [0, 1]."""
    for index in range(min(len(split), _START_IMAGES)):
        yield pad_to_multiple(to_tensor(split.image(index)), multiple)


def _device_name(job: TrainJob, compute: Compute) -> str:
    devices = job.schedule.devices
    return compute.name if devices == 1 else f"{devices} x {compute.name}"
