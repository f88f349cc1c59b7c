"""Two result sets beside each other: which operating points changed, beyond noise or not.

Noise is the choice of test images and, where a side has several seeds, of seeds. A comparison
is one operating point and one metric (or ``bpp``). Its interval is the 95 % percentile bootstrap
of the difference: paired over images where both sides have the same ones, else drawn
independently; with several seeds it is at least that of the t test below. Its p-value is that of
the difference over its bootstrap standard error, after Student's t (percentiles of a thousand
resamples resolve none small enough for hundreds of comparisons), and never less than an exact
permutation test of as many images can give. Images have one degree of freedom less than there are,
and so have seeds, of which two or three say little. Benjamini and Hochberg (J. R. Stat. Soc. B 57,
1995) adjust the p-values of all comparisons that are not identical.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats  # type: ignore[import-untyped]

from icmbench.analyse.bootstrap import (
    LEVEL,
    SeedNoise,
    mean_over_seeds,
    seed_interval,
    standard_errors,
    two_sided_p,
)
from icmbench.analyse.compare_settings import (
    Difference,
    environment_of,
    read_described,
    settings_differences,
)
from icmbench.analyse.points import LABELS, Evaluation, Floats, PointFiles, evaluate_folder
from icmbench.config.summary import read_plan
from icmbench.errors import UserError
from icmbench.plugins import load_modules

#: a, b, difference (b - a), low, high: in the metric's unit, as in curves.csv; bpp in bits per
#: pixel. p, p_adjusted: see the module; NaN where nothing is tested. verdict: one of VERDICTS.
#: paired_images, paired_seeds: whether both sides share their images and their seeds.
COLUMNS = [
    "study",
    "variant",
    "rate_index",
    "metric",
    "a",
    "b",
    "difference",
    "low",
    "high",
    "p",
    "p_adjusted",
    "verdict",
    "paired_images",
    "paired_seeds",
    "seeds_a",
    "seeds_b",
    "n_images_a",
    "n_images_b",
]

#: In order of relevance. beyond noise: the interval excludes 0 and the adjusted p-value is at most
#: 0.05. unclear: the interval excludes 0, which among so many comparisons may be chance. identical:
#: equal on every image. undefined: not finite on one side (PSNR of lossless images), or a metric
#: that one side lacks.
VERDICTS = ("beyond noise", "undefined", "unclear", "within noise", "identical")

Where = tuple[str, str, int]  # study, variant, rate index


@dataclass(frozen=True)
class ResultSet:
    """One side: a ``<results>/<scale>`` folder.

    Attributes:
        root: the folder.
        plan: its ``plan.json``.
        points: evaluated operating points, by (study, variant, rate index) and seed.
        pending: operating points that are planned and not evaluated, likewise.
    """

    root: Path
    plan: dict[str, Any]
    points: dict[Where, dict[int, PointFiles]]
    pending: dict[Where, list[int]]


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        a, b: the two sides.
        table: one row for each comparison, with ``COLUMNS``, the most relevant first.
        only_a, only_b: operating points without a counterpart: (study, variant, rate index, seed).
        other_images: variants evaluated on different images, with the reason.
        settings: settings that differ.
        environment: versions, devices, commits and programs that differ.
        failed_round_trips: images that did not decode to what was encoded, in A and in B.
    """

    a: ResultSet
    b: ResultSet
    table: pd.DataFrame
    only_a: list[tuple[str, str, int, int]]
    only_b: list[tuple[str, str, int, int]]
    other_images: dict[str, str]
    settings: list[Difference]
    environment: list[Difference]
    failed_round_trips: tuple[int, int]


