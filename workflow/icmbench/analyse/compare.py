"""Two result sets compared: which operating points changed, beyond noise or not.

Noise is the choice of test images and, if a side has several seeds, of seeds. A comparison is one
operating point and one metric (or ``bpp``). Its interval is the 95 % percentile bootstrap of the
difference: paired over images if both sides have the same ones, else drawn independently; with
several seeds it is at least that of the t test below. Its p-value is that of the difference over
its bootstrap standard error, after Student's t (percentiles of a thousand resamples cannot resolve
p-values small enough for hundreds of comparisons), and never less than an exact permutation test
of as many images can give. Benjamini and Hochberg (J. R. Stat. Soc. B 57, 1995) adjust the p-values
of all comparisons that are not identical.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from icmbench.analyse.bootstrap import (
    LEVEL,
    Floats,
    SeedNoise,
    mean_over_seeds,
    seed_interval,
    standard_errors,
    subtract,
    two_sided_p,
)
from icmbench.analyse.curves import Evaluation, average_seeds, evaluate_folder
from icmbench.config.claims import RATE
from icmbench.config.summary import PlanSummary, read_summary
from icmbench.errors import UserError, missing_file, unknown
from icmbench.plugins import load_modules
from icmbench.utils.files import read_object

#: What names an operating point on both sides, and one of its runs.
POINT = ["study", "variant", "rate_index"]
RUN = [*POINT, "seed"]

#: a, b, difference (b - a), low, high: in the metric's unit, as in curves.csv; bpp in bits per
#: pixel. p, p_adjusted: see the module; NaN if nothing is tested. verdict: one of VERDICTS.
#: paired_images, paired_seeds: whether both sides share their images and their seeds.
COLUMNS = [
    *POINT,
    *("metric", "a", "b", "difference", "low", "high", "p", "p_adjusted", "verdict"),
    *("paired_images", "paired_seeds", "seeds_a", "seeds_b", "n_images_a", "n_images_b"),
]

#: In order of relevance. beyond noise: the interval excludes 0 and the adjusted p-value is at most
#: 0.05. unclear: the interval excludes 0, which may be chance among many comparisons. identical:
#: equal on every image. undefined: not finite on one side (PSNR of lossless images), or a metric
#: that one side lacks.
VERDICTS = ("beyond noise", "undefined", "unclear", "within noise", "identical")

# Settings that change results; folders and tracking do not.
_RUN_KEYS = ("seeds", "classical_codecs", "substitutes", "programs", "modules", "analysis")
_SCALE_KEYS = ("name", "datasets", "codecs", "tasks", "runtime")
_STUDY_KEYS = ("ladders", "schedules", "variants")
_WORDS = ("label", "note", "origin")  # texts for readers, at any level
_ABSENT = "none"

#: Name, value in A and value in B of something that differs.
Difference = tuple[str, str, str]


class ResultSet(NamedTuple):
    """One side: a ``<results>/<scale>`` folder, its plan, and one row for each planned evaluation.

    Columns of ``points``: study, variant, rate_index, seed, codec, folder and evaluated (whether
    its results exist).
    """

    root: Path
    plan: PlanSummary
    points: pd.DataFrame


@dataclass(frozen=True)
class ResultComparison:
    """The differences between two result sets.

    Attributes:
        a, b: folders of the two sides.
        table: one row for each comparison, with ``COLUMNS``, the most relevant first.
        only_a, only_b: points without a counterpart: study, variant, rate_index, seed and pending
            (whether the other side plans the point).
        notes: points evaluated on different images, and images that did not decode to what was
            encoded.
        settings: settings of the plans that differ.
        environment: versions, devices, commits and programs of compared points that differ.
    """

    a: Path
    b: Path
    table: pd.DataFrame
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    notes: list[str]
    settings: list[Difference]
    environment: list[Difference]


def compare(
    a: Path, b: Path, *, seeds: tuple[int, int] | None = None, resamples: int = 1000
) -> ResultComparison:
    """Compare every operating point and metric of two results folders.

    Seeds that both sides have are paired and the others left out; if the sides share none, each
    side's seeds are pooled.

    Args:
        a: one ``<results>/<scale>``.
        b: the other; differences are B - A.
        seeds: one seed of A and one of B, which may be the same folder; None takes all.
        resamples: bootstrap resamples, at least 1.

    Raises:
        UserError: for folders without results, seeds that they lack, and unreadable files.
    """
    seed_a, seed_b = seeds or (None, None)
    one, other = open_results(a, seed_a), open_results(b, seed_b)
    for module in {*one.plan.run.modules, *other.plan.run.modules}:
        # Only statistics of a user's own task need it; reading such a file reports it.
        with suppress(UserError):
            load_modules([module])
    runs = one.points.merge(other.points, on=RUN, how="outer", suffixes=("_a", "_b"))
    runs["in_a"], runs["in_b"] = (runs[f"evaluated_{side}"].eq(True) for side in "ab")
    runs["paired"] = runs["in_a"] & runs["in_b"]
    point = runs.groupby(POINT)[["in_a", "in_b", "paired"]].transform("any")
    pooled = ~point["paired"] & (runs["in_a"] | runs["in_b"])
    used = point["in_a"] & point["in_b"] & (runs["paired"] | pooled)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for where, own in runs[used].groupby(POINT):
        found, about = _compare_point(own, resamples)
        rows += [dict(zip(POINT, where, strict=True)) | row for row in found]
        notes += [f"{where[0]}/{where[1]} rate {where[2]}: {note}" for note in about]
    studies = one.plan.studies.keys() & other.plan.studies.keys()
    return ResultComparison(
        a=one.root,
        b=other.root,
        table=judge(pd.DataFrame(rows, columns=COLUMNS)),
        only_a=runs.assign(pending=runs["evaluated_b"].eq(False))[runs["in_a"] & ~used],
        only_b=runs.assign(pending=runs["evaluated_a"].eq(False))[runs["in_b"] & ~used],
        notes=notes,
        settings=_differences(_settings(one.plan, studies), _settings(other.plan, studies)),
        environment=_differences(*(_environment(runs[used], side) for side in "ab")),
    )


def open_results(path: Path, seed: int | None = None) -> ResultSet:
    """Read the plan of a results folder and find the evaluated points.

    Args:
        path: ``<results>/<scale>``, or its ``plan.json``.
        seed: take only this seed; None takes all.

    Raises:
        UserError: if there is no plan, or nothing is evaluated.
    """
    root = path.parent if path.name == "plan.json" else path
    file = root / "plan.json"
    if not file.is_file():
        inside = sorted(str(p.parent) for p in root.glob("*/plan.json"))
        hint = f"; did you mean {' or '.join(inside)}?" if inside else ""
        raise missing_file(file, f"name a folder <results>/<scale>{hint}")
    plan = read_summary(root)
    rows = [
        [
            *(getattr(point, name) for name in RUN),
            point.codec,
            folder,
            (folder / "records.parquet").is_file(),
        ]
        for point in plan.points
        if point.evaluated
        # The plan's own folder is relative to the checkout that ran it; results may have moved.
        for folder in [point.inside(root)]
    ]
    points = pd.DataFrame(rows, columns=[*RUN, "codec", "folder", "evaluated"])
    if seed is not None:
        if seed not in set(points["seed"]):
            raise UserError(f"{file}: {unknown('seed', seed, map(str, set(points['seed'])))}")
        points = points[points["seed"] == seed]
    if not points["evaluated"].any():
        raise UserError(f"{root}: no operating point is evaluated yet; run the workflow first")
    return ResultSet(root, plan, points)


# --- one operating point --------------------------------------------------------------------------


def _compare_point(runs: pd.DataFrame, resamples: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare the runs of one operating point; return its rows and notes.

    Rows are those of ``bpp`` and of every metric of either side.
    """
    folders = [runs.loc[runs[f"in_{side}"], f"folder_{side}"] for side in "ab"]
    a, b = ([evaluate_folder(folder, resamples, 0) for folder in side] for side in folders)
    notes = []
    for name, side in (("A", a), ("B", b)):
        failed = sum(int((~run.records["roundtrip_ok"].fillna(True)).sum()) for run in side)
        if failed:
            notes.append(f"{failed} images of {name} failed the round trip")
    if differ := _images_differ([*a, *b], [*folders[0], *folders[1]]):
        notes.append(f"not paired: {differ}")
        # Other resamples than A's, or equal numbers of images would be paired by accident.
        b = [evaluate_folder(folder, resamples, 1) for folder in folders[1]]
    label = f"{runs['study'].iloc[0]}/{runs['variant'].iloc[0]}"
    paired = bool(runs["paired"].all())
    labels = (label, label) if paired else (f"{label} A", f"{label} B")
    fixed = {
        "paired_images": not differ,
        "paired_seeds": paired,
        "seeds_a": ";".join(map(str, runs.loc[runs["in_a"], "seed"])),
        "seeds_b": ";".join(map(str, runs.loc[runs["in_b"], "seed"])),
        "n_images_a": len(a[0].image_ids),
        "n_images_b": len(b[0].image_ids),
    }
    metrics = [RATE, *sorted(set().union(*(run.values for run in [*a, *b])))]
    return [_row(a, b, metric, labels, paired=not differ) | fixed for metric in metrics], notes


