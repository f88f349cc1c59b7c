"""From a study's points and tables to its own run."""

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
    """Return the run of a study as a whole.

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
        status=overall_status([point.status for point in points], complete),
        started=min(point.started for point in points),
        ended=max(ends) if complete else None,
        time=tables.time,
        tags=text_tags(
            {
                "kind": "study",
                "study": study,
                "scale": plan["scale"]["name"],
                "points": progress(plan, study, points),
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


def progress(
    plan: dict[str, Any], study: str, points: list[Content], variant: str | None = None
) -> str:
    """Return how many of a study's, or of a variant's, planned points are there: ``3/8``."""
    planned = sum(p["study"] == study and variant in (None, p["variant"]) for p in plan["points"])
    return f"{len(points)}/{planned}"


def overall_status(of_points: list[Status], complete: bool) -> Status:
    """Return the status of a run that stands for several points."""
    if complete:
        return "FINISHED"
    for status in ("RUNNING", "FAILED", "KILLED"):
        if status in of_points:
            return status
    return "SCHEDULED"  # points are still to come and none is at work


def _note(about: dict[str, Any]) -> str:
    return (
        f"**{about.get('title', '')}**\n\n{about.get('summary', '')}\n\n"
        "Each variant is a run: its whole curves, with the rate in thousandths of a bit per pixel "
        "as step, and its BD metrics. Its child runs are the operating points (`bpp`, `box_map`, "
        "`psnr`, ...)."
    )


def _artefacts(root: Path, study: str, tables: Tables) -> tuple[Path, ...]:
    found = [root / "report" / name for name in ("index.html", study_page(study))]
    pages = [p for p in found if p.is_file() and p.stat().st_size < MAX_REPORT_BYTES]
    figures = sorted((root / "report" / "figures").glob(f"{study}-*.png"))
    return (root / "plan.json", tables.curves_path, tables.bd_path, *pages, *figures)
