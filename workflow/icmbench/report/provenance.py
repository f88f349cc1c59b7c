"""What ran: data, versions, cost and the checks on the bitstreams."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from icmbench.report.results import Results, Row
from icmbench.report.style import VariantStyle, number
from icmbench.report.tables import Cell, Table, figure, setting, text
from icmbench.utils.files import digest_json, read_object

_SHOWN_DIGEST = 12


@dataclass(frozen=True)
class Environment:
    """One combination of code, machine and libraries, and how many jobs ran in it."""

    jobs: int
    facts: list[tuple[str, str]]


def environments(results: Results) -> list[Environment]:
    """Return every distinct environment of the trainings and evaluations, most used first."""
    found: dict[str, tuple[int, Row]] = {}
    for record in [*results.runs.values(), *results.evaluations.values()]:
        environment = record.get("environment")
        if environment:
            key = digest_json(environment)
            found[key] = (found.get(key, (0, {}))[0] + 1, environment)
    ordered = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return [Environment(jobs, _facts(environment)) for _, (jobs, environment) in ordered]


def _facts(environment: Row) -> list[tuple[str, str]]:
    commit = environment.get("git_commit") or "not in a git repository"
    if environment.get("git_dirty"):
        commit += " with uncommitted changes"
    facts = [("git commit", commit)]
    facts.extend(
        (name, str(environment[name]))
        for name in ("python", "platform", "device")
        if environment.get(name)
    )
    versions: dict[str, Any] = environment.get("versions") or {}
    facts.extend((name, str(version)) for name, version in sorted(versions.items()))
    return facts


def dataset_table(results: Results) -> Table:
    """Return the data sets by role, with their digests."""
    rows = []
    for role, dataset in results.plan["datasets"].items():
        rows.append(
            [
                Cell(role, "head"),
                text(dataset_name(dataset)),
                text(_sizes(dataset)),
                text(_digest(results, role)),
            ]
        )
    columns = ["Role", "Data set", "Images", "Digest"]
    return Table("Data sets by the role that studies name.", columns, rows)


def dataset_name(dataset: Row) -> str:
    """Return the name of a data set for people."""
    return str(dataset.get("name") or f"{dataset['source'].replace('-', ' ')} (generated)")


def _sizes(dataset: Row) -> str:
    if dataset["source"] != "catalogue":
        counts = ", ".join(f"{split} {dataset[split]}" for split in ("train", "val", "test"))
        return f"{counts}, {dataset['size']} x {dataset['size']} pixels, seed {dataset['seed']}"
    splits = dataset["splits"].items()
    words = ", ".join(f"{name} {split['limit'] or 'all'}" for name, split in splits)
    return words + (", may be a subset" if dataset["allow_subset"] else "")


def _digest(results: Results, role: str) -> str:
    digests = {
        record["dataset"]["digest"]
        for record in [*results.runs.values(), *results.evaluations.values()]
        if (record.get("dataset") or {}).get("role") == role
    }
    manifest = results.root / "data" / role / "manifest.json"
    if not digests and manifest.is_file():
        digests = {read_object(manifest, "digest")["digest"]}
    if not digests:
        return "not recorded"
    return " and ".join(str(digest)[:_SHOWN_DIGEST] for digest in sorted(digests))


def implementations(results: Results) -> Table:
    """Return which program coded the images of each codec, as the records say."""
    by_codec: dict[str, list[str]] = {}
    for point in results.plan["points"]:
        by_codec.setdefault(point["codec"], []).extend(results.implementations(point))
    rows = [
        [Cell(codec, "head"), text("\n".join(found))]
        for codec, texts in sorted(by_codec.items())
        if (found := merged_settings(texts))
    ]
    return Table("What coded the images.", ["Codec", "Implementation"], rows)


def study_implementations(results: Results, study: str, styles: dict[str, VariantStyle]) -> Table:
    """Return which program coded each curve of a study, as the records say."""
    rows = []
    for name, style in styles.items():
        points = results.points(study, name)
        found = merged_settings(t for point in points for t in results.implementations(point))
        if found and style.is_curve:
            rows.append([Cell(style.label, "head", marker=style), text("\n".join(found))])
    caption = (
        "Implementations: what coded the images of each curve, with every setting that changes "
        "bits; \N{LEFT DOUBLE QUOTATION MARK}to\N{RIGHT DOUBLE QUOTATION MARK} joins the lowest "
        "and the highest value along a curve."
    )
    return Table(caption, ["Variant", "Implementation"], rows)


# A setting with a number, as in "qp 37"; longer ones are digests.
_NUMBERED = re.compile(r"(.+) (-?\d{1,6}(?:\.\d+)?)")


def merged_settings(texts: Iterable[str]) -> list[str]:
    """Return implementations' lines, those joined that differ in the numbers of settings only.

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


