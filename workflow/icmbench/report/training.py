"""How the networks were trained, with who chose each number."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from icmbench.report.results import Row
from icmbench.report.style import VariantStyle, plain
from icmbench.report.tables import Cell, Table, text

# Words for the origins of icmbench.utils.models; the template marks each with its own badge.
ORIGINS = {"published": "published", "figure": "read from a figure", "ours": "ours"}


def training_tables(
    study: Row, styles: dict[str, VariantStyle], shown: Collection[str] | None = None
) -> list[Table]:
    """Return the tables of rate settings, schedules and trainings of a study.

    Args:
        study: of the plan.
        styles: of all its variants.
        shown: the variants that are listed, with the rate settings that they name; None lists all.
    """
    ladders = list(study["ladders"])
    if shown is not None:
        named = {study["variants"][name]["ladder"] for name in shown}
        ladders = [name for name in ladders if name in named]
    listed = styles if shown is None else shown
    tables = [_ladders(study, ladders), _schedules(study), _trainings(study, styles, listed)]
    return [table for table in tables if table.rows]


def _ladders(study: Row, names: Collection[str]) -> Table:
    rows = [
        [
            Cell(name, "head"),
            text(ladder["parameter"]),
            text(", ".join(plain(value) for value in ladder["values"])),
            _origin(ladder),
            text(ladder["note"]),
        ]
        for name, ladder in study["ladders"].items()
        if name in names
    ]
    columns = ["Rate settings", "Parameter", "Values, lowest rate first", "Origin", "Note"]
    return Table("Rate settings: one operating point per value.", columns, rows)


def _length(schedule: Row) -> str:
    devices = schedule.get("devices", 1)
    shared = f" on {devices} devices" if devices > 1 else ""
    return f"{schedule['steps']} steps of {schedule['batch_size']} images{shared}"


def _schedules(study: Row) -> Table:
    rows = []
    for name, schedule in study["schedules"].items():
        rows.append(
            [
                Cell(name, "head"),
                text(_length(schedule)),
                text("\n".join(_optimiser(g, o) for g, o in schedule["optimisers"].items())),
                text(_course(schedule)),
                text(_images(schedule)),
                _origin(schedule),
                text(schedule["note"]),
            ]
        )
    columns = ["Schedule", "Length", "Optimisers", "Learning rate", "Images", "Origin", "Note"]
    return Table("Schedules: how long and how fast.", columns, rows)


def _optimiser(group: str, optimiser: Row) -> str:
    words = f"{group}: {optimiser['name']}, lr {plain(optimiser['lr'])}"
    words += f", momentum {plain(optimiser['momentum'])}"
    if optimiser["weight_decay"]:
        words += f", weight decay {plain(optimiser['weight_decay'])}"
    return words


def _course(schedule: Row) -> str:
    words = str(schedule["decay"])
    if schedule["warmup"]:
        words += f", {schedule['warmup']} steps of warm-up"
    if schedule["clip_norm"] is not None:
        words += f", gradient norm at most {plain(schedule['clip_norm'])}"
    return words


def _images(schedule: Row) -> str:
    words = f"crops of {schedule['crop']}" if schedule["crop"] else "whole images"
    if schedule["crop_area"]:
        smallest, largest = (f"{100 * share:g}" for share in schedule["crop_area"])
        words += f", resized from {smallest} to {largest} % of the area"
    return words + (", mirrored at random" if schedule["flip"] else "")


def _trainings(study: Row, styles: dict[str, VariantStyle], names: Collection[str]) -> Table:
    rows = []
    for name in names:
        variant = study["variants"][name]
        training = variant["train"]
        if training is None:
            continue
        schedule = training["schedule"]
        if training["chain"]:
            chain = training["chain"]
            schedule += f"; then {chain['schedule']} from rate to rate, {chain['order']}"
        rows.append(
            [
                Cell(styles[name].label, "head", marker=styles[name]),
                text(", ".join(training["parts"])),
                text(" + ".join(_term(term, weight) for term, weight in training["loss"].items())),
                text(_starts(variant, styles)),
                text(schedule),
                _origin(training),
                text(" ".join(filter(None, (training["note"], variant["note"])))),
            ]
        )
    columns = ["Variant", "Trained", "Loss", "Starts from", "Schedule", "Origin", "Note"]
    return Table("Trainings: what changes, towards what; all else stays frozen.", columns, rows)


def _term(term: str, weight: float | str | Row) -> str:
    if isinstance(weight, Mapping):
        target = str(weight["target"]).removeprefix("$")
        target = f"the ladder's {target}" if str(weight["target"]).startswith("$") else target
        start, gain = plain(weight["start"]), plain(weight["gain"])
        return f"{term} steered to {target} (weight {start} at first, gain {gain})"
    if isinstance(weight, str):
        return f"{weight.removeprefix('$')} \N{MULTIPLICATION SIGN} {term}"
    return term if weight == 1 else f"{plain(weight)} \N{MULTIPLICATION SIGN} {term}"


def _starts(variant: Row, styles: dict[str, VariantStyle]) -> str:
    sources = {"codec": variant["codec_from"], "task": variant["task_from"]}
    words = [f"{part}: {_source(s, styles)}" for part, s in sources.items() if s is not None]
    return "\n".join(words)


def _source(source: Any, styles: dict[str, VariantStyle]) -> str:
    if isinstance(source, str):
        return source
    name = source["variant"]
    name = f"{source['study']}/{name}" if source["study"] else styles[name].label
    part = f", its {source['of']}" if source["of"] else ""
    rate = "" if source["rate"] == "same" else f", rate index {source['rate']}"
    return f"{name}{part}{rate}"


def _origin(entry: Row) -> Cell:
    return Cell(ORIGINS[entry["origin"]], "origin")
