"""workflow/studies/<name>.yaml: what one paper compares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, model_validator

from icmbench.config.claims import Claim
from icmbench.jobs import PARTS, Part, RateTarget, Schedule
from icmbench.utils.models import Origin, Strict
from icmbench.utils.places import workflow_folder


class Reference(Strict):
    """Bibliographic reference of the paper."""

    authors: str
    venue: str
    year: int
    address: str | None = None


class Pilot(Strict):
    """Finds the values of a ladder that weights the rate: the first steps of every training run."""

    bpp: list[float] = Field(description="Rates to reach, one per value of the ladder.")
    steps: int = Field(
        2000,
        ge=1,
        le=2000,
        description="Steps that steer the weight, from the ladder's value. It is then fixed.",
    )
    gain: float = Field(0.02, gt=0, le=1, description="See ``gain`` of a loss term's target.")


class Ladder(Strict):
    """The rate settings of a curve: one operating point per value, lowest rate first."""

    parameter: str = Field(
        description="Name of the rate setting: lambda, beta, quality, qp. Loss weights refer to it "
        "as $<parameter>."
    )
    values: list[float] = Field(min_length=1)
    pilot: Pilot | None = Field(
        None, description="How training finds the values for given rates; null takes them as given."
    )
    origin: Origin = Field(description="Who chose the values.")
    note: str = ""


class Weights(Strict):
    """Weights that another variant trained."""

    variant: str = Field(description="Name of a variant.")
    study: str | None = Field(None, description="Its study; null means this one.")
    rate: int | Literal["same"] = Field(
        "same", description="Its rate index, or the index of the point itself."
    )
    of: Part | None = Field(
        None, description="Which of its networks; null means the one of the same kind."
    )


class WeightsFile(Strict):
    """Weights of one's own: a file or an address, see docs/own-weights.md."""

    file: str | None = Field(
        None, description="Path of the file, relative to the folder of the study's file."
    )
    url: str | None = Field(
        None, pattern=r"^https?://\S+$", description="Address; it is fetched once and checked."
    )
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Checksum that the file must have; a url needs one.",
    )
    of: str | None = Field(
        None,
        description="Name of the codec or task that the weights are of, where a variant trains on "
        "from another one's; null means the variant's own.",
    )
    partial: list[str] = Field(
        [],
        description="Modules of the network, as beginnings of names, that need not be in the file "
        "or fit it; they stay as they are built. Everything else must load.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> WeightsFile:
        if (self.file is None) == (self.url is None):
            raise ValueError("name either file or url")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs sha256, the checksum of the file that it leads to")
        return self


def _kind_of_source(value: Any) -> str:
    """Return the tag of the member of :data:`WeightSource` that a value is for."""
    if isinstance(value, str):
        return "word"
    if isinstance(value, list):
        return "list"
    keys = value if isinstance(value, dict) else type(value).model_fields
    return "WeightsFile" if {"file", "url"} & set(keys) else "Weights"


WeightSource = Annotated[
    Annotated[Literal["random", "pretrained"], Tag("word")]
    | Annotated[Weights, Tag("Weights")]
    | Annotated[WeightsFile, Tag("WeightsFile")]
    | Annotated[list[WeightsFile], Tag("list")],
    Discriminator(_kind_of_source),
]


class Chain(Strict):
    """Warm starts along the ladder: each point begins where its neighbour ended."""

    order: Literal["high-to-low", "low-to-high"]
    schedule: str = Field(description="Schedule of every point after the first.")


class Training(Strict):
    """What a variant trains, towards what."""

    parts: list[str] = Field(
        min_length=1,
        description="codec, task, or codec.<part> (analysis, synthesis, entropy); everything else "
        "stays frozen.",
    )
    loss: dict[str, float | str | RateTarget] = Field(
        min_length=1,
        description="Weight of each loss term: a number, $<parameter> of the variant's ladder, or "
        "a target that the term is steered to.",
    )
    schedule: str = Field(description="Name under schedules.")
    chain: Chain | None = None
    origin: Origin = Field(description="Who chose the loss and what is trained.")
    note: str = ""


class Variant(Strict):
    """Codec x task x training mode."""

    label: str = Field(
        description="Name in the report; {images} becomes photographs, scenes or faces."
    )
    codec: str
    task: str
    mode: str = Field(description="baseline, t-ft, c-ft, j-ft, ...")
    dataset: str = Field(description="Role of the data set, for training and evaluation.")
    ladder: str | None = Field(
        None, description="Name under ladders; null makes a single operating point."
    )
    codec_from: WeightSource | None = Field(
        None,
        description="Initial or fixed weights of a learned codec: random, pretrained, a variant's, "
        "or a file of one's own; a list has one file for each value of the ladder.",
    )
    task_from: WeightSource | None = Field(
        None, description="Initial or fixed weights of the task network, in the same forms."
    )
    train: Training | None = Field(None, description="null: everything is used as it comes.")
    evaluate: bool = Field(True, description="Whether it is a curve of the study.")
    note: str = ""

    def trains(self, part: Part) -> bool:
        """Return whether it trains its codec or task, or a part of it."""
        return self.train is not None and any(p.split(".")[0] == part for p in self.train.parts)

    def source(self, part: Part) -> WeightSource | None:
        """Return what it names as initial or fixed weights of its codec or task."""
        return self.codec_from if part == "codec" else self.task_from

    def from_variants(self) -> list[Weights]:
        """Return the weights of other variants that it names."""
        return [own for own in map(self.source, PARTS) if isinstance(own, Weights)]


class Comparison(Strict):
    """BD metrics of variants against one anchor."""

    anchor: str = Field(description="Variant that the others are compared with.")
    variants: list[str] = Field(min_length=1)
    metrics: list[str] = Field(min_length=1)


class VisualComparison(Strict):
    """Variants shown side by side at about equal rate."""

    title: str
    variants: list[str] = Field(min_length=1)
    bpp: float = Field(gt=0, description="Rate at which the nearest operating points are shown.")
    images: int = Field(3, ge=1, le=12)


class PublishedCell(Strict):
    """One published number."""

    variant: str | None = Field(None, description="Measured variant to compare it with, if any.")
    anchor: str | None = Field(
        None, description="Variant that a BD metric compares with; null for other metrics."
    )
    label: str = Field(description="The paper's name of the row.")
    metric: str = Field(
        description="bpp, box_map, psnr, ...; accuracies in [0, 1]. A BD metric names the metric "
        "it integrates: bd_rate_pct:box_map, bd_accuracy_points:box_map."
    )
    value: float
    group: str = Field(description="The table or figure it comes from; cells of a group share it.")
    source: str
    confidence: Literal["high", "medium", "low"]
    note: str = ""


class PublishedCurveFile(Strict):
    """A published rate-quality curve, in a file of CompressAI's JSON shape."""

    label: str = Field(description="Name of the curve in the report.")
    file: str = Field(description="The JSON file, relative to workflow/studies.")
    variant: str | None = Field(None, description="Measured variant to compare it with, if any.")
    dataset: str = Field(
        description="Name in data/catalogue.yaml of the data set it was measured on."
    )
    images: int = Field(ge=1, description="Images that it is the mean of.")
    protocol: str | None = Field(
        None,
        description="Name in published/points.yaml of what must agree before it is drawn; null "
        "means the complete data set at its native size.",
    )
    source: str = Field(description="Who published it, and where.")
    note: str = ""


def published_path(file: str) -> Path:
    """Return where the file of a published curve lies."""
    return workflow_folder() / "studies" / file


class Study(Strict):
    """One paper."""

    _file: str = PrivateAttr("")

    name: str
    title: str
    reference: Reference
    summary: str
    ladders: dict[str, Ladder] = Field({})
    schedules: dict[str, Schedule] = Field({})
    variants: dict[str, Variant] = Field(min_length=1)
    leading: list[str] | None = Field(
        None, description="Variants of a run with ``variants: leading``; null means all."
    )
    local_weights: bool = Field(
        False,
        description="Leave out the curves whose published weights are not on this machine, and "
        "name them, in place of a download.",
    )
    comparisons: list[Comparison] = Field([])
    visual_comparisons: list[VisualComparison] = Field([])
    published: list[PublishedCell] = Field([])
    published_protocol: str | None = Field(
        None,
        description="Name in published/points.yaml of what must agree before numbers of "
        "``published`` are drawn; null shows them in tables only.",
    )
    published_curves: list[PublishedCurveFile] = Field(
        [],
        description="Curves drawn beside the measured ones where both are of the same whole data "
        "set.",
    )
    protocol: str | None = Field(
        None,
        description="Name in published/points.yaml of the protocol that images and networks of "
        "one's own are of. Its points are drawn beside the curves if all else agrees.",
    )
    claims: dict[str, Claim] = Field(
        {}, description="Statements of the paper as tests over the curves; see the forms below."
    )
    preconditions: dict[str, Claim] = Field(
        {},
        description="Conditions that claims name, in the same forms: that a base codec is "
        "competent, that a task network is trained to saturation.",
    )
    notes: list[str] = Field([], description="Notes for the reader, shown on the page.")

    @property
    def file(self) -> str:
        """The file it was read from, for messages."""
        return self._file or f"workflow/studies/{self.name}.yaml"

    def read_from(self, path: Path) -> Study:
        """Note the file that it was read from, and return it."""
        self._file = str(path)
        return self

    def ladder(self, variant: Variant) -> Ladder | None:
        """Return the ladder of one of its variants; None for a single operating point."""
        return self.ladders.get(variant.ladder or "")

    def rates(self, variant: Variant) -> int:
        """Return how many operating points the curve of one of its variants has."""
        ladder = self.ladder(variant)
        return 1 if ladder is None else len(ladder.values)

    def loss_weight(self, variant: Variant, term: str, rate_index: int) -> float | RateTarget:
        """Return the weight of a loss term that a variant trains with, at a place on its ladder."""
        assert variant.train is not None
        weight, ladder = variant.train.loss[term], self.ladder(variant)
        value = None if ladder is None else ladder.values[rate_index]
        if isinstance(weight, RateTarget) and isinstance(weight.target, str):
            return weight.model_copy(update={"target": value})
        if not isinstance(weight, str):
            return weight
        assert ladder is not None and value is not None  # checked before
        pilot = ladder.pilot
        if pilot is None or term != "bpp":
            return value
        target = pilot.bpp[rate_index]
        return RateTarget(target=target, start=value, gain=pilot.gain, steps=pilot.steps)

    def target_rate(self, variant: str, rate_index: int) -> float | None:
        """Return the rate (bpp) that training steers a variant's codec to, None without one.

        Args:
            variant: name; a codec that starts from another variant's keeps that one's rate, on
                images of the same role.
            rate_index: of the ladder.
        """
        own = self.variants[variant]
        if own.train is not None and "bpp" in own.train.loss:
            weight = self.loss_weight(own, "bpp", rate_index)
            if isinstance(weight, RateTarget):
                return float(weight.target)
        origin = own.codec_from
        if not isinstance(origin, Weights) or origin.study or origin.rate != "same":
            return None
        source = self.variants[origin.variant]
        if (source.codec, source.dataset) != (own.codec, own.dataset):
            return None  # another part of its bitstream, or images with a rate of their own
        return self.target_rate(origin.variant, rate_index)