def _row(
    a: list[Evaluation], b: list[Evaluation], metric: str, labels: tuple[str, str], *, paired: bool
) -> dict[str, Any]:
    """Return the numbers of one comparison; equal labels are seeds in pairs."""
    lacking = not all(run.has(metric) for run in [*a, *b])
    mean_a, mean_b = average_seeds(a, metric, labels[0], 0), average_seeds(b, metric, labels[1], 0)
    difference, samples = subtract(mean_b, mean_a)
    defined = math.isfinite(difference)
    noise = _noise(a, b, metric, labels) if defined else []
    images = len(a[0].image_ids), len(b[0].image_ids)
    low, high = seed_interval(difference, samples, min(images), noise)
    same = np.array_equal(np.append(*mean_a), np.append(*mean_b), equal_nan=True)
    identical = paired and not lacking and same
    tested = defined and not identical
    return {
        "metric": metric,
        "a": mean_a[0],
        "b": mean_b[0],
        "difference": difference,
        "low": low,
        "high": high,
        "p": p_value(difference, samples, images, paired, noise) if tested else math.nan,
        "verdict": "identical" if identical else "" if tested else "undefined",
    }


def _noise(
    a: list[Evaluation], b: list[Evaluation], metric: str, labels: tuple[str, str]
) -> list[SeedNoise]:
    """Return the seed noise of a difference: of its pairs, or of each side."""
    values = [np.array([run.number(metric)[0] for run in side]) for side in (a, b)]
    # The sign of a value does not affect how much it varies.
    parts = [values[1] - values[0]] if labels[0] == labels[1] else values
    found = []
    for label, part in zip(labels, parts, strict=False):
        if part.size > 1:
            fixed = [np.full(a[0].rate_samples.size, value) for value in part]
            found.append(SeedNoise(label, part.size, mean_over_seeds(fixed, label, 0)))
    return found


