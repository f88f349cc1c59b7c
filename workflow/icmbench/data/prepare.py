"""Make the data set of a role ready: generate it, or fetch it through the catalogue."""

from __future__ import annotations

from pathlib import Path

from icmbench.data.fetch import fetch
from icmbench.data.manifest import read_manifest
from icmbench.data.specs import EmbeddedFaces, EmbeddedScenes
from icmbench.data.synthetic.scenes import generate
from icmbench.errors import UserError
from icmbench.jobs import DataJob


def prepare(job: DataJob, processes: int = 1) -> Path:
    """Return the manifest of a role's data set, which exists when this returns.

    Args:
        job: the data set's settings.
        processes: how many generate at once.

    Raises:
        UserError: where it cannot be had, or a mirror holds only a part and the scale does not
            allow that.
    """
    settings = job.settings
    if isinstance(settings, EmbeddedScenes):
        return generate(settings, Path(job.folder), processes)
    if isinstance(settings, EmbeddedFaces):
        from icmbench.data.synthetic.faces import generate_faces

        return generate_faces(settings, Path(job.folder), processes)
    directory = Path(job.manifest).parent
    fetched = fetch(
        settings.name,
        data_dir=directory,
        mirror=None if job.mirror is None else Path(job.mirror),
        catalogue=directory / "catalogue.yaml",
    )
    content = read_manifest(fetched)
    if content is not None and content.subset and not settings.allow_subset:
        raise UserError(
            f"data set {settings.name!r}: the mirror {job.mirror} holds only a part of it; set "
            f"allow_subset: true for role {job.role!r} in the scale to use it all the same"
        )
    return fetched
