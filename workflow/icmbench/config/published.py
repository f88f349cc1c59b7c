"""workflow/studies/published/points.yaml: published points and their protocols."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from icmbench.data.specs import ResizeFilter
from icmbench.errors import unknown
from icmbench.utils.models import Strict, read_shipped
from icmbench.utils.places import workflow_folder

POINTS = workflow_folder() / "studies" / "published" / "points.yaml"

Point = Annotated[tuple[float, float], BeforeValidator(tuple)]


class ProtocolNetwork(Strict):
    """The task network of a protocol.

    Attributes:
        name: for people.
        task: names of this package's tasks that are this network; empty if it has none.
        parameters: those of the task's parameters that make it this network.
        weights: whether they must be the published ones, or any with the uncompressed value.
    """

    name: str
    task: list[str] = Field([])
    parameters: dict[str, Any] = Field({})
    weights: Literal["published", "any"] = "published"


class Protocol(Strict):
    """What must agree before two curves share a plot.

    Attributes:
        dataset, images: name in data/catalogue.yaml, and the number of images.
        short_side, long_side, resize_filter, center_crop: what is done to an image before the
            codec; without resizing there is no filter.
        rate_pixels: pixels that the bits are divided by.
        network: None for image quality.
        uncompressed: value on original images by metric; accuracies in [0, 1].
    """

    dataset: str
    images: int = Field(ge=1)
    short_side: int | None = None
    long_side: int | None = None
    resize_filter: ResizeFilter | None = None
    center_crop: int | None = None
    rate_pixels: Literal["native", "coded"]
    network: ProtocolNetwork | None = None
    uncompressed: dict[str, float] = Field({})


class Source(Strict):
    """Where points come from."""

    paper: str
    address: str
    licence: str
    year: int


class PointCurve(Strict):
    """Published points of one codec.

    Attributes:
        label: the codec.
        source, protocol: names under ``sources`` and ``protocols``.
        metric: of the values.
        rate: how bits were counted: lengths of files, an entropy model's estimate, or unknown.
        points: rate in bits per pixel and value; accuracies in [0, 1].
    """

    label: str
    source: str
    protocol: str
    metric: str
    rate: Literal["real", "estimate", "unknown"]
    points: list[Point] = Field(min_length=1)
    note: str = ""


class PublishedPoints(Strict):
    """The content of points.yaml."""

    protocols: dict[str, Protocol]
    sources: dict[str, Source]
    curves: list[PointCurve]

    @model_validator(mode="after")
    def _names_exist(self) -> PublishedPoints:
        for curve in self.curves:
            if curve.protocol not in self.protocols:
                raise ValueError(unknown("protocol", curve.protocol, self.protocols))
            if curve.source not in self.sources:
                raise ValueError(unknown("source", curve.source, self.sources))
            protocol = self.protocols[curve.protocol]
            if protocol.network is not None and curve.metric not in protocol.uncompressed:
                raise ValueError(f"{curve.protocol}: no uncompressed value of {curve.metric!r}")
        return self


@cache
def published_points() -> PublishedPoints:
    """Return the published points of the package.

    Raises:
        DamagedFile: where the file is not as described.
    """
    return read_shipped(POINTS, PublishedPoints)
