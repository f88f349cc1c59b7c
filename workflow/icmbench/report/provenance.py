"""How results were made: data, programs, training settings, cost and checks of the bitstreams."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from icmbench.config.study import Ladder, Study, Training, Variant, Weights, WeightSource
from icmbench.config.summary import PointSummary
from icmbench.data.specs import DatasetSpec, EmbeddedFaces, EmbeddedScenes
from icmbench.jobs import RateTarget, Schedule
from icmbench.report.results import Results
from icmbench.report.style import DASH, Styles, number, plain
from icmbench.report.tables import Cell, Table, figure, head, setting, text
from icmbench.utils.files import digest_json, read_object

_SHOWN_DIGEST = 12
_TIMES = "\N{MULTIPLICATION SIGN}"

#: Words for who chose a setting; the template gives each its own badge.
ORIGINS = {"published": "published", "figure": "read from a figure", "ours": "ours"}


# --- data and programs ----------------------------------------------------------------------------


def dataset_table(results: Results) -> Table:
    """Return the data sets by role, with their digests."""
    rows = [
        [
            Cell(role, "head"),
            text(dataset_name(dataset)),
            text(_sizes(dataset)),
            text(_digest(results, role)),
        ]
        for role, dataset in results.plan.datasets.items()
    ]
    columns = ["Role", "Data set", "Images", "Digest"]
    return Table("Data sets, by the role that studies use.", columns, rows)


def dataset_name(dataset: DatasetSpec) -> str:
    """Return the name of a data set for people."""
    return dataset.name if dataset.fetched else f"{dataset.name.replace('-', ' ')} (generated)"


def _sizes(dataset: DatasetSpec) -> str:
    settings = dataset.settings
    if isinstance(settings, EmbeddedScenes | EmbeddedFaces):
        counts = f"train {settings.train}, val {settings.val}, test {settings.test}"
        return f"{counts}, {settings.size} x {settings.size} pixels, seed {settings.seed}"
    words = ", ".join(f"{name} {split.limit or 'all'}" for name, split in settings.splits.items())
    return words + (", may be a subset" if getattr(settings, "allow_subset", False) else "")


def _digest(results: Results, role: str) -> str:
    digests = {
        str(record["dataset"]["digest"])
        for record in [*results.runs.values(), *results.evaluations.values()]
        if (record.get("dataset") or {}).get("role") == role
    }
    manifest = results.root / "data" / role / "manifest.json"
    if not digests and manifest.is_file():
        digests = {str(read_object(manifest, "digest")["digest"])}
    return " and ".join(digest[:_SHOWN_DIGEST] for digest in sorted(digests)) or "not recorded"


def environments(results: Results) -> list[tuple[int, dict[str, str]]]:
    """Return each combination of code, machine and libraries with its number of jobs.

    The most used one comes first.
    """
    found: dict[str, dict[str, Any]] = {}
    jobs: dict[str, int] = {}
    for record in [*results.runs.values(), *results.evaluations.values()]:
        if environment := record.get("environment"):
            key = digest_json(environment)
            found[key], jobs[key] = environment, jobs.get(key, 0) + 1
    ordered = sorted(found, key=lambda key: (-jobs[key], key))
    return [(jobs[key], _facts(found[key])) for key in ordered]


def _facts(environment: dict[str, Any]) -> dict[str, str]:
    absent = environment.get("git_problem") or "not in a git repository"
    facts = {"git commit": environment.get("git_commit") or absent}
    if environment.get("git_dirty"):
        facts["git commit"] += " with uncommitted changes"
    if sources := environment.get("sources"):
        link = Markup('<a href="../{0}">{0}</a>').format(sources)
        facts["changes and packages"] = link
    names = ("python", "platform", "device")
    facts |= {name: str(environment[name]) for name in names if environment.get(name)}
    return facts | {n: str(v) for n, v in sorted((environment.get("versions") or {}).items())}


def implementations(results: Results) -> Table:
    """Return the programs that coded the images of each codec, from the records."""
    by_codec: dict[str, list[str]] = {}
    for point in results.plan.points:
        by_codec.setdefault(point.codec, []).extend(results.implementations(point))
    rows = [
        [Cell(codec, "head"), text("\n".join(found))]
        for codec, texts in sorted(by_codec.items())
        if (found := merged_settings(texts))
    ]
    return Table("Programs that coded the images.", ["Codec", "Implementation"], rows)


def study_implementations(results: Results, study: str, styles: Styles) -> Table:
    """Return the programs that coded each curve of a study, from the records."""
    rows = []
    for name, style in styles.items():
        points = results.points(study, name)
        found = merged_settings(t for point in points for t in results.implementations(point))
        if found and style.is_curve:
            rows.append([head(style), text("\n".join(found))])
    caption = (
        "Implementations: the programs that coded the images of each curve, with every setting "
        "that changes bits. “to” joins the lowest and the highest value along a curve."
    )
    return Table(caption, ["Variant", "Implementation"], rows)


# A setting with a number, such as "qp 37"; longer numbers are digests.
_NUMBERED = re.compile(r"(.+) (-?\d{1,6}(?:\.\d+)?)")


def merged_settings(texts: Iterable[str]) -> list[str]:
    """Return implementations, joined if they differ only in the numbers of their settings.

    The first part of a line, name and version of the program, is never joined.
    """
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for line in dict.fromkeys(texts):
        first, *parts = line.split(", ")
        kind = (first, *(m[1] if (m := _NUMBERED.fullmatch(part)) else part for part in parts))
        groups.setdefault(kind, []).append(parts)
    return [
        ", ".join([kind[0], *(_joined(column) for column in zip(*lines, strict=True))])
        for kind, lines in groups.items()
    ]


def _joined(parts: Iterable[str]) -> str:
    values = list(dict.fromkeys(parts))
    if len(values) == 1:
        return values[0]
    name = values[0].rpartition(" ")[0]
    numbers = sorted((value.rpartition(" ")[2] for value in values), key=float)
    return f"{name} {numbers[0]} to {numbers[-1]}"


# --- cost and checks ------------------------------------------------------------------------------


def cost_table(results: Results, study: str, styles: Styles) -> Table:
    """Return state, CPU time and bitstream checks of every operating point of a study."""
    seed = ["Seed"] if results.many_seeds else []
    columns = ["Operating point", "Rate setting", *seed, "Training", "Steps", "CPU s, training"]
    columns += ["CPU s, evaluation", "Round trip", "Real against estimated bits"]
    rows = []
    for variant, style in styles.items():
        for point in results.points(study, variant):
            run = results.runs.get(point.key, {})
            evaluation = results.evaluations.get(point.key, {})
            state = run.get("status") or ("not started" if point.trained else "none")
            rows.append(
                [
                    head(style),
                    setting(results, point),
                    *([text(point.seed)] if seed else []),
                    text(state),
                    figure(f"{run['steps_done']} of {run['steps']}" if run else DASH),
                    figure(number(run.get("cpu_seconds"), 1)),
                    figure(number(evaluation.get("cpu_seconds"), 1)),
                    *(figure(check) for check in _bit_checks(results, point)),
                ]
            )
    caption = (
        "Cost and checks of every operating point. Round trip: images whose decoded bitstream "
        "differs from the encoder's reconstruction; some programs do not report one. Real against "
        "estimated bits: the size of the bitstreams relative to the entropy model's estimate."
    )
    return Table(caption, columns, rows)


def _bit_checks(results: Results, point: PointSummary) -> tuple[str, str]:
    records = results.records_of(point)
    if records is None or point.encoding is None:
        return DASH, DASH
    percent = 100 * (records.bits / records.bits_estimated - 1)
    difference = ("+" if percent > 0 else "") + number(percent, 2)
    trip = f"{records.wrong} of {records.checked}" if records.checked else "not checked"
    return trip, difference if difference == DASH else f"{difference} %"


@dataclass(frozen=True)
class Totals:
    """Sums over a study: CPU seconds, and coded images (None without records)."""

    training_cpu: str
    evaluation_cpu: str
    mismatches: int | None
    images_checked: int


def totals(results: Results, study: str) -> Totals:
    """Return the sums over the operating points of a study."""
    points = results.points(study)
    # Variants that only train the task share their encodings: each counts once.
    coded = {point.encoding: point for point in points if point.encoding is not None}
    found = [r for point in coded.values() if (r := results.records_of(point)) is not None]
    keys = [point.key for point in points]
    return Totals(
        training_cpu=number(_cpu_seconds(results.runs, keys), 0),
        evaluation_cpu=number(_cpu_seconds(results.evaluations, keys), 0),
        mismatches=sum(records.wrong for records in found) if found else None,
        images_checked=sum(records.checked for records in found),
    )


def _cpu_seconds(jobs: dict[str, dict[str, Any]], keys: list[str]) -> float:
    return float(sum(jobs[key].get("cpu_seconds") or 0 for key in keys if key in jobs))


# --- training settings ----------------------------------------------------------------------------


def training_tables(study: Study, styles: Styles) -> list[Table]:
    """Return the tables of rate settings, schedules and training runs of a study."""
    tables = [_ladders(study.ladders), _schedules(study.schedules), _training_runs(study, styles)]
    return [table for table in tables if table.rows]


def _origin(entry: Ladder | Schedule | Training) -> Cell:
    return Cell(ORIGINS[entry.origin], "origin")


def _ladders(ladders: dict[str, Ladder]) -> Table:
    rows = [
        [
            Cell(name, "head"),
            text(ladder.parameter),
            text(", ".join(plain(value) for value in ladder.values)),
            _origin(ladder),
            text(ladder.note),
        ]
        for name, ladder in ladders.items()
    ]
    columns = ["Rate settings", "Parameter", "Values, lowest rate first", "Origin", "Note"]
    return Table("Rate settings: one operating point per value.", columns, rows)


def _schedules(schedules: dict[str, Schedule]) -> Table:
    rows = [
        [
            Cell(name, "head"),
            text(_length(schedule)),
            text(_optimisers(schedule)),
            text(_learning_rate(schedule)),
            text(_images(schedule)),
            _origin(schedule),
            text(schedule.note),
        ]
        for name, schedule in schedules.items()
    ]
    columns = ["Schedule", "Length", "Optimisers", "Learning rate", "Images", "Origin", "Note"]
    return Table("Schedules: length, optimisers and learning rates.", columns, rows)


def _length(schedule: Schedule) -> str:
    shared = f" on {schedule.devices} devices" if schedule.devices > 1 else ""
    return f"{schedule.steps} steps of {schedule.batch_size} images{shared}"


def _optimisers(schedule: Schedule) -> str:
    lines = []
    for group, optimiser in schedule.optimisers.items():
        line = f"{group}: {optimiser.name}, lr {plain(optimiser.lr)}"
        line += f", momentum {plain(optimiser.momentum)}"
        decay = plain(optimiser.weight_decay)
        lines.append(line + (f", weight decay {decay}" if optimiser.weight_decay else ""))
    return "\n".join(lines)


def _learning_rate(schedule: Schedule) -> str:
    words = str(schedule.decay)
    if schedule.warmup:
        words += f", {schedule.warmup} steps of warm-up"
    if schedule.clip_norm is not None:
        words += f", gradient norm at most {plain(schedule.clip_norm)}"
    return words


def _images(schedule: Schedule) -> str:
    words = f"crops of {schedule.crop}" if schedule.crop else "whole images"
    if schedule.crop_area:
        smallest, largest = (f"{100 * share:g}" for share in schedule.crop_area)
        words += f", resized from {smallest} to {largest} % of the area"
    return words + (", mirrored at random" if schedule.flip else "")


def _training_runs(study: Study, styles: Styles) -> Table:
    rows = []
    for name, style in styles.items():
        variant, training = study.variants[name], study.variants[name].train
        if training is None:
            continue
        schedule, chain = training.schedule, training.chain
        if chain:
            schedule += f"; then {chain.schedule} from rate to rate, {chain.order}"
        rows.append(
            [
                head(style),
                text(", ".join(training.parts)),
                text(" + ".join(_term(term, weight) for term, weight in training.loss.items())),
                text(_starts(variant, styles)),
                text(schedule),
                _origin(training),
                text(" ".join(filter(None, (training.note, variant.note)))),
            ]
        )
    columns = ["Variant", "Trained", "Loss", "Starts from", "Schedule", "Origin", "Note"]
    caption = "Training runs: trained parts and loss; everything else stays frozen."
    return Table(caption, columns, rows)


def _term(term: str, weight: float | str | RateTarget) -> str:
    if isinstance(weight, RateTarget):
        target = str(weight.target)
        if target.startswith("$"):
            target = f"the ladder's {target.removeprefix('$')}"
        start, gain = plain(weight.start), plain(weight.gain)
        return f"{term} steered to {target} (weight {start} at first, gain {gain})"
    if isinstance(weight, str):
        return f"{weight.removeprefix('$')} {_TIMES} {term}"
    return term if weight == 1 else f"{plain(weight)} {_TIMES} {term}"


def _starts(variant: Variant, styles: Styles) -> str:
    sources = {"codec": variant.codec_from, "task": variant.task_from}
    return "\n".join(f"{p}: {_source(s, styles)}" for p, s in sources.items() if s is not None)


def _source(source: WeightSource, styles: Styles) -> str:
    if not isinstance(source, Weights):
        return source
    name = source.variant
    name = f"{source.study}/{name}" if source.study else styles[name].label
    part = f", its {source.of}" if source.of else ""
    rate = "" if source.rate == "same" else f", rate index {source.rate}"
    return f"{name}{part}{rate}"
