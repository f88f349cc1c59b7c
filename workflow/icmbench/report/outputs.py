"""Names of the report's files, without any import that costs time: Snakefiles call this."""

from __future__ import annotations

from typing import Any

from icmbench.plugins import load_modules
from icmbench.registry import CODECS, PIXEL_METRICS, TASKS
from icmbench.report.families import Family, families_of

FOLDER = "report"
INDEX = "index.html"
VISION = "classical.html"
METHODS = "methods.html"
FIGURES = "report/figures"
IMAGES = "report/images"
TABLES = "report/tables"  # the whole of tables that a page shows in part
STUDY_FORMATS = ("svg", "pdf", "png")  # MLflow shows the last
JOINT_FORMATS = ("svg", "pdf")

#: The study that has its place on the page of human vision.
CLASSICAL = "classical"

# Where a curve stands: a metric, and the role of the data set where it decides.
Place = tuple[str, str | None]


def expected_outputs(plan: dict[str, Any]) -> list[str]:
    """Return the report's files of fixed names, relative to ``results/<scale>``.

    Args:
        plan: content of ``plan.json``, which is ``Plan.summary()``.
    """
    return [*(f"{FOLDER}/{page}" for page in pages(plan)), *_figures(plan)]


def pages(plan: dict[str, Any]) -> list[str]:
    """Return the file names of the report's pages, the entry first."""
    studies = [study_page(name) for name in plan["run"]["studies"]]
    tasks = [task_page(family) for family in task_families(plan)]
    return list(dict.fromkeys([INDEX, *studies, *tasks, VISION, METHODS]))


def study_page(study: str) -> str:
    """Return the file name of a study's page; a name that another page has gets a prefix."""
    taken = study in ("index", "methods") or study.startswith("task-")
    return f"study-{study}.html" if taken else f"{study}.html"


def task_page(family: Family) -> str:
    """Return the file name of the page of a kind of task."""
    return f"task-{family.name}.html"


def figure_name(page: str, metric: str, role: str | None = None) -> str:
    """Return the file name, without suffix, of the plot of rate against ``metric``.

    Args:
        page: name of the study, ``task-<family>`` or ``human-vision``.
        metric: of the vertical axis.
        role: of the data set, where a page has several.
    """
    return f"{page}-rate-{metric}" + (f"-{role}" if role else "")


def _figures(plan: dict[str, Any]) -> list[str]:
    names: list[tuple[str, tuple[str, ...]]] = [
        (figure_name(study, *place), STUDY_FORMATS)
        for study in plan["run"]["studies"]
        for place in study_plots(plan, study)
    ]
    for family in task_families(plan):
        page = task_page(family).removesuffix(".html")
        names += [
            (figure_name(page, metric, role), JOINT_FORMATS)
            for role in family_roles(plan, family)
            for metric in family.metrics
        ]
    for role in vision_roles(plan):
        names += [(figure_name("human-vision", m, role), JOINT_FORMATS) for m in PIXEL_METRICS]
    return [f"{FIGURES}/{name}.{suffix}" for name, formats in names for suffix in formats]


# --- one study ----------------------------------------------------------------------------------


def study_plots(plan: dict[str, Any], study: str) -> list[Place]:
    """Return the plots of ``study``: metric, and the data set's role where it decides.

    RgbImage quality on one set of images says nothing beside that on another: each has a plot.
    """
    shown = [variant for variant in _evaluated(plan, study) if _has_images(variant)]
    roles: list[str | None] = list(dict.fromkeys(variant["dataset"] for variant in shown))
    plots: list[Place] = []
    for metric in study_metrics(plan, study):
        split = metric in PIXEL_METRICS and len(roles) > 1
        plots += [(metric, role) for role in (roles if split else [None])]
    return plots


def study_metrics(plan: dict[str, Any], study: str) -> list[str]:
    """Return every metric that an evaluated variant of ``study`` has, leading metrics first."""
    leading = leading_metrics(plan, study)
    every = [metric for task in _tasks(plan, study) for metric in TASKS[task].metrics]
    if _decodes(plan, study):
        every.extend(PIXEL_METRICS)
    return list(dict.fromkeys([*leading, *every]))


def leading_metrics(plan: dict[str, Any], study: str) -> list[str]:
    """Return the first metric of each kind of task of ``study``; PSNR where an image is decoded.

    A task of several kinds, as an analysis of faces, leads with one metric of each.
    """
    leading = [metric for task in _tasks(plan, study) for metric in _leading(task)]
    if _decodes(plan, study):
        leading.append(PIXEL_METRICS[0])
    # PSNR comes last also where reconstruction is the first task.
    ordered = sorted(leading, key=lambda metric: metric in PIXEL_METRICS)
    return list(dict.fromkeys(ordered))


def _leading(task: str) -> list[str]:
    metrics = TASKS[task].metrics
    return list(dict.fromkeys([*metrics[:1], *(f.metrics[0] for f in families_of(task, metrics))]))


# --- across studies -----------------------------------------------------------------------------


def task_families(plan: dict[str, Any]) -> list[Family]:
    """Return the kinds of task that evaluated variants of the run are judged by."""
    found: dict[str, Family] = {}
    for study in plan["run"]["studies"]:
        for task in _tasks(plan, study):
            for family in families_of(task, TASKS[task].metrics):
                known = found.setdefault(family.name, family)
                found[family.name] = known.joined(family)
    return list(found.values())


def family_roles(plan: dict[str, Any], family: Family) -> list[str]:
    """Return the roles of the data sets that a kind of task is judged on."""
    return sorted({variant["dataset"] for _, _, variant in family_variants(plan, family)})


def family_variants(plan: dict[str, Any], family: Family) -> list[tuple[str, str, dict[str, Any]]]:
    """Return study, name and content of the variants that are judged by a kind of task."""
    return [
        entry
        for entry in _variants(plan)
        if any(metric in family.metrics for metric in TASKS[entry[2]["task"]].metrics)
    ]


def vision_roles(plan: dict[str, Any]) -> list[str]:
    """Return the roles of the data sets of which images are decoded."""
    return sorted({variant["dataset"] for _, _, variant in vision_variants(plan)})


def vision_variants(plan: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return study, name and content of the variants that decode images, classical codecs first."""
    shown = [entry for entry in _variants(plan) if _has_images(entry[2])]
    return sorted(shown, key=lambda entry: entry[0] != CLASSICAL)


def _variants(plan: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    load_modules(plan["run"]["modules"])
    return [
        (study, name, variant)
        for study in plan["run"]["studies"]
        for name, variant in plan["studies"][study]["variants"].items()
        if variant["evaluate"]
    ]


def _has_images(variant: dict[str, Any]) -> bool:
    """Return whether a variant's bitstreams are decoded to images, which have a quality."""
    codec, task = CODECS[variant["codec"]], TASKS[variant["task"]]
    return codec.kind != "none" and task.input_kind == "images"


def _evaluated(plan: dict[str, Any], study: str) -> list[dict[str, Any]]:
    return [variant for of, _, variant in _variants(plan) if of == study]


def _tasks(plan: dict[str, Any], study: str) -> list[str]:
    return list(dict.fromkeys(variant["task"] for variant in _evaluated(plan, study)))


def _decodes(plan: dict[str, Any], study: str) -> bool:
    return any(map(_has_images, _evaluated(plan, study)))
