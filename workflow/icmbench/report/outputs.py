"""Names of the report's files. Snakemake needs them at every start: nothing heavy is imported."""

from __future__ import annotations

from icmbench.config.claims import OrderClaim, claim_variants
from icmbench.config.study import Comparison, Study, Variant
from icmbench.config.summary import PlanSummary
from icmbench.config.validate import task_entry
from icmbench.metrics.catalogue import (
    IMAGE_QUALITY,
    PIXEL_METRICS,
    find_metric,
    is_image_quality,
    quality_metrics,
)
from icmbench.registry import CODECS

FOLDER = "report"
INDEX = "index.html"
METHODS = "methods.html"
SHARED = ("report.js", "report.css")  # of all pages
FIGURES = "report/figures"
IMAGES = "report/images"
FORMATS = ("svg", "pdf", "png", "csv")

#: A plot: its metric, and the role of the data set if the page has several.
PlotOf = tuple[str, str | None]

#: A variant of a study: study, name, content.
Entry = tuple[str, str, Variant]


def expected_outputs(plan: PlanSummary) -> list[str]:
    """Return the report's files of fixed names, relative to ``results/<scale>``."""
    drawn = [f"{FIGURES}/{name}.{suffix}" for name in figures(plan) for suffix in FORMATS]
    leading = [f"{FIGURES}/{study}-leading.svg" for study in plan.run.studies]
    return [*(f"{FOLDER}/{name}" for name in (*pages(plan), *SHARED)), *drawn, *leading]


def pages(plan: PlanSummary) -> list[str]:
    """Return the file names of the report's pages, the entry page first."""
    studies = [study_page(name) for name in plan.run.studies]
    return [INDEX, *studies, *(task_page(family) for family in task_families(plan)), METHODS]


def study_page(study: str) -> str:
    """Return the file name of a study's page; a name that another page has gets a prefix."""
    taken = study in ("index", "methods") or study.startswith("task-")
    return f"study-{study}.html" if taken else f"{study}.html"


def task_page(family: str) -> str:
    """Return the file name of the page of a family of metrics."""
    return f"task-{family}.html"


def figure_name(page: str, metric: str, role: str | None = None) -> str:
    """Return the file name, without suffix, of the plot of rate against ``metric``.

    ``page`` is a study or ``task-<family>``, ``role`` that of the data set if it has several.
    """
    return f"{page}-rate-{metric}" + (f"-{role}" if role else "")


def figures(plan: PlanSummary) -> list[str]:
    """Return the file name without suffix of every figure."""
    found = [
        figure_name(study, metric, role)
        for study in plan.run.studies
        for metric, role in study_plots(plan, study)
    ]
    return found + [
        figure_name(task_page(family).removesuffix(".html"), metric, role)
        for family, metrics in task_families(plan).items()
        for role in family_roles(plan, family)
        for metric in metrics
    ]


def family_roles(plan: PlanSummary, family: str) -> list[str]:
    """Return the data set roles of the variants that a family of metrics evaluates, sorted."""
    return sorted({variant.dataset for _, _, variant in family_variants(plan, family)})


# --- one study ------------------------------------------------------------------------------------


def study_plots(plan: PlanSummary, study: str) -> list[PlotOf]:
    """Return the plots of a study.

    Image quality on different sets of images cannot be compared: each set has a plot. So has what a
    network finds in images that are cropped in different ways.
    """
    return [
        (metric, r) for metric in study_metrics(plan, study) for r in _apart(plan, study, metric)
    ]


def _apart(plan: PlanSummary, study: str, metric: str) -> list[str | None]:
    """Return the roles of a metric that have a plot each; None alone if they share one."""
    if is_image_quality(metric):
        found = list(dict.fromkeys(v.dataset for v in _decoded(plan, study)))
        return [*found] if len(found) > 1 else [None]
    own = [v for of, _, v in _evaluated(plan) if of == study]
    measured = [v for v in own if metric in task_entry(plan.scale, v.task).metrics]
    found = list(dict.fromkeys(v.dataset for v in measured))
    return [*found] if len({plan.datasets[role].center_crop for role in found}) > 1 else [None]