def open_results(path: Path, seed: int | None = None) -> ResultSet:
    """Read the plan of a results folder and find what was evaluated.

    Args:
        path: ``<results>/<scale>``, or its ``plan.json``.
        seed: take this seed alone; None takes all.

    Raises:
        UserError: where there is no plan, or nothing evaluated.
    """
    root = path.parent if path.name == "plan.json" else path
    file = root / "plan.json"
    if not file.is_file():
        inside = sorted(str(p.parent) for p in root.glob("*/plan.json"))
        hint = f"; did you mean {' or '.join(inside)}?" if inside else ""
        raise UserError(f"{file}: no such file; name a folder <results>/<scale>{hint}")
    try:
        plan = read_plan(root)
        planned = [point for point in plan["points"] if point["evaluated"]]
        seeds = sorted({point["seed"] for point in planned})
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not a plan ({error!r}); `icmbench plan` writes one") from error
    if seed is not None and seed not in seeds:
        raise UserError(f"{file}: no seed {seed}; allowed: {', '.join(map(str, seeds))}")
    points: dict[Where, dict[int, PointFiles]] = {}
    pending: dict[Where, list[int]] = {}
    for point in planned:
        if seed not in (None, point["seed"]):
            continue
        where = (point["study"], point["variant"], point["rate_index"])
        # The plan's own folder is relative to the checkout that ran it; the results may have moved.
        folder = root / "runs" / point["key"]
        if (folder / "records.parquet").is_file():
            labels = {name: point[name] for name in LABELS}
            points.setdefault(where, {})[point["seed"]] = PointFiles(**labels, folder=folder)
        else:
            pending.setdefault(where, []).append(point["seed"])
    if not points:
        raise UserError(f"{root}: no operating point is evaluated yet; run the workflow first")
    return ResultSet(root, plan, points, pending)


def compare(
    a: Path, b: Path, *, seeds: tuple[int, int] | None = None, resamples: int = 1000
) -> Comparison:
    """Compare every operating point and metric of two results folders.

    Seeds that both sides have are paired and the others left out; where they share none, each
    side's are pooled.

    Args:
        a: one ``<results>/<scale>``.
        b: the other; differences are B - A.
        seeds: take one seed of A and one of B, which may be the same folder; None takes all.
        resamples: bootstrap resamples, at least 1.

    Raises:
        UserError: for folders without results, seeds that they lack, and unreadable files.
    """
    seed_a, seed_b = seeds or (None, None)
    sides = open_results(a, seed_a), open_results(b, seed_b)
    for module in sorted({m for side in sides for m in side.plan["run"].get("modules", [])}):
        # Needed for the statistics of a user's own task alone; reading such a file then says so.
        with suppress(UserError):
            load_modules([module])
    rows: list[dict[str, Any]] = []
    other_images: dict[str, str] = {}
    failed = np.zeros(2, int)
    for where in sorted(sides[0].points.keys() & sides[1].points.keys()):
        pair = _Pair(sides[0].points[where], sides[1].points[where], resamples)
        rows += [{**dict(zip(COLUMNS, where, strict=False)), **row} for row in pair.rows(where)]
        failed += pair.failed_round_trips()
        if pair.images_differ is not None:
            other_images[f"{where[0]}/{where[1]}"] = pair.images_differ
    return Comparison(
        *sides,
        table=_judge(pd.DataFrame(rows, columns=COLUMNS)),
        only_a=_without_counterpart(*sides),
        only_b=_without_counterpart(*sides[::-1]),
        other_images=other_images,
        settings=settings_differences(sides[0].plan, sides[1].plan),
        environment=_environment_differences(*sides),
        failed_round_trips=(int(failed[0]), int(failed[1])),
    )


def _seeds(a: Mapping[int, Any], b: Mapping[int, Any]) -> tuple[list[int], list[int], bool]:
    """Return the seeds compared on either side, and whether they are paired."""
    common = sorted(a.keys() & b.keys())
    return (common, common, True) if common else (sorted(a), sorted(b), False)


def _without_counterpart(mine: ResultSet, other: ResultSet) -> list[tuple[str, str, int, int]]:
    missing = []
    for where, runs in mine.points.items():
        used = _seeds(runs, other.points[where])[0] if where in other.points else []
        missing += [(*where, seed) for seed in runs if seed not in used]
    return sorted(missing)


