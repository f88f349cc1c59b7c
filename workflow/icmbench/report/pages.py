"""The report's pages: their content is collected, filled into templates and written."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from icmbench.analyse.agreement import agreement
from icmbench.metrics.catalogue import IMAGE_QUALITY, family_title
from icmbench.report import outputs, provenance, published, tables
from icmbench.report.charts import rate_plot, training_plot
from icmbench.report.claims import VERDICTS, study_claims, verdict_matrix
from icmbench.report.drawing import Plot, by_study, javascript
from icmbench.report.entry import card, differences, what_ran
from icmbench.report.gallery import MIN_SCORE, GalleryMaker, map_colour
from icmbench.report.outputs import FIGURES, FOLDER, IMAGES
from icmbench.report.published import Parts, published_curves
from icmbench.report.results import CONFIDENCE, Results, load_results
from icmbench.report.style import Style, Styles, joint_styles, variant_styles
from icmbench.utils.files import write_text
from icmbench.utils.places import workflow_folder

ASSETS = workflow_folder() / "report"


@dataclass(frozen=True)
class Part:
    """Plots and numbers of variants: of one study, or of several on one data set."""

    id: str  # unique on the page
    title: str
    plots: list[Plot]  # of the leading metrics; ``more_plots`` are those of the others
    more_plots: list[Plot]
    groups: dict[str, list[Style]]  # entries of the legend, by study
    on: list[str]  # labels of the curves that a plot draws at first
    points: tables.Table
    classes: tables.Table | None = None
    transfer: tables.Table | None = None


def build_report(root: Path) -> list[Path]:
    """Write the report of ``results/<scale>`` and return the files written, sorted.

    What is missing is stated on the pages.

    Raises:
        UserError: if ``plan.json`` is missing or a file is damaged.
    """
    results = load_results(root)
    galleries = GalleryMaker(results)
    templates = _templates(results)
    plots: list[Plot] = []
    written = [root / FOLDER / name for name in outputs.SHARED]
    write_text(written[0], javascript() + (ASSETS / "charts.js").read_text(encoding="utf-8"))
    shutil.copyfile(ASSETS / "style.css", written[1])

    def write(template: str, name: str, **content: Any) -> None:
        page = templates.get_template(f"{template}.html.j2").render(address=name, **content)
        write_text(root / FOLDER / name, page)
        written.append(root / FOLDER / name)
        for part in content.get("parts", []):
            plots.extend((*part.plots, *part.more_plots))

    cards = []
    by_name = {name: variant_styles(results.plan, name) for name in results.studies}
    theirs = {name: published.published_part(results, name, own) for name, own in by_name.items()}
    for name, styles in by_name.items():
        losses = training_plot(results, name, styles)
        plots += [losses] if losses.rows else []
        own = _study(results, name, styles, theirs)
        own["galleries"] = galleries.galleries(name, styles)
        write("study", outputs.study_page(name), losses=losses, **own)
        cards.append(card(results, name, styles))
        written.append(root / FIGURES / f"{name}-leading.svg")
    for family, metrics in outputs.task_families(results.plan).items():
        parts = _task_parts(results, family, metrics, theirs)
        title, lines = family_title(family), family != IMAGE_QUALITY
        write("task", outputs.task_page(family), title=title, parts=parts, lines=lines)
    write("methods", outputs.METHODS, environments=provenance.environments(results))
    claims, datasets = verdict_matrix(results), provenance.dataset_table(results)
    record = {"agreement": agreement(root), "differences": differences(results)}
    ran = what_ran(results)
    write("index", outputs.INDEX, cards=cards, ran=ran, claims=claims, datasets=datasets, **record)
    drawn = [path for plot in plots for path in plot.save(root)]
    files = sorted([*written, *drawn, *galleries.files])
    _remove_stale(root, set(files))
    return files


def _remove_stale(root: Path, written: set[Path]) -> None:
    """Remove pages, images and figures of an earlier report that this one does not have."""
    places = {FOLDER: ("html",), IMAGES: ("png",), FIGURES: outputs.FORMATS}
    for folder, suffixes in places.items():
        for path in (root / folder).glob("*"):
            if path.suffix[1:] in suffixes and path not in written:
                path.unlink()


def _templates(results: Results) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ASSETS / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["map_colour"] = map_colour
    families = outputs.task_families(results.plan)
    environment.globals |= {
        "results": results,
        # Addresses of the pages by title, in groups.
        "navigation": {
            "": {"Overview": outputs.INDEX},
            "Studies": {name: outputs.study_page(name) for name in results.studies},
            "Tasks": {family_title(name): outputs.task_page(name) for name in families},
            "More": {"Methods": outputs.METHODS},
        },
        "confidence": CONFIDENCE,
        "min_score": MIN_SCORE,
        "flags": tables.FLAGS,
        "verdicts": VERDICTS,
    }
    return environment


def _study(results: Results, name: str, styles: Styles, theirs: Parts) -> dict[str, Any]:
    """Return the content of a study's page, by its name in the template."""
    study = results.studies[name]
    leading = outputs.leading_metrics(results.plan, name)
    plots: list[tuple[bool, Plot]] = []
    for metric, role in outputs.study_plots(results.plan, name):
        own = {v: s for v, s in styles.items() if role in (None, study.variants[v].dataset)}
        curves = published_curves(results, theirs, metric, role, own)
        plots.append((metric in leading, rate_plot(results, name, metric, role, own, curves)))
    near = theirs[name].near
    plots += [(False, plot) for plot in published.loss_plots(results, name, near, styles)]
    metrics = outputs.study_metrics(results.plan, name)
    return {
        "id": name,
        "study": study,
        "parts": [_part(results, name, study.title, plots, metrics, styles)],
        "claims": study_claims(results, name, styles),
        "bd": tables.bd_table(results, name, styles),
        "complexity": tables.complexity_table(results, name, leading, styles),
        "published": theirs[name],
        "comparable": theirs[name].comparable,
        "settings": provenance.training_tables(results.plan, name, styles),
        "warned": provenance.training_warnings(results, name, styles),
        "weights": provenance.loaded_weights(results, name, styles),
        "cost": provenance.cost_table(results, name, styles),
        "totals": provenance.totals(results, name),
    }


