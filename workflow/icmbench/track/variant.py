"""From a variant's points and tables to its run: whole curves and BD metrics."""

from __future__ import annotations

from typing import Any

from icmbench.track.content import Content, text_tags
from icmbench.track.study import overall_status, progress
from icmbench.track.tables import Tables, bd_values


def variant_content(
    plan: dict[str, Any],
    study: str,
    variant: str,
    tables: Tables,
    points: list[Content],
    complete: bool,
) -> Content:
    """Return the run of a variant, parent of its operating points: its curve and its BD metrics.

    MLflow's steps are whole numbers, so the step of ``curve/box_map_vs_millibpp`` is the rate
    in thousandths of a bit per pixel. Original pixels have no rate to compare: their value is drawn
    as a level line over the range of the other curves.

    Args:
        plan: content of ``plan.json``.
        study: name of the study.
        variant: name of the variant.
        tables: the result tables.
        points: the runs of its operating points, at least one.
        complete: whether every planned point is there.
    """
    about = plan["studies"][study]["variants"][variant]
    values: dict[str, float] = {}
    tags: dict[str, Any] = {}
    for row, suffix in tables.bd_rows(study):
        if row["variant"] == variant:
            values |= bd_values(row, suffix)
            for item in ("anchor", "method", "overlap", "flags"):
                tags[f"bd.{row['metric']}{suffix}.{item}"] = row.get(item)
    settings = {k: about[k] for k in ("codec", "task", "mode", "dataset")}
    ends = [point.ended or point.time for point in points]
    return Content(
        # Its name from when it held the curve alone; keys must not change.
        key=f"{study}/{variant}/curve",
        name=_variant_name(plan, study, variant),
        status=overall_status([point.status for point in points], complete),
        started=min(point.started for point in points),
        ended=max(ends) if complete else None,
        time=tables.time,
        parameters=text_tags({"study": study, "variant": variant, **settings}),
        tags=text_tags(
            {
                "kind": "variant",
                "study": study,
                "variant": variant,
                "label": about.get("label"),
                "scale": plan["scale"]["name"],
                "points": progress(plan, study, points, variant),
                **settings,
                **{k: v for k, v in tags.items() if v == v and v != ""},  # nan: an empty cell
            }
        ),
        values=values,
        series=_series(plan, study, variant, tables),
    )


def _variant_name(plan: dict[str, Any], study: str, variant: str) -> str:
    """Return its label, with its name where two variants of the study share it."""
    labels = [about.get("label") for about in plan["studies"][study]["variants"].values()]
    label = plan["studies"][study]["variants"][variant].get("label")
    if not label:
        return variant
    return str(label) if labels.count(label) == 1 else f"{label} ({variant})"


def _series(
    plan: dict[str, Any], study: str, variant: str, tables: Tables
) -> dict[str, list[tuple[int, float]]]:
    rated = {p["variant"]: p["encoding"] is not None for p in plan["points"]}
    level: list[int] = []
    if not rated.get(variant):
        curves = [tables.curve(study, name) for name, has in rated.items() if has]
        steps = [_step(b) for curve in curves for pairs in curve.values() for b, _ in pairs]
        level = sorted({min(steps), max(steps)}) if steps else []
    return {
        f"curve/{metric}_vs_millibpp": [(step, pairs[0][1]) for step in level]
        or [(_step(bpp), value) for bpp, value in pairs]
        for metric, pairs in tables.curve(study, variant).items()
    }


def _step(bpp: float) -> int:
    return round(bpp * 1000)
