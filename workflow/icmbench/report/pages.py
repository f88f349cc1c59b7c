"""The report's pages: their content is collected, filled into templates and written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from icmbench.config.study import Study
from icmbench.metrics.catalogue import PIXEL_METRICS, family_title, find_metric
from icmbench.report.charts import javascript
from icmbench.report.claims import VERDICTS, ClaimPart, glance_table, study_claims, summary
from icmbench.report.drawing import data_uri, map_colour
from icmbench.report.gallery import MIN_SCORE, Gallery, GalleryMaker
from icmbench.report.outputs import (
    CLASSICAL,
    FIGURES,
    FOLDER,
    IMAGES,
    INDEX,
    JOINT_FORMATS,
    METHODS,
    STUDY_FORMATS,
    VISION,
    Entry,
    family_variants,
    leading_metrics,
    roles,
    study_page,
    study_plots,
    task_families,
    task_page,
    vision_variants,
)
from icmbench.report.per_class import class_table
from icmbench.report.plots import Plot, Plotter, distinct_codecs, same_codec
from icmbench.report.provenance import (
    Totals,
    cost_table,
    dataset_name,
    dataset_table,
    environments,
    implementations,
    study_implementations,
    totals,
    training_tables,
)
from icmbench.report.published import (
    PublishedPart,
    comparable,
    published_part,
    published_points,
    published_series,
)
from icmbench.report.results import Results, load_results
from icmbench.report.style import Styles, joint_styles, variant_styles
from icmbench.report.tables import (
    FLAGS,
    BdTable,
    Cell,
    Table,
    bd_table,
    complexity_table,
    figure,
    key_figures,
    text,
)
from icmbench.utils.files import write_text

ASSETS = Path(__file__).parents[2] / "report"


@dataclass(frozen=True)
class Link:
    """A link: its text, the file it leads to and, for a download, the name to save it as."""

    text: str
    address: str
    save_as: str = ""


@dataclass(frozen=True)
class StudyPage:
    """The content of a study's page."""

    name: str
    study: Study
    claims: ClaimPart | None
    key_figures: Table
    plots: list[Plot]
    more_plots: list[Plot]
    curves: list[Link]
    complexity: Table | None
    bd: BdTable | None
    published: PublishedPart
    comparable: bool
    galleries: list[Gallery]
    training: list[Table]
    implementations: Table
    cost: Table
    totals: Totals


@dataclass(frozen=True)
class JointPart:
    """The variants of several studies on one data set.

    Attributes:
        role: of the data set.
        dataset: its name for people.
        variants: table of those that are compared.
        plots: of the leading metrics.
        more_plots: of the others.
        same_codec: labels of variants with the same encodings, of which one curve is drawn.
        curves: as files.
        classes: table of single classes, or None.
    """

    role: str
    dataset: str
    variants: Table
    plots: list[Plot]
    more_plots: list[Plot]
    same_codec: list[str]
    curves: list[Link]
    classes: Table | None = None


@dataclass(frozen=True)
class JointPage:
    """A page across studies: a title and one part per data set."""

    title: str
    studies: list[str]
    parts: list[JointPart]


def write_pages(root: Path) -> list[Path]:
    """Write the report of ``results/<scale>``; see :func:`icmbench.report.build_report`."""
    results = load_results(root)
    galleries, plotter = GalleryMaker(results), Plotter(results)
    templates = _templates(results)
    written: list[Path] = []

    def write(template: str, address: str, **content: object) -> None:
        page = templates.get_template(f"{template}.html.j2").render(address=address, **content)
        write_text(root / FOLDER / address, page)
        written.append(root / FOLDER / address)

    classical: StudyPage | None = None
    for name in results.studies:
        content = _study_page(results, name, galleries, plotter)
        if name == CLASSICAL:
            classical = content  # on the page of human vision
        else:
            write("study", study_page(name), study=content)
    for family, metrics in task_families(results.plan).items():
        joint = _task_page(results, family, metrics, plotter)
        write("task", task_page(family), page=joint)
    write("classical", VISION, page=_vision_page(results, plotter), study=classical)
    write(
        "methods",
        METHODS,
        analysis=results.plan.run.analysis,
        implementations=implementations(results),
        environments=environments(results),
    )
    write(
        "index",
        INDEX,
        studies=_studies_table(results),
        claims=glance_table(results),
        datasets=dataset_table(results),
    )
    files = sorted([*written, *plotter.files, *galleries.files])
    _remove_stale(root, set(files))
    return files


