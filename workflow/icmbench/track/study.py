"""From the tables of a study to its own run and one run for each curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icmbench.report.outputs import study_page
from icmbench.track.content import Content, Status, text_tags
from icmbench.track.tables import BD_SECTIONS, Tables, bd_values

#: The report page is attached up to this size.
MAX_REPORT_BYTES = 10_000_000


def study_content(
    root: Path,
    plan: dict[str, Any],
    study: str,
    tables: Tables,
    points: list[Content],
    complete: bool,
) -> Content:
    """Return the parent run of a study.

    Args:
        root: ``results/<scale>``.
        plan: content of ``plan.json``.
        study: its name.
        tables: the result tables.
        points: the runs of its operating points, at least one.
        complete: whether every planned point is there.
    """
    about = plan["studies"][study]
    reference = about.get("reference") or {}
    values: dict[str, float] = {}
    for row, suffix in tables.bd_rows(study):
        # A slash would open a section of its own in MLflow's charts for every variant.
        name = f".{row['variant']}{suffix}".replace("/", ".")
        values |= {k: v for k, v in bd_values(row, name).items() if k.startswith(BD_SECTIONS)}
    ends = [point.ended or point.time for point in points]
    return Content(
        key=study,
        name=f"study: {study}",
        status=_status([point.status for point in points], complete),
        started=min(point.started for point in points),
        ended=max(ends) if complete else None,
        time=tables.time,
        tags=text_tags(
            {
                "kind": "study",
                "study": study,
                "scale": plan["scale"]["name"],
                "points": f"{len(points)}/{sum(p['study'] == study for p in plan['points'])}",
                "title": about.get("title"),
                "reference.authors": reference.get("authors"),
                "reference.venue": reference.get("venue"),
                "reference.year": reference.get("year"),
                "reference.address": reference.get("address"),
                "mlflow.note.content": _note(about),
            }
        ),
        values=values,
        artefacts=_artefacts(root, study, tables),
    )


def curve_contents(plan: dict[str, Any], study: str, tables: Tables) -> list[Content]:
    """Return a run for each curve: metrics over the rate, and BD against its anchor.

    MLflow's steps are whole numbers, so the step of ``curve/box_map_vs_millibpp`` is the rate
    in thousandths of a bit per pixel. Original pixels have no rate to compare: their value is drawn
    as a level line over the range of the other curves.
    """
    variants = plan["studies"][study]["variants"]
    rated = {p["variant"]: p["encoding"] is not None for p in plan["points"]}
    curves = {name: tables.curve(study, name) for name in variants}
    steps = [
        _step(bpp)
        for name, of_variant in curves.items()
        for pairs in of_variant.values()
        for bpp, _ in pairs
        if rated.get(name)
    ]
    contents = []
    for name, of_variant in curves.items():
        if not of_variant:
            continue
        level = [] if rated.get(name) or not steps else sorted({min(steps), max(steps)})
        series = {
            f"curve/{metric}_vs_millibpp": [(step, pairs[0][1]) for step in level]
            or [(_step(bpp), value) for bpp, value in pairs]
            for metric, pairs in of_variant.items()
        }
        contents.append(_curve(plan, study, name, tables, series))
    return contents


def _step(bpp: float) -> int:
    return round(bpp * 1000)


def _curve(
    plan: dict[str, Any],
    study: str,
    name: str,
    tables: Tables,
    series: dict[str, list[tuple[int, float]]],
) -> Content:
    variant = plan["studies"][study]["variants"][name]
    values: dict[str, float] = {}
    tags: dict[str, Any] = {}
    for row, suffix in tables.bd_rows(study):
        if row["variant"] == name:
            values |= bd_values(row, suffix)
            for item in ("anchor", "method", "overlap", "flags"):
                tags[f"bd.{row['metric']}{suffix}.{item}"] = row.get(item)
    settings = {k: variant[k] for k in ("codec", "task", "mode", "dataset")}
    return Content(
        key=f"{study}/{name}/curve",
        name=f"curve: {name}",
        status="FINISHED",
        started=tables.time,
        ended=tables.time,
        time=tables.time,
        parameters=text_tags({"study": study, "variant": name, **settings}),
        tags=text_tags(
            {
                "kind": "curve",
                "study": study,
                "variant": name,
                "label": variant.get("label"),
                "scale": plan["scale"]["name"],
                **settings,
                **{k: v for k, v in tags.items() if v == v and v != ""},  # nan: an empty cell
            }
        ),
        values=values,
        series=series,
    )


def _status(of_points: list[Status], complete: bool) -> Status:
    if complete:
        return "FINISHED"
    for status in ("RUNNING", "FAILED", "KILLED"):
        if status in of_points:
            return status
    return "SCHEDULED"  # points are still to come and none is at work


def _note(about: dict[str, Any]) -> str:
    return (
        f"**{about.get('title', '')}**\n\n{about.get('summary', '')}\n\n"
        "Child runs are the operating points (metrics `bpp`, `box_map`, `psnr`, ...); runs named "
        "`curve: ...` hold whole curves, with the rate in thousandths of a bit per pixel as step."
    )


def _artefacts(root: Path, study: str, tables: Tables) -> tuple[Path, ...]:
    found = [root / "report" / name for name in ("index.html", study_page(study))]
    pages = [p for p in found if p.is_file() and p.stat().st_size < MAX_REPORT_BYTES]
    figures = sorted((root / "report" / "figures").glob(f"{study}-*.png"))
    return (root / "plan.json", tables.curves_path, tables.bd_path, *pages, *figures)
