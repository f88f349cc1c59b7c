"""Checks of a plan against what it finds outside: rates that codecs have, files of data sets."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from icmbench.config.job_settings import classical_spec
from icmbench.config.plan import Plan
from icmbench.data.catalogue import DataSet, catalogue_path, load_catalogue
from icmbench.data.specs import FetchedImages
from icmbench.errors import UserError, unknown
from icmbench.evaluate.classical import open_codec
from icmbench.registry import CODECS


def check_resources(plan: Plan) -> None:
    """Raise one UserError that lists what the jobs of a plan would miss, or return."""
    faults = list(dict.fromkeys([*_rates(plan), *_data(plan)]))
    if faults:
        raise UserError("\n".join(faults))


def _rates(plan: Plan) -> Iterator[str]:
    commands = {}
    for point in plan.points:
        study, variant = plan.studies[point.study], plan.variant(point)
        entry = CODECS[variant.codec]
        if entry.kind != "classical":
            continue
        try:
            codec = open_codec(classical_spec(plan, point))
        except ImportError as error:
            yield f"classical codec {variant.codec!r} cannot be imported ({error}); install it"
        except UserError as error:
            yield f"{study.file}: key 'ladders.{variant.ladder}.values': {error}"
        else:
            if entry.command is not None:
                commands[entry.name] = codec
    for codec in commands.values():
        try:
            codec.describe()  # runs the user's command for the version
        except UserError as error:
            yield str(error)


def _data(plan: Plan) -> Iterator[str]:
    for role in plan.roles:
        dataset = plan.scale.datasets[role]
        if not isinstance(dataset, FetchedImages):
            continue
        where = f"workflow/scales/{plan.scale.name}.yaml: key 'datasets.{role}"
        path = catalogue_path(Path(plan.run.data.directory))
        catalogue = load_catalogue(path)
        if dataset.name not in catalogue:
            yield f"{where}.name': {path}: {unknown('data set', dataset.name, catalogue)}"
            continue
        folder, entry = plan.dataset_folder(role), catalogue[dataset.name]
        for name, split in dataset.splits.items():
            for key in ("images", "annotations"):
                file = getattr(split, key)
                if file is not None and not _is_there(file, folder, entry):
                    known = ", ".join(item.path for item in entry.layout)
                    place = folder if folder.is_dir() else f"data set {dataset.name!r}, {known}"
                    yield f"{where}.splits.{name}.{key}': {file!r} is not in {place}"


def _is_there(file: str, folder: Path, entry: DataSet) -> bool:
    """Return whether a data set has a file or folder, or will have it when it is fetched."""
    if folder.is_dir():
        return (folder / file).exists()
    wanted = PurePosixPath(file).parts
    return any(
        all(map(fnmatchcase, wanted, PurePosixPath(item.path).parts[: len(wanted)]))
        for item in entry.layout
        if len(PurePosixPath(item.path).parts) >= len(wanted)
    )
