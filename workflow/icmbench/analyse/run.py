"""Analyse a whole run: from the plan to the tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter

from icmbench.analyse.checked import seal_tables, unseal_tables
from icmbench.analyse.points import LABELS
from icmbench.analyse.published import published_table
from icmbench.analyse.tables import PointFiles, Versus, analyse, write_csv
from icmbench.config.claims import Claim
from icmbench.config.summary import read_plan
from icmbench.plugins import load_modules


def analyse_run(root: Path) -> None:
    """Write tables and curves of the run under ``root`` (``<results>/<scale>``)."""
    plan = read_plan(root)
    unseal_tables(root / "tables")
    points = [
        PointFiles(**{name: point[name] for name in LABELS}, folder=Path(point["folder"]))
        for point in plan["points"]
        if point["evaluated"]
    ]
    metrics: dict[tuple[str, str, str], set[str]] = {}
    for name, study in plan["studies"].items():
        for comparison in study["comparisons"]:
            for variant in comparison["variants"]:
                pair = (name, variant, comparison["anchor"])
                metrics.setdefault(pair, set()).update(comparison["metrics"])
    comparisons = [Versus(*pair, tuple(sorted(named))) for pair, named in sorted(metrics.items())]
    # Studies that only lend trainings state no claims here.
    asked = {name: plan["studies"][name].get("claims", {}) for name in plan["run"]["studies"]}
    claims = TypeAdapter(dict[str, dict[str, Claim]]).validate_python(asked)
    load_modules(plan["run"]["modules"])  # claims ask the registry which codec is none
    settings = plan["run"]["analysis"]
    method = settings["bd_method"]
    resamples = settings["resamples"]
    scale = plan["run"]["scale"]
    analyse(
        points, comparisons, root, resamples=resamples, method=method, claims=claims, scale=scale
    )
    curves = pd.read_csv(root / "tables/curves.csv")
    write_csv(root / "tables/published.csv", published_table(plan, curves, method))
    seal_tables(root / "tables")