def _remove_stale(root: Path, written: set[Path]) -> None:
    """Remove pages, images and figures of an earlier report that this one does not have."""
    places = {FOLDER: (".html",), IMAGES: (".png",), FIGURES: (".svg", ".pdf", ".png")}
    for folder, suffixes in places.items():
        for path in (root / folder).glob("*"):
            if path.suffix in suffixes and path not in written:
                path.unlink()


# --- templates ------------------------------------------------------------------------------------


def _templates(results: Results) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ASSETS / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "csv_uri": lambda table: data_uri("text/csv;charset=utf-8", table.csv.encode()),
        "file_name": _file_name,
        "map_colour": lambda index: "#{:02x}{:02x}{:02x}".format(*map_colour(index)),
        "without": lambda label, study: label.removeprefix(f"{study}: "),
    }
    environment.globals |= {
        "results": results,
        "navigation": _navigation(results),
        "min_score": MIN_SCORE,
        "flags": FLAGS,
        "verdicts": VERDICTS,
        # Our own files and libraries, which must not be escaped inside their elements.
        "css": Markup((ASSETS / "style.css").read_text(encoding="utf-8")),
        "charts_js": Markup((ASSETS / "charts.js").read_text(encoding="utf-8")),
        "library_js": Markup(javascript().replace("</script", "<\\/script")),
    }
    return environment


def _file_name(words: str) -> str:
    """Return the first words of a caption as a file name."""
    kept = "".join(c.lower() if c.isascii() and c.isalnum() else " " for c in words)
    return "-".join(kept.split()[:8])


def _navigation(results: Results) -> dict[str, list[Link]]:
    studies = [Link(name, study_page(name)) for name in results.studies if name != CLASSICAL]
    tasks = [Link(family_title(name), task_page(name)) for name in task_families(results.plan)]
    more = [Link("Classical codecs and human vision", VISION), Link("Methods", METHODS)]
    groups = {"": [Link("Overview", INDEX)], "Studies": studies, "Tasks": tasks, "More": more}
    return {title: links for title, links in groups.items() if links}


def _curve_files(results: Results, styles: Styles) -> list[Link]:
    """Return the curves of variants in CompressAI's JSON format, as far as they are measured."""
    found = []
    for style in styles.values():
        path = results.root / "curves" / style.study / f"{style.name}.json"
        if path.is_file():
            uri = data_uri("application/json", path.read_bytes())
            name = f"{style.study}-{style.name}.json".replace("/", "-")
            found.append(Link(style.label, uri, name))
    return found


# --- content --------------------------------------------------------------------------------------


def _studies_table(results: Results) -> Table:
    rows = []
    for name, study in results.studies.items():
        reference = study.reference
        points = [point for point in results.points(name) if point.evaluated]
        done = sum(point.key in results.evaluations for point in points)
        claims = results.claims[results.claims["study"] == name]
        rows.append(
            [
                Cell(name, "head", link=study_page(name)),
                text(study.title, f"{reference.authors}, {reference.venue} {reference.year}"),
                figure(str(len({point.variant for point in points}))),
                figure(f"{done} of {len(points)}"),
                text("none" if claims.empty else summary(claims)),
            ]
        )
    columns = ["Study", "Title and paper", "Variants", "Operating points evaluated", "Claims"]
    return Table("The studies of this run.", columns, rows)


