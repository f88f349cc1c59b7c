"""How results were made: data, programs, training settings, cost and checks of the bitstreams."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from icmbench.config.study import Ladder, Study, Training, Variant, Weights
from icmbench.config.summary import PlanSummary, PointSummary
from icmbench.config.validate import codec_parameters, takes_from_zoo
from icmbench.data.specs import DatasetSpec, EmbeddedFaces, EmbeddedScenes
from icmbench.jobs import Schedule
from icmbench.registry import CODECS
from icmbench.report.results import Results
from icmbench.report.style import DASH, Styles, number, plain, signed
from icmbench.report.tables import Cell, Table, figure, head, text

_SHOWN_DIGEST = 12
_SHOWN_MODULES = 5


# --- data and programs ----------------------------------------------------------------------------


def dataset_table(results: Results) -> Table:
    """Return the data sets by role, with their digests."""
    rows = [
        [Cell(role, "head"), *map(text, (dataset_name(data), _sizes(data), _digest(results, role)))]
        for role, data in results.plan.datasets.items()
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
    read = [job.get("dataset") or {} for jobs in results.jobs for job in jobs.values()]
    digests = {str(dataset["digest"]) for dataset in read if dataset.get("role") == role}
    return " and ".join(digest[:_SHOWN_DIGEST] for digest in sorted(digests)) or "not recorded"


def environments(results: Results) -> list[tuple[int, dict[str, str]]]:
    """Return each combination of code, machine and libraries with its number of jobs.

    The most used one comes first.
    """
    stated = [job.get("environment") for jobs in results.jobs for job in jobs.values()]
    found = [json.dumps(environment, sort_keys=True) for environment in stated if environment]
    return [(jobs, _facts(json.loads(words))) for words, jobs in Counter(found).most_common()]


def _facts(environment: dict[str, Any]) -> dict[str, str]:
    absent = environment.get("git_problem") or "not in a git repository"
    facts = {"git commit": environment.get("git_commit") or absent}
    if environment.get("git_dirty"):
        facts["git commit"] += " with uncommitted changes"
    if sources := environment.get("sources"):
        facts["changes and packages"] = Markup('<a href="../{0}">{0}</a>').format(sources)
    names = ("python", "platform", "device")
    facts |= {name: str(environment[name]) for name in names if environment.get(name)}
    return facts | {n: str(v) for n, v in sorted((environment.get("versions") or {}).items())}


def loaded_weights(results: Results, study: str, styles: Styles) -> Table:
    """Return what the networks of a study took from files of the user's, from the summaries."""
    rows: dict[tuple[str, ...], list[Cell]] = {}
    for name, style in styles.items():
        for point in results.points(study, name):
            summaries = [jobs.get(point.key, {}).get("weights") or {} for jobs in results.jobs]
            for part, record in (entry for own in summaries for entry in own.items()):
                # Of tensors that are missing, the modules that hold them.
                left = list(dict.fromkeys(n.rpartition(".")[0] or n for n in record["missing"]))
                more = f"of {len(left)}" if len(left) > _SHOWN_MODULES else ""
                share = "100 %" if not left else f"{number(100 * record['share'], 2)} %"
                rows[name, part, record["sha256"]] = [
                    head(style),
                    text(part),
                    text(Path(record["file"]).name),
                    text(record["sha256"][:_SHOWN_DIGEST]),
                    figure(share),
                    text(", ".join(left[:_SHOWN_MODULES]) or DASH, more),
                ]
    caption = (
        "Weights from files, and initial weights from other networks: the share of the network's "
        "numbers that was loaded, and the modules that began as they are built."
    )
    columns = ["Variant", "Network", "File", "SHA-256", "Loaded", "Not loaded"]
    return Table(caption, columns, list(rows.values()))


# --- cost and checks ------------------------------------------------------------------------------


def cost_table(results: Results, study: str, styles: Styles) -> Table:
    """Return cost, bitstream checks and programs of every variant of a study."""
    rows = []
    for name, style in styles.items():
        points = results.points(study, name)
        coded = [r for p in points if p.encoding and (r := results.records_of(p)) is not None]
        checked, wrong = (sum(getattr(r, n) for r in coded) for n in ("checked", "wrong"))
        excess = [100 * (r.bits / r.bits_estimated - 1) for r in coded]
        known = [signed(end, 2, " %") for end in (min(excess), max(excess))] if excess else []
        programs = dict.fromkeys(line for r in coded for line in r.implementations)
        rows.append(
            [
                head(style),
                *(figure(number(_cpu_seconds(jobs, points), 0)) for jobs in results.jobs),
                figure(f"{wrong} of {checked}" if checked else DASH),
                figure(" to ".join(dict.fromkeys(known)) or DASH),
                text("\n".join(programs) or DASH),
            ]
        )
    columns = ["Variant", "CPU s, training", "CPU s, evaluation", "Wrong after decoding"]
    columns += ["Real against estimated bits", "Programs"]
    caption = (
        "Cost and checks of every variant. Wrong after decoding: images whose decoded bitstream "
        "differs from the encoder's reconstruction; some programs do not report one. Real against "
        "estimated bits: the size of the bitstreams relative to the entropy model's estimate. "
        "Programs: what coded the curve, with every setting that changes bits."
    )
    return Table(caption, columns, rows)


