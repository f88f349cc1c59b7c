"""Pages across studies: one per kind of task, and one of human vision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from icmbench.registry import PIXEL_METRICS
from icmbench.report.downloads import Download, TableFiles, curve_downloads
from icmbench.report.families import Family
from icmbench.report.outputs import (
    JOINT_FORMATS,
    family_roles,
    family_variants,
    figure_name,
    study_page,
    task_page,
    vision_roles,
    vision_variants,
)
from icmbench.report.plots import Plot, Plotter, distinct_codecs, same_codec
from icmbench.report.provenance import dataset_name
from icmbench.report.results import Results
from icmbench.report.selection import Selection, select
from icmbench.report.style import VariantStyle, joint_styles, metric_style
from icmbench.report.tables import Cell, Table, text

_Variants = list[tuple[str, str, dict[str, Any]]]
# Of image quality; a metric that no image has, as MS-SSIM of small ones, leads nowhere.
_LEADING = ("psnr", "ms_ssim")


@dataclass(frozen=True)
class JointPart:
    """What is shown on one data set.

    Attributes:
        role: of the data set.
        dataset: its name for people.
        selection: of the variants, which of them are shown.
        variants: who is compared.
        plots: of the leading metric.
        more_plots: of the others.
        same_codec: labels of variants with the same encodings, of which one curve is drawn.
        curves: as files.
    """

    role: str
    dataset: str
    selection: Selection
    variants: Table
    plots: list[Plot]
    more_plots: list[Plot]
    same_codec: list[str]
    curves: list[Download]


@dataclass(frozen=True)
class JointPage:
    """A page across studies: a title and one part per data set."""

    title: str
    studies: list[str]
    parts: list[JointPart]


def task_parts(results: Results, family: Family, plotter: Plotter, tables: TableFiles) -> JointPage:
    """Return all variants that are judged by one kind of task, on each data set."""
    page = task_page(family).removesuffix(".html")
    variants = family_variants(results.plan, family)
    parts = [
        _part(results, plotter, tables, page, role, _on(variants, role), family.metrics)
        for role in family_roles(results.plan, family)
    ]
    return JointPage(family.title, _studies(variants), parts)


def vision_parts(results: Results, plotter: Plotter, tables: TableFiles) -> JointPage:
    """Return the image quality of all variants that decode images, on each data set.

    Of variants with the same encodings one curve is drawn.
    """
    variants = vision_variants(results.plan)
    parts = []
    for role in vision_roles(results.plan):
        mine = _on(variants, role)
        styles = joint_styles(results.plan, [(study, name) for study, name, _ in mine])
        kept = {
            (style.study, style.name) for style in distinct_codecs(results, styles).values()
        } or {(study, name) for study, name, _ in mine}
        shown = [entry for entry in mine if entry[:2] in kept]
        part = _part(results, plotter, tables, "human-vision", role, shown, PIXEL_METRICS, _LEADING)
        drawn = part.selection.styles if part.selection.partial else styles
        parts.append(replace(part, same_codec=same_codec(results, styles, drawn)))
    return JointPage("Classical codecs and human vision", _studies(variants), parts)


def _on(variants: _Variants, role: str) -> _Variants:
    return [entry for entry in variants if entry[2]["dataset"] == role]


def _studies(variants: _Variants) -> list[str]:
    return list(dict.fromkeys(study for study, _, _ in variants))


def _part(
    results: Results,
    plotter: Plotter,
    tables: TableFiles,
    page: str,
    role: str,
    variants: _Variants,
    metrics: Sequence[str],
    leading: Sequence[str] = (),
) -> JointPart:
    styles = joint_styles(results.plan, [(study, name) for study, name, _ in variants])
    selection = select(results, styles)
    listed = _variant_table(results, selection.styles)
    if selection.partial:
        whole = _variant_table(results, styles)
        listed = tables.part(f"{page}-{role}-variants", listed, whole, selection)
    plots = [
        plotter.plot(
            figure_name(page, metric, role),
            metric_style(metric),
            selection.styles,
            formats=JOINT_FORMATS,
            group=f"{page}-{role}",
            words=role,
            rest=selection.rest("tables/curves.csv"),
        )
        for metric in metrics
    ]
    # Said once for all plots of the part.
    plots = [replace(plot, same_codec=[]) for plot in plots]
    drawn = [figure_name(page, metric, role) for metric in leading or metrics[:1]]
    first = {plot.name for plot in plots if plot.name in drawn and plot.spec} or {plots[0].name}
    return JointPart(
        role=role,
        dataset=dataset_name(results.plan["datasets"][role]),
        selection=selection,
        variants=listed,
        plots=[plot for plot in plots if plot.name in first],
        more_plots=[plot for plot in plots if plot.name not in first],
        same_codec=[],
        curves=curve_downloads(results, selection.styles.values()),
    )


def _variant_table(results: Results, styles: dict[str, VariantStyle]) -> Table:
    rows: list[list[Cell]] = []
    for study in dict.fromkeys(style.study for style in styles.values()):
        mine = [style for style in styles.values() if style.study == study]
        variants = results.plan["studies"][study]["variants"]
        for place, style in enumerate(mine):
            head = [Cell(study, "head", len(mine), link=study_page(study))] if place == 0 else []
            variant = variants[style.name]
            label = style.label.removeprefix(f"{study}: ")
            rows.append(
                [
                    *head,
                    Cell(label, marker=style),
                    text(variant["codec"]),
                    text(variant["task"]),
                    text(variant["mode"]),
                ]
            )
    columns = ["Study", "Variant", "Codec", "Task network", "Mode"]
    return Table("What is compared here.", columns, rows)