def _study_page(
    results: Results, name: str, galleries: GalleryMaker, plotter: Plotter
) -> StudyPage:
    study, styles = results.studies[name], variant_styles(results.plan, name)
    metrics = leading_metrics(results.plan, name)
    leading = [find_metric(metric) for metric in metrics]
    published = published_part(results, name, styles)

    def plot(metric: str, role: str | None) -> Plot:
        own = {v: s for v, s in styles.items() if role in (None, study.variants[v].dataset)}
        theirs = [
            *published_points(results, name, metric, own),
            *published_series(published.drawn, metric, own),
        ]
        formats = STUDY_FORMATS
        return plotter.plot(name, metric, role, own, formats=formats, group=name, published=theirs)

    plots = [(metric, plot(metric, role)) for metric, role in study_plots(results.plan, name)]
    return StudyPage(
        name=name,
        study=study,
        claims=study_claims(results, name, styles),
        key_figures=key_figures(results, name, leading, styles),
        plots=[plot for metric, plot in plots if metric in metrics],
        more_plots=[plot for metric, plot in plots if metric not in metrics],
        curves=_curve_files(results, styles),
        complexity=complexity_table(results, name, leading, styles),
        bd=bd_table(results, name, styles),
        published=published,
        comparable=comparable(results, name, published),
        galleries=galleries.galleries(name, styles),
        training=training_tables(study, styles),
        implementations=study_implementations(results, name, styles),
        cost=cost_table(results, name, styles),
        totals=totals(results, name),
    )


def _task_page(
    results: Results, family: str, metrics: Sequence[str], plotter: Plotter
) -> JointPage:
    """Return all variants that a family of metrics evaluates, on each data set."""
    page = task_page(family).removesuffix(".html")
    variants = family_variants(results.plan, family)
    parts = []
    for role in roles(variants):
        styles = _styles(results, variants, role)
        part = _joint_part(results, plotter, page, role, styles, metrics, metrics[:1])
        parts.append(replace(part, classes=class_table(results, family, styles)))
    return JointPage(family_title(family), _study_names(variants), parts)


def _vision_page(results: Results, plotter: Plotter) -> JointPage:
    """Return the image quality of all variants that decode images, on each data set.

    Of variants with the same encodings one curve is drawn.
    """
    variants = vision_variants(results.plan)
    parts = []
    for role in roles(variants):
        styles = _styles(results, variants, role)
        drawn = distinct_codecs(results, styles) or styles
        # Styles depend on how many studies are drawn.
        drawn = joint_styles(results.plan, [(s.study, s.name) for s in drawn.values()])
        # MS-SSIM is not defined for small images: then it has no plot to lead with.
        leading = ("psnr", "ms_ssim")
        page = "human-vision"
        part = _joint_part(results, plotter, page, role, drawn, PIXEL_METRICS, leading)
        parts.append(replace(part, same_codec=same_codec(results, styles)))
    return JointPage("Classical codecs and human vision", _study_names(variants), parts)


def _styles(results: Results, variants: Iterable[Entry], role: str) -> Styles:
    own = [(study, name) for study, name, variant in variants if variant.dataset == role]
    return joint_styles(results.plan, own)


def _study_names(variants: Iterable[Entry]) -> list[str]:
    return list(dict.fromkeys(study for study, _, _ in variants))


def _joint_part(
    results: Results,
    plotter: Plotter,
    page: str,
    role: str,
    styles: Styles,
    metrics: Sequence[str],
    leading: Sequence[str],
) -> JointPart:
    group, formats = f"{page}-{role}", JOINT_FORMATS
    plots = {
        metric: plotter.plot(page, metric, role, styles, formats=formats, group=group)
        for metric in metrics
    }
    # Stated once for all plots of the part.
    plots = {metric: replace(plot, same_codec=[]) for metric, plot in plots.items()}
    first = [m for m in metrics if m in leading and plots[m].spec] or metrics[:1]
    return JointPart(
        role=role,
        dataset=dataset_name(results.plan.datasets[role]),
        variants=_variant_table(results, styles),
        plots=[plot for metric, plot in plots.items() if metric in first],
        more_plots=[plot for metric, plot in plots.items() if metric not in first],
        same_codec=[],
        curves=_curve_files(results, styles),
    )


def _variant_table(results: Results, styles: Styles) -> Table:
    rows = []
    for style in styles.values():
        variant = results.studies[style.study].variants[style.name]
        rows.append(
            [
                Cell(style.study, "head", link=study_page(style.study)),
                Cell(style.label.removeprefix(f"{style.study}: "), marker=style),
                *(text(words) for words in (variant.codec, variant.task, variant.mode)),
            ]
        )
    columns = ["Study", "Variant", "Codec", "Task network", "Mode"]
    return Table("The variants that are compared here.", columns, rows)
