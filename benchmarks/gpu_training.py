"""Images per second of the trainer's step, beside CompressAI's own loop and behind the loader."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch
from gpu_common import PeakMemory, Table, TimeCap, spread, synchronise
from PIL import Image
from torch import nn

from icmbench.config.job_settings import train_job
from icmbench.config.plan import Point, load_plan
from icmbench.data.dataset import Split
from icmbench.data.images import list_images
from icmbench.data.specs import DatasetSpec, FetchedImages, ImageSplit
from icmbench.data.synthetic.scenes import make_scene
from icmbench.errors import UserError
from icmbench.jobs import Optimiser, Schedule, TrainJob, WeightsSpec
from icmbench.registry import CODECS
from icmbench.train.batches import Batch, batches
from icmbench.train.setup import prepare
from icmbench.train.step import optimise
from icmbench.utils.files import write_json

REPOSITORY = Path(__file__).parents[1]
VERSUS = ("bmshj2018-hyperprior", "cheng2020-anchor")
_LAMBDA = 0.01
_GOAL, _LOADER_GOAL = 2.0, 0.95


@dataclass(frozen=True)
class TrainingSettings:
    """What is trained and how it is measured.

    Attributes:
        device: where.
        codecs: names.
        batch: images of a step.
        side: of the crops, in pixels.
        sizes: n and m of the codecs.
        rounds: alternations.
        seconds: of each measurement.
        workers: loader processes.
        threads: of the CPU.
        compiled: measure compiled transforms, too.
        images: folder of images to train on; None draws some.
        folder: for what is written.
    """

    device: torch.device
    codecs: tuple[str, ...]
    batch: int
    side: int
    sizes: dict[str, int]
    rounds: int
    seconds: float
    workers: int
    threads: int
    compiled: bool
    images: Path | None
    folder: Path


class Contestant(Protocol):
    """Somebody's training of a codec."""

    label: str

    def step(self) -> None:
        """Do one step on a batch that lies on the device."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class Ours:
    """This package's trainer: its own preparation and its own step, without lock and checkpoints.

    Args:
        settings: of the measurement.
        codec: name.
        precision: fp32 or bf16.
        compiled: let torch.compile make the transforms.
    """

    def __init__(
        self, settings: TrainingSettings, codec: str, precision: str, compiled: bool = False
    ) -> None:
        self.label = f"icmbench, {precision}, channels last" + (", compiled" if compiled else "")
        folder = settings.folder / f"{codec}-{precision}-{compiled}"
        folder.mkdir(parents=True, exist_ok=True)
        self.training = prepare(_job(settings, codec, precision, folder), "benchmark")
        self.batch = _resident(settings, self.training.split)
        self.done = 0
        if compiled:
            for module in self.training.system.codec.network.children():
                if isinstance(module, nn.Sequential):  # transforms; entropy models stay as they are
                    module.compile()

    def step(self, batch: Batch | None = None) -> None:
        """Do one step, on the resident batch where none is given."""
        torch.backends.cudnn.allow_tf32 = False  # as choose_compute sets it
        chosen = self.batch if batch is None else batch.to(self.training.compute.device)
        optimise(self.training, self.done, chosen)
        self.done += 1

    def close(self) -> None:
        """Close the log."""
        self.training.log.close()


class Theirs:
    """CompressAI's training as its example does it: float32, two optimisers, clipping at 1.

    Written after the example's structure, on CompressAI's own network and loss; every tenth step
    reads the losses, as the example prints them.
    """

    def __init__(self, settings: TrainingSettings, codec: str) -> None:
        from compressai.losses import RateDistortionLoss
        from compressai.models import Cheng2020Anchor, ScaleHyperprior

        self.label = "CompressAI's loop, fp32"
        n, m = settings.sizes["n"], settings.sizes["m"]
        networks = {
            "bmshj2018-hyperprior": lambda: ScaleHyperprior(n, m),
            "cheng2020-anchor": lambda: Cheng2020Anchor(n),
        }
        if codec not in networks:
            raise UserError(f"codec {codec!r}: no comparison; allowed: {', '.join(networks)}")
        self.network = networks[codec]().to(settings.device).train()
        named = dict(self.network.named_parameters())
        quantiles = [p for name, p in named.items() if name.endswith(".quantiles")]
        others = [p for name, p in named.items() if not name.endswith(".quantiles")]
        self.optimiser = torch.optim.Adam(others, lr=1e-4)
        self.auxiliary = torch.optim.Adam(quantiles, lr=1e-3)
        self.criterion = RateDistortionLoss(lmbda=_LAMBDA)
        split = Split(_dataset(settings), "train")
        self.images = torch.stack(_resident(settings, split).images).contiguous()
        self.done = 0

    def step(self) -> None:
        """Do one step on the resident batch."""
        torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
        self.optimiser.zero_grad()
        self.auxiliary.zero_grad()
        losses = self.criterion(self.network(self.images), self.images)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        auxiliary = self.network.aux_loss()
        auxiliary.backward()
        self.auxiliary.step()
        if self.done % 10 == 0:
            self.printed = [float(v.detach()) for v in (*losses.values(), auxiliary)]
        self.done += 1

    def close(self) -> None:
        """Nothing is open."""


# --- sections -----------------------------------------------------------------------------------


def measure_throughput(settings: TrainingSettings, cap: TimeCap) -> Table:
    """Return images per second of each contestant, alternating, and the ratio to CompressAI's."""
    table = Table(
        f"Training step, {settings.side} x {settings.side}, batch {settings.batch}, "
        "images that lie on the device",
        ["codec", "what", "images per second", f"ratio (goal {_GOAL:g})", "peak GB"],
    )
    for codec in settings.codecs:
        contestants: list[Contestant] = []
        peaks: list[float] = []
        steps: list[int] = []
        makers = [
            lambda codec=codec: Theirs(settings, codec),
            lambda codec=codec: Ours(settings, codec, "fp32"),
            lambda codec=codec: Ours(settings, codec, "bf16"),
        ]
        if settings.compiled:
            makers.append(lambda codec=codec: Ours(settings, codec, "bf16", compiled=True))
        try:
            for number, make in enumerate(makers):
                cap.check()
                memory = PeakMemory(settings.device)
                try:
                    one = make()
                    count = _warm_up(one, settings)
                except Exception as error:
                    if number == 0:
                        raise UserError(f"CompressAI's loop failed: {error}") from error
                    table.leave_out(f"{codec}, contestant {number + 1} of {len(makers)}", error)
                    continue
                contestants.append(one)
                steps.append(count)
                peaks.append(memory.gigabytes())
            rates = _alternate(contestants, steps, settings, cap)
        except Exception as error:
            table.leave_out(codec, error)
            continue
        finally:
            for one in contestants:
                one.close()
        for one, own, peak in zip(contestants, rates, peaks, strict=True):
            ratios = [mine / theirs for mine, theirs in zip(own, rates[0], strict=True)]
            table.add(
                [codec, one.label, spread(own, 1), spread(ratios), f"{peak:.2f}"],
                codec=codec,
                what=one.label,
                images_per_second=own,
                ratios=ratios,
                ratio=median(ratios),
                reached=median(ratios) >= _GOAL,
                peak_gb=peak,
            )
        if len(rates[0]) < settings.rounds:
            table.notes.append(f"{codec}: {len(rates[0])} of {settings.rounds} alternations")
    table.notes.append(
        f"medians (and ranges) of {settings.rounds} alternations in one process; ratios are taken "
        "within each; TF32 as PyTorch has it in CompressAI's loop, none in ours; peak memory of "
        "each while it is made and warms up"
    )
    return table