def _cpu_seconds(jobs: dict[str, dict[str, Any]], points: Sequence[PointSummary]) -> float:
    keys = {point.folder: point.key for point in points}.values()  # shared folders count once
    return sum(jobs.get(key, {}).get("cpu_seconds") or 0.0 for key in keys)


def totals(results: Results, study: str) -> str:
    """Return the CPU seconds of a study, and how many of its bitstreams decode as they must."""
    points = results.points(study)
    # Variants that only train the task share their encodings: each counts once.
    coded = {point.encoding: point for point in points if point.encoding is not None}
    found = [r for point in coded.values() if (r := results.records_of(point)) is not None]
    seconds = [number(_cpu_seconds(jobs, points), 0) for jobs in results.jobs]
    words = f"CPU seconds: {seconds[0]} of training, {seconds[1]} of evaluation."
    if not found:
        return f"{words} Without records of coded images, the bitstreams cannot be checked."
    wrong, checked = (sum(getattr(r, n) for r in found) for n in ("wrong", "checked"))
    words += f" {checked - wrong} of {checked} coded images decode"
    return f"{words} to the encoder's own reconstruction."


# --- training settings ----------------------------------------------------------------------------


def training_tables(plan: PlanSummary, name: str, styles: Styles) -> list[Table]:
    """Return the tables of rate settings, schedules, training runs and learned codecs of a study.

    Settings have the names that they have in the study's file.
    """
    study = plan.studies[name]
    ladders = [_settings(Cell(name, "head"), entry) for name, entry in study.ladders.items()]
    schedules = [_settings(Cell(name, "head"), entry) for name, entry in study.schedules.items()]
    runs = []
    for style in styles.values():
        variant = study.variants[style.name]
        starts = variant.model_dump(include={"codec_from", "task_from"}, exclude_none=True)
        if CODECS[variant.codec].kind == "learned":
            starts["codec"] = _start(plan, study, variant)
        elif variant.train is None:
            continue
        runs.append(_settings(head(style), variant.train, variant.note, **starts))
    tables = {
        "Rate settings: one operating point per value.": ladders,
        "Schedules: length, optimisers and learning rates.": schedules,
        "Training runs: the parts that are trained (the others stay frozen), the terms of the loss "
        "with their weights ($ names a rate setting), and where the weights start from; of learned "
        "codecs also where the first of them come from. A linear start is ours: principal "
        "components beside the codec's own transforms.": runs,
    }
    columns = ["Name", "Settings", "Origin", "Note"]
    return [Table(caption, columns, rows) for caption, rows in tables.items() if rows]


def training_warnings(results: Results, study: str, styles: Styles) -> list[str]:
    """Return what the training runs of a study warn of, each with its operating point."""
    seeds = len(results.plan.run.seeds) > 1
    return [
        f"{style.label}{f', {p.rate_parameter} {plain(p.rate_value)}' if p.rate_parameter else ''}"
        f"{f', seed {p.seed}' if seeds else ''}: {line}"
        for name, style in styles.items()
        for p in results.points(study, name)
        for line in results.warnings(p)
    ]


def _start(plan: PlanSummary, study: Study, variant: Variant) -> str:
    """Return what a learned codec began with, through however many training runs."""
    codec, via = variant.codec, ""
    while isinstance(source := variant.codec_from, Weights):
        study = plan.studies[source.study or study.name]
        variant, via = study.variants[source.variant], f" ({study.name}/{source.variant})"
    zoo = takes_from_zoo(plan.scale, variant, "codec")
    words = {"random": "random weights", "pretrained": "the zoo" if zoo else "published weights"}
    began = words.get(str(source or "pretrained"), "a file of weights")
    linear = getattr(codec_parameters(plan.scale, codec), "linear_start", False)
    return f"{codec}, began with {began}{via}, with{'' if linear else 'out'} a linear start"


def _settings(
    first: Cell, entry: Ladder | Schedule | Training | None, note: str = "", **more: Any
) -> list[Cell]:
    settings = entry.model_dump(exclude={"origin", "note"}, exclude_none=True) if entry else {}
    words = "\n".join(f"{key}: {_words(value)}" for key, value in (settings | more).items())
    notes = " ".join(filter(None, (entry.note if entry else "", note)))
    chosen = entry.origin.replace("figure", "read from a figure") if entry else ""
    origin = Cell(chosen, "origin") if entry else text("not trained")
    return [first, text(words), origin, text(notes)]


def _words(value: Any) -> str:
    """Return a setting as it is in the study's file; inner lists and mappings are in brackets."""
    if isinstance(value, dict):
        nested = {key for key, part in value.items() if isinstance(part, dict | list | tuple)}
        parts = {key: words for key, part in value.items() if (words := _words(part))}
        return ", ".join(f"{k} ({w})" if k in nested else f"{k} {w}" for k, w in parts.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return plain(value)
