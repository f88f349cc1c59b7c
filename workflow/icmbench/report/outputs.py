"""Names of the report's files, without any import that costs time: Snakefiles call this."""

from __future__ import annotations

from typing import Any

from icmbench.registry import CODECS, PIXEL_METRICS, TASKS, load_modules

PAGE = "report/index.html"
FIGURES = "report/figures"
PICTURES = "report/pictures"
FIGURE_FORMATS = ("svg", "png")


def expected_outputs(plan: dict[str, Any]) -> list[str]:
    """Return the report's files of fixed names, relative to ``results/<scale>``.

    Args:
        plan: content of ``plan.json``, which is ``Plan.summary()``.
    """
    figures = [
        f"{FIGURES}/{figure_name(study, metric, role)}.{suffix}"
        for study in plan["run"]["studies"]
        for metric, role in study_plots(plan, study)
        for suffix in FIGURE_FORMATS
    ]
    return [PAGE, *figures]


def figure_name(study: str, metric: str, role: str | None = None) -> str:
    """Return the file name, without suffix, of the plot of rate against ``metric``."""
    return f"{study}-rate-{metric}" + (f"-{role}" if role else "")


def study_plots(plan: dict[str, Any], study: str) -> list[tuple[str, str | None]]:
    """Return the plots of ``study``: metric, and the data set's role where it decides.

    Picture quality on one set of pictures says nothing beside that on another: each has a plot.
    """
    decoded = [v for v in _evaluated(plan, study) if CODECS[v["codec"]].kind != "none"]
    roles: list[str | None] = list(dict.fromkeys(variant["dataset"] for variant in decoded))
    plots: list[tuple[str, str | None]] = []
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
    """Return the first metric of each task of ``study``, and PSNR where a picture is decoded."""
    leading = [TASKS[task].metrics[0] for task in _tasks(plan, study)]
    if _decodes(plan, study):
        leading.append(PIXEL_METRICS[0])
    # PSNR comes last also where reconstruction is the first task.
    ordered = sorted(leading, key=lambda metric: metric in PIXEL_METRICS)
    return list(dict.fromkeys(ordered))


def _evaluated(plan: dict[str, Any], study: str) -> list[dict[str, Any]]:
    load_modules(plan["run"]["modules"])
    variants: dict[str, dict[str, Any]] = plan["studies"][study]["variants"]
    return [variant for variant in variants.values() if variant["evaluate"]]


def _tasks(plan: dict[str, Any], study: str) -> list[str]:
    return list(dict.fromkeys(variant["task"] for variant in _evaluated(plan, study)))


def _decodes(plan: dict[str, Any], study: str) -> bool:
    kinds = (CODECS[variant["codec"]].kind for variant in _evaluated(plan, study))
    return any(kind != "none" for kind in kinds)
