"""``python -m icmbench zoo``: make a zoo of what scale ``zoo`` trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from icmbench.config.job_settings import codec_spec, task_spec
from icmbench.config.plan import Plan
from icmbench.config.validate import part_parameters
from icmbench.config.weights import Point
from icmbench.config.zoo import CATALOGUE, Zoo, ZooEntry, entry_name, read_zoo
from icmbench.jobs import PARTS, Part
from icmbench.networks.build import build_codec, build_task
from icmbench.networks.weights import save_compact
from icmbench.train.system import trained_modules
from icmbench.utils.files import read_object, sha256_file, write_json

_START = 3  # logged steps whose losses the catalogue keeps
_COURSE = 20  # stretches of the training whose mean loss it keeps


def make_zoo(plan: Plan, folder: Path) -> list[Path]:
    """Write the networks that points trained, or the parts of them, and the catalogue.

    Points whose training has not finished are left out, and those of mode ``start``, from which
    others continue; entries that are there already stay.

    Returns:
        The files.
    """
    entries = dict(read_zoo(folder).entries)
    files = []
    for point in plan.trained:
        if plan.variant(point).mode == "start":
            continue
        for part in PARTS:
            if not plan.variant(point).trains(part) or not plan.weights_path(point).is_file():
                continue
            file = f"{point.study}/{point.variant}/rate{point.rate_index}-{part}.safetensors"
            name = entry_name(point.study, point.variant, point.rate_index, part)
            entries[name] = _entry(plan, point, part, folder, file)
            files.append(folder / file)
    zoo = Zoo(entries=dict(sorted(entries.items())))
    write_json(folder / CATALOGUE, zoo.model_dump(mode="json"))
    return files


def _entry(plan: Plan, point: Point, part: Part, folder: Path, file: str) -> ZooEntry:
    variant, origin = plan.variant(point), plan.final_weights(point, part)
    network: Any
    if part == "codec":
        network = build_codec(codec_spec(plan, point, origin))
    else:
        network = build_task(task_spec(plan, point, origin))
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    holds = trained_names(network, plan, point, part)
    save_compact(network, path, holds)
    run = read_object(plan.run_folder(point) / "run.json")
    environment = run["environment"]
    losses = _losses(plan.run_folder(point) / "metrics.jsonl")
    return ZooEntry(
        file=file,
        sha256=sha256_file(path),
        size=path.stat().st_size,
        part=part,
        holds=holds,
        network=getattr(variant, part),
        parameters=part_parameters(plan.scale, variant, part).model_dump(mode="json"),
        steps=run["steps"],
        cpu_seconds=round(run["cpu_seconds"], 1),
        seed=point.seed,
        commit=environment["git_commit"],
        packages={k: v for k, v in environment["versions"].items() if v is not None},
        start=dict(losses[:_START]),
        course=_course(losses),
    )


def trained_names(network: Any, plan: Plan, point: Point, part: Part) -> list[str]:
    """Return the beginnings of the names of what was trained, where it is not the whole network."""
    training = plan.variant(point).train
    assert training is not None
    if part in training.parts:
        return []
    own = [name for name in training.parts if name.startswith(f"{part}.")]
    names = {id(module): f"{name}." for name, module in network.named_modules()}
    return sorted(names[id(module)] for module in trained_modules(network, network, own)[part])


def _losses(path: Path) -> list[tuple[str, float]]:
    """Return the logged steps of a training run and their losses."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(str(r["step"]), r["values"]["loss"]) for r in rows if r["split"] == "train"]


def _course(losses: list[tuple[str, float]]) -> list[list[float]]:
    """Return the last step and the mean loss of each of some stretches of a training run."""
    length = max(1, -(-len(losses) // _COURSE))
    stretches = [losses[i : i + length] for i in range(0, len(losses), length)]
    return [
        [float(part[-1][0]), round(sum(v for _, v in part) / len(part), 5)] for part in stretches
    ]
