"""Make the data set of a role ready: generate it, fetch it, or measure a folder of one's own."""

from __future__ import annotations

from pathlib import Path

from icmbench.data.catalogue import catalogue_path
from icmbench.data.fetch import fetch
from icmbench.data.manifest import read_manifest
from icmbench.data.specs import DatasetSpec, EmbeddedFaces, EmbeddedScenes, FolderImages
from icmbench.errors import UserError


def prepare(dataset: DatasetSpec, mirror: str | None = None, processes: int = 1) -> Path:
    """Return the manifest of a role's data set, which exists when this returns.

    Args:
        dataset: of the role.
        mirror: directory that a fetch tries first.
        processes: number of processes that generate images.

    Raises:
        UserError: if it cannot be had, or if the mirror holds only a part and the scale does not
            allow that.
    """
    settings, folder = dataset.settings, Path(dataset.folder)
    if isinstance(settings, EmbeddedScenes):
        from icmbench.data.synthetic.scenes import generate

        return generate(settings, folder, processes)
    if isinstance(settings, EmbeddedFaces):
        from icmbench.data.synthetic.faces import generate_faces

        return generate_faces(settings, folder, processes)
    if isinstance(settings, FolderImages):
        from icmbench.data.folder import write_folder_manifest

        return write_folder_manifest(dataset)
    directory = Path(dataset.manifest).parent
    path = fetch(
        settings.name,
        data_dir=directory,
        mirror=None if mirror is None else Path(mirror),
        catalogue=catalogue_path(directory),
    )
    manifest = read_manifest(path)
    if manifest is not None and manifest.subset and not settings.allow_subset:
        raise UserError(
            f"data set {settings.name!r}: the mirror {mirror} holds only a part of it; set "
            f"allow_subset: true for role {dataset.role!r} in the scale to use it all the same"
        )
    return path
