"""The plan: every operating point, what each job reads and writes, and where it lies.

Snakemake's DAG is drawn from this object; the same jobs can be run by hand. Each job's resolved
settings are one small JSON file, so a job is repeated only when its own settings change.

    <results>/<scale>/plan.json                      everything the report and MLflow need
    <results>/<scale>/plan/train/<key>.json          one training
    <results>/<scale>/plan/{code,evaluate}/<curve>.json      all points of a curve
    <results>/<scale>/plan/code/<split>/classical/<codec>/<rate>.json   one classical point
    <results>/<scale>/data/<role>/                   embedded data sets
    <results>/<scale>/runs/<key>/                    weights, logs, records of an operating point
    <results>/<scale>/encoded/<role>-<split>/<codec key>/   bitstreams and decoded images

One job trains one operating point, but codes or evaluates a whole curve: starting a process costs
more than the work of a small point. Finished points of a curve are skipped when a job is repeated.
Classical codecs, whose encoders may take minutes an image, have one job per point and chunk.

An operating point's key is ``<study>/<variant>/rate<index>-seed<seed>``; a codec's key is that of
the point that trained it, or ``classical/<name>/<parameter>-<value>``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from icmbench.config.jobs import SUMS, read_plan
from icmbench.config.load import check, load_run, load_scale, load_study, study_folder
from icmbench.config.points import Origin, Part, Point, Points
from icmbench.config.prerequisites import with_supporting
from icmbench.config.run import RunConfig
from icmbench.config.scale import Dataset, FetchedImages, Scale
from icmbench.config.study import RateTarget, Schedule, Study, Training, Variant
from icmbench.config.validate import check_overrides, codec_parameters, task_parameters
from icmbench.errors import DamagedFile, UserError
from icmbench.plugins import load_modules
from icmbench.registry import CODECS, TASKS
from icmbench.utils.checksums import SumsFile
from icmbench.utils.files import sha256_bytes, write_if_changed
from icmbench.versions import CLASSICAL_VERSION, DECODED, LATENTS, ROWS_VERSION, chunk_name


class Plan(Points):
    """A checked configuration and all that follows from it: every job's resolved settings."""

    # --- jobs ---------------------------------------------------------------------------------

    @cached_property
    def encodings(self) -> dict[str, dict[str, Any]]:
        """Settings of every encoding by key, for evaluation and for training on decoded images."""
        jobs: dict[str, dict[str, Any]] = {}
        for point in self.points:
            splits = ["test"] if self.variant(point).evaluate else []
            if self._trains_on_decoded(point):
                splits.append("train")
            for split in splits:
                key = self.encode_key(point, split)
                if key is None:
                    continue
                job = jobs.setdefault(key, self._encode_job(point, split, key))
                if "decodes" in job:
                    wanted = {*job["decodes"], TASKS[self.variant(point).task].input_kind}
                    job["decodes"] = sorted(wanted)
        return jobs

    @cached_property
    def coding_curves(self) -> dict[str, list[dict[str, Any]]]:
        """Settings of every encoding by a learned codec, by curve."""
        curves: dict[str, list[dict[str, Any]]] = {}
        for key, job in self.encodings.items():
            if job["codec"]["kind"] == "learned":
                curves.setdefault(str(Path(key).parent), []).append(job)
        return curves

    @cached_property
    def classical_encodings(self) -> dict[str, dict[str, Any]]:
        """Settings of every encoding by a classical codec, by key."""
        return {k: job for k, job in self.encodings.items() if job["codec"]["kind"] == "classical"}

    @cached_property
    def evaluation_curves(self) -> dict[str, list[Point]]:
        """Evaluated points by ``<study>/<variant>``."""
        curves: dict[str, list[Point]] = {}
        for point in self.evaluated:
            curves.setdefault(f"{point.study}/{point.variant}", []).append(point)
        return curves

    def _trains_on_decoded(self, point: Point) -> bool:
        return self.variant(point).train is not None and (
            CODECS[self.variant(point).codec].kind == "classical"
        )

    def train_job(self, point: Point) -> dict[str, Any]:
        """Return the resolved settings of a point's training."""
        training = self.variant(point).train
        assert training is not None
        schedule = self._schedule(point, training)
        # One device is left out: job files, on which Snakemake depends, stay as they were.
        left_out = {"origin", "note", *(["devices"] if schedule.devices == 1 else [])}
        return {
            **self._description(point),
            "output": str(self.run_folder(point)),
            "codec": self._codec(point, "source"),
            "task": self._task(point, "source"),
            "parts": training.parts,
            "loss": self._loss_weights(point, training),
            "schedule": schedule.model_dump(exclude=left_out),
            "dataset": self._dataset(self.variant(point).dataset),
            "coded": self.train_coded(point),
            "runtime": self.scale.runtime.model_dump(
                include={"threads", "gpu", "precision", "checkpoint_s", "log_every", "workers"}
            ),
            "modules": self.run.modules,
        }

    def train_coded(self, point: Point) -> dict[str, Any] | None:
        """Return the coded images that a point is trained on, as :meth:`coded` does."""
        return self.coded(point, "train") if self._trains_on_decoded(point) else None

    def train_devices(self, point: Point) -> int:
        """Return how many processes train a point together, each on a device of its own."""
        training = self.variant(point).train
        assert training is not None
        return self._schedule(point, training).devices

    def _schedule(self, point: Point, training: Training) -> Schedule:
        chained = self._chain_neighbour(point) is not None
        name = training.chain.schedule if training.chain and chained else training.schedule
        return self.studies[point.study].schedules[name]

    def coded(self, point: Point, split: str) -> dict[str, Any] | None:
        """Return where the point's coded images of a split lie, or None for original pixels.

        ``images``: archive or folder; ``state``: small files that change with the content, on
        which rules depend; ``rows``: how the rows are kept, see ``coded.rows``.
        """
        key = self.encode_key(point, split)
        if key is None:
            return None
        folder = self.encoded_folder(key)
        if CODECS[self.variant(point).codec].kind == "classical":
            chunks = self.chunks(self.variant(point))
            names = [chunk_name(chunk, chunks) for chunk in range(chunks)]
            images, rows = "decoded", "chunks"
        else:
            names, images, rows = ["decoded.stamp.json"], DECODED, "tables"
        return {
            "folder": str(folder),
            "images": str(folder / images),
            "latents": str(folder / LATENTS),
            "state": [str(folder / name) for name in names],
            "rows": rows,
        }

    def chunks(self, variant: Variant) -> int:
        """Return how many jobs share the images of a classical codec's operating point."""
        return self.scale.chunks.get(variant.dataset, {}).get(variant.codec, 1)

    def _encode_job(self, point: Point, split: str, key: str) -> dict[str, Any]:
        job: dict[str, Any] = {
            "key": key,
            "output": str(self.encoded_folder(key)),
            "codec": self._codec(point, "owner"),
            "dataset": self._dataset(self.variant(point).dataset),
            "split": split,
            "threads": self.scale.runtime.threads,
            "gpu": self.scale.runtime.gpu,
            "modules": self.run.modules,
        }
        if job["codec"]["kind"] == "classical":
            job["codec"] = self._classical(point)
            job["version"] = ROWS_VERSION
            job["threads"], job["gpu"] = 1, 0
            job["chunks"] = self.chunks(self.variant(point))
            cache = self.run.cache
            directory = cache.directory or str(Path(self.run.results) / "cache")
            job["cache"] = {"directory": directory, "limit_gb": cache.limit_gb}
        else:
            job["decodes"] = []
        return job

    def _classical(self, point: Point) -> dict[str, Any]:
        entry = CODECS[self.variant(point).codec]
        return {
            "name": entry.name,
            "kind": entry.kind,
            "parameters": codec_parameters(self.scale, entry.name).model_dump(),
            "rate": self.rate_value(point),
            "version": CLASSICAL_VERSION,
            "programs": {name: self.programs[name].to_json() for name in entry.programs},
        }

    def evaluate_job(self, point: Point) -> dict[str, Any]:
        """Return the resolved settings of a point's evaluation."""
        return {
            **self._description(point),
            "output": str(self.run_folder(point)),
            "codec": self.variant(point).codec,
            "decoder": self._decoder(point),
            "task": self._task(point, "owner"),
            "dataset": self._dataset(self.variant(point).dataset),
            "split": "test",
            "coded": self.coded(point, "test"),
            "threads": self.scale.runtime.threads,
            "gpu": self.scale.runtime.gpu,
            "precision": self.scale.runtime.precision,
            "modules": self.run.modules,
        }

    def _decoder(self, point: Point) -> dict[str, Any] | None:
        """Return the codec that makes features of latents, where the task reads features."""
        reads_features = TASKS[self.variant(point).task].input_kind == "features"
        return self._codec(point, "owner") if reads_features else None

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

    def _codec(self, point: Point, which: Literal["source", "owner"]) -> dict[str, Any]:
        name = self.variant(point).codec
        return {
            "name": name,
            "kind": CODECS[name].kind,
            "parameters": codec_parameters(self.scale, name).model_dump(),
            "rate_index": point.rate_index,
            **self._weights(getattr(self, which)(point, "codec")),
            "pretrained": self._starts_pretrained(point, "codec"),
        }

    def _task(self, point: Point, which: Literal["source", "owner"]) -> dict[str, Any]:
        name = self.variant(point).task
        parameters = task_parameters(self.scale, name).model_dump()
        codec = CODECS[self.variant(point).codec]
        if parameters.get("feature_channels", 0) is None and codec.feature_channels is not None:
            own = codec_parameters(self.scale, codec.name)
            parameters["feature_channels"] = codec.feature_channels(own)
        return {
            "name": name,
            "parameters": parameters,
            **self._weights(getattr(self, which)(point, "task")),
            "pretrained": self._starts_pretrained(point, "task"),
            "metrics": list(TASKS[name].metrics),
        }

    def _starts_pretrained(self, point: Point, part: Part) -> bool:
        """Return whether the weights descend from published ones, which fixes network sizes."""
        origin = self.source(point, part)
        while isinstance(origin.place, Point):
            origin = self.source(origin.place, origin.part)
        return origin.place == "pretrained"

    def _weights(self, origin: Origin) -> dict[str, Any]:
        """Return the file (or word) that weights come from, and whose they are."""
        if not isinstance(origin.place, Point):
            return {"weights": origin.place, "weights_of": None, "weights_part": origin.part}
        return {
            "weights": str(self.weights_path(origin.place)),
            "weights_of": getattr(self.variant(origin.place), origin.part),
            "weights_part": origin.part,
        }

    def _loss_weights(self, point: Point, training: Training) -> dict[str, Any]:
        rate = self.rate_value(point)

        def value(weight: float | str) -> float:
            if isinstance(weight, str):  # $<parameter of the ladder>, checked before
                assert rate is not None
                return rate
            return float(weight)

        return {
            term: {**weight.model_dump(), "target": value(weight.target)}
            if isinstance(weight, RateTarget)
            else value(weight)
            for term, weight in training.loss.items()
        }

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
            "left_out": self.left_out,
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
        written: dict[str, str] = {}
        for path, text in self._files():
            write_if_changed(path, text)
            written[path.relative_to(self.root).as_posix()] = sha256_bytes(text.encode())
        self._write_sums(written)

    def is_written(self) -> bool:
        """Return whether all of the plan's files are there as :meth:`write` leaves them."""
        return all(
            path.is_file() and path.read_text(encoding="utf-8") == text
            for path, text in self._files()
        )

    def _files(self) -> Iterator[tuple[Path, str]]:
        for path, value in self._settings():
            yield path, json.dumps(value, indent=1, sort_keys=True) + "\n"

    def _settings(self) -> Iterator[tuple[Path, Any]]:
        yield self.root / "plan.json", self.summary()
        for role in self.roles:
            job = {**self._dataset(role), "mirror": self.run.data.mirror}
            yield self.job_path("data", role), job
        for point in self.trained:
            yield self.job_path("train", point.key), self.train_job(point)
        for curve, jobs in self.coding_curves.items():
            yield self.job_path("code", curve), {"jobs": jobs, **self._shared()}
        for key, job in self.classical_encodings.items():
            yield self.job_path("code", key), job
        for curve, points in self.evaluation_curves.items():
            jobs = [self.evaluate_job(point) for point in points]
            yield self.job_path("evaluate", curve), {"jobs": jobs, **self._shared()}

    def _write_sums(self, written: dict[str, str]) -> None:
        """List the checksums of the plan's files, and of those of other studies that are there."""
        sums = SumsFile(self.root / SUMS)
        try:
            before = sums.read()
        except DamagedFile:
            before = {}
        others = {n: d for n, d in before.items() if n not in written and (self.root / n).is_file()}
        sums.write({**others, **written})

    def _shared(self) -> dict[str, Any]:
        return {"threads": self.scale.runtime.threads, "modules": self.run.modules}


