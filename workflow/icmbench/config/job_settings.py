"""What each job of a plan does: functions from operating points to the models of ``jobs``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from icmbench.codecs.classical.entries import CLASSICAL_VERSION
from icmbench.config.plan import Plan
from icmbench.config.summary import PlanSummary, PointSummary
from icmbench.config.validate import codec_parameters, task_entry, task_files, task_parameters
from icmbench.config.weights import Point, WeightsOrigin, weights_jobs, weights_spec
from icmbench.data.specs import Needs
from icmbench.jobs import (
    CacheSpec,
    ClassicalCurve,
    ClassicalJob,
    ClassicalSpec,
    CodecSpec,
    CodedImages,
    DataJob,
    EncodeCurve,
    EncodeJob,
    EvaluateCurve,
    EvaluateJob,
    PointSpec,
    RoleCheck,
    ShareSpec,
    TaskSpec,
    TrainJob,
    TrainRuntime,
)
from icmbench.metrics.catalogue import quality_metrics
from icmbench.registry import CODECS
from icmbench.utils.files import write_text
from icmbench.utils.models import Strict

ShareJob = TypeVar("ShareJob", EncodeJob, ClassicalJob)


def train_job(plan: Plan, point: Point) -> TrainJob:
    """Return the settings of a point's training run."""
    variant = plan.variant(point)
    assert variant.train is not None
    runtime = plan.scale.runtime.model_dump(include=set(TrainRuntime.model_fields))
    return TrainJob(
        **dict(point_spec(plan, point)),
        output=str(plan.run_folder(point)),
        codec=codec_spec(plan, point, plan.initial_weights(point, "codec")),
        task=task_spec(plan, point, plan.initial_weights(point, "task")),
        parts=variant.train.parts,
        loss={
            term: plan.studies[point.study].loss_weight(variant, term, point.rate_index)
            for term in variant.train.loss
        },
        schedule=plan.schedule(point),
        dataset=plan.dataset(variant.dataset),
        coded=coded_images(plan, point, "train") if plan.trains_on_decoded(point) else None,
        decoder=classical_spec(plan, point) if plan.decodes_in_loader(point) else None,
        runtime=TrainRuntime(**runtime),
        modules=plan.run.modules,
    )


def evaluate_job(plan: Plan, point: Point) -> EvaluateJob:
    """Return the settings of a point's evaluation."""
    variant, runtime = plan.variant(point), plan.scale.runtime
    # bf16 costs a network one or two tenths of a point of its published accuracy.
    published = plan.scale.pretrained == "published" and plan.starts_pretrained(point, "task")
    entry, decoder = task_entry(plan.scale, variant.task), None
    if entry.input_kind == "features":
        decoder = codec_spec(plan, point, plan.final_weights(point, "codec"))
    return EvaluateJob(
        **dict(point_spec(plan, point)),
        output=str(plan.run_folder(point)),
        codec=variant.codec,
        decoder=decoder,
        task=task_spec(plan, point, plan.final_weights(point, "task")),
        dataset=plan.dataset(variant.dataset),
        split="test",
        coded=coded_images(plan, point, "test"),
        threads=runtime.threads,
        gpu=runtime.gpu,
        precision="fp32" if entry.exact or published else runtime.precision,
        perceptual=list(plan.run.perceptual),
        modules=plan.run.modules,
    )


def _shares(plan: Plan, kind: Literal["learned", "classical"]) -> Iterator[tuple[Point, ShareSpec]]:
    """Yield every share that codecs of a kind code, once for each point that reads it."""
    for point in plan.points:
        variant = plan.variant(point)
        if CODECS[variant.codec].kind != kind:
            continue
        for split in plan.coded_splits(point):
            keys = plan.share_keys(point, split)
            for chunk, key in enumerate(keys):
                yield (
                    point,
                    ShareSpec(
                        key=key,
                        output=str(plan.encoded_folder(key)),
                        dataset=plan.dataset(variant.dataset),
                        split=split,
                        chunk=chunk,
                        chunks=len(keys),
                        quality=quality_metrics(plan.run.perceptual) if split == "test" else [],
                        modules=plan.run.modules,
                    ),
                )


@cache
def encode_jobs(plan: Plan) -> dict[str, EncodeJob]:
    """Return the settings of every share of an encoding by a learned codec, by key."""
    jobs: dict[str, EncodeJob] = {}
    decodes: dict[str, set[str]] = {}
    for point, share in _shares(plan, "learned"):
        task = task_entry(plan.scale, plan.variant(point).task)
        decodes.setdefault(share.key, set()).add(task.input_kind)
        if share.key not in jobs:
            jobs[share.key] = EncodeJob(
                **dict(share),
                codec=codec_spec(plan, point, plan.final_weights(point, "codec")),
                decodes=[],
                threads=plan.scale.runtime.threads,
                gpu=plan.scale.runtime.gpu,
            )
    return {k: j.model_copy(update={"decodes": sorted(decodes[k])}) for k, j in jobs.items()}