def measure_loader(settings: TrainingSettings, cap: TimeCap) -> Table:
    """Return what share of the step's speed is left behind the loader."""
    table = Table(
        f"Loader: {settings.workers} workers, random crops of {settings.side} x {settings.side}, "
        f"batch {settings.batch}",
        ["codec", "step alone", "with the loader", "share (goal 0.95)", "loader alone"],
    )
    for codec in settings.codecs:
        one: Ours | None = None
        try:
            cap.check()
            one = Ours(settings, codec, "bf16")
            found = _behind_loader(one, settings, cap)
        except Exception as error:
            table.leave_out(codec, error)
            continue
        finally:
            if one is not None:
                one.close()
        alone, loaded, loader = found
        shares = [with_it / without for with_it, without in zip(loaded, alone, strict=True)]
        table.add(
            [codec, spread(alone, 1), spread(loaded, 1), spread(shares), spread(loader, 1)],
            codec=codec,
            step_alone=alone,
            with_loader=loaded,
            shares=shares,
            share=median(shares),
            reached=median(shares) >= _LOADER_GOAL,
            loader_alone=loader,
        )
    where = "drawn, JPEG of 640 x 480" if settings.images is None else str(settings.images.name)
    table.notes.append(
        f"images per second, bf16, medians (and ranges) of {settings.rounds} alternations; "
        f"images: {where}, decoded again every time; what workers had ready before a measurement "
        "is used up first"
    )
    return table


def _warm_up(one: Contestant, settings: TrainingSettings) -> int:
    """Run some steps; return how many fill the wanted seconds."""
    for _ in range(3):
        one.step()
    synchronise(settings.device)
    start = time.perf_counter()
    for _ in range(2):
        one.step()
    synchronise(settings.device)
    each = (time.perf_counter() - start) / 2
    return max(2, math.ceil(settings.seconds / max(each, 1e-6)))


def _alternate(
    contestants: list[Contestant], steps: list[int], settings: TrainingSettings, cap: TimeCap
) -> list[list[float]]:
    """Return images per second of each contestant in each round; every second is in reverse."""
    rates: list[list[float]] = [[] for _ in contestants]
    for turn in range(settings.rounds):
        if turn and cap.left() <= 0:
            break
        order = list(range(len(contestants)))
        for place in order if turn % 2 == 0 else reversed(order):
            synchronise(settings.device)
            start = time.perf_counter()
            for _ in range(steps[place]):
                contestants[place].step()
            synchronise(settings.device)
            seconds = time.perf_counter() - start
            rates[place].append(steps[place] * settings.batch / seconds)
    return rates


