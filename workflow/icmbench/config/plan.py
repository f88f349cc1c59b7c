"""The plan: every operating point, what each job reads and writes, and where it lies.

Snakemake's DAG is drawn from this object; the same jobs can be run by hand. Each job's resolved
settings are one small JSON file, so a job is repeated only when its own settings change.

    <results>/<scale>/plan.json                      everything the report and MLflow need
    <results>/<scale>/plan/train/<key>.json          one training
    <results>/<scale>/plan/{code,evaluate}/<curve>.json      all points of a curve
    <results>/<scale>/data/<role>/                   embedded data sets
    <results>/<scale>/runs/<key>/                    weights, logs, records of an operating point
    <results>/<scale>/encoded/<role>-<split>/<codec key>/   bitstreams and decoded images

One job trains one operating point, but codes or evaluates a whole curve: starting a process costs
more than the work of a small point. Finished points of a curve are skipped when a job is repeated.

An operating point's key is ``<study>/<variant>/rate<index>-seed<seed>``; a codec's key is that of
the point that trained it, or ``anchors/<name>/<parameter>-<value>``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from icmbench.config.consistency import check_all, codec_parameters, task_parameters
from icmbench.config.load import load_run, load_scale, load_study
from icmbench.config.run import RunConfig
from icmbench.config.scale import FetchedImages, Scale
from icmbench.config.study import Study, Training, Variant, Weights
from icmbench.errors import UserError
from icmbench.files import write_if_changed
from icmbench.registry import CODECS, TASKS, load_modules

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


class Plan:
    """A checked configuration and all that follows from it."""

    def __init__(self, run: RunConfig, scale: Scale, studies: dict[str, Study]) -> None:
        check_all(run, scale, studies)
        self.run, self.scale = run, scale
        self.studies = {name: _without_anchors(study, run) for name, study in studies.items()}
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

    def source(self, point: Point, part: Part) -> Point | str | None:
        """Return where the point's initial weights of ``part`` come from.

        That is another point, ``random``, ``pretrained``, or None where there are no weights.
        """
        neighbour = self._chain_neighbour(point)
        if neighbour is not None and self.trains(point, part):
            return neighbour
        source = getattr(self.variant(point), f"{part}_from")
        if not isinstance(source, Weights):
            return source
        rate = point.rate_index if source.rate == "same" else source.rate
        other = Point(source.study or point.study, source.variant, rate, point.seed)
        if self.trains(other, part):
            return other
        return self.source(other, part)

    def owner(self, point: Point, part: Part) -> Point | str | None:
        """Return the point whose training left the weights that ``point`` is evaluated with."""
        return point if self.trains(point, part) else self.source(point, part)

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
        if entry.kind == "anchor":
            return f"anchors/{entry.name}/{entry.rate_parameter}-{self.rate_value(point):g}"
        owner = self.owner(point, "codec")
        if isinstance(owner, Point):
            return owner.key
        return f"pretrained/{entry.name}/rate{point.rate_index}"

    def encode_key(self, point: Point, split: str) -> str | None:
        """Return the key of the encoding that the point reads, or None for original pixels."""
        codec = self.codec_key(point)
        return None if codec is None else f"{self.variant(point).dataset}-{split}/{codec}"

    def encoded_folder(self, key: str) -> Path:
        """Return the folder of an encoding."""
        return self.root / "encoded" / key

    def coding_curve(self, point: Point, split: str) -> str | None:
        """Return the curve that the point's encoding is made with, or None for original pixels."""
        key = self.encode_key(point, split)
        return None if key is None else str(Path(key).parent)

    def coding_manifest(self, curve: str, what: Literal["encoded", "decoded"]) -> Path:
        """Return the small file that says that a curve is encoded, or decoded."""
        return self.root / "encoded" / curve / f"{what}.json"

    def evaluation_manifest(self, study: str, variant: str) -> Path:
        """Return the small file that says that a variant is evaluated."""
        return self.root / "runs" / study / variant / "evaluated.json"

    # --- jobs ---------------------------------------------------------------------------------

    @cached_property
    def encodings(self) -> dict[str, dict[str, Any]]:
        """Settings of every encoding by key: what is evaluated, and what anchors are trained on."""
        jobs: dict[str, dict[str, Any]] = {}
        for point in self.points:
            splits = ["test"] if self.variant(point).evaluate else []
            if self._trains_on_decoded(point):
                splits.append("train")
            for split in splits:
                key = self.encode_key(point, split)
                if key is not None and key not in jobs:
                    jobs[key] = self._encode_job(point, split, key)
        return jobs

    @cached_property
    def coding_curves(self) -> dict[str, list[dict[str, Any]]]:
        """Settings of every encoding, by curve."""
        curves: dict[str, list[dict[str, Any]]] = {}
        for key, job in self.encodings.items():
            curves.setdefault(str(Path(key).parent), []).append(job)
        return curves

    @cached_property
    def evaluation_curves(self) -> dict[str, list[Point]]:
        """Evaluated points by ``<study>/<variant>``."""
        curves: dict[str, list[Point]] = {}
        for point in self.evaluated:
            curves.setdefault(f"{point.study}/{point.variant}", []).append(point)
        return curves

    def _trains_on_decoded(self, point: Point) -> bool:
        return self.variant(point).train is not None and (
            CODECS[self.variant(point).codec].kind == "anchor"
        )

    def train_job(self, point: Point) -> dict[str, Any]:
        """Return the resolved settings of a point's training."""
        training = self.variant(point).train
        assert training is not None
        study = self.studies[point.study]
        chained = self._chain_neighbour(point) is not None
        name = training.chain.schedule if training.chain and chained else training.schedule
        decoded = None
        if self._trains_on_decoded(point):
            decoded = str(
                self.encoded_folder(self.encode_key(point, "train") or "") / "decoded.zip"
            )
        return {
            **self._description(point),
            "output": str(self.run_folder(point)),
            "codec": self._codec(point, "source"),
            "task": self._task(point, "source"),
            "parts": training.parts,
            "loss": self._loss_weights(point, training),
            "schedule": study.schedules[name].model_dump(exclude={"origin", "note"}),
            "dataset": self._dataset(self.variant(point).dataset),
            "decoded": decoded,
            "runtime": self.scale.runtime.model_dump(
                include={"threads", "gpu", "precision", "checkpoint_s", "log_every", "workers"}
            ),
            "modules": self.run.modules,
        }

    def _encode_job(self, point: Point, split: str, key: str) -> dict[str, Any]:
        return {
            "key": key,
            "output": str(self.encoded_folder(key)),
            "codec": {**self._codec(point, "owner"), "rate": self._anchor_rate(point)},
            "dataset": self._dataset(self.variant(point).dataset),
            "split": split,
            "threads": self.scale.runtime.threads,
            "gpu": self.scale.runtime.gpu,
            "modules": self.run.modules,
        }

    def evaluate_job(self, point: Point) -> dict[str, Any]:
        """Return the resolved settings of a point's evaluation."""
        key = self.encode_key(point, "test")
        return {
            **self._description(point),
            "output": str(self.run_folder(point)),
            "codec": self.variant(point).codec,
            "task": self._task(point, "owner"),
            "dataset": self._dataset(self.variant(point).dataset),
            "split": "test",
            "encoded": None if key is None else str(self.encoded_folder(key)),
            "threads": self.scale.runtime.threads,
            "gpu": self.scale.runtime.gpu,
            "precision": self.scale.runtime.precision,
            "modules": self.run.modules,
        }

    def _description(self, point: Point) -> dict[str, Any]:
        variant = self.variant(point)
        ladder = self.studies[point.study].ladders.get(variant.ladder or "")
        return {
            "key": point.key,
            "study": point.study,
            "variant": point.variant,
            "mode": variant.mode,
            "rate_index": point.rate_index,
            "seed": point.seed,
            "rate_parameter": ladder.parameter if ladder else None,
            "rate_value": self.rate_value(point),
            "scale": self.scale.name,
        }

    def _anchor_rate(self, point: Point) -> float | None:
        is_anchor = CODECS[self.variant(point).codec].kind == "anchor"
        return self.rate_value(point) if is_anchor else None

    def _codec(self, point: Point, which: Literal["source", "owner"]) -> dict[str, Any]:
        name = self.variant(point).codec
        return {
            "name": name,
            "parameters": codec_parameters(self.scale, name).model_dump(),
            "rate_index": point.rate_index,
            "weights": self._weights(getattr(self, which)(point, "codec")),
            "pretrained": self._starts_pretrained(point, "codec"),
        }

    def _task(self, point: Point, which: Literal["source", "owner"]) -> dict[str, Any]:
        name = self.variant(point).task
        return {
            "name": name,
            "parameters": task_parameters(self.scale, name).model_dump(),
            "weights": self._weights(getattr(self, which)(point, "task")),
            "pretrained": self._starts_pretrained(point, "task"),
            "metrics": list(TASKS[name].metrics),
        }

    def _starts_pretrained(self, point: Point, part: Part) -> bool:
        """Return whether the weights descend from published ones, which fixes network sizes."""
        source = self.source(point, part)
        while isinstance(source, Point):
            source = self.source(source, part)
        return source == "pretrained"

    def _weights(self, source: Point | str | None) -> str | None:
        return str(self.weights_path(source)) if isinstance(source, Point) else source

    def _loss_weights(self, point: Point, training: Training) -> dict[str, float]:
        rate = self.rate_value(point)
        weights: dict[str, float] = {}
        for term, weight in training.loss.items():
            if isinstance(weight, str):  # $<parameter of the ladder>, checked before
                assert rate is not None
                weight = rate
            weights[term] = float(weight)
        return weights

    def _dataset(self, role: str) -> dict[str, Any]:
        return {
            "role": role,
            "folder": str(self.dataset_folder(role)),
            "manifest": str(self.manifest_path(role)),
            **self.scale.datasets[role].model_dump(),
        }

    # --- files --------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """Return all that the report, the analysis and MLflow need to know of the run."""
        return {
            "run": self.run.model_dump(),
            "scale": self.scale.model_dump(),
            "studies": {name: study.model_dump() for name, study in self.studies.items()},
            "datasets": {role: self._dataset(role) for role in self.roles},
            "points": [
                {
                    **self._description(point),
                    "label": self.variant(point).label,
                    "codec": self.variant(point).codec,
                    "task": self.variant(point).task,
                    "dataset": self.variant(point).dataset,
                    "folder": str(self.run_folder(point)),
                    "trained": self.variant(point).train is not None,
                    "evaluated": self.variant(point).evaluate,
                    "encoding": self.encode_key(point, "test"),
                }
                for point in self.points
            ],
        }

    @property
    def roles(self) -> list[str]:
        """The data set roles that the studies use."""
        return sorted({v.dataset for s in self.studies.values() for v in s.variants.values()})

    def write(self) -> None:
        """Write the plan's files, leaving unchanged ones untouched."""

        def put(path: Path, value: Any) -> None:
            write_if_changed(path, json.dumps(value, indent=1, sort_keys=True) + "\n")

        put(self.root / "plan.json", self.summary())
        for role in self.roles:
            job = {**self._dataset(role), "mirror": self.run.data.mirror}
            put(self.job_path("data", role), job)
        for point in self.trained:
            put(self.job_path("train", point.key), self.train_job(point))
        for curve, jobs in self.coding_curves.items():
            put(self.job_path("code", curve), {"jobs": jobs, **self._shared()})
        for curve, points in self.evaluation_curves.items():
            jobs = [self.evaluate_job(point) for point in points]
            put(self.job_path("evaluate", curve), {"jobs": jobs, **self._shared()})

    def _shared(self) -> dict[str, Any]:
        return {"threads": self.scale.runtime.threads, "modules": self.run.modules}