def at_hand(scale: Scale, run: RunConfig) -> Scale:
    """Return the scale with data sets that are not at hand replaced by what it names instead."""
    datasets: dict[str, Dataset] = {}
    for role, dataset in scale.datasets.items():
        datasets[role] = dataset
        if isinstance(dataset, FetchedImages) and dataset.otherwise is not None:
            fetched = Path(run.data.directory) / f"{dataset.name}.manifest.json"
            mirrored = run.data.mirror and (Path(run.data.mirror) / dataset.name).is_dir()
            if not (fetched.is_file() or mirrored):
                datasets[role] = dataset.otherwise
    return scale.model_copy(update={"datasets": datasets})


def written(scale: Scale, run: RunConfig) -> Scale:
    """Return the scale with the data sets of the plan on disk.

    Raises:
        UserError: where no plan was written.
    """
    path = Path(run.results) / scale.name / "plan.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; a job of the workflow is started by Snakemake only")
    datasets = check(Scale, read_plan(path.parent)["scale"], f"{path}: scale").datasets
    return scale.model_copy(update={"datasets": datasets})


def load_plan(
    config: Path | str = "config.yaml",
    overrides: dict[str, Any] | None = None,
    workflow: Path | None = None,
    as_written: bool = False,
) -> Plan:
    """Read, check and expand a configuration.

    Args:
        config: the top level configuration file.
        overrides: keys from the command line, laid over the file.
        workflow: folder that holds ``scales`` and ``studies``; this package's by default.
        as_written: take the data sets that the plan on disk names, not those that are at hand.

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
    scale = written(scale, run) if as_written else at_hand(scale, run)
    folders = [workflow / "studies", *map(Path, run.study_folders)]

    def load(name: str) -> Study:
        return load_study(study_folder(folders, name), name, scale)

    studies = {name: load(name) for name in run.studies}
    known = [path.stem for folder in folders for path in folder.glob("*.yaml")]
    check_overrides(scale, known)
    studies = with_supporting(studies, load, known)
    return Plan(run, scale, studies)
