"""What one job does: the settings that the plan writes and that a verb reads.

Each file below ``<results>/<scale>/plan`` is one of these models in JSON. Snakemake depends on the
file, so a job is repeated only when its own settings change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from icmbench.data.specs import DatasetSpec, Needs
from icmbench.errors import missing_file
from icmbench.metrics.catalogue import find_metric
from icmbench.registry import DataKind
from icmbench.utils.files import sha256_file
from icmbench.utils.models import Origin, Strict, read_model
from icmbench.utils.programs import Program

Part = Literal["codec", "task"]
PARTS: tuple[Part, ...] = ("codec", "task")

# --- settings that study files hold and jobs carry ------------------------------------------------


class Optimiser(Strict):
    """One optimiser over a group of parts."""

    name: Literal["adam", "adamw", "sgd"]
    lr: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="Of SGD; Adam's beta 1.")
    weight_decay: float = Field(0.0, ge=0)


class Validation(Strict):
    """Loss on the val split during training; it is logged only."""

    every: int = Field(ge=1, description="Steps between two validations.")
    images: int = Field(ge=1, description="Images of each validation.")


class Schedule(Strict):
    """Length, batches and learning rates of a training run."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1, description="Images of a step, of all devices together.")
    devices: int = Field(
        1,
        ge=1,
        description="Processes that share every batch, each on a GPU of its own (on the CPU where "
        "the scale requests none). Results depend on it: batch norm sees one process's share, but "
        "for detectors whose ``batch_norm`` is trained.",
    )
    optimisers: dict[Literal["codec", "task", "auxiliary", "adversary"], Optimiser] = Field(
        description="codec and task: the trained parts; auxiliary: the quantiles of the entropy "
        "model's factorised prior; adversary: a codec's discriminator."
    )
    decay: Literal["constant", "cosine", "one-cycle"] = Field(
        "constant", description="Course of every main learning rate after the warm-up."
    )
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up.")
    clip_norm: float | None = Field(1.0, gt=0, description="Bound on the gradient norm of a group.")
    crop: int | None = Field(None, ge=16, description="Side of random crops; null: no crop.")
    crop_area: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Random-resized crops: a share of the area between these bounds, of aspect "
        "ratio 3/4 to 4/3, resized to the side of ``crop``. null crops without resizing.",
    )
    short_sides: list[Annotated[int, Field(ge=16)]] | None = Field(
        None,
        min_length=1,
        description="Training of detectors on several sizes: each image is reduced to a short side "
        "drawn from these, before codec and task, and never enlarged. null keeps its size.",
    )
    flip: bool = Field(True, description="Mirror images at random.")
    validation: Validation | None = None
    origin: Origin = Field(description="Who chose these numbers.")
    note: str = ""

    @field_validator("devices")
    @classmethod
    def _shares_are_equal(cls, devices: int, info: ValidationInfo) -> int:
        images = info.data.get("batch_size")
        if images is not None and images % devices:
            raise ValueError(f"batch_size {images} is not a multiple of it; change one of them")
        return devices

    def optimiser(self, group: str) -> Optimiser:
        """Return the optimiser of a group of parameters."""
        return {str(name): settings for name, settings in self.optimisers.items()}[group]


class RateTarget(Strict):
    """A weight that follows its term until the term reaches a target (ours).

    After every step the weight's logarithm grows by ``gain`` times the relative excess of the term
    over the target, at most ``gain`` either way. The weight stays within a factor of 100 of its
    start. A target of ``bpp`` uses the rate of what would be coded (term ``bpp_coded``) where the
    codec reports it.
    """

    target: float | str = Field(description="A number, or $<parameter> of the variant's ladder.")
    start: float = Field(1.0, gt=0, description="Weight at the first step.")
    gain: float = Field(0.02, gt=0, le=1)
    steps: int | None = Field(
        None,
        ge=1,
        le=2000,
        description="A pilot: only these first steps steer. The weight is then fixed at its "
        "(geometric) mean over their second half. null steers to the end.",
    )
    continues: bool = Field(
        False,
        description="Start at the final weight of the training run that made the codec's "
        "initial weights, where that steered the same term.",
    )


# --- networks -------------------------------------------------------------------------------------


