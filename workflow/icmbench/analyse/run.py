"""The analysis of a run: from evaluated operating points to tables and curves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd

from icmbench.analyse.agreement import TABLE
from icmbench.analyse.bd_table import BdComparison, bd_results
from icmbench.analyse.claims import claim_tables
from icmbench.analyse.compressai_json import write_curve_files
from icmbench.analyse.curves import (
    EvaluatedPoint,
    Evaluation,
    PointFiles,
    evaluate_folder,
    read_point_records,
)
from icmbench.analyse.published import published_results
from icmbench.analyse.record import record_table
from icmbench.analyse.tables import LABELS, class_results, curve_results, write_result_table
from icmbench.analyse.targets import Targets, target_rates
from icmbench.config.claims import Claim
from icmbench.config.summary import read_summary
from icmbench.errors import UserError
from icmbench.evaluate.records import records_table
from icmbench.metrics.bd import Method
from icmbench.plugins import load_modules
from icmbench.registry import CODECS

logger = logging.getLogger(__name__)


def analyse_run(root: Path) -> None:
    """Write tables and curves of the run under ``root`` (``<results>/<scale>``)."""
    plan = read_summary(root)
    load_modules(
        plan.run.modules, plan.run.command_codecs
    )  # claims ask the registry which codec leaves images uncoded
    points = [
        PointFiles(**{name: getattr(point, name) for name in LABELS}, folder=Path(point.folder))
        for point in plan.points
        if point.evaluated
    ]
    metrics: dict[tuple[str, str, str], set[str]] = {}
    for name, study in plan.studies.items():
        for comparison in study.comparisons:
            for variant in comparison.variants:
                pair = (name, variant, comparison.anchor)
                metrics.setdefault(pair, set()).update(comparison.metrics)
    method = plan.run.analysis.bd_method
    analyse(
        points,
        [BdComparison(*pair, tuple(sorted(named))) for pair, named in sorted(metrics.items())],
        root,
        resamples=plan.run.analysis.resamples,
        method=method,
        # Studies that are only prerequisites of others have no claims here.
        claims={name: plan.studies[name].claims for name in plan.run.studies},
        preconditions={name: plan.studies[name].preconditions for name in plan.run.studies},
        scale=plan.run.scale,
        targets=target_rates(plan),
    )
    curves = pd.read_csv(root / "tables/curves.csv")
    for line in rates_against_ladder(curves):
        logger.warning(line)
    write_result_table(root / "tables/published.csv", published_results(plan, curves, method))
    names = [plan.scale.name, *plan.run.studies]
    write_result_table(root / TABLE, record_table(root, names))


def rates_against_ladder(curves: pd.DataFrame) -> list[str]:
    """Return a line for each classical codec's curve whose rates do not rise along its ladder.

    Args:
        curves: with the columns of ``curves.csv``.
    """
    lines = []
    for labels, rows in curves.groupby(["study", "variant", "codec"]):
        study, variant, codec = map(str, labels)
        if codec not in CODECS or CODECS[codec].kind != "classical":
            continue
        bpp = rows.groupby("rate_index")["bpp"].mean()
        for before, after in pairwise(bpp.index):
            if bpp[after] <= bpp[before]:
                lines.append(
                    f"{study}/{variant}: {bpp[after]:.4g} bpp at rate index {after} of the ladder, "
                    f"{bpp[before]:.4g} before it; check the ladder and the settings of {codec!r}"
                )
                break
    return lines


def analyse(
    points: Sequence[PointFiles],
    comparisons: Sequence[BdComparison],
    out_dir: Path | str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    method: Method = "pchip",
    claims: Mapping[str, Mapping[str, Claim]] | None = None,
    preconditions: Mapping[str, Mapping[str, Claim]] | None = None,
    scale: str | None = None,
    targets: Targets | None = None,
) -> None:
    """Write the tables and curves of a set of operating points.

    Writes ``tables/records.parquet``, ``tables/curves.csv``, ``tables/per_class.csv``,
    ``tables/bd.csv`` and ``curves/<study>/<variant>.json`` under ``out_dir``, and
    ``tables/claims.csv`` and ``tables/claims_parts.csv`` if claims are given. The same input gives
    the same bytes.

    Args:
        points: different operating points; a folder may serve several studies or variants.
        comparisons: the rows of ``bd.csv``. The curves hold all variants and metrics.
        out_dir: ``results/<scale>``.
        resamples: number of bootstrap resamples of the images, at least 1.
        seed: of the bootstrap.
        method: BD interpolation, ``"pchip"``, ``"akima"`` or ``"cubic"``.
        claims: by study and name; None writes no tables of claims.
        preconditions: that claims name, by study and name.
        scale: of the run, for claims that hold at some scales only.
        targets: rates that training steered codecs to.

    Raises:
        UserError: for no points, or files that do not fit together.
    """
    if not points:
        raise UserError("analyse: no operating points; the studies evaluate nothing")
    ordered = sorted(points, key=lambda p: (p.study, p.variant, p.rate_index, p.seed))
    tables = Path(out_dir) / "tables"
    evaluated = _evaluate(ordered, tables / "records.parquet", resamples, seed)
    write_result_table(tables / "curves.csv", curve_results(evaluated))
    bd = bd_results(evaluated, comparisons, method=method, seed=seed)
    write_result_table(tables / "bd.csv", bd)
    write_result_table(tables / "per_class.csv", class_results(ordered))
    write_curve_files(Path(out_dir) / "curves", evaluated)
    if claims is not None:
        decided = claim_tables(
            *(evaluated, claims, preconditions),
            method=method,
            seed=seed,
            scale=scale,
            targets=targets,
        )
        write_result_table(tables / "claims.csv", decided.claims)
        write_result_table(tables / "claims_parts.csv", decided.parts)


def _evaluate(
    points: Sequence[PointFiles], table: Path, resamples: int, seed: int
) -> list[EvaluatedPoint]:
    """Evaluate every folder and write all records; one point's records are held at a time."""
    evaluations: dict[Path, Evaluation] = {}
    with records_table(table) as rows:
        for point in points:
            folder = Path(point.folder)
            if folder in evaluations:
                records = read_point_records(folder)
            else:
                evaluation = evaluate_folder(folder, resamples, seed)
                records = evaluation.records
                evaluations[folder] = evaluation.without_records()
            rows.add(records.assign(**{name: getattr(point, name) for name in LABELS}))
    return [(point, evaluations[Path(point.folder)]) for point in points]