def cost_table(results: Results, study: str, styles: dict[str, VariantStyle]) -> Table:
    """Return state, CPU time and bitstream checks of every operating point of a study."""
    many_seeds = len(results.plan["run"]["seeds"]) > 1
    columns = [
        "Operating point",
        "Rate setting",
        *(["Seed"] if many_seeds else []),
        "Training",
        "Steps",
        "CPU s, training",
        "CPU s, evaluation",
        "Round trip",
        "Real against estimated bits",
    ]
    rows = []
    for variant, style in styles.items():
        points = results.points(study, variant)
        for place, point in enumerate(points):
            head = [Cell(style.label, "head", len(points), marker=style)] if place == 0 else []
            run = results.runs.get(point["key"], {})
            evaluation = results.evaluations.get(point["key"], {})
            state = run.get("status") or ("not started" if point["trained"] else "none")
            steps = f"{run['steps_done']} of {run['steps']}" if run else "\N{EN DASH}"
            trip, difference = _bit_checks(results, point)
            rows.append(
                [
                    *head,
                    setting(results, point),
                    *([text(point["seed"])] if many_seeds else []),
                    text(state),
                    figure(steps),
                    figure(number(run.get("cpu_seconds"), 1)),
                    figure(number(evaluation.get("cpu_seconds"), 1)),
                    figure(trip),
                    figure(difference),
                ]
            )
    caption = (
        "Cost and checks of every operating point. Round trip: images whose decoded bitstream "
        "differs from the encoder's reconstruction; some programs tell none. Real against "
        "estimated bits: the size of the bitstreams relative to the entropy model's estimate."
    )
    return Table(caption, columns, rows)


def _bit_checks(results: Results, point: Row) -> tuple[str, str]:
    records = results.records_of(point)
    if records is None or point["encoding"] is None:
        return "\N{EN DASH}", "\N{EN DASH}"
    difference = "\N{EN DASH}"
    if records.bits_estimated is not None:
        percent = 100 * (records.bits / records.bits_estimated - 1)
        difference = ("+" if percent > 0 else "") + number(percent, 2) + " %"
    trip = f"{records.wrong} of {records.checked}" if records.checked else "not checked"
    return trip, difference


@dataclass(frozen=True)
class Totals:
    """Sums over a study for its summary sentence."""

    training_cpu: str
    evaluation_cpu: str
    mismatches: int | None
    images_checked: int


def totals(results: Results, study: str) -> Totals:
    """Return the sums over the operating points of a study."""
    keys = [point["key"] for point in results.points(study)]
    # Variants that only train the task share their encodings: each one counts once.
    coded = {p["encoding"]: p for p in results.points(study) if p["encoding"] is not None}
    found = [r for point in coded.values() if (r := results.records_of(point)) is not None]
    return Totals(
        training_cpu=number(_sum(results.runs, keys), 0),
        evaluation_cpu=number(_sum(results.evaluations, keys), 0),
        mismatches=sum(records.wrong for records in found) if found else None,
        images_checked=sum(records.checked for records in found),
    )


def _sum(records: dict[str, Row], keys: list[str]) -> float:
    values = [records[key].get("cpu_seconds") for key in keys if key in records]
    return float(sum(value for value in values if value is not None))
