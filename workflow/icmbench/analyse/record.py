"""A run against the results of record: both sides are curves, without the images behind them.

The noise of images is that of the intervals, as if each side had drawn its own images, which is
wider than a pair on the same images would give. The noise of training is the spread of the seeds,
pooled over both sides and known if one side has several. A rate has no interval: with one seed on
both sides any difference counts, but that of a learned codec is undefined, since its training may
differ on another machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icmbench.analyse.agreement import is_record, records
from icmbench.analyse.bootstrap import LEVEL, StandardError, reach, two_sided_p
from icmbench.analyse.compare import COLUMNS, POINT, RUN, ResultComparison, judge
from icmbench.analyse.tables import CURVE_COLUMNS, read_result_table
from icmbench.config.claims import RATE
from icmbench.errors import missing_file
from icmbench.plugins import load_modules
from icmbench.registry import CODECS

_FIGURES = 1e-8  # relative; the tables have ten digits


def compare_records(folders: Sequence[Path], root: Path) -> ResultComparison:
    """Compare curves of record with those of a run; points of other image numbers are left out.

    Args:
        folders: of record; the first that has a study gives it.
        root: ``<results>/<scale>`` after its analysis, or another folder of record.

    Raises:
        UserError: for a table that is missing or damaged.
    """
    load_modules([])
    theirs = pd.DataFrame(columns=CURVE_COLUMNS)
    for folder in folders:
        found = _curves(folder)
        new = found[~found["study"].isin(theirs["study"])]
        theirs = new if theirs.empty else pd.concat([theirs, new])
    ours = _curves(root)
    key = [*POINT, "metric", "n_images"]
    sides = [dict(iter(_with_rates(side).groupby(key))) for side in (theirs, ours)]
    both = [name for name in sides[0] if name in sides[1]]
    rows = [
        dict(zip(key, name, strict=True)) | _row(str(name[3]), *(s[name] for s in sides))
        for name in both
    ]
    points = pd.DataFrame([name[:3] for name in both], columns=POINT).drop_duplicates()
    return ResultComparison(
        a=folders[0],
        b=root,
        table=judge(pd.DataFrame(rows, columns=COLUMNS)),
        only_a=_others(theirs, points),
        only_b=_others(ours, points),
        notes=[],
        settings=[],
        environment=[],
    )


def _curves(folder: Path) -> pd.DataFrame:
    path = folder / "curves.csv" if is_record(folder) else folder / "tables/curves.csv"
    if not path.is_file():
        raise missing_file(path, "name a folder <results>/<scale> after its analysis")
    return read_result_table(path, CURVE_COLUMNS)


def _with_rates(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of curves, and one for the rate of each run, which has no interval."""
    rates = curves.drop_duplicates(RUN)
    rates = rates.assign(metric=RATE, value=rates["bpp"], low=math.nan, high=math.nan)
    return pd.concat([curves, rates])


def _row(metric: str, a: pd.DataFrame, b: pd.DataFrame) -> dict[str, Any]:
    """Return the numbers of one comparison; ``a`` and ``b`` have a row for each seed."""
    means = [float(side["value"].mean()) for side in (a, b)]
    difference = means[1] - means[0]
    same = means[0] == means[1] or abs(difference) <= _FIGURES * abs(means[0])
    seeds = [sorted(set(side["seed"])) for side in (a, b)]
    images = int(a["n_images"].iloc[0])
    row: dict[str, Any] = {
        **{"a": means[0], "b": means[1], "difference": difference, "verdict": ""},
        **{"low": math.nan, "high": math.nan, "p": math.nan},
        **{"paired_images": False, "paired_seeds": seeds[0] == seeds[1]},
        **{f"seeds_{side}": ";".join(map(str, own)) for side, own in zip("ab", seeds, strict=True)},
        **{"n_images_a": images, "n_images_b": images},
    }
    unknown = metric == RATE and len(a) == len(b) == 1 and _is_learned(str(a["codec"].iloc[0]))
    if same or unknown or not math.isfinite(difference):
        return row | {"verdict": "identical" if same else "undefined"}
    errors = _errors(a, b, images)
    half = reach(errors, 1 - LEVEL)
    row |= {"low": difference - half, "high": difference + half}
    return row | {"p": two_sided_p(difference, errors)}


def _is_learned(codec: str) -> bool:
    """Return whether a codec of a table is a learned one, as far as it is known here."""
    return codec in CODECS and CODECS[codec].kind == "learned"


def _errors(a: pd.DataFrame, b: pd.DataFrame, images: int) -> list[StandardError]:
    """Return the standard errors of a difference that are due to images and to seeds."""
    widths = [np.nan_to_num((side["high"] - side["low"]).mean()) for side in (a, b)]
    errors: list[StandardError] = []
    if images > 1:
        student = reach([(1.0, images - 1)], 1 - LEVEL)
        errors.append((math.hypot(*widths) / 2 / student, images - 1))
    freedom = len(a) + len(b) - 2
    if freedom:
        squares = sum(float(((s["value"] - s["value"].mean()) ** 2).sum()) for s in (a, b))
        errors.append((math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b))), freedom))
    return errors or [(0.0, 1)]


def _others(curves: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of one side that are not compared."""
    runs = curves.drop_duplicates(RUN)[RUN].merge(points, how="left", indicator="found")
    return runs[runs.pop("found") == "left_only"].assign(pending=False)


def record_table(root: Path, names: Iterable[str]) -> pd.DataFrame:
    """Return the comparison of ``<results>/<scale>`` with the record of its scale and studies."""
    folders = records(names)
    return compare_records(folders, root).table if folders else pd.DataFrame(columns=COLUMNS)
