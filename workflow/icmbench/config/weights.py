"""Where the weights of an operating point come from, and where they lie."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from icmbench.config.study import WeightsFile
from icmbench.config.validate import part_entry, part_parameters
from icmbench.config.zoo import ZooEntry
from icmbench.jobs import PARTS, Part, WeightsJob, WeightsSpec
from icmbench.registry import CODECS
from icmbench.utils.files import digest_json, sha256_file

if TYPE_CHECKING:
    from icmbench.config.plan import Plan

WEIGHTS = "weights"
"""Folder inside the data directory for weights that are fetched from an address."""


@dataclass(frozen=True)
class Point:
    """One operating point: a variant at one rate setting and one seed."""

    study: str
    variant: str
    rate_index: int
    seed: int

    @property
    def key(self) -> str:
        """Return the name of the point, which is also its folder."""
        return f"{self.study}/{self.variant}/rate{self.rate_index}-seed{self.seed}"


@dataclass(frozen=True)
class WeightsOrigin:
    """Where weights come from.

    Attributes:
        place: the point that trained them, an entry of the zoo, a file of the user's, ``random``,
            ``pretrained``, or None for no weights.
        part: which of the point's networks they are of.
        user: the point whose variant names them, which need not be the one that runs them: the
            place on its ladder selects published weights, its study's folder holds files.
    """

    place: Point | ZooEntry | WeightsFile | str | None
    part: Part
    user: Point


def weights_key(plan: Plan, point: Point) -> str:
    """Return the key of the weights that a point's learned codec codes with."""
    entry = CODECS[plan.variant(point).codec]
    origin = plan.final_weights(point, "codec")
    owner, user = origin.place, plan.variant(origin.user)
    if isinstance(owner, Point):
        if plan.variant(owner).codec == entry.name:
            return owner.key
        # Another codec of the same network, such as one layer of its bitstream.
        return owner.key.replace(owner.variant, f"{owner.variant}@{entry.name}", 1)
    if isinstance(owner, ZooEntry):
        other = "" if owner.network == entry.name else f"@{entry.name}"
        return f"zoo{other}/{owner.file.removesuffix('-codec.safetensors')}"
    if isinstance(owner, WeightsFile):
        # Variants that name the same files share what was coded. Study and results may move
        # together.
        listed = isinstance(user.codec_from, list)
        files = user.codec_from if isinstance(user.codec_from, list) else [owner]
        folder = os.path.relpath(_folder(plan, origin), plan.root)
        curve = [folder, *(own.model_dump() for own in files)]
        rate = origin.user.rate_index if listed else 0
        return f"file/{entry.name}-{digest_json(curve)[:8]}/rate{rate}"
    if entry.published_rates is None:
        rate = origin.user.rate_index if entry.rate_parameter is None else 0
        return f"pretrained/{entry.name}/rate{rate}"
    ladder = plan.ladder(origin.user)
    assert ladder is not None  # checked before
    return f"pretrained/{entry.name}/{ladder.parameter}-{plan.rate_value(origin.user):g}"


def weights_file(plan: Plan, origin: WeightsOrigin) -> Path:
    """Return where a file of the user's lies, or a fetched one will."""
    own = origin.place
    assert isinstance(own, WeightsFile)
    if own.file is not None:
        return _folder(plan, origin) / Path(own.file).expanduser()
    name = PurePosixPath(urlsplit(str(own.url)).path).name or "weights"
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)
    return Path(plan.run.data.directory) / WEIGHTS / f"{str(own.sha256)[:16]}-{name}"


def weights_spec(plan: Plan, origin: WeightsOrigin) -> WeightsSpec:
    """Return the file (or word) that weights come from, and the network that left them."""
    if isinstance(origin.place, ZooEntry):
        return WeightsSpec(
            source=str(Path(plan.run.zoo) / origin.place.file),
            of=origin.place.network,
            part=origin.part,
            sha256=origin.place.sha256,
            holds=origin.place.holds,
        )
    if isinstance(origin.place, WeightsFile):
        user = plan.variant(origin.user)
        path, own = weights_file(plan, origin), origin.place
        return WeightsSpec(
            source=str(path),
            of=own.of or (user.codec if origin.part == "codec" else user.task),
            part=origin.part,
            # A file that is replaced changes the settings of the jobs that read it, even if the
            # new one is older.
            sha256=own.sha256 or digest_of(path),
            own=True,
            partial=own.partial,
        )
    if origin.place == "pretrained":
        return WeightsSpec(
            source="pretrained",
            part=origin.part,
            rate=plan.rate_value(origin.user),
            files=_pretrained_files(plan, origin),
        )
    if not isinstance(origin.place, Point):
        return WeightsSpec(source=origin.place, part=origin.part)
    variant = plan.variant(origin.place)
    return WeightsSpec(
        source=str(plan.weights_path(origin.place)),
        of=variant.codec if origin.part == "codec" else variant.task,
        part=origin.part,
    )


def _pretrained_files(plan: Plan, origin: WeightsOrigin) -> list[str]:
    """Return the files that a codec or task of the user's reads as its published weights."""
    variant = plan.variant(origin.user)
    files = part_entry(plan.scale, variant, origin.part).pretrained_files
    own = part_parameters(plan.scale, variant, origin.part)
    return [] if files is None else list(map(str, files(own)))


def weights_jobs(plan: Plan) -> dict[str, WeightsJob]:
    """Return the settings that fetch weights from an address, by name of the file."""
    jobs = {}
    for point in plan.points:
        for part in PARTS:
            origin = plan.initial_weights(point, part)
            own = origin.place
            if isinstance(own, WeightsFile) and own.url is not None:
                path = weights_file(plan, origin)
                jobs[path.name] = WeightsJob(
                    url=own.url,
                    sha256=str(own.sha256),
                    output=str(path),
                    mirror=plan.run.data.mirror,
                    modules=[],
                )
    return jobs


@cache
def _digest(path: Path, state: tuple[int, ...]) -> str:
    return sha256_file(path)


def digest_of(path: Path) -> str | None:
    """Return the SHA-256 of a file, read once while it does not change; None if it is missing."""
    try:
        state = path.stat()
        return _digest(path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino))
    except OSError:
        return None


def _folder(plan: Plan, origin: WeightsOrigin) -> Path:
    """Return the folder that files of the user's are relative to: of the study that names them."""
    return Path(plan.studies[origin.user.study].file).parent
