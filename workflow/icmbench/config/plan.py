"""The plan: every operating point, where its weights come from, and where its files are.

Snakemake's DAG is drawn from this object; the same jobs can be run by hand. What each job does is
made from it by the functions of ``config.job_settings``.

    <results>/<scale>/plan.json                      everything the report and MLflow need
    <results>/<scale>/plan/train/<key>.json          one training run
    <results>/<scale>/plan/weights/<name>.json       weights to fetch from an address
    <results>/<scale>/plan/{code,evaluate}/<curve>.json      all points of a curve
    <results>/<scale>/data/<role>/                   generated data sets
    <results>/<scale>/runs/<key>/                    weights, logs, records of an operating point;
                                                     seeds that change nothing share the first's
    <results>/<scale>/encoded/<role>-<split>/<codec key>/   bitstreams and decoded images

One job trains one operating point, but codes or evaluates a whole curve: starting a process costs
more than the work of a small point. Finished points of a curve are skipped when a job is repeated.

An operating point's key is ``<study>/<variant>/rate<index>-seed<seed>``; a codec's key is that of
the point that trained it, or begins with ``classical``, ``pretrained``, ``zoo`` or ``file``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from icmbench.config import classical, selection
from icmbench.config.available import is_local, missing, obtainable
from icmbench.config.load import load_run, load_scale, load_study, study_folder
from icmbench.config.prerequisites import with_supporting
from icmbench.config.run import RunConfig
from icmbench.config.scale import Scale
from icmbench.config.study import Ladder, Study, Variant, Weights, WeightsFile
from icmbench.config.summary import PlanSummary, read_summary
from icmbench.config.validate import check_all, check_overrides, takes_from_zoo, task_entry
from icmbench.config.weights import Point, WeightsOrigin, weights_key
from icmbench.config.zoo import Zoo, read_zoo
from icmbench.data.specs import Dataset, DatasetSpec, FetchedImages, FolderImages
from icmbench.errors import UserError
from icmbench.jobs import PARTS, Part, Schedule
from icmbench.plugins import load_modules
from icmbench.registry import CODECS
from icmbench.utils.places import here_or_shipped, workflow_folder

_SHARE = re.compile(r"chunk\d+of\d+")
_IMAGES = {
    "embedded-scenes": "scenes",
    "embedded-faces": "faces",
    "catalogue": "photographs",
    "folder": "images",
}


def share_roles(study: Study, scale: Scale) -> Study:
    """Return the study with roles that are one data set at this scale under one name.

    What one study coded is then there for the others. The name is the scale's first. Labels contain
    ``{images}`` where the scale decides what the images are.
    """
    first: dict[str, str] = {}
    for role, dataset in scale.datasets.items():
        same = (r for r in first.values() if scale.datasets[r] == dataset)
        alike = (r for r in same if scale.chunks.get(r) == scale.chunks.get(role))
        first[role] = next(alike, role)
    images = {role: _IMAGES[dataset.source] for role, dataset in scale.datasets.items()}
    variants = {
        name: variant.model_copy(
            update={
                "dataset": first[variant.dataset],
                "label": variant.label.replace("{images}", images[variant.dataset]),
            }
        )
        for name, variant in study.variants.items()
    }
    return study.model_copy(update={"variants": variants})


class Plan:
    """A checked configuration and the operating points that follow from it.

    Attributes:
        run: the top level configuration.
        scale: how big.
        studies: the studies by name, without variants that the run leaves out.
        left_out: which curves the run leaves out, in sentences.
        unavailable: curves ``<study>/<variant>`` whose data or weights cannot be had.
        unused: which classical codecs the run names in vain, in a sentence.
        programs: external programs that the studies' classical codecs need.
        root: ``<results>/<scale>``.
    """

    def __init__(
        self,
        run: RunConfig,
        scale: Scale,
        studies: dict[str, Study],
        programs: bool = True,
        unavailable: list[str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.zoo = read_zoo(Path(run.zoo)) if scale.pretrained == "zoo" else Zoo()
        check_all(run, scale, studies, self.zoo)
        self.scale = scale
        self.left_out = [*notes, *selection.left_out(studies, run)]
        self.left_out += classical.left_out(studies, run, scale)
        leading = selection.choose_leading(studies, run)
        self.unused = classical.unused(leading, run, scale)
        chosen = {name: classical.choose_classical(own, run) for name, own in leading.items()}
        if unavailable is None:
            lacking = missing(chosen, scale, run)
            self.left_out += [f"{w}; without {', '.join(c)}" for w, c in lacking.items()]
            unavailable = [curve for curves in lacking.values() for curve in curves]
        self.unavailable = unavailable
        chosen = selection.choose_available(chosen, unavailable)
        self.run = run.model_copy(update={"studies": [n for n in run.studies if n in chosen]})
        if not self.run.studies:
            raise UserError(f"scale {scale.name!r} has nothing left: {'; '.join(self.left_out)}")
        self.studies = {name: share_roles(study, scale) for name, study in chosen.items()}
        self.programs = classical.find_programs(run, self.studies) if programs else {}
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
            for rate in range(study.rates(variant))
        ]

    @cached_property
    def by_key(self) -> dict[str, Point]:
        """Operating points by key."""
        return {point.key: point for point in self.points}

    def variant(self, point: Point) -> Variant:
        """Return the variant of a point."""
        return self.studies[point.study].variants[point.variant]

    def ladder(self, point: Point) -> Ladder | None:
        """Return the ladder that the point is on, if any."""
        return self.studies[point.study].ladder(self.variant(point))

    def rate_value(self, point: Point) -> float | None:
        """Return the value on the ladder, or None without a ladder."""
        ladder = self.ladder(point)
        return None if ladder is None else ladder.values[point.rate_index]

    @property
    def roles(self) -> list[str]:
        """The data set roles that the studies use."""
        return sorted({v.dataset for s in self.studies.values() for v in s.variants.values()})

    @cached_property
    def evaluation_curves(self) -> dict[str, list[Point]]:
        """The points that jobs evaluate, by ``<study>/<variant>``, see :meth:`result_point`."""
        curves: dict[str, list[Point]] = {}
        for point in dict.fromkeys(map(self.result_point, self.evaluated)):
            curves.setdefault(f"{point.study}/{point.variant}", []).append(point)
        return curves

    def result_point(self, point: Point) -> Point:
        """Return the point of the first seed if seeds change nothing, else the point itself.

        They change nothing where neither network is trained in this run or left at random.
        """
        origins = [self.final_weights(point, part).place for part in PARTS]
        if any(isinstance(place, Point) or place == "random" for place in origins):
            return point
        return replace(point, seed=self.run.seeds[0])

    def chunks(self, variant: Variant) -> int:
        """Return how many jobs share the images of a codec's operating point."""
        return self.scale.chunks.get(variant.dataset, {}).get(variant.codec, 1)

    @property
    def evaluated(self) -> list[Point]:
        """The points that are on a curve."""
        return [point for point in self.points if self.variant(point).evaluate]

    @property
    def trained(self) -> list[Point]:
        """The points that train something."""
        return [point for point in self.points if self.variant(point).train is not None]

    # --- weights ------------------------------------------------------------------------------

    def initial_weights(self, point: Point, part: Part) -> WeightsOrigin:
        """Return where the point's initial weights of ``part`` come from."""
        neighbour, variant = self.chain_neighbour(point), self.variant(point)
        if neighbour is not None and variant.trains(part):
            return WeightsOrigin(neighbour, part, point)
        source = variant.source(part)
        if part == "task" and source in (None, "pretrained"):
            entry = task_entry(self.scale, variant.task)
            if entry.one_size:  # a network of the user's has its own weights in any case
                source = "pretrained" if entry.trainable else None
        if source == "pretrained" and takes_from_zoo(self.scale, variant, part):
            return WeightsOrigin(
                self.zoo.find(point.study, point.variant, point.rate_index, part), part, point
            )
        if isinstance(source, list):
            source = source[point.rate_index]
        if not isinstance(source, Weights):
            return WeightsOrigin(source, part, point)
        rate = point.rate_index if source.rate == "same" else source.rate
        other = Point(source.study or point.study, source.variant, rate, point.seed)
        return self.final_weights(other, source.of or part)

    def final_weights(self, point: Point, part: Part) -> WeightsOrigin:
        """Return the origin of the weights that ``point`` is evaluated with."""
        if self.variant(point).trains(part):
            return WeightsOrigin(point, part, point)
        return self.initial_weights(point, part)

    def chain_neighbour(self, point: Point) -> Point | None:
        """Return the point that a chain of warm starts trains before this one."""
        variant = self.variant(point)
        if variant.train is None or variant.train.chain is None:
            return None
        rate = point.rate_index + (1 if variant.train.chain.order == "high-to-low" else -1)
        there = 0 <= rate < self.studies[point.study].rates(variant)
        return replace(point, rate_index=rate) if there else None

    def schedule(self, point: Point) -> Schedule:
        """Return the schedule of a point's training run; chained points have their own."""
        training = self.variant(point).train
        assert training is not None
        chained = self.chain_neighbour(point) is not None
        name = training.chain.schedule if training.chain and chained else training.schedule
        return self.studies[point.study].schedules[name]

    def trains_on_decoded(self, point: Point) -> bool:
        """Return whether a point is trained on the images that a classical codec decodes."""
        variant = self.variant(point)
        return variant.train is not None and CODECS[variant.codec].kind == "classical"

    def decodes_in_loader(self, point: Point) -> bool:
        """Return whether the loader of a point's training run decodes these images."""
        return self.scale.runtime.decode_in_loader and self.trains_on_decoded(point)

    def coded_splits(self, point: Point) -> list[Literal["train", "test"]]:
        """Return the splits whose coded images the point reads."""
        splits: list[Literal["train", "test"]] = ["test"] if self.variant(point).evaluate else []
        return [*splits, "train"] if self.trains_on_decoded(point) else splits

    def starts_pretrained(self, point: Point, part: Part) -> bool:
        """Return whether the weights descend from published ones or a file of the user's.

        They fix the size of the network.
        """
        origin = self.initial_weights(point, part)
        while isinstance(origin.place, Point):
            origin = self.initial_weights(origin.place, origin.part)
        return origin.place == "pretrained" or isinstance(origin.place, WeightsFile)

    # --- paths --------------------------------------------------------------------------------

    def run_folder(self, point: Point) -> Path:
        """Return the folder of a point, which seeds that change nothing share."""
        return self.root / "runs" / self.result_point(point).key

    def weights_path(self, point: Point) -> Path:
        """Return the path of the weights that the point trains."""
        return self.run_folder(point) / "weights.pt"

    def job_path(self, verb: str, key: str) -> Path:
        """Return the settings file of a job."""
        return self.root / "plan" / verb / f"{key}.json"

    def dataset_folder(self, role: str) -> Path:
        """Return the folder that holds the data set of a role."""
        dataset = self.scale.datasets[role]
        if isinstance(dataset, FetchedImages):
            return Path(self.run.data.directory) / dataset.name
        if isinstance(dataset, FolderImages):
            return Path()
        return self.root / "data" / role

    def manifest_path(self, role: str) -> Path:
        """Return the small file that rules depend on instead of bulk data."""
        dataset = self.scale.datasets[role]
        if isinstance(dataset, FetchedImages):
            return Path(self.run.data.directory) / f"{dataset.name}.manifest.json"
        return self.root / "data" / role / "manifest.json"

    def dataset(self, role: str) -> DatasetSpec:
        """Return the data set of a role as jobs open it."""
        return DatasetSpec(
            role=role,
            folder=str(self.dataset_folder(role)),
            manifest=str(self.manifest_path(role)),
            settings=self.scale.datasets[role],
        )

    def codec_key(self, point: Point) -> str | None:
        """Return the key of the point's codec, or None for original pixels."""
        entry = CODECS[self.variant(point).codec]
        if entry.kind == "none":
            return None
        if entry.kind == "classical":
            return f"classical/{entry.name}/{entry.rate_parameter}-{self.rate_value(point):g}"
        key = weights_key(self, point)
        rate = self.rate_value(point)
        if entry.rate_parameter is not None and rate is not None:
            key = f"{key}/{entry.rate_parameter}-{rate:g}"  # one set of weights has many rates
        return key

    def encode_key(self, point: Point, split: str) -> str | None:
        """Return the key of the encoding that the point reads, or None for original pixels."""
        codec = self.codec_key(point)
        return None if codec is None else f"{self.variant(point).dataset}-{split}/{codec}"

    def share_keys(self, point: Point, split: str) -> list[str]:
        """Return the keys of the shares of an encoding: one for each job that divides its images.

        Empty for original pixels.
        """
        key, chunks = self.encode_key(point, split), self.chunks(self.variant(point))
        if key is None:
            return []
        return [key] if chunks == 1 else [f"{key}/chunk{i}of{chunks}" for i in range(chunks)]

    def coding_curve(self, share: str) -> str:
        """Return the curve that a share of an encoding is coded with, by one job.

        A job codes a share at every rate: ``<curve>/<rate>/chunk0of8`` is of ``<curve>/chunk0of8``.
        A classical codec, whose encoder may take minutes an image, has a job for each share and
        rate, unless the scale has ``classical_curves`` and no chunks.
        """
        path = Path(share)
        chunked = _SHARE.fullmatch(path.name) is not None
        if path.parts[1] == "classical" and (chunked or not self.scale.runtime.classical_curves):
            return share
        return str(path.parent.parent / path.name if chunked else path.parent)

    def encoded_folder(self, key: str) -> Path:
        """Return the folder of an encoding, or of a share of it."""
        return self.root / "encoded" / key

    def coding_manifest(self, curve: str, what: Literal["encoded", "decoded"]) -> Path:
        """Return the file that marks a curve as encoded, or decoded."""
        return self.root / "encoded" / curve / f"{what}.json"

    def evaluation_manifest(self, study: str, variant: str) -> Path:
        """Return the file that marks a variant as evaluated."""
        return self.root / "runs" / study / variant / "evaluated.json"