def _without_anchors(study: Study, run: RunConfig) -> Study:
    """Return the study without the variants on anchors that the run leaves out."""
    left = {
        name
        for name, variant in study.variants.items()
        if CODECS[variant.codec].kind == "anchor" and variant.codec not in run.anchors
    }
    if not left:
        return study
    variants = {name: v for name, v in study.variants.items() if name not in left}
    for name, variant in variants.items():
        for source in (variant.codec_from, variant.task_from):
            if isinstance(source, Weights) and source.variant in left and source.study is None:
                raise UserError(
                    f"config: key 'anchors' leaves out variant {source.variant!r} of study "
                    f"{study.name!r}, from which {name!r} starts; add its codec to anchors"
                )
    comparisons = []
    for comparison in study.comparisons:
        others = [name for name in comparison.variants if name not in left]
        if comparison.anchor not in left and others:
            comparisons.append(comparison.model_copy(update={"variants": others}))
    pictures = []
    for picture in study.pictures:
        others = [name for name in picture.variants if name not in left]
        if others:
            pictures.append(picture.model_copy(update={"variants": others}))
    published = [cell for cell in study.published if cell.variant not in left]
    update = {
        "variants": variants,
        "comparisons": comparisons,
        "pictures": pictures,
        "published": published,
    }
    return study.model_copy(update=update)


def load_plan(
    config: Path | str = "config.yaml",
    overrides: dict[str, Any] | None = None,
    workflow: Path | None = None,
) -> Plan:
    """Read, check and expand a configuration.

    Args:
        config: the top level configuration file.
        overrides: keys from the command line, laid over the file.
        workflow: folder that holds ``scales`` and ``studies``; this package's by default.

    Raises:
        UserError: naming file, key, value and what is allowed.
    """
    workflow = workflow or Path(__file__).parents[2]
    run = load_run(Path(config), overrides)
    if run.data.mirror is None and os.environ.get("ICMBENCH_MIRROR"):
        data = run.data.model_copy(update={"mirror": os.environ["ICMBENCH_MIRROR"]})
        run = run.model_copy(update={"data": data})
    load_modules(run.modules)
    scale = load_scale(workflow / "scales", run.scale)
    studies = {name: load_study(workflow / "studies", name, scale) for name in run.studies}
    return Plan(run, scale, studies)
