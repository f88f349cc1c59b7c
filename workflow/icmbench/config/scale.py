"""workflow/scales/<name>.yaml: how big."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from icmbench.data.specs import Dataset
from icmbench.utils.models import Strict


class RuntimeSettings(Strict):
    """How jobs run on this scale's hardware."""

    threads: int = Field(1, ge=1, description="CPU threads of one training run or evaluation.")
    gpu: int = Field(
        0,
        ge=0,
        description="GPUs of one training run or evaluation. A training run on several devices "
        "(see a schedule's ``devices``) takes threads, GPUs and memory for each.",
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "auto",
        description="Arithmetic of transforms and task networks; entropy models are always fp32. "
        "auto is bf16 on a GPU or a CPU with native bf16 instructions, else fp32.",
    )
    memory_mb: int = Field(3000, ge=500, description="Memory of one network job, in MB.")
    runtime_min: int = Field(60, ge=1, description="Time limit of one network job, in minutes.")
    classical_mb: int = Field(
        1500, ge=200, description="Memory of one job that codes with a classical codec, in MB."
    )
    retries: int | None = Field(
        None,
        ge=0,
        description="Retries of a failed training run, which resumes from its checkpoint. null "
        "leaves it to Snakemake's --retries.",
    )
    classical_min: int = Field(
        60, ge=1, description="Time limit of one job that codes with a classical codec, in minutes."
    )
    classical_curves: bool = Field(
        False,
        description="Whether one job of a classical codec codes a split at all rates: for few or "
        "small images, where starting a process costs more than coding. false has a job for each.",
    )
    checkpoint_s: float = Field(30.0, gt=0, description="Seconds between side-car checkpoints.")
    workers: int = Field(
        0, ge=0, description="Loader processes of a training run; 0 loads in the job itself."
    )
    decode_in_loader: bool = Field(
        False,
        description="Training on a classical codec's images: keep only bitstreams of the train "
        "split, and decode them in the loader at every reading. false keeps PNG files, which read "
        "two to seven times as fast and take ten times the space.",
    )
    log_every: int = Field(10, ge=1, description="Steps between two rows of the metrics log.")


class Scale(Strict):
    """One scale: data sets by role, network sizes and the studies' overrides."""

    name: str
    description: str
    extends: str | None = Field(
        None, description="Another scale, whose keys hold unless this file has them, too."
    )
    runs: list[str] | None = Field(
        None,
        min_length=1,
        description="Studies that this scale has data for; others of config.yaml are left out, and "
        "the report names them. null: all.",
    )
    leave_out_missing: bool = Field(
        False,
        description="Leave out the curves whose data set or published weights are neither on this "
        "machine nor at their address, and name them, in place of failing.",
    )
    classical_where_found: list[str] = Field(
        [],
        description="Classical codecs that run, beside ``classical_codecs`` of config.yaml, where "
        "their programs are found; a run without them names what it leaves out.",
    )
    datasets: dict[str, Dataset] = Field(
        description="Data set of each role that studies name, e.g. detection, photographs."
    )
    codecs: dict[str, dict[str, Any]] = Field(
        {}, description="Parameters of codecs by name, checked by the codec's own model."
    )
    tasks: dict[str, dict[str, Any]] = Field(
        {},
        description="Parameters of tasks by name, checked by the task's own model. A new name "
        "has under ``network`` the task that it is: {mine: {network: torchvision-detector, ...}}.",
    )
    pretrained: Literal["published", "zoo"] = Field(
        "published",
        description="What ``pretrained`` means in study files: the weights that CompressAI and "
        "torchvision publish, or those of this project's zoo, for networks of this scale's sizes.",
    )
    runtime: RuntimeSettings = RuntimeSettings()
    chunks: dict[str, dict[str, Annotated[int, Field(ge=1)]]] = Field(
        {},
        description="Jobs that share the images of a split, by data set role and codec; 1 by "
        "default. Slow codecs and large sets need more. Such a job of a learned codec codes at all "
        "rates, of a classical codec at one.",
    )
    studies: dict[str, dict[str, Any]] = Field(
        {},
        description="Any keys of a study's file, which replace its own at this scale (mappings "
        "are merged).",
    )