def study_metrics(plan: PlanSummary, study: str) -> list[str]:
    """Return every metric of a study's evaluated variants, leading metrics first."""
    entries = [task_entry(plan.scale, task) for task in _tasks(plan, study)]
    every = [metric for entry in entries for metric in entry.metrics]
    pixels = quality_metrics(plan.run.perceptual) if _decoded(plan, study) else ()
    return list(dict.fromkeys([*leading_metrics(plan, study), *every, *pixels]))


def leading_metrics(plan: PlanSummary, study: str) -> list[str]:
    """Return the first metric of each kind of task of a study, then PSNR if images are decoded.

    A task of several kinds, such as an analysis of faces, leads with one metric of each.
    """
    leading = []
    for task in _tasks(plan, study):
        first = task_entry(plan.scale, task).metrics[:1]
        leading += [*first, *(own[0] for own in families_of(plan, task).values())]
    if _decoded(plan, study):
        leading.append(PIXEL_METRICS[0])
    return list(dict.fromkeys(sorted(leading, key=is_image_quality)))


def leading_comparisons(study: Study) -> tuple[str, list[Comparison]]:
    """Return the variant that a study is about, and its comparisons, those with that variant first.

    It is the variant that most claims put first in an order or, in a tie, have as their subject;
    empty if there are several and no claim.
    """
    subjects = [(claim_variants(c)[0], isinstance(c, OrderClaim)) for c in study.claims.values()]
    compared = [name for comparison in study.comparisons for name in comparison.variants]
    counts = {v: (subjects.count((v, True)), subjects.count((v, False))) for v in compared}
    name = max(counts, key=lambda variant: counts[variant], default="")
    name = name if len(counts) == 1 or any(counts.get(name, ())) else ""
    return name, sorted(study.comparisons, key=lambda comparison: name not in comparison.variants)


# --- across studies -------------------------------------------------------------------------------


def families_of(plan: PlanSummary, task: str) -> dict[str, tuple[str, ...]]:
    """Return a task's metrics by family, without image quality.

    Metrics without a family belong to one named after the task, so that a user's task has a page.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in task_entry(plan.scale, task).metrics:
        if not is_image_quality(name):
            family = find_metric(name).family or task
            found[family] = (*found.get(family, ()), name)
    return found


def task_families(plan: PlanSummary) -> dict[str, list[str]]:
    """Return the families of metrics that evaluate the run's variants, with their metrics.

    Image quality, the last one, is that of every variant that decodes images.
    """
    found: dict[str, list[str]] = {}
    for study in plan.run.studies:
        for task in _tasks(plan, study):
            for family, metrics in families_of(plan, task).items():
                found[family] = list(dict.fromkeys([*found.get(family, []), *metrics]))
    if any(_decoded(plan, study) for study in plan.run.studies):
        found[IMAGE_QUALITY] = quality_metrics(plan.run.perceptual)
    return found


def family_variants(plan: PlanSummary, family: str) -> list[Entry]:
    """Return the variants that a family of metrics evaluates."""
    if family == IMAGE_QUALITY:
        return [entry for entry in _evaluated(plan) if decodes_images(plan, entry[2])]
    return [entry for entry in _evaluated(plan) if family in families_of(plan, entry[2].task)]


def decodes_images(plan: PlanSummary, variant: Variant) -> bool:
    """Return whether a variant's bitstreams are decoded to images, which have a quality."""
    reads = task_entry(plan.scale, variant.task).input_kind
    return CODECS[variant.codec].kind != "none" and reads == "images"


def _evaluated(plan: PlanSummary) -> list[Entry]:
    return [
        (study, name, variant)
        for study in plan.run.studies  # the others only serve their weights
        for name, variant in plan.studies[study].variants.items()
        if variant.evaluate
    ]


def _tasks(plan: PlanSummary, study: str) -> list[str]:
    return list(dict.fromkeys(v.task for of, _, v in _evaluated(plan) if of == study))


def _decoded(plan: PlanSummary, study: str) -> list[Variant]:
    return [v for of, _, v in _evaluated(plan) if of == study and decodes_images(plan, v)]
