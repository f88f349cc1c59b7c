"""From evaluated operating points to the result tables; see :func:`analyse`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from icmbench.analyse.bd_table import Versus, bd_table
from icmbench.analyse.claims import claim_tables
from icmbench.analyse.compressai_json import write_curves
from icmbench.analyse.curves import curves_table
from icmbench.analyse.points import (
    LABELS,
    Evaluation,
    PointFiles,
    evaluate_folder,
    read_point,
)
from icmbench.config.claims import Claim
from icmbench.errors import UserError
from icmbench.evaluate.records import records_table
from icmbench.metrics.bd import Method
from icmbench.utils.files import write_text

__all__ = ["PointFiles", "Versus", "analyse", "write_csv"]


def analyse(
    points: Sequence[PointFiles],
    comparisons: Sequence[Versus],
    out_dir: Path | str,
    *,
    resamples: int = 1000,
    seed: int = 0,
    method: Method = "pchip",
    claims: Mapping[str, Mapping[str, Claim]] | None = None,
    scale: str | None = None,
) -> None:
    """Write the tables and curves of a set of operating points.

    Writes ``tables/records.parquet``, ``tables/curves.csv``, ``tables/bd.csv`` and
    ``curves/<study>/<variant>.json`` under ``out_dir``, and ``tables/claims.csv`` and
    ``tables/claims_parts.csv`` where claims are given. The same input gives the same bytes.

    Args:
        points: the operating points; a folder may serve several studies or variants.
        comparisons: what ``bd.csv`` compares. The curves hold all variants and metrics.
        out_dir: ``results/<scale>``.
        resamples: bootstrap resamples, at least 1; the images are drawn anew in each.
        seed: of the bootstrap.
        method: BD interpolation, ``"pchip"``, ``"akima"`` or ``"cubic"``.
        claims: by study and name; None writes no tables of claims.
        scale: what was run at, for claims about some scales only.

    Raises:
        UserError: for no points, two points of one name, or files that do not fit together.
    """
    if not points:
        raise UserError("analyse: no operating points; name at least one evaluated folder")
    if resamples < 1:
        raise UserError(f"analyse: resamples is {resamples}; allowed: 1 or more")
    named: dict[tuple[str, str, int, int], PointFiles] = {}
    for point in points:
        name = (point.study, point.variant, point.rate_index, point.seed)
        if name in named:
            raise UserError(
                f"analyse: {point.study}/{point.variant} rate {point.rate_index} seed {point.seed} "
                f"is in {named[name].folder} and {point.folder}; name each operating point once"
            )
        named[name] = point
    tables = Path(out_dir) / "tables"
    ordered = [named[name] for name in sorted(named)]
    evaluated = _evaluate(ordered, tables / "records.parquet", resamples, seed)
    write_csv(tables / "curves.csv", curves_table(evaluated))
    write_csv(tables / "bd.csv", bd_table(evaluated, comparisons, method=method, seed=seed))
    write_curves(Path(out_dir) / "curves", evaluated)
    if claims is not None:
        decided = claim_tables(evaluated, claims, method=method, seed=seed, scale=scale)
        write_csv(tables / "claims.csv", decided.claims)
        write_csv(tables / "claims_parts.csv", decided.parts)


def _evaluate(
    points: Sequence[PointFiles], table: Path, resamples: int, seed: int
) -> list[tuple[PointFiles, Evaluation]]:
    """Evaluate every folder and write all records; one point's records are held at a time."""
    evaluations: dict[Path, Evaluation] = {}
    with records_table(table) as rows:
        for point in points:
            folder = Path(point.folder)
            if folder in evaluations:
                records = read_point(folder)
            else:
                evaluation = evaluate_folder(folder, resamples, seed)
                records = evaluation.records
                evaluations[folder] = evaluation.without_records()
            rows.add(records.assign(**{name: getattr(point, name) for name in LABELS}))
    return [(point, evaluations[Path(point.folder)]) for point in points]


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write with 10 significant digits, ``nan`` for undefined numbers and Unix line ends."""
    text = table.to_csv(index=False, float_format="%.10g", na_rep="nan", lineterminator="\n")
    write_text(path, text)