class WeightsSpec(Strict):
    """Where the weights of a network come from.

    Attributes:
        source: path of a weights file, ``random``, ``pretrained``, or None where there are none.
        of: name of the codec or task that was trained.
        part: which network of that file.
        sha256: checksum that the file must have, of files that are shipped or one's own.
        rate: of ``pretrained``: the value of the ladder that they are published for.
        own: whether it is a file of one's own, in the names of CompressAI or torchvision.
        partial: beginnings of the names that need not be in one's own file.
        holds: beginnings of the names that an entry of the zoo has; empty: all.
        files: further files that are read for ``pretrained``.
    """

    source: str | None
    of: str | None = None
    part: Part
    sha256: str | None = None
    rate: float | None = None
    own: bool = False
    partial: list[str] = Field([])
    holds: list[str] = Field([])
    files: list[str] = Field([])

    @property
    def path(self) -> Path | None:
        """The weights file, or None where there is none."""
        return None if self.source in (None, "random", "pretrained") else Path(str(self.source))

    @property
    def inputs(self) -> list[str]:
        """The files that a network is loaded from."""
        return [*([] if self.path is None else [str(self.path)]), *self.files]

    def digest(self) -> str | list[str] | None:
        """Return the SHA-256 of the weights file (of each, if several); else the source itself.

        Raises:
            UserError: if a file is missing.
        """
        digests = []
        for path in self.inputs:
            try:
                digests.append(sha256_file(path))
            except FileNotFoundError:
                advice = "correct its path" if self.own else "run the job that makes it first"
                raise missing_file(path, advice) from None
        return digests if self.files else digests[0] if digests else self.source


class CodecSpec(Strict):
    """A codec in one state.

    Attributes:
        parameters: checked by the registry entry's own model.
        rate: the value on the ladder of the point that runs it; None without a ladder.
        starts_pretrained: whether the weights descend from published ones or a file of one's own,
            which then fix the size.
    """

    name: str
    kind: Literal["learned", "classical", "none"]
    parameters: dict[str, JsonValue]
    rate: float | None = None
    weights: WeightsSpec
    starts_pretrained: bool


class TaskSpec(Strict):
    """A task network in one state; further attributes as of :class:`CodecSpec`.

    Attributes:
        name: as the study calls it.
        network: its name in the registry.
        files: that its parameters name.
    """

    name: str
    network: str
    parameters: dict[str, JsonValue]
    weights: WeightsSpec
    starts_pretrained: bool
    metrics: list[str]
    files: list[str] = Field([])

    @property
    def needs(self) -> Needs:
        """What the task needs of its data set."""
        classes: Any = self.parameters.get("classes")
        return Needs(
            truth=_truth(self),
            classes=classes if isinstance(classes, int) else None,
            labels=None if classes is None or isinstance(classes, int) else classes,
            published=self.weights.source == "pretrained",
        )


def _truth(task: TaskSpec) -> Literal["none", "label", "boxes", "masks", "maps"]:
    """Return the kind of ground truth, which follows from what a task is measured by."""
    families = {find_metric(name).family for name in task.metrics}
    if "instance-segmentation" in families and task.parameters.get("masks", True):
        return "masks"
    if "detection" in families:
        return "boxes"
    # Sets of faces have maps of their own, which their reader checks.
    if "semantic-segmentation" in families and "truth" in task.parameters:
        return "maps"
    return "label" if "classification" in families else "none"


class ClassicalSpec(Strict):
    """A classical codec at one rate setting.

    Attributes:
        command: whether it is a codec from the command line, which no module registers.
        parameters: checked by the registry entry's own model, or those of the command.
        rate: value of its rate parameter.
        version: of this package's part in its bits and samples (colour, padding, headers).
        programs: external programs by name.
        modules: the user's modules, which may register it.
    """

    name: str
    command: bool = False
    parameters: dict[str, JsonValue]
    rate: float
    version: int
    programs: dict[str, Program]
    modules: list[str]


class CodedImages(Strict):
    """Where the coded images of one split at one operating point are.

    Attributes:
        folders: each holds a share of the images, see ``evaluate.coded``.
    """

    folders: list[str] = Field(min_length=1)


# --- jobs -----------------------------------------------------------------------------------------


class PointSpec(Strict):
    """An operating point: a variant at one rate setting and one seed.

    Attributes:
        key: ``<study>/<variant>/rate<index>-seed<seed>``, also its folder.
        rate_parameter, rate_value: of the ladder; None for original images.
    """

    key: str
    study: str
    variant: str
    mode: str
    rate_index: int
    seed: int
    rate_parameter: str | None
    rate_value: float | None
    scale: str


class RoleCheck(Strict):
    """A role that uses a data set, and what its tasks need."""

    dataset: DatasetSpec
    needs: list[Needs]


