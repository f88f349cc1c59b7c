"""What a run would cost in GPU hours, CPU hours and disk, by counted work and ``costs.yaml``.

A part of a network costs its forward pass once, once more where a gradient passes through it, and
once more where it is trained. Work that several variants share is counted for the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

from pydantic import Field

from icmbench.config.plan import Plan
from icmbench.config.validate import task_entry
from icmbench.config.weights import Point
from icmbench.data.specs import Dataset, FetchedImages
from icmbench.errors import UserError
from icmbench.registry import CODECS, TaskEntry
from icmbench.utils.models import Strict, read_shipped
from icmbench.utils.places import workflow_folder

COSTS = workflow_folder() / "costs.yaml"

T = TypeVar("T")
_VIEW = 224  # side of the crops of contrastive training

Macs = float | list[float]


class Speeds(Strict):
    """Operations a second; a multiply-accumulate is two."""

    train_tflops: float
    evaluate_tflops: float
    evaluate_s_per_megapixel: float
    quality_s_per_megapixel: float
    cpu_gflops: float
    load_s_per_megapixel: float
    padding: float


class DiskUse(Strict):
    """Sizes of what a run leaves."""

    png_bytes_per_pixel: float
    bitstream_bytes_per_pixel: float
    training_run_gb: float


class ImageSet(Strict):
    """Sizes of a data set of the catalogue."""

    megapixels: float
    aspect: float
    train: int
    test: int


class NetworkWork(Strict):
    """Multiply-accumulates of a forward pass: thousands a pixel, or 10^9 an image."""

    kmacs: dict[str, Macs] = Field({})
    gmacs: dict[str, Macs] = Field({})
    decode: list[str] = Field([])

    def macs(self, megapixels: float, rate: int) -> dict[str, float]:
        """Return the multiply-accumulates of each part for an image of ``megapixels``."""

        def at_rate(value: Macs) -> float:
            return value[min(rate, len(value) - 1)] if isinstance(value, list) else value

        pixels = {part: at_rate(value) * megapixels * 1e9 for part, value in self.kmacs.items()}
        return {**pixels, **{part: at_rate(value) * 1e9 for part, value in self.gmacs.items()}}


class Costs(Strict):
    """The content of costs.yaml."""

    speeds: Speeds
    disk: DiskUse
    datasets: dict[str, ImageSet]
    networks: dict[str, NetworkWork]
    classical: dict[str, float]
    decoding: dict[str, float]


@dataclass
class Cost:
    """Hours of a GPU and of a CPU core, and GB."""

    train_gpu_h: float = 0.0
    evaluate_gpu_h: float = 0.0
    cpu_h: float = 0.0
    disk_gb: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        names = [field.name for field in fields(self)]
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def gpu_h(self) -> float:
        """Hours of a GPU in all."""
        return self.train_gpu_h + self.evaluate_gpu_h


CostsByVariant = dict[tuple[str, str], Cost]


def read_costs() -> Costs:
    """Return work and speeds.

    Raises:
        DamagedFile: where the file is not as described.
    """
    return read_shipped(COSTS, Costs)


def plan_costs(plan: Plan, costs: Costs | None = None) -> tuple[CostsByVariant, list[str]]:
    """Return the cost of every variant by (study, variant), and what is not counted.

    The latter are the names of codecs and tasks without numbers in costs.yaml.

    Raises:
        UserError: for a scale that uses no GPU, or data sets without numbers.
    """
    if not plan.scale.runtime.gpu:
        raise UserError(
            f"scale {plan.scale.name!r}: costs are known of full-size networks on a GPU only; "
            "choose scale paper"
        )
    estimate = _Estimate(plan, costs or read_costs())
    found = {(point.study, point.variant): Cost() for point in plan.points}
    for point in plan.points:
        found[point.study, point.variant] += estimate.point(point)
    return found, sorted(estimate.missing)


class _Estimate:
    """The costs of a plan's points; remembers which encodings were counted."""

    def __init__(self, plan: Plan, costs: Costs) -> None:
        self._plan, self._costs = plan, costs
        self._counted: set[str] = set()
        self.missing: set[str] = set()

    def point(self, point: Point) -> Cost:
        variant = self._plan.variant(point)
        cost = Cost()
        if variant.train is not None:
            cost += self._training(point)
        if variant.evaluate and self._plan.result_point(point) == point:
            cost += self._evaluation(point)
        for split in self._plan.coded_splits(point):
            cost += self._coding(point, split)
        return cost

    def _training(self, point: Point) -> Cost:
        schedule, variant = self._plan.schedule(point), self._plan.variant(point)
        training = variant.train
        assert training is not None
        task = task_entry(self._plan.scale, variant.task)
        side = _VIEW if task.trains_codec else schedule.crop
        if side is not None and not _needs_whole(task):
            megapixels, padding = side**2 / 1e6, 1.0
        else:
            megapixels = self._megapixels(variant.dataset, "train")
            padding = self._costs.speeds.padding
            if schedule.short_sides is not None:
                own = getattr(self._set(variant.dataset)[1], "short_side", None)
                sides = [min(side / (own or side), 1.0) for side in schedule.short_sides]
                megapixels *= sum(share**2 for share in sides) / len(sides)
        names = [variant.codec] if CODECS[variant.codec].kind == "learned" else []
        names += [variant.task] if task.trainable else []
        parts = {
            f"{'codec' if name == variant.codec else 'task'}.{part}": macs
            for name in names
            for part, macs in self._network(name).macs(megapixels, point.rate_index).items()
        }
        if not task.trainable or task.trains_codec:
            parts = _until_trained(parts, training.parts)
        macs = sum(work for _, work in training_work(parts, training.parts))
        images = schedule.batch_size * schedule.steps
        seconds = 2 * macs * padding * images / (self._costs.speeds.train_tflops * 1e12)
        own, dataset = self._set(variant.dataset)
        once = isinstance(dataset, FetchedImages) and dataset.resized_once
        read = self._megapixels(variant.dataset, "train") if once else own.megapixels
        loading = self._costs.speeds.load_s_per_megapixel * read * images
        if self._plan.decodes_in_loader(point):
            decoding = self._of(self._costs.decoding, variant.codec, 0.0)
            loading = decoding * self._megapixels(variant.dataset, "train") * images
        workers = max(1, self._plan.scale.runtime.workers) * schedule.devices
        seconds = max(seconds, loading / workers)
        return Cost(train_gpu_h=seconds / 3600, disk_gb=self._costs.disk.training_run_gb)

    def _evaluation(self, point: Point) -> Cost:
        speeds, variant = self._costs.speeds, self._plan.variant(point)
        megapixels = self._megapixels(variant.dataset, "test")
        macs = sum(self._network(variant.task).macs(megapixels, point.rate_index).values())
        if task_entry(self._plan.scale, variant.task).input_kind == "features":
            macs += self._decoder_macs(point, megapixels)
        seconds = 2 * macs / (speeds.evaluate_tflops * 1e12)
        seconds += speeds.evaluate_s_per_megapixel * megapixels
        return Cost(evaluate_gpu_h=seconds * self._images(variant.dataset, "test") / 3600)

    def _coding(self, point: Point, split: Literal["train", "test"]) -> Cost:
        key, variant = self._plan.encode_key(point, split), self._plan.variant(point)
        if key is None or key in self._counted:
            return Cost()
        self._counted.add(key)
        megapixels = self._megapixels(variant.dataset, split)
        if CODECS[variant.codec].kind == "classical":
            seconds = self._of(self._costs.classical, variant.codec, 0.0) * megapixels
        else:
            # The encoder decodes too, to know what the decoder must find.
            macs = sum(self._network(variant.codec).macs(megapixels, point.rate_index).values())
            macs += self._decoder_macs(point, megapixels)
            seconds = 2 * macs / (self._costs.speeds.cpu_gflops * 1e9)
        if split == "test" and task_entry(self._plan.scale, variant.task).input_kind == "images":
            seconds += self._costs.speeds.quality_s_per_megapixel * megapixels
        images = self._images(variant.dataset, split)
        streams_alone = split == "train" and self._plan.decodes_in_loader(point)
        disk = self._costs.disk
        size = disk.bitstream_bytes_per_pixel if streams_alone else disk.png_bytes_per_pixel
        gigabytes = size * megapixels * 1e6 * images / 1e9
        return Cost(cpu_h=seconds * images / 3600, disk_gb=gigabytes)

    def _decoder_macs(self, point: Point, megapixels: float) -> float:
        work = self._network(self._plan.variant(point).codec)
        macs = work.macs(megapixels, point.rate_index)
        return sum(macs[part] for part in work.decode)

    # --- numbers of costs.yaml ----------------------------------------------------------------

    def _network(self, name: str) -> NetworkWork:
        return self._of(self._costs.networks, name, NetworkWork())

    def _set(self, role: str) -> tuple[ImageSet, Dataset]:
        dataset = self._plan.scale.datasets[role]
        name = dataset.name if isinstance(dataset, FetchedImages) else dataset.source
        if name not in self._costs.datasets:
            raise UserError(f"{COSTS}: datasets has no {name!r}; add its numbers")
        return self._costs.datasets[name], dataset

    def _megapixels(self, role: str, split: Literal["train", "test"]) -> float:
        images, dataset = self._set(role)
        if not isinstance(dataset, FetchedImages):
            return images.megapixels
        if dataset.center_crop is not None and split == "test":
            return dataset.center_crop**2 / 1e6
        if dataset.short_side is not None and dataset.center_crop is None:
            return dataset.short_side**2 * images.aspect / 1e6
        return images.megapixels

    def _images(self, role: str, split: Literal["train", "test"]) -> int:
        images, dataset = self._set(role)
        count = images.train if split == "train" else images.test
        limit = dataset.splits[split].limit if isinstance(dataset, FetchedImages) else None
        return count if limit is None else min(count, limit)

    def _of(self, table: dict[str, T], name: str, otherwise: T) -> T:
        if name not in table:
            self.missing.add(name)
        return table.get(name, otherwise)


