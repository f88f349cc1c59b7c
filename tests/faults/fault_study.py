"""The workflow of the fault tests: chamain2021 at scale smoke with one of each kind of job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkout import Checkout, add_fetched_data, edit_yaml, keep_variants

CONFIG = ("studies=[chamain2021]", "classical_codecs=[x265-444]")
# A training run of a task, two of codecs, fetched and generated images, a learned and a
# classical codec.
KEPT = (
    "uncoded/faster-rcnn/pretrained",
    "hyperprior/reconstruction/mse",
    "hyperprior/reconstruction/photographs",
    "hyperprior/faster-rcnn/baseline",
    "hevc/faster-rcnn/baseline",
)


def prepare(folder: Path, repository: Path, steps: int = 6) -> Checkout:
    """Return a checkout of the cut study whose training runs save at each of their ``steps``."""
    checkout = Checkout(folder, repository, CONFIG)
    add_fetched_data(checkout, repository)
    keep_variants(folder, "chamain2021", KEPT)
    edit_yaml(folder / "workflow/studies/chamain2021.yaml", cut)

    def save_often(scale: dict[str, Any]) -> None:
        scale["runtime"]["checkpoint_s"] = 0.01
        for schedule in scale["studies"]["chamain2021"]["schedules"].values():
            schedule["steps"] = steps

    edit_yaml(folder / "workflow/scales/smoke.yaml", save_often)
    return checkout


def cut(study: dict[str, Any]) -> None:
    """Remove all references of a study to variants but ``KEPT``."""
    study["comparisons"] = [
        {**one, "variants": [name for name in one["variants"] if name in KEPT]}
        for one in study["comparisons"]
        if one["anchor"] in KEPT and any(name in KEPT for name in one["variants"])
    ]
    study["visual_comparisons"] = [
        {**images, "variants": [name for name in images["variants"] if name in KEPT]}
        for images in study["visual_comparisons"]
        if any(name in KEPT for name in images["variants"])
    ]
    study["published"] = [one for one in study["published"] if one["variant"] in KEPT]
    study.pop("preconditions", None)
    study["claims"] = {
        name: claim | {"preconditions": []}
        for name, claim in study["claims"].items()
        if _variants(claim) <= set(KEPT)
    }


def _variants(claim: dict[str, Any]) -> set[str]:
    named = {claim[key] for key in ("variant", "anchor") if key in claim}
    named |= set(claim.get("variants", []))
    for key in {"first", "second"} & set(claim):
        named |= _variants(claim[key])
    return named


def prepare_short(folder: Path, repository: Path) -> Checkout:
    """Return a checkout without training runs: JPEG on the fetched photographs."""
    checkout = Checkout(folder, repository, ("studies=[classical]", "classical_codecs=[jpeg]"))
    add_fetched_data(checkout, repository)
    return checkout
