"""Puts the report together: reads the results, draws, fills the pages, writes the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from icmbench.registry import CODECS
from icmbench.report.claims import ClaimRows, glance_table, load_claims, study_claims, summary
from icmbench.report.complexity import complexity_table
from icmbench.report.downloads import TableFiles, curve_downloads
from icmbench.report.gallery import MIN_SCORE, GalleryMaker
from icmbench.report.joint import JointPage, task_parts, vision_parts
from icmbench.report.outputs import (
    CLASSICAL,
    FIGURES,
    FOLDER,
    IMAGES,
    INDEX,
    METHODS,
    STUDY_FORMATS,
    TABLES,
    VISION,
    figure_name,
    leading_metrics,
    study_page,
    study_plots,
    task_families,
    task_page,
)
from icmbench.report.page import FrontPage, Link, MethodsPage, Renderer, Site, StudyPage
from icmbench.report.plots import Plot, Plotter
from icmbench.report.provenance import (
    cost_table,
    dataset_table,
    environments,
    implementations,
    study_implementations,
    totals,
)
from icmbench.report.published import comparable, published_groups, published_points
from icmbench.report.published_curves import published_part, published_series
from icmbench.report.results import Results, Row, load_results
from icmbench.report.selection import Rest, Selection, select
from icmbench.report.style import VariantStyle, metric_style, variant_styles
from icmbench.report.tables import Cell, Table, bd_table, figure, key_figures, text
from icmbench.report.training import training_tables
from icmbench.utils.files import write_text


def assemble(root: Path) -> list[Path]:
    """Write the report of ``results/<scale>``; see :func:`icmbench.report.build.build_report`."""
    results = load_results(root)
    claims = load_claims(results)
    images, plotter, tables = GalleryMaker(results), Plotter(results), TableFiles(root)
    renderer = Renderer(_site(results, claims))
    written: list[Path] = []

    def write(template: str, address: str, **content: object) -> None:
        path = root / FOLDER / address
        write_text(path, renderer.render(template, address, **content))
        written.append(path)

    classical: StudyPage | None = None
    for name in results.plan["run"]["studies"]:
        page = _study_page(results, name, claims, images, plotter, tables)
        if name == CLASSICAL:
            classical = page  # on the page of human vision
        else:
            write("study", study_page(name), study=page)
    for family in task_families(results.plan):
        write("task", task_page(family), page=task_parts(results, family, plotter, tables))
    vision: JointPage = vision_parts(results, plotter, tables)
    write("classical", VISION, page=vision, study=classical)
    write("methods", METHODS, page=_methods(results))
    write("index", INDEX, page=_front(results, claims))
    files = sorted([*written, *plotter.files, *images.files, *tables.files])
    _remove_stale(root, set(files))
    return files


def _site(results: Results, claims: ClaimRows) -> Site:
    plan = results.plan
    studies = [Link(name, study_page(name)) for name in plan["run"]["studies"] if name != CLASSICAL]
    tasks = [Link(family.title, task_page(family)) for family in task_families(plan)]
    others = [Link("Classical codecs and human vision", VISION), Link("Methods", METHODS)]
    navigation = {
        "": [Link("Overview", INDEX)],
        "Studies": studies,
        "Tasks": tasks,
        "More": others,
    }
    return Site(
        scale=plan["scale"],
        navigation={title: links for title, links in navigation.items() if links},
        missing=[*results.missing, *claims.missing],
        left_out=results.left_out,
        confidence=results.confidence,
        date=results.date,
        seeds=plan["run"]["seeds"],
        min_score=MIN_SCORE,
    )


def _front(results: Results, claims: ClaimRows) -> FrontPage:
    return FrontPage(
        studies=_studies_table(results, claims),
        claims=glance_table(claims, results),
        verdicts=summary(claims.claims),
        datasets=dataset_table(results),
    )


def _studies_table(results: Results, claims: ClaimRows) -> Table:
    rows = []
    for name in results.plan["run"]["studies"]:
        study = results.plan["studies"][name]
        reference = study["reference"]
        paper = f"{reference['authors']}, {reference['venue']} {reference['year']}"
        points = [point for point in results.points(name) if point["evaluated"]]
        done = sum(point["key"] in results.evaluations for point in points)
        own = [row for row in claims.claims if row["study"] == name]
        rows.append(
            [
                Cell(name, "head", link=study_page(name)),
                text(study["title"], paper),
                figure(str(len({point["variant"] for point in points}))),
                figure(f"{done} of {len(points)}"),
                text(summary(own) if own else "none"),
            ]
        )
    columns = ["Study", "Title and paper", "Variants", "Operating points evaluated", "Claims"]
    return Table("What was compared.", columns, rows)


def _methods(results: Results) -> MethodsPage:
    analysis = results.plan["run"]["analysis"]
    return MethodsPage(
        bd_method=analysis["bd_method"],
        resamples=analysis["resamples"],
        implementations=implementations(results),
        environments=environments(results),
    )


def _study_page(
    results: Results,
    name: str,
    claims: ClaimRows,
    images: GalleryMaker,
    plotter: Plotter,
    tables: TableFiles,
) -> StudyPage:
    study = results.plan["studies"][name]
    styles = variant_styles(results.plan, name)
    selection = select(results, styles)
    shown = selection.styles
    measured = selection.rest("tables/curves.csv")
    leading = leading_metrics(results.plan, name)
    measures = [metric_style(metric) for metric in leading]
    curves = published_part(results, name, styles)
    # Without networks, the data set alone makes the published set-up.
    classical = all(CODECS[v["codec"]].kind == "classical" for v in study["variants"].values())
    plots = [
        (metric, _plot(results, name, metric, role, shown, plotter, measured))
        for metric, role in study_plots(results.plan, name)
    ]
    bd = bd_table(results, name, shown)
    if bd:
        bd = replace(bd, table=replace(bd.table, rest=selection.rest("tables/bd.csv")))

    complexity = complexity_table(results, name, measures, shown)
    whole = complexity_table(results, name, measures, styles) if selection.partial else None
    if complexity and whole:
        complexity = tables.part(f"{name}-complexity", complexity, whole, selection)

    def part(kind: str, make: Callable[[dict[str, VariantStyle]], Table]) -> Table:
        table = make(shown)
        if not selection.partial:
            return table
        return tables.part(f"{name}-{kind}", table, make(styles), selection)

    return StudyPage(
        name=name,
        study=study,
        selection=selection,
        claims=study_claims(claims, results, name, styles),
        key_figures=replace(key_figures(results, name, measures, shown), rest=measured),
        plots=[plot for metric, plot in plots if metric in leading],
        more_plots=[plot for metric, plot in plots if metric not in leading],
        curves=curve_downloads(results, shown.values()),
        complexity=complexity,
        bd=bd,
        published=published_groups(results, name, styles),
        published_curves=curves,
        comparable=comparable(results) or (classical and bool(curves.tables)),
        galleries=images.galleries(name, styles),
        training=_training(study, styles, selection, name, tables),
        implementations=part("implementations", partial(study_implementations, results, name)),
        cost=part("cost", partial(cost_table, results, name)),
        totals=totals(results, name),
    )


def _training(
    study: Row,
    styles: dict[str, VariantStyle],
    selection: Selection,
    name: str,
    tables: TableFiles,
) -> list[Table]:
    if not selection.partial:
        return training_tables(study, styles)
    whole = {table.caption: table for table in training_tables(study, styles)}
    made = []
    for table in training_tables(study, styles, selection.styles):
        kind = table.caption.partition(":")[0].lower().replace(" ", "-")
        full = whole[table.caption]
        same = len(full.rows) == len(table.rows)
        made.append(table if same else tables.part(f"{name}-{kind}", table, full, selection))
    return made


def _plot(
    results: Results,
    study: str,
    metric: str,
    role: str | None,
    styles: dict[str, VariantStyle],
    plotter: Plotter,
    rest: Rest | None,
) -> Plot:
    if role is not None:
        variants = results.plan["studies"][study]["variants"]
        styles = {name: s for name, s in styles.items() if variants[name]["dataset"] == role}
    return plotter.plot(
        figure_name(study, metric, role),
        metric_style(metric),
        styles,
        formats=STUDY_FORMATS,
        group=study,
        words=role or "",
        # Published numbers hold for the published set-up; elsewhere they stand in a table only.
        published=published_points(results, study, metric) if comparable(results) else [],
        curves=published_series(results, study, metric, styles),
        rest=rest,
    )


def _remove_stale(root: Path, written: set[Path]) -> None:
    """Remove pages, images, figures and tables of an earlier report that this one has not."""
    places = {
        FOLDER: (".html",),
        IMAGES: (".png",),
        FIGURES: (".svg", ".pdf", ".png"),
        TABLES: (".csv",),
    }
    for folder, suffixes in places.items():
        for path in (root / folder).glob("*"):
            if path.suffix in suffixes and path not in written:
                path.unlink()