def training_work(parts: dict[str, float], trained: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Yield the multiply-accumulates of a training step's image for each part.

    Args:
        parts: of a forward pass by ``codec.<part>`` and ``task.<part>``, in the order of the data.
        trained: names of parts, ``codec`` or ``task`` for all of them.

    >>> parts = {"codec.analysis": 1.0, "codec.synthesis": 1.0, "task.detector": 10.0}
    >>> dict(training_work(parts, ["codec.synthesis"]))
    {'codec.analysis': 1.0, 'codec.synthesis': 3.0, 'task.detector': 20.0}
    """
    names = set(trained)
    gradient = False
    for part, macs in parts.items():
        trains = part in names or part.split(".")[0] in names
        gradient = gradient or trains
        yield part, macs * (1 + gradient + trains)


def _until_trained(parts: dict[str, float], trained: Iterable[str]) -> dict[str, float]:
    """Return a codec's parts up to the last one that is trained, and the task's."""
    names = list(parts)
    last = max(i for i, n in enumerate(names) if n in trained or n.split(".")[0] in trained)
    return {n: m for i, (n, m) in enumerate(parts.items()) if i <= last or n.startswith("task.")}


def _needs_whole(task: TaskEntry) -> bool:
    """Return whether training needs whole images: boxes and maps cannot be cropped at random."""
    return bool(task.metrics) and not {"top1", "psnr"} & set(task.metrics)
