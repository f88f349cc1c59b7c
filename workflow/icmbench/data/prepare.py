"""Make the data set of a role ready: generate it, or fetch it through the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from icmbench.config.scale import EmbeddedFaces, EmbeddedScenes
from icmbench.data.fetch import fetch
from icmbench.data.manifest import read_manifest
from icmbench.data.synthetic.scenes import generate
from icmbench.errors import UserError


def prepare(job: dict[str, Any], processes: int = 1) -> Path:
    """Return the manifest of a role's data set, which exists when this returns.

    Args:
        job: the data set's settings, see ``Plan._dataset``, with ``mirror``.
        processes: how many generate at once.

    Raises:
        UserError: where it cannot be had, or a mirror holds only a part and the scale does not
            allow that.
    """
    manifest = Path(job["manifest"])
    if job["source"] == "embedded-scenes":
        names = EmbeddedScenes.model_fields
        config = EmbeddedScenes.model_validate({k: v for k, v in job.items() if k in names})
        return generate(config, Path(job["folder"]), processes)
    if job["source"] == "embedded-faces":
        from icmbench.data.synthetic.faces import generate_faces

        names = EmbeddedFaces.model_fields
        faces = EmbeddedFaces.model_validate({k: v for k, v in job.items() if k in names})
        return generate_faces(faces, Path(job["folder"]), processes)
    directory = manifest.parent
    mirror = job["mirror"]
    fetched = fetch(
        job["name"],
        data_dir=directory,
        mirror=None if mirror is None else Path(mirror),
        catalogue=directory / "catalogue.yaml",
    )
    content = read_manifest(fetched)
    if content is not None and content.subset and not job["allow_subset"]:
        raise UserError(
            f"data set {job['name']!r}: the mirror {mirror} holds only a part of it; set "
            f"allow_subset: true for role {job['role']!r} in the scale to use it all the same"
        )
    return fetched
