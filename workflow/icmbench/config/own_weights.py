"""Check weights when the plan is made, so that what is missing or does not fit is found early."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from icmbench.config.available import answers
from icmbench.config.job_settings import codec_spec, task_spec
from icmbench.config.plan import Plan
from icmbench.config.run import RunConfig
from icmbench.config.study import WeightsFile
from icmbench.config.weights import WEIGHTS
from icmbench.errors import UserError
from icmbench.jobs import PARTS, CodecSpec, TaskSpec
from icmbench.utils.environment import version
from icmbench.utils.files import atomic_path, digest_json, read_object, write_json, writing


def check_weights(plan: Plan) -> None:
    """Check the user's weights, and those that perceptual metrics need.

    Raises:
        UserError: as :func:`check_own_weights` and :func:`check_backbones`.
    """
    check_backbones(plan.run)
    check_own_weights(plan)


def check_backbones(run: RunConfig) -> None:
    """Check that the networks of perceptual metrics are in torch's cache, or can be downloaded.

    A file ``weights/<name>`` of the mirror is copied into the cache.

    Raises:
        UserError: for the first that cannot be had, or is another file than the published one.
    """
    if not run.perceptual:
        return
    from icmbench.networks.perceptual import BACKBONES
    from icmbench.networks.pretrained import cache_path, check_cached

    for metric in run.perceptual:
        url = BACKBONES[metric]
        path = cache_path(url)
        mirrored = Path(run.data.mirror or "") / WEIGHTS / path.name
        if run.data.mirror is not None and not path.is_file() and mirrored.is_file():
            with writing(path.parent), atomic_path(path) as temporary:
                shutil.copyfile(mirrored, temporary)
        check_cached(url)
        if not path.is_file() and not answers(url):
            raise UserError(
                f"{run.where('perceptual')}: {metric} needs {path}, which is not there, and {url} "
                f"does not answer; put the file there or into {WEIGHTS} of the mirror, or leave "
                f"{metric} out"
            )


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
            if isinstance(origin.place, WeightsFile):
                file = plan.studies[point.study].file
                where = f"{file}: key 'variants.{point.variant}.{part}_from'"
                make = codec_spec if part == "codec" else task_spec
                yield where, make(plan, point, origin), origin.place.url is not None


def _build(spec: CodecSpec | TaskSpec) -> None:
    from icmbench.networks.build import build_codec, build_task

    if isinstance(spec, CodecSpec):
        build_codec(spec)
    else:
        build_task(spec)