class _Pair:
    """One operating point on both sides."""

    def __init__(self, a: dict[int, PointFiles], b: dict[int, PointFiles], resamples: int) -> None:
        self.seeds_a, self.seeds_b, self.paired_seeds = _seeds(a, b)
        self.resamples = resamples
        self.a = [evaluate_folder(a[seed].folder, resamples, 0) for seed in self.seeds_a]
        folders_b = [b[seed].folder for seed in self.seeds_b]
        self.b = [evaluate_folder(folder, resamples, 0) for folder in folders_b]
        folders = [a[seed].folder for seed in self.seeds_a] + folders_b
        self.images_differ = _images_differ(self.a + self.b, folders)
        if self.images_differ is not None:
            # Other resamples than A's, or equal counts of images would be paired by accident.
            self.b = [evaluate_folder(folder, resamples, 1) for folder in folders_b]

    def failed_round_trips(self) -> list[int]:
        """Return how many images decoded to something else, in A and in B."""
        return [
            sum(int((~run.records["roundtrip_ok"].fillna(True)).sum()) for run in side)
            for side in (self.a, self.b)
        ]

    def rows(self, where: Where) -> list[dict[str, Any]]:
        """Return the rows of ``bpp`` and of all metrics that a run of either side has."""
        label = "/".join(map(str, where[:2]))
        labels = (label, label) if self.paired_seeds else (f"{label} A", f"{label} B")
        metrics = set().union(*(run.values for run in self.a + self.b))
        return [self._row(metric, labels) for metric in ("bpp", *sorted(metrics))]

    def _row(self, metric: str, labels: tuple[str, str]) -> dict[str, Any]:
        (a, samples_a), (b, samples_b) = (
            _pooled(side, metric, label)
            for side, label in zip((self.a, self.b), labels, strict=True)
        )
        difference, samples = float(_minus(b, a)), _minus(samples_b, samples_a)
        noise = self._noise(metric, labels) if math.isfinite(difference) else []
        counts = len(self.a[0].image_ids), len(self.b[0].image_ids)
        low, high = seed_interval(difference, samples, min(counts), noise)
        paired = self.images_differ is None
        lacking = any(_lacks(side, metric) for side in (self.a, self.b))
        identical = (
            paired and not lacking and _same(a, b) and bool(_same(samples_a, samples_b).all())
        )
        tested = math.isfinite(difference) and not identical
        p = p_value(difference, samples, counts, paired, noise) if tested else math.nan
        return {
            "metric": metric,
            "a": a,
            "b": b,
            "difference": difference,
            "low": low,
            "high": high,
            "p": p,
            "verdict": "identical" if identical else "" if tested else "undefined",
            "paired_images": paired,
            "paired_seeds": self.paired_seeds,
            "seeds_a": ";".join(map(str, self.seeds_a)),
            "seeds_b": ";".join(map(str, self.seeds_b)),
            "n_images_a": counts[0],
            "n_images_b": counts[1],
        }

    def _noise(self, metric: str, labels: tuple[str, str]) -> list[SeedNoise]:
        """Return what drawing seeds alone does to the difference: of pairs, or of each side."""
        a, b = (np.array([_value(run, metric) for run in side]) for side in (self.a, self.b))
        # A value's sign does not matter to how much it varies.
        parts = [(labels[0], _minus(b, a))] if self.paired_seeds else [
            *zip(labels, (a, b), strict=True)
        ]  # fmt: skip
        found = []
        for label, values in parts:
            if values.size > 1 and np.isfinite(values).all():  # else equal infinities differ by 0
                fixed = [np.full(self.resamples, value) for value in values]
                found.append(SeedNoise(label, values.size, mean_over_seeds(fixed, label, 0)))
        return found


def _pooled(runs: list[Evaluation], metric: str, label: str) -> tuple[float, Floats]:
    """Return the mean over seeds and its resamples, (R,); NaN where a run lacks the metric.

    One draw of seeds serves all rates.
    """
    if _lacks(runs, metric):
        return math.nan, np.full(runs[0].rate_samples.size, np.nan)
    rate = metric == "bpp"
    samples = [run.rate_samples if rate else run.value_samples[metric] for run in runs]
    mean = float(np.mean([_value(run, metric) for run in runs]))
    return mean, mean_over_seeds(samples, label, 0)


def _lacks(runs: list[Evaluation], metric: str) -> bool:
    return metric != "bpp" and any(metric not in run.values for run in runs)