def _task_parts(results: Results, family: str, metrics: list[str], theirs: Parts) -> list[Part]:
    """Return all variants that a family of metrics evaluates, on each data set."""
    page = outputs.task_page(family).removesuffix(".html")
    variants = outputs.family_variants(results.plan, family)
    parts = []
    for role in outputs.family_roles(results.plan, family):
        own = [(study, name) for study, name, variant in variants if variant.dataset == role]
        styles = joint_styles(results.plan, own)
        curves = {m: published_curves(results, theirs, m, role, styles) for m in metrics}
        plots = [rate_plot(results, page, m, role, styles, curves[m]) for m in metrics]
        # MS-SSIM is not defined for small images: then it has no plot.
        first = [plot for plot in plots if plot.rows][: 2 if family == IMAGE_QUALITY else 1]
        title = f"Test images “{role}”: {provenance.dataset_name(results.plan.datasets[role])}"
        leading = [(plot in (first or plots), plot) for plot in plots]
        part = _part(results, f"role-{role}", title, leading, metrics, styles)
        classes = tables.class_table(results, family, styles)
        transfer = tables.transfer_table(results, family, styles)
        parts.append(replace(part, classes=classes, transfer=transfer))
    return parts


def _part(
    results: Results,
    name: str,
    title: str,
    plots: list[tuple[bool, Plot]],
    metrics: list[str],
    styles: Styles,
) -> Part:
    """Return a part; ``plots`` come with whether they lead."""
    series = list({entry.label: entry for _, plot in plots for entry in plot.series}.values())
    on = [label for _, plot in plots for label in plot.on]
    first, more = ([plot for leads, plot in plots if leads is which] for which in (True, False))
    points = tables.points_table(results, metrics, styles)
    return Part(name, title, first, more, by_study(series), on, points)