@cache
def encode_curves(plan: Plan) -> dict[str, EncodeCurve]:
    """Return :func:`encode_jobs` by curve: all rates of a codec on a split, or on a share of it."""
    threads, modules = plan.scale.runtime.threads, plan.run.modules
    return {
        curve: EncodeCurve(jobs=jobs, threads=threads, modules=modules)
        for curve, jobs in _by_curve(plan, encode_jobs(plan)).items()
    }


@cache
def classical_jobs(plan: Plan) -> dict[str, ClassicalJob]:
    """Return the settings of every share of an encoding by a classical codec, by key."""
    cache = CacheSpec(
        directory=plan.run.cache.directory or str(Path(plan.run.results) / "cache"),
        limit_gb=plan.run.cache.limit_gb,
    )
    jobs: dict[str, ClassicalJob] = {}
    for point, share in _shares(plan, "classical"):
        if share.key not in jobs:
            jobs[share.key] = ClassicalJob(
                **dict(share),
                codec=classical_spec(plan, point),
                keep_images=share.split != "train" or not plan.decodes_in_loader(point),
                cache=cache,
            )
    return jobs


@cache
def classical_curves(plan: Plan) -> dict[str, ClassicalCurve]:
    """Return :func:`classical_jobs` by curve: all rates of a split, or one on a share of it."""
    return {
        curve: ClassicalCurve(
            output=str(plan.encoded_folder(curve)), jobs=jobs, modules=plan.run.modules
        )
        for curve, jobs in _by_curve(plan, classical_jobs(plan)).items()
    }


def _by_curve(plan: Plan, jobs: dict[str, ShareJob]) -> dict[str, list[ShareJob]]:
    curves: dict[str, list[ShareJob]] = {}
    for key, job in jobs.items():
        curves.setdefault(plan.coding_curve(key), []).append(job)
    return curves


def evaluate_curve(plan: Plan, curve: str) -> EvaluateCurve:
    """Return the evaluations of a variant, ``<study>/<variant>``."""
    return EvaluateCurve(
        jobs=[evaluate_job(plan, point) for point in plan.evaluation_curves[curve]],
        threads=plan.scale.runtime.threads,
        modules=plan.run.modules,
    )


def data_job(plan: Plan, role: str) -> DataJob:
    """Return the settings that make the data set of a role."""
    dataset = plan.dataset(role)
    users = [own for own in plan.roles if plan.dataset(own).manifest == dataset.manifest]
    users = users if dataset.fetched else []  # a change of a task must not generate images again
    networks = [own for user in users for own in _networks(plan, user)]
    return DataJob(
        **dict(dataset),
        mirror=plan.run.data.mirror,
        checks=[_role_check(plan, own) for own in users],
        networks=networks,
        modules=plan.run.modules if networks else [],
    )


def _networks(plan: Plan, role: str) -> list[TaskSpec]:
    """Return the networks that judge a role's images as they are, once each."""
    points = {plan.variant(p).task: p for p in plan.points if plan.variant(p).dataset == role}
    own = [point for task, point in points.items() if task_entry(plan.scale, task).exact]
    return [task_spec(plan, point, plan.final_weights(point, "task")) for point in own]


def _role_check(plan: Plan, role: str) -> RoleCheck:
    variants: dict[tuple[str, str], Point] = {}
    for point in plan.points:
        if plan.variant(point).dataset == role:
            variants.setdefault((point.study, point.variant), point)
    needs: list[Needs] = []
    for point in variants.values():
        final = task_spec(plan, point, plan.final_weights(point, "task")).needs
        if final not in needs:
            needs.append(final)
    return RoleCheck(dataset=plan.dataset(role), needs=needs)


def coded_images(plan: Plan, point: Point, split: str) -> CodedImages | None:
    """Return where the point's coded images of a split are, or None for original pixels."""
    shares = plan.share_keys(point, split)
    return CodedImages(folders=[str(plan.encoded_folder(k)) for k in shares]) if shares else None


def coded_states(plan: Plan, point: Point, split: str) -> list[str]:
    """Return the small files that change with a point's coded images, on which rules depend."""
    curves = map(plan.coding_curve, plan.share_keys(point, split))
    return [str(plan.coding_manifest(curve, "decoded")) for curve in curves]