def _value(run: Evaluation, metric: str) -> float:
    return run.rates["bpp"] if metric == "bpp" else run.values[metric]


def _same(a: Any, b: Any) -> Any:
    """Whether numbers are equal; undefined ones are equal to each other."""
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _minus(b: Any, a: Any) -> Any:
    """Return b - a; equal infinities differ by 0."""
    with np.errstate(invalid="ignore"):
        return np.where(np.equal(a, b), 0.0, np.subtract(b, a))


def _images_differ(runs: Sequence[Evaluation], folders: Sequence[Path]) -> str | None:
    """Return why the runs were not evaluated on the same images, or None."""
    first = runs[0]
    for run in runs[1:]:
        if run.image_ids != first.image_ids:
            shared = len(set(run.image_ids) & set(first.image_ids))
            return f"{len(first.image_ids)} and {len(run.image_ids)} images, {shared} ids in both"
        if not first.records["pixels"].equals(run.records["pixels"]):
            return "same ids, other sizes"
    # Where the data set's digest is recorded, it must be one: generated scenes of another seed have
    # the same ids and sizes.
    digests = {
        read_described(f / "evaluate.json").get("dataset", {}).get("digest") for f in folders
    }
    return "same ids and sizes, other data (digests differ)" if len(digests - {None}) > 1 else None


def p_value(
    difference: float,
    samples: Floats,
    images: tuple[int, int],
    paired: bool = True,
    noise: Sequence[SeedNoise] = (),
) -> float:
    """Return the two-sided p-value of a difference, see the module.

    Args:
        difference: finite.
        samples: (R,) bootstrap resamples of the difference.
        images: how many on either side, equal where paired.
        paired: whether they are the same images.
        noise: of seeds, where there are several.
    """
    fewest = min(images)
    defined = samples[np.isfinite(samples)]
    if difference == 0 or fewest < 2 or defined.size < 2:
        return 1.0
    p = two_sided_p(difference, standard_errors(samples, fewest, noise))
    # Exchanging the sides of each image, or the images of the sides, can tell no more than this.
    least = 2.0 ** (1 - fewest) if paired else 2 / math.comb(sum(images), fewest)
    return min(1.0, max(p, least))


def _judge(table: pd.DataFrame) -> pd.DataFrame:
    """Fill ``p_adjusted`` and ``verdict`` and sort by relevance."""
    tested = table["p"].notna().to_numpy()
    adjusted = np.full(len(table), np.nan)
    if tested.any():
        p = table.loc[tested, "p"].to_numpy(np.float64)
        adjusted[tested] = stats.false_discovery_control(p, method="bh")
    table["p_adjusted"] = adjusted
    excluded = tested & ((table["low"] > 0) | (table["high"] < 0)).to_numpy()
    verdict = np.where(excluded, "unclear", "within noise")
    verdict[excluded & (adjusted <= round(1 - LEVEL, 12))] = "beyond noise"
    table["verdict"] = np.where(tested, verdict, table["verdict"])
    rank = table["verdict"].map({name: i for i, name in enumerate(VERDICTS)})
    # Distance from 0 in interval widths, which metrics of all units share.
    width = (table["high"] - table["low"]).replace(0, np.nan)
    size = (table["difference"].abs() / width).fillna(np.inf)
    order = pd.DataFrame({"rank": rank, "p": table["p"], "size": -size}).assign(
        **{name: table[name] for name in ("study", "variant", "rate_index", "metric")}
    )
    return table.loc[order.sort_values(list(order.columns), kind="stable").index].reset_index(
        drop=True
    )


def _environment_differences(a: ResultSet, b: ResultSet) -> list[Difference]:
    """Return what ran the points that both sides have, as far as it differs."""
    both = a.points.keys() & b.points.keys()
    found = [
        environment_of(point for where in sorted(both) for point in side.points[where].values())
        for side in (a, b)
    ]
    keys = sorted(found[0].keys() | found[1].keys())
    texts = [[", ".join(sorted(side.get(key, ()))) for side in found] for key in keys]
    return [
        Difference(key, mine or "not recorded", theirs or "not recorded")
        for key, (mine, theirs) in zip(keys, texts, strict=True)
        if mine != theirs
    ]
