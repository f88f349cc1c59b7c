"""Make the data set of a role ready: generate it, fetch it, or measure a folder of one's own."""

from __future__ import annotations

import zipfile
from pathlib import Path

from icmbench.data.catalogue import catalogue_path
from icmbench.data.dataset import Split, resized_archive
from icmbench.data.fetch import fetch
from icmbench.data.manifest import read_manifest
from icmbench.data.specs import DatasetSpec, EmbeddedFaces, EmbeddedScenes, FolderImages
from icmbench.errors import UserError
from icmbench.utils.files import atomic_path
from icmbench.utils.images import as_png
from icmbench.utils.logs import progress


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


def resize_faces(dataset: DatasetSpec) -> Path | None:
    """Write the images and parsing maps of a set of faces once in the size in which they are used.

    :class:`Split` then reads the same pixels in a few milliseconds. The archive, uncompressed,
    holds ``<id>.png`` and ``<id>-parsing.png`` of every image that a split uses.

    Returns:
        the archive, or None for a data set that needs none.

    Raises:
        UserError: naming an image or mask that is missing or damaged, or a full disk.
    """
    path = resized_archive(dataset)
    if path is None or path.is_file() or dataset.fetched is None:
        return path
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name in dataset.fetched.splits:
            split = Split(dataset, name, keep=False)
            for index in progress(range(len(split)), f"{dataset.name}: resizing {name}"):
                archive.writestr(f"{split.ids[index]}.png", as_png(split.original(index)))
                archive.writestr(f"{split.ids[index]}-parsing.png", as_png(split.parsing(index)))
    return path
