"""Load the user's weights once when the plan is made, so that what does not fit is found early."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from icmbench.config.job_settings import codec_spec, task_spec
from icmbench.config.plan import Plan
from icmbench.config.study import WeightsFile
from icmbench.errors import UserError
from icmbench.jobs import PARTS, CodecSpec, TaskSpec
from icmbench.utils.environment import version
from icmbench.utils.files import digest_json, read_object, write_json


def check_own_weights(plan: Plan) -> None:
    """Build every network that starts from a file of the user's, as its jobs will.

    A file at an address that was not fetched yet is left to those jobs. What fitted is noted below
    the plan and not tried again, since this imports torch.

    Raises:
        UserError: listing every file that is missing, damaged, or does not fit, a line each.
    """
    note = plan.root / "plan" / "own-weights.json"
    known = set(read_object(note).get("fits", [])) if note.is_file() else set()
    packages = [version(name) for name in ("torch", "torchvision", "compressai")]
    fits: set[str] = set()
    faults: dict[str, str] = {}  # the first key that names a file, by what is wrong with it
    for where, spec, fetched in _specs(plan):
        key = digest_json([spec.model_dump(), packages])
        path = Path(str(spec.weights.source))
        if not path.is_file():
            if not fetched:
                faults.setdefault(f"{path}: no such file; correct the path", where)
        elif key not in fits:
            try:
                if key not in known:
                    _build(spec)
                fits.add(key)
            except UserError as error:
                faults.setdefault(str(error), where)
    if fits != known:
        write_json(note, {"fits": sorted(fits)})
    if faults:
        raise UserError("\n".join(f"{where}: {fault}" for fault, where in faults.items()))


def _specs(plan: Plan) -> Iterator[tuple[str, CodecSpec | TaskSpec, bool]]:
    """Yield key, network, and whether the file is fetched, where it is the user's."""
    for point in plan.points:
        for part in PARTS:
            origin = plan.initial_weights(point, part)
            make = codec_spec if part == "codec" else task_spec
            spec = make(plan, point, origin)
            if isinstance(origin.place, WeightsFile):
                file = plan.studies[point.study].file
                where = f"{file}: key 'variants.{point.variant}.{part}_from'"
                yield where, spec, origin.place.url is not None


def _build(spec: CodecSpec | TaskSpec) -> None:
    from icmbench.networks.build import build_codec, build_task

    if isinstance(spec, CodecSpec):
        build_codec(spec)
    else:
        build_task(spec)