def with_own(scale: Scale, run: RunConfig) -> Scale:
    """Return the scale with the data sets and tasks of config.yaml laid over it."""
    datasets, tasks = {**scale.datasets, **run.datasets}, {**scale.tasks, **run.tasks}
    return scale.model_copy(update={"datasets": datasets, "tasks": tasks})


def with_available_data(scale: Scale, run: RunConfig) -> tuple[Scale, list[str]]:
    """Return the scale with the ``otherwise`` of data sets that are not available; their roles."""
    there = obtainable if scale.leave_out_missing else is_local
    replaced: dict[str, Dataset] = {
        role: dataset.otherwise
        for role, dataset in scale.datasets.items()
        if isinstance(dataset, FetchedImages) and dataset.otherwise and not there(dataset, run)
    }
    datasets = {**scale.datasets, **replaced}
    return scale.model_copy(update={"datasets": datasets}), list(replaced)


def _written(scale: Scale, run: RunConfig) -> PlanSummary:
    """Return the plan on disk.

    Raises:
        UserError: where no plan was written.
    """
    path = Path(run.results) / scale.name / "plan.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; a job of the workflow is started by Snakemake only")
    return read_summary(path.parent)


def load_plan(
    config: Path | str | RunConfig = "config.yaml",
    overrides: dict[str, Any] | None = None,
    workflow: Path | None = None,
    as_written: bool = False,
    programs: bool = True,
) -> Plan:
    """Read, check and expand a configuration.

    Args:
        config: the top level configuration, or a file that holds all of it.
        overrides: keys laid over the file.
        workflow: folder that holds ``scales`` and ``studies``; the shipped one by default.
        as_written: take what the plan on disk found available, not what is so now.
        programs: find the classical codecs' programs; False for a plan that runs no jobs.

    Raises:
        UserError: naming file, key, value and what is allowed.
    """
    workflow = workflow or workflow_folder()
    run = config if isinstance(config, RunConfig) else load_run(Path(config), overrides)
    mirror = run.data.mirror or os.environ.get("ICMBENCH_MIRROR") or None
    data = run.data.model_copy(update={"mirror": mirror})
    run = run.model_copy(update={"data": data, "zoo": str(here_or_shipped(run.zoo))})
    load_modules(run.modules, run.command_codecs, run.where)
    scale = with_own(load_scale(workflow / "scales", run.scale), run)
    notes, unavailable = [], None
    if as_written:
        written = _written(scale, run)
        scale = scale.model_copy(update={"datasets": written.scale.datasets})
        unavailable = written.unavailable
        run = run.model_copy(update={"classical_codecs": written.run.classical_codecs})
    else:
        run = classical.with_found(run, scale)
        scale, replaced = with_available_data(scale, run)
        if replaced and scale.leave_out_missing:
            notes.append(
                f"not to be had: the data set of {', '.join(replaced)}; what the scale names under "
                "'otherwise' is in its place"
            )
    if scale.runs is not None:
        left = [name for name in run.studies if name not in scale.runs]
        if left:
            notes.append(f"scale {scale.name!r} has no data for studies {', '.join(left)}")
        own = [name for name in run.studies if name in scale.runs]
        if not own:
            raise UserError(f"{run.where('studies')}: scale {scale.name!r} has {scale.runs!r} only")
        run = run.model_copy(update={"studies": own})
    folders = [workflow / "studies", *map(Path, run.study_folders)]

    def load(name: str) -> Study:
        return load_study(study_folder(folders, name, run), name, scale)

    studies = {name: load(name) for name in run.studies}
    known = [path.stem for folder in folders for path in folder.glob("*.yaml")]
    check_overrides(scale, known)
    studies = with_supporting(studies, load, known)
    return Plan(run, scale, studies, programs, unavailable, notes)
