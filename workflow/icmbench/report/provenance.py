"""How results were made: data, programs, training settings, cost and checks of the bitstreams."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from icmbench.config.study import Ladder, Study, Training
from icmbench.config.summary import PointSummary
from icmbench.data.specs import DatasetSpec, EmbeddedFaces, EmbeddedScenes
from icmbench.jobs import Schedule
from icmbench.report.results import Results
from icmbench.report.style import DASH, Styles, number, plain
from icmbench.report.tables import Cell, Table, figure, head, setting, text
from icmbench.utils.files import read_object

_SHOWN_DIGEST = 12
_SHOWN_MODULES = 5

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
    records = [*results.runs.values(), *results.evaluations.values()]
    found = [json.dumps(e, sort_keys=True) for r in records if (e := r.get("environment"))]
    return [(jobs, _facts(json.loads(words))) for words, jobs in Counter(found).most_common()]


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


def study_implementations(results: Results, study: str, styles: Styles) -> Table:
    """Return the programs that coded each curve of a study, from the records."""
    rows = []
    for name, style in styles.items():
        coded = filter(None, map(results.records_of, results.points(study, name)))
        found = dict.fromkeys(line for records in coded for line in records.implementations)
        if found and style.is_curve:
            rows.append([head(style), text("\n".join(found))])
    caption = "The programs that coded each curve, with every setting that changes bits."
    return Table(caption, ["Variant", "Implementation"], rows)


def loaded_weights(results: Results, study: str, styles: Styles) -> Table:
    """Return what the networks of a study took from files of the user's, from the summaries."""
    rows: dict[tuple[str, ...], list[Cell]] = {}
    for name, style in styles.items():
        for point in results.points(study, name):
            summaries = (results.runs.get(point.key), results.evaluations.get(point.key))
            for part, record in [
                found for own in summaries if own for found in (own.get("weights") or {}).items()
            ]:
                left = _modules(record["missing"])
                share = "100 %" if not left else f"{number(100 * record['share'], 2)} %"
                rows[name, part, record["sha256"]] = [
                    head(style),
                    text(part),
                    text(Path(record["file"]).name),
                    text(record["sha256"][:_SHOWN_DIGEST]),
                    figure(share),
                    text(", ".join(left) or DASH),
                ]
    caption = (
        "Weights from files, and initial weights from other networks: the share of the network's "
        "numbers that was loaded, and the modules that began as they are built."
    )
    columns = ["Variant", "Network", "File", "SHA-256", "Loaded", "Not loaded"]
    return Table(caption, columns, list(rows.values()))


def _modules(names: list[str]) -> list[str]:
    """Return the modules that hold some tensors; of many, the first."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    more = len(modules) - _SHOWN_MODULES
    return modules if more <= 0 else [*modules[:_SHOWN_MODULES], f"and {more} more"]


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
                    setting(point),
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


def totals(results: Results, study: str) -> str:
    """Return the CPU seconds of a study, and how many of its bitstreams decode as they must."""
    points = results.points(study)
    # Variants that only train the task share their encodings: each counts once.
    coded = {point.encoding: point for point in points if point.encoding is not None}
    found = [r for point in coded.values() if (r := results.records_of(point)) is not None]
    seconds = [
        number(sum(jobs.get(point.key, {}).get("cpu_seconds") or 0.0 for point in points), 0)
        for jobs in (results.runs, results.evaluations)
    ]
    words = f"CPU seconds: {seconds[0]} of training, {seconds[1]} of evaluation."
    if not found:
        return f"{words} Without records of coded images, the bitstreams cannot be checked."
    wrong, checked = (sum(getattr(r, n) for r in found) for n in ("wrong", "checked"))
    return (
        f"{words} {wrong} of {checked} coded images do not decode to the encoder's reconstruction."
    )


# --- training settings ----------------------------------------------------------------------------


def training_tables(study: Study, styles: Styles) -> list[Table]:
    """Return the tables of rate settings, schedules and training runs of a study.

    Settings have the names that they have in the study's file.
    """
    ladders = [_settings(Cell(name, "head"), entry) for name, entry in study.ladders.items()]
    schedules = [_settings(Cell(name, "head"), entry) for name, entry in study.schedules.items()]
    runs = []
    for name, style in styles.items():
        variant = study.variants[name]
        if variant.train is not None:
            starts = variant.model_dump(include={"codec_from", "task_from"}, exclude_none=True)
            runs.append(_settings(head(style), variant.train, starts, variant.note))
    tables = {
        "Rate settings: one operating point per value.": ladders,
        "Schedules: length, optimisers and learning rates.": schedules,
        "Training runs: the parts that are trained (the others stay frozen), the terms of the loss "
        "with their weights ($ names a rate setting), and where the weights start from.": runs,
    }
    columns = ["Name", "Settings", "Origin", "Note"]
    return [Table(caption, columns, rows) for caption, rows in tables.items() if rows]


def _settings(
    first: Cell,
    entry: Ladder | Schedule | Training,
    more: Mapping[str, Any] | None = None,
    note: str = "",
) -> list[Cell]:
    settings = entry.model_dump(exclude={"origin", "note"}, exclude_none=True) | dict(more or {})
    words = "\n".join(f"{key}: {_words(value)}" for key, value in settings.items())
    notes = " ".join(filter(None, (entry.note, note)))
    return [first, text(words), Cell(ORIGINS[entry.origin], "origin"), text(notes)]


def _words(value: Any) -> str:
    """Return a setting as it is in the study's file; entries of a mapping are in brackets."""
    if isinstance(value, dict):
        inner = ((k, _words(v)) for k, v in value.items())
        return ", ".join(f"{key} ({words})" for key, words in inner)
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return plain(value)
