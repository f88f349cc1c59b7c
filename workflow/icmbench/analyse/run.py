"""Analyse a whole run: from the plan to the tables."""

from __future__ import annotations

from pathlib import Path

from icmbench.analyse.tables import PointFiles, analyse
from icmbench.files import read_json


def analyse_run(root: Path) -> None:
    """Write tables and curves of the run under ``root`` (``<results>/<scale>``)."""
    plan = read_json(root / "plan.json")
    points = [
        PointFiles(
            study=point["study"],
            variant=point["variant"],
            codec=point["codec"],
            task=point["task"],
            mode=point["mode"],
            rate_index=point["rate_index"],
            seed=point["seed"],
            folder=Path(point["folder"]),
        )
        for point in plan["points"]
        if point["evaluated"]
    ]
    named = [
        (name, comparison)
        for name, study in plan["studies"].items()
        for comparison in study["comparisons"]
    ]
    comparisons = {
        (name, variant, comparison["anchor"])
        for name, comparison in named
        for variant in comparison["variants"]
    }
    metrics = {metric for _, comparison in named for metric in comparison["metrics"]}
    settings = plan["run"]["analysis"]
    analyse(
        points,
        sorted(comparisons),
        root,
        metrics=sorted(metrics),
        resamples=settings["resamples"],
        method=settings["bd_method"],
    )