def codec_spec(plan: Plan, point: Point, weights: WeightsOrigin) -> CodecSpec:
    """Return the codec of a point with its initial or final weights."""
    name = plan.variant(point).codec
    return CodecSpec(
        name=name,
        kind=CODECS[name].kind,
        parameters=codec_parameters(plan.scale, name).model_dump(),
        rate=plan.rate_value(point),
        weights=weights_spec(plan, weights),
        starts_pretrained=plan.starts_pretrained(point, "codec"),
    )


def classical_spec(plan: Plan, point: Point) -> ClassicalSpec:
    """Return the classical codec of a point at its rate setting."""
    entry, rate = CODECS[plan.variant(point).codec], plan.rate_value(point)
    assert rate is not None
    return ClassicalSpec(
        name=entry.name,
        command=entry.command is not None,
        parameters=codec_parameters(plan.scale, entry.name).model_dump(),
        rate=rate,
        version=CLASSICAL_VERSION,
        programs={name: plan.programs[name] for name in entry.programs},
        modules=plan.run.modules,
    )


def task_spec(plan: Plan, point: Point, weights: WeightsOrigin) -> TaskSpec:
    """Return the task of a point with its initial or final weights."""
    name = plan.variant(point).task
    entry = task_entry(plan.scale, name)
    parameters = task_parameters(plan.scale, name).model_dump()
    codec = CODECS[plan.variant(point).codec]
    if parameters.get("feature_channels", 0) is None and codec.feature_channels is not None:
        own = codec_parameters(plan.scale, codec.name)
        parameters["feature_channels"] = codec.feature_channels(own)
    if parameters.get("layered", 0) is None:
        parameters["layered"] = codec_parameters(plan.scale, "layered").model_dump()
    return TaskSpec(
        name=name,
        network=entry.name,
        parameters=parameters,
        weights=weights_spec(plan, weights),
        starts_pretrained=plan.starts_pretrained(point, "task"),
        metrics=list(entry.metrics),
        files=task_files(plan.scale, name),
    )


def point_spec(plan: Plan, point: Point) -> PointSpec:
    """Return what identifies an operating point."""
    variant, ladder = plan.variant(point), plan.ladder(point)
    parameter, value = ladder.parameter if ladder else None, plan.rate_value(point)
    if ladder and ladder.pilot and variant.train and isinstance(variant.train.loss.get("bpp"), str):
        parameter, value = "bpp", ladder.pilot.bpp[point.rate_index]
    return PointSpec(
        key=point.key,
        study=point.study,
        variant=point.variant,
        mode=variant.mode,
        rate_index=point.rate_index,
        seed=point.seed,
        rate_parameter=parameter,
        rate_value=value,
        scale=plan.scale.name,
    )


def summary(plan: Plan) -> PlanSummary:
    """Return all that the report, the analysis and MLflow need to know of the run."""
    return PlanSummary(
        run=plan.run,
        left_out=plan.left_out,
        unavailable=plan.unavailable,
        scale=plan.scale,
        studies=plan.studies,
        datasets={role: plan.dataset(role) for role in plan.roles},
        points=[
            PointSummary(
                **dict(point_spec(plan, point)),
                label=plan.variant(point).label,
                codec=plan.variant(point).codec,
                task=plan.variant(point).task,
                dataset=plan.variant(point).dataset,
                folder=str(plan.run_folder(point)),
                trained=plan.variant(point).train is not None,
                evaluated=plan.variant(point).evaluate,
                encoding=plan.encode_key(point, "test"),
            )
            for point in plan.points
        ],
    )


# --- files ----------------------------------------------------------------------------------------


def write_files(plan: Plan) -> None:
    """Write ``plan.json`` and the settings of every job, leaving unchanged files untouched."""
    for path, text in _files(plan):
        # Snakemake compares modification times first.
        if not _holds(path, text):
            write_text(path, text)


def are_written(plan: Plan) -> bool:
    """Return whether all files are there as :func:`write_files` leaves them."""
    return all(_holds(path, text) for path, text in _files(plan))


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _files(plan: Plan) -> Iterator[tuple[Path, str]]:
    for path, model in _models(plan):
        yield path, json.dumps(model.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"


def _models(plan: Plan) -> Iterator[tuple[Path, Strict]]:
    yield plan.root / "plan.json", summary(plan)
    for role in plan.roles:
        yield plan.job_path("data", role), data_job(plan, role)
    for name, job in weights_jobs(plan).items():
        yield plan.job_path("weights", name), job
    for point in plan.trained:
        yield plan.job_path("train", point.key), train_job(plan, point)
    for curve, encode in encode_curves(plan).items():
        yield plan.job_path("code", curve), encode
    for curve, classical in classical_curves(plan).items():
        yield plan.job_path("code", curve), classical
    for curve in plan.evaluation_curves:
        yield plan.job_path("evaluate", curve), evaluate_curve(plan, curve)