class DataJob(DatasetSpec):
    """Generate or fetch the data set of a role, and check it for every role that uses it.

    Attributes:
        networks: tasks with networks that are used as they are, whose names and files are checked
            before anything is coded.
    """

    mirror: str | None
    checks: list[RoleCheck]
    networks: list[TaskSpec] = Field([])
    modules: list[str]
    threads: int = 1


class WeightsJob(Strict):
    """Fetch weights from an address.

    Attributes:
        sha256: checksum of the file.
        output: path of the file.
        mirror: folder that is tried first.
    """

    url: str
    sha256: str
    output: str
    mirror: str | None
    modules: list[str]
    threads: int = 1


class TrainRuntime(Strict):
    """The hardware settings of a training run, see ``RuntimeSettings``."""

    threads: int
    gpu: int
    precision: Literal["fp32", "bf16", "auto"]
    checkpoint_s: float
    log_every: int
    workers: int


class TrainJob(PointSpec):
    """Train one operating point.

    Attributes:
        output: folder of weights, logs and checkpoint.
        codec, task: with their initial weights.
        parts: what is trained; everything else stays frozen.
        loss: weight of each loss term, or the target that it is steered to.
        coded: coded images to train on, or None for originals.
        decoder: the codec that decodes them when they are read; None if decoded images are kept.
    """

    output: str
    codec: CodecSpec
    task: TaskSpec
    parts: list[str]
    loss: dict[str, float | RateTarget]
    schedule: Schedule
    dataset: DatasetSpec
    coded: CodedImages | None
    decoder: ClassicalSpec | None = None
    runtime: TrainRuntime
    modules: list[str]

    @property
    def threads(self) -> int:
        """CPU threads of one process."""
        return self.runtime.threads


class ShareSpec(Strict):
    """A share of a split's images, to code at one rate.

    Attributes:
        output: folder of the share.
        chunk, chunks: images ``chunk``, ``chunk + chunks``, ... of the split are coded.
        quality: image metrics of decoded images, by name; none where they are only trained on.
    """

    key: str
    output: str
    dataset: DatasetSpec
    split: str
    chunk: int
    chunks: int
    quality: list[str]
    modules: list[str]


class EncodeJob(ShareSpec):
    """Encode and decode a share of a split with a learned codec at one rate.

    Attributes:
        decodes: what decoding leaves: images, features' latents, or both.
    """

    codec: CodecSpec
    decodes: list[DataKind]
    threads: int
    gpu: int


class CacheSpec(Strict):
    """The cache of classically coded images, see ``CacheSettings``."""

    directory: str
    limit_gb: float


class ClassicalJob(ShareSpec):
    """Code a share of a split with a classical codec at one rate.

    Attributes:
        keep_images: whether decoded images are kept beside the bitstreams.
    """

    codec: ClassicalSpec
    keep_images: bool = True
    cache: CacheSpec


class EvaluateJob(PointSpec):
    """Run a task on what a codec left of the test split.

    Attributes:
        output: folder of records, statistics and predictions.
        codec: its name.
        decoder: the codec that makes features of latents, where the task reads features.
        task: with its final weights.
        coded: what was coded, or None for original images.
        perceptual: further image metrics, see :mod:`icmbench.networks.perceptual`.
    """

    output: str
    codec: str
    decoder: CodecSpec | None
    task: TaskSpec
    dataset: DatasetSpec
    split: str
    coded: CodedImages | None
    threads: int
    gpu: int
    precision: Literal["fp32", "bf16", "auto"]
    perceptual: list[str] = Field([])
    modules: list[str]


class EncodeCurve(Strict):
    """Every rate of a learned codec's curve on a share of a split, coded by one process."""

    jobs: list[EncodeJob] = Field(min_length=1)
    threads: int
    modules: list[str]


class ClassicalCurve(Strict):
    """Every rate of a classical codec on a split, or one on a share of it, coded by one process.

    Attributes:
        output: folder of the manifest.
    """

    output: str
    jobs: list[ClassicalJob] = Field(min_length=1)
    threads: int = 1
    modules: list[str]


class EvaluateCurve(Strict):
    """Every operating point of a variant, evaluated by one process."""

    jobs: list[EvaluateJob] = Field(min_length=1)
    threads: int
    modules: list[str]


Job = TypeVar("Job", DataJob, WeightsJob, TrainJob, EncodeCurve, ClassicalCurve, EvaluateCurve)


def read_job(path: Path, model: type[Job]) -> Job:
    """Return the settings of a job.

    Raises:
        UserError: where the file is missing, damaged or not a job of this kind.
    """
    return read_model(path, model, "`python -m icmbench plan` writes it again")
