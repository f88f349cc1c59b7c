"""workflow/scales/<name>.yaml: how big."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from icmbench.utils.models import Strict


class EmbeddedScenes(Strict):
    """Generated scenes with boxes and masks; needs no download."""

    source: Literal["embedded-scenes"]
    size: int = Field(128, ge=64, le=512, description="Side of the square images, in pixels.")
    objects: int = Field(4, ge=1, le=8, description="Objects of an image, from one to so many.")
    radius: list[float] = Field(
        [0.13, 0.27],
        min_length=2,
        max_length=2,
        description="Bounds of an object's radius, in sides of the image.",
    )
    train: int = Field(ge=0, description="Images of the train split.")
    val: int = Field(ge=0, description="Images of the val split.")
    test: int = Field(ge=1, description="Images of the test split.")
    seed: int = Field(2021, ge=0, description="Seed of the generator.")


class EmbeddedFaces(Strict):
    """Generated faces with attributes and parsing maps; needs no download."""

    source: Literal["embedded-faces"]
    size: int = Field(128, ge=64, le=512, description="Side of the square images, in pixels.")
    train: int = Field(ge=0, description="Images of the train split.")
    val: int = Field(ge=0, description="Images of the val split.")
    test: int = Field(ge=1, description="Images of the test split.")
    seed: int = Field(2021, ge=0, description="Seed of the generator.")


class ImageSplit(Strict):
    """Where one split of a fetched data set lies inside its folder."""

    images: str = Field(description="Folder of the images, relative to the data set.")
    annotations: str | None = Field(
        None, description="COCO-format annotation file, relative to the data set."
    )
    layout: Literal["images", "coco", "voc", "imagenet", "celeba"] | None = Field(
        None,
        description="How the ground truth is kept. images: there is none. coco: in the file "
        "``annotations``; null means one of these two. voc: PASCAL VOC's XML, of the ``sets``. "
        "imagenet: ImageNet's folders and development kit. celeba: CelebA's and CelebAMask-HQ's "
        "attributes and masks.",
    )
    sets: list[str] = Field([], description="Of PASCAL VOC, as VOC2007/trainval.")
    limit: int | None = Field(
        None, ge=1, description="Use only the first images, by sorted id; null takes all."
    )


class FetchedImages(Strict):
    """A data set of the catalogue, fetched into the data folder."""

    source: Literal["catalogue"]
    name: str = Field(description="Name in data/catalogue.yaml.")
    splits: dict[Literal["train", "val", "test"], ImageSplit]
    short_side: int | None = Field(
        None,
        ge=16,
        description="Resize to this short side before the codec, as detectors do; null codes "
        "native pixels. Rates are recorded for both pixel counts.",
    )
    long_side: int | None = Field(None, ge=16, description="Bound on the resized long side.")
    center_crop: int | None = Field(
        None,
        ge=16,
        description="Side of the square cut from the middle after resizing. The train split is "
        "then neither resized nor cut: trainings take random crops of whole images.",
    )
    rate_pixels: Literal["native", "coded"] = Field(
        "native",
        description="Pixels that rates are divided by. coded: those left after resizing and "
        "cropping, where the study's images are defined to be of that size.",
    )
    allow_subset: bool = Field(
        False,
        description="Accept a mirror that holds only a part of the data set. Never compare such "
        "a result with a published one.",
    )
    otherwise: EmbeddedScenes | EmbeddedFaces | None = Field(
        None,
        description="Generated scenes or faces to use where the data set is neither fetched nor in "
        "the mirror: this scale then never downloads it. The report names what was used.",
    )


Dataset = Annotated[EmbeddedScenes | EmbeddedFaces | FetchedImages, Field(discriminator="source")]


class RuntimeSettings(Strict):
    """How jobs run on this scale's hardware."""

    threads: int = Field(1, ge=1, description="CPU threads of one training or evaluation job.")
    gpu: int = Field(
        0,
        ge=0,
        description="GPUs of one training or evaluation job. A training over several devices "
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
        1000, ge=200, description="Memory of one job that codes with a classical codec, in MB."
    )
    retries: int | None = Field(
        None,
        ge=0,
        description="How often a training is started again; it goes on where it stopped. null "
        "leaves it to Snakemake's --retries.",
    )
    classical_min: int = Field(
        60, ge=1, description="Time limit of one job that codes with a classical codec, in minutes."
    )
    checkpoint_s: float = Field(30.0, gt=0, description="Seconds between side-car checkpoints.")
    workers: int = Field(
        0, ge=0, description="Loader processes of a training; 0 loads in the job itself."
    )
    log_every: int = Field(10, ge=1, description="Steps between two rows of the metrics log.")


class Scale(Strict):
    """One scale: data sets by role, network sizes and the studies' overrides."""

    name: str
    description: str
    datasets: dict[str, Dataset] = Field(
        description="Data set of each role that studies name, e.g. detection, photographs."
    )
    codecs: dict[str, dict[str, Any]] = Field(
        {}, description="Parameters of codecs by name, checked by the codec's own model."
    )
    tasks: dict[str, dict[str, Any]] = Field(
        {}, description="Parameters of tasks by name, checked by the task's own model."
    )
    runtime: RuntimeSettings = RuntimeSettings()
    chunks: dict[str, dict[str, int]] = Field(
        {},
        description="Jobs that share the images of a split at one quality, by data set role and "
        "classical codec; 1 where none is given. Give slow encoders and large sets many.",
    )
    studies: dict[str, dict[str, Any]] = Field(
        {},
        description="Any keys of a study's file, laid over it at this scale (mappings are merged, "
        "everything else replaces).",
    )
