"""Operating points: which there are, where their weights come from, where their files lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from icmbench.config.classical import choose_classical, find_programs, left_out
from icmbench.config.run import RunConfig
from icmbench.config.scale import FetchedImages, Scale
from icmbench.config.study import Study, Variant, Weights
from icmbench.config.validate import check_all
from icmbench.registry import CODECS
from icmbench.utils.programs import Program

Part = Literal["codec", "task"]


@dataclass(frozen=True)
class Point:
    """One operating point: a variant at one rate setting and one seed."""

    study: str
    variant: str
    rate_index: int
    seed: int

    @property
    def key(self) -> str:
        """Return the name of the point, which is also its folder."""
        return f"{self.study}/{self.variant}/rate{self.rate_index}-seed{self.seed}"


@dataclass(frozen=True)
class Origin:
    """Where weights come from.

    Attributes:
        place: the point whose training left them, ``random``, ``pretrained``, or None where there
            are no weights.
        part: which of the point's networks they are of.
    """

    place: Point | str | None
    part: Part


def share_roles(study: Study, scale: Scale) -> Study:
    """Return the study with roles that are one data set at this scale under one name.

    What one study coded is then there for the others. The name is the scale's first.
    """
    first: dict[str, str] = {}
    for role, dataset in scale.datasets.items():
        same = (r for r in first.values() if scale.datasets[r] == dataset)
        alike = (r for r in same if scale.chunks.get(r) == scale.chunks.get(role))
        first[role] = next(alike, role)
    variants = {
        name: variant.model_copy(update={"dataset": first[variant.dataset]})
        for name, variant in study.variants.items()
    }
    return study.model_copy(update={"variants": variants})


class Points:
    """The operating points of a checked configuration.

    Attributes:
        run: the top level configuration.
        scale: how big.
        studies: the studies by name, without variants that the run leaves out.
        left_out: which curves the run leaves out, in sentences.
        programs: external programs that the studies' classical codecs need.
        root: ``<results>/<scale>``.
    """

    def __init__(self, run: RunConfig, scale: Scale, studies: dict[str, Study]) -> None:
        check_all(run, scale, studies)
        self.run, self.scale = run, scale
        self.left_out = left_out(studies, run)
        self.studies = {
            name: share_roles(choose_classical(study, run), scale)
            for name, study in studies.items()
        }
        self.programs: dict[str, Program] = find_programs(run, self.studies)
        self.root = Path(run.results) / scale.name

    # --- operating points ---------------------------------------------------------------------

    @cached_property
    def points(self) -> list[Point]:
        """Every operating point of every study."""
        return [
            Point(study.name, name, rate, seed)
            for study in self.studies.values()
            for name, variant in study.variants.items()
            for seed in self.run.seeds
            for rate in range(self.rates(study.name, variant))
        ]

    @cached_property
    def by_key(self) -> dict[str, Point]:
        """Operating points by key."""
        return {point.key: point for point in self.points}

    def variant(self, point: Point) -> Variant:
        """Return the variant of a point."""
        return self.studies[point.study].variants[point.variant]

    def rates(self, study: str, variant: Variant) -> int:
        """Return how many operating points a curve of ``variant`` has."""
        if variant.ladder is None:
            return 1
        return len(self.studies[study].ladders[variant.ladder].values)

    def rate_value(self, point: Point) -> float | None:
        """Return the value on the ladder, or None where there is no ladder."""
        ladder = self.variant(point).ladder
        if ladder is None:
            return None
        return self.studies[point.study].ladders[ladder].values[point.rate_index]

    @property
    def evaluated(self) -> list[Point]:
        """The points that are on a curve."""
        return [point for point in self.points if self.variant(point).evaluate]

    @property
    def trained(self) -> list[Point]:
        """The points that train something."""
        return [point for point in self.points if self.variant(point).train is not None]

    # --- weights ------------------------------------------------------------------------------

    def trains(self, point: Point, part: Part) -> bool:
        """Return whether the point's training changes (a part of) ``part``."""
        training = self.variant(point).train
        return training is not None and any(p.split(".")[0] == part for p in training.parts)

    def source(self, point: Point, part: Part) -> Origin:
        """Return where the point's initial weights of ``part`` come from."""
        neighbour = self._chain_neighbour(point)
        if neighbour is not None and self.trains(point, part):
            return Origin(neighbour, part)
        source = getattr(self.variant(point), f"{part}_from")
        if not isinstance(source, Weights):
            return Origin(source, part)
        rate = point.rate_index if source.rate == "same" else source.rate
        other = Point(source.study or point.study, source.variant, rate, point.seed)
        return self.owner(other, source.of or part)

    def owner(self, point: Point, part: Part) -> Origin:
        """Return the origin of the weights that ``point`` is evaluated with."""
        return Origin(point, part) if self.trains(point, part) else self.source(point, part)

    def _chain_neighbour(self, point: Point) -> Point | None:
        training = self.variant(point).train
        if training is None or training.chain is None:
            return None
        step = 1 if training.chain.order == "high-to-low" else -1
        rate = point.rate_index + step
        if not 0 <= rate < self.rates(point.study, self.variant(point)):
            return None
        return Point(point.study, point.variant, rate, point.seed)

    # --- paths --------------------------------------------------------------------------------

    def run_folder(self, point: Point) -> Path:
        """Return the folder of a point."""
        return self.root / "runs" / point.key

    def weights_path(self, point: Point) -> Path:
        """Return the weights that the point's training leaves."""
        return self.run_folder(point) / "weights.pt"

    def job_path(self, verb: str, key: str) -> Path:
        """Return the settings file of a job."""
        return self.root / "plan" / verb / f"{key}.json"

    def dataset_folder(self, role: str) -> Path:
        """Return the folder that holds the data set of a role."""
        dataset = self.scale.datasets[role]
        if isinstance(dataset, FetchedImages):
            return Path(self.run.data.directory) / dataset.name
        return self.root / "data" / role

    def manifest_path(self, role: str) -> Path:
        """Return the small file that rules depend on instead of bulk data."""
        dataset = self.scale.datasets[role]
        if isinstance(dataset, FetchedImages):
            return Path(self.run.data.directory) / f"{dataset.name}.manifest.json"
        return self.dataset_folder(role) / "manifest.json"

    def codec_key(self, point: Point) -> str | None:
        """Return the key of the point's codec, or None for original pixels."""
        entry = CODECS[self.variant(point).codec]
        if entry.kind == "none":
            return None
        if entry.kind == "classical":
            return f"classical/{entry.name}/{entry.rate_parameter}-{self.rate_value(point):g}"
        owner = self.owner(point, "codec").place
        if isinstance(owner, Point):
            if self.variant(owner).codec == entry.name:
                return owner.key
            # Another codec of the same network: one layer of its bitstream, say.
            return owner.key.replace(owner.variant, f"{owner.variant}@{entry.name}", 1)
        return f"pretrained/{entry.name}/rate{point.rate_index}"

    def encode_key(self, point: Point, split: str) -> str | None:
        """Return the key of the encoding that the point reads, or None for original pixels."""
        codec = self.codec_key(point)
        return None if codec is None else f"{self.variant(point).dataset}-{split}/{codec}"

    def encoded_folder(self, key: str) -> Path:
        """Return the folder of an encoding."""
        return self.root / "encoded" / key

    def coding_manifest(self, curve: str, what: Literal["encoded", "decoded"]) -> Path:
        """Return the small file that says that a curve is encoded, or decoded."""
        return self.root / "encoded" / curve / f"{what}.json"

    def evaluation_manifest(self, study: str, variant: str) -> Path:
        """Return the small file that says that a variant is evaluated."""
        return self.root / "runs" / study / variant / "evaluated.json"