def _behind_loader(
    one: Ours, settings: TrainingSettings, cap: TimeCap
) -> tuple[list[float], list[float], list[float]]:
    ahead = 2 * settings.workers + 1  # batches that may be ready
    count = max(_warm_up(one, settings), 2 * ahead)
    # Images that stay in memory would cost no decoding.
    split = Split(_dataset(settings), "train", keep=False)
    total = settings.rounds * 2 * (count + ahead)
    source = batches(
        split,
        0,
        one.training.job.schedule,
        range(total),
        "none",
        workers=settings.workers,
        pinned=settings.device.type == "cuda",
    )
    alone: list[float] = []
    loaded: list[float] = []
    loader: list[float] = []
    for turn in range(settings.rounds):
        if turn and cap.left() <= 0:
            break
        alone.append(_rate(settings, count, one.step))
        _rate(settings, ahead, lambda: one.step(next(source)))
        loaded.append(_rate(settings, count, lambda: one.step(next(source))))
        _rate(settings, ahead, lambda: next(source))
        loader.append(_rate(settings, count, lambda: next(source)))
    return alone, loaded, loader


def _rate(settings: TrainingSettings, count: int, work: Any) -> float:
    synchronise(settings.device)
    start = time.perf_counter()
    for _ in range(count):
        work()
    synchronise(settings.device)
    return count * settings.batch / (time.perf_counter() - start)


# --- what is trained ----------------------------------------------------------------------------


def _job(settings: TrainingSettings, codec: str, precision: str, folder: Path) -> TrainJob:
    """Return a job of the trainer: a codec alone, from random weights."""
    overrides = {
        "scale": "paper-check",
        "studies": ["chamain2021"],
        "results": str(settings.folder / "plan"),
    }
    plan = load_plan(REPOSITORY / "config.yaml", overrides)
    job = train_job(plan, Point("chamain2021", "hyperprior/reconstruction/mse", 0, 0))
    parameters = CODECS[codec].parameters.model_validate(settings.sizes)
    runtime = {
        "threads": settings.threads,
        "gpu": int(settings.device.type == "cuda"),
        "precision": precision,
    }
    return job.model_copy(
        update={
            "codec": job.codec.model_copy(
                update={
                    "name": codec,
                    "parameters": parameters.model_dump(),
                    "weights": WeightsSpec(source="random", part="codec"),
                    "starts_pretrained": False,
                }
            ),
            "loss": {"bpp": 1.0, "mse": _LAMBDA},
            "schedule": _schedule(settings, job.schedule),
            "dataset": _dataset(settings),
            "runtime": job.runtime.model_copy(update=runtime),
            "output": str(folder),
        }
    )


def _schedule(settings: TrainingSettings, base: Schedule | None = None) -> Schedule:
    adam = Optimiser(name="adam", lr=1e-4)
    base = base or Schedule(steps=1, batch_size=1, optimisers={"codec": adam}, origin="ours")
    changes = {
        "steps": 10**9,
        "batch_size": settings.batch,
        "crop": settings.side,
        "crop_area": None,
        "flip": True,
        "decay": "constant",
        "warmup": 0,
        "clip_norm": 1.0,
        "validation": None,
    }
    return base.model_copy(update=changes)


def _resident(settings: TrainingSettings, split: Split) -> Batch:
    return next(batches(split, 0, _schedule(settings), range(1), "none")).to(settings.device)


def _dataset(settings: TrainingSettings) -> DatasetSpec:
    """Return a data set of a folder of images; they are drawn if no folder is given.

    Drawn ones are JPEG files of COCO's usual size, so that reading them costs what COCO's cost.
    """
    folder = settings.images
    if folder is None:
        folder = settings.folder / "drawn"
        if not folder.is_dir():
            _draw(folder, max(2 * settings.batch, 24))
    elif not folder.is_dir() or len(list_images(folder)) < settings.batch:
        raise UserError(f"--images {folder}: must be a folder of at least {settings.batch} files")
    manifest = settings.folder / "manifest.json"
    write_json(manifest, {"digest": "benchmark"})
    return DatasetSpec(
        role="photographs",
        folder=str(folder),
        manifest=str(manifest),
        settings=FetchedImages(
            source="catalogue",
            name="benchmark",
            splits={"train": ImageSplit(images=".", layout="images")},
        ),
    )


def _draw(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    scenes = [Image.fromarray(make_scene(rng, 240).image) for _ in range(4)]
    for number in range(count):
        sheet = Image.new("RGB", (640, 480))
        for place in range(6):
            tile = scenes[int(rng.integers(len(scenes)))].rotate(90 * int(rng.integers(4)))
            sheet.paste(tile, (240 * (place % 3), 240 * (place // 3)))
        sheet.save(folder / f"{number:04}.jpg", quality=90)
