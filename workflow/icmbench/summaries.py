"""What jobs leave in JSON: ``run.json``, ``encode.json``, ``decode.json``, ``evaluate.json``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from icmbench.jobs import TrainJob
from icmbench.utils.environment import JobEnvironment

RunStatus = Literal["running", "finished", "interrupted", "failed"]


class _Summary(BaseModel):
    """Unlike settings, results may be NaN or infinite."""

    model_config = ConfigDict(frozen=True)


class DataSummary(_Summary):
    """The data set of a job; ``digest`` is of its content."""

    role: str
    name: str
    digest: str
    split: str = "train"


class LoadedWeights(_Summary):
    """What a network took from a file of the user's, or of another network.

    Attributes:
        file, sha256: of the file.
        tensors: number of them that were loaded.
        share: of the network's numbers, in [0, 1].
        missing: names of the network's tensors that are not from the file.
        unused: names of the file's tensors that the network did not take.
    """

    file: str
    sha256: str
    tensors: int
    share: float
    missing: list[str]
    unused: list[str]


class TrainingSummary(_Summary):
    """Settings, progress and outcome of a training run.

    Attributes:
        started, finished: Unix seconds; None until it has ended, in whichever way.
        fingerprint: of its settings and inputs.
        final: loss terms that were logged last.
        parameters: number of them in the codec and in the task.
        wall_seconds, cpu_seconds: over all processes that resumed it.
        weights: what codec and task began with, if that is of the user's or of another network.
        weights_sha256: of ``weights.pt``, once it has finished.
        warnings: what is wrong with a finished run, in sentences.
        error: why it failed.
    """

    key: str
    status: RunStatus = "running"
    started: float
    finished: float | None = None
    fingerprint: str
    steps: int
    steps_done: int
    final: dict[str, float] = Field(default_factory=dict)
    parameters: dict[str, int]
    job: TrainJob
    dataset: DataSummary
    environment: JobEnvironment
    wall_seconds: float
    cpu_seconds: float
    weights: dict[str, LoadedWeights] = Field(default_factory=dict)
    weights_sha256: str | None = None
    warnings: list[str] = Field(default_factory=list)
    error: str | None = None


class NetworkComplexity(_Summary):
    """Parameters of a network, and multiply-accumulates a pixel by step; None without a network.

    ``weights`` is what it took from a file of the user's, if it did.
    """

    parameters: int | None
    macs_per_pixel: dict[str, float]
    weights: LoadedWeights | None = None


class CodingSummary(NetworkComplexity):
    """``encode.json`` and ``decode.json``; the fingerprint changes with bitstreams and images."""

    fingerprint: str


class PointComplexity(_Summary):
    """Parameters of ``codec`` and ``task``, and multiply-accumulates a pixel of every step."""

    parameters: dict[str, int | None]
    macs_per_pixel: dict[str, float | None]


class EvaluationSummary(_Summary):
    """Results of an operating point.

    Attributes:
        metrics: on the whole split.
        implementation: which program made the bitstreams.
        files: SHA-256 of the files that the task's parameters name.
        weights: what codec and task took from files of the user's.
    """

    key: str
    metrics: dict[str, float]
    complexity: PointComplexity
    n_images: int
    implementation: str
    weights: dict[str, LoadedWeights] = Field(default_factory=dict)
    dataset: DataSummary
    files: dict[str, str] = Field(default_factory=dict)
    wall_seconds: float
    cpu_seconds: float
    environment: JobEnvironment