def _images_differ(runs: Sequence[Evaluation], folders: Sequence[Path]) -> str:
    """Return why the runs were not evaluated on the same images; empty if they were."""
    first = runs[0]
    for run in runs[1:]:
        if run.image_ids != first.image_ids:
            shared = len(set(run.image_ids) & set(first.image_ids))
            return f"{len(first.image_ids)} and {len(run.image_ids)} images, {shared} ids in both"
        if not first.records["pixels"].equals(run.records["pixels"]):
            return "same ids, other sizes"
    # Generated scenes of another seed have the same ids and sizes but another digest.
    digests = {_object(f / "evaluate.json").get("dataset", {}).get("digest") for f in folders}
    return "same ids and sizes, other data (digests differ)" if len(digests - {None}) > 1 else ""


def p_value(
    difference: float,
    samples: Floats,
    images: tuple[int, int],
    paired: bool = True,
    noise: Sequence[SeedNoise] = (),
) -> float:
    """Return the two-sided p-value of a finite difference with its resamples, (R,).

    ``images``: number on either side; they are the same images if ``paired``.
    """
    fewest = min(images)
    defined = samples[np.isfinite(samples)]
    if difference == 0 or fewest < 2 or defined.size < 2:
        return 1.0
    p = two_sided_p(difference, standard_errors(samples, fewest, noise))
    # The least p-value of exchanging the sides of each image, or the images of the sides.
    least = 2.0 ** (1 - fewest) if paired else 2 / math.comb(sum(images), fewest)
    return min(1.0, max(p, least))


# --- all of them ----------------------------------------------------------------------------------


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """Fill ``p_adjusted`` and ``verdict`` of the rows that have none, and sort by relevance."""
    tested = table["p"].notna()
    if tested.any():
        from scipy import stats  # type: ignore[import-untyped]  # half a CPU second

        p = table.loc[tested, "p"].to_numpy(np.float64)
        table.loc[tested, "p_adjusted"] = stats.false_discovery_control(p, method="bh")
    excluded = tested & ((table["low"] > 0) | (table["high"] < 0))
    table.loc[tested, "verdict"] = "within noise"
    table.loc[excluded, "verdict"] = "unclear"
    significant = table["p_adjusted"] <= round(1 - LEVEL, 12)
    table.loc[excluded & significant, "verdict"] = "beyond noise"
    # Distance from 0 in interval widths, which have no unit.
    width = (table["high"] - table["low"]).replace(0, np.nan)
    order = table[["p", *POINT, "metric"]].assign(
        rank=table["verdict"].map(VERDICTS.index),
        size=-(table["difference"].abs() / width).fillna(np.inf),
    )
    order = order.sort_values(["rank", "p", "size", *POINT, "metric"], kind="stable")
    return table.loc[order.index].reset_index(drop=True)


def _settings(plan: PlanSummary, studies: Set[str]) -> dict[str, str]:
    """Return the settings of a plan that change results, as dotted keys and JSON texts."""
    chosen = {
        "config": plan.run.model_dump(include=set(_RUN_KEYS)),
        "scale": plan.scale.model_dump(include=set(_SCALE_KEYS)),
        "studies": {
            study: plan.studies[study].model_dump(include=set(_STUDY_KEYS)) for study in studies
        },
    }
    return dict(_flatten(chosen))


def _environment(runs: pd.DataFrame, side: str) -> dict[str, str]:
    """Return the values that occur in ``evaluate.json`` and ``run.json`` of one side, by name.

    Versions, platform, processor, device and commit of evaluations and training runs, and each
    codec's implementation.
    """
    found: dict[str, set[str]] = {}
    for folder, codec in runs.loc[runs[f"in_{side}"], [f"folder_{side}", f"codec_{side}"]].values:
        for name, what in (("evaluate.json", "evaluation"), ("run.json", "training run")):
            content = _object(folder / name)
            for key, value in _flatten(content.get("environment", {})):
                key = f"{what}: {key.removeprefix('versions.')}"
                found.setdefault(key, set()).add(value.strip('"'))
            if content.get("implementation"):
                found.setdefault(f"codec {codec}", set()).add(content["implementation"])
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def _object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file, {} without a file: what is not trained has no run.json."""
    return read_object(path) if path.exists() else {}


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested mappings as dotted keys and JSON texts."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in _WORDS:
                yield from _flatten(inner, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, json.dumps(value)


def _differences(a: Mapping[str, str], b: Mapping[str, str]) -> list[Difference]:
    names = sorted(a.keys() | b.keys())
    pairs = [(name, a.get(name, _ABSENT), b.get(name, _ABSENT)) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]
