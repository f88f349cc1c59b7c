"""What a split consists of, whatever its source: files, ids, sizes and what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from icmbench.data.images import require_images
from icmbench.data.intact import FetchedFiles, check_generated
from icmbench.data.readers.coco import read_annotations
from icmbench.data.specs import DatasetSpec, EmbeddedFaces, EmbeddedScenes, ImageSplit

if TYPE_CHECKING:
    from icmbench.data.faces import FaceSet

# Of images without any object; the other classes of a detection set are its categories.
NOTHING = "nothing"


@dataclass(frozen=True)
class Index:
    """The content of a split.

    Attributes:
        images: folder or archive of the images.
        files: their names in it; None takes all, in the order of their names.
        ids: image ids; None takes the names without suffix.
        sizes: native width and height of each; None where only the images tell.
        annotations: COCO-format ground truth in native pixels of exactly these images, or None.
        labels: the class of each image, or None.
        classes: names of the classes.
        faces: attributes and parsing maps, or None.
        limit: how many images to take where ``files`` is None.
        check: raises where an image of a folder is not what was fetched, or None.
    """

    images: Path
    files: list[str] | None = None
    ids: list[int | str] | None = None
    sizes: list[tuple[int, int]] | None = None
    annotations: dict[str, Any] | None = None
    labels: Sequence[int] | None = None
    classes: Sequence[str] = ()
    faces: FaceSet | None = None
    limit: int | None = None
    check: Callable[[Path], None] | None = None


def open_index(dataset: DatasetSpec, split: str) -> Index:
    """Return the content of a split of a job's ``dataset`` section.

    Raises:
        UserError: for a split that the scale does not give, missing or damaged files.
    """
    if isinstance(dataset.settings, EmbeddedScenes):
        folder = Path(dataset.folder)
        images = folder / f"{split}.zip"
        require_images(images)
        annotations = folder / f"instances_{split}.json"
        check_generated(folder, split)
        return _coco(images, read_annotations(annotations), None)
    if isinstance(dataset.settings, EmbeddedFaces):
        return _faces(dataset, split)
    return _fetched(dataset, split, dataset.split(split))


def _fetched(dataset: DatasetSpec, split: str, place: ImageSplit) -> Index:
    folder, limit = Path(dataset.folder), place.limit
    images = folder / place.images
    # Indices that take long to make lie beside the manifest, named after the data's digest.
    beside = Path(dataset.manifest).parent
    fetched = FetchedFiles(folder)
    # Training reads each image many times, and `fetch --verify` has read it before.
    check = fetched.check if split != "train" else None
    annotations = folder / (place.annotations or "")
    match place.layout or ("coco" if place.annotations else "images"):
        case "images":
            return Index(images, limit=limit, check=check)
        case "coco":
            fetched.check(annotations)
            return _coco(images, read_annotations(annotations), limit, check)
        case "voc":
            from icmbench.data.readers.voc import cached_coco_annotations

            cache = beside / f"{dataset.name}.{split}.coco.json"
            found_objects = cached_coco_annotations(folder, place.sets, cache, fetched.check)
            return _coco(images, found_objects, limit, check)
        case "imagenet":
            from icmbench.data.readers.imagenet import index

            own: Literal["train", "val"] = "train" if split == "train" else "val"
            found = index(folder, own, beside / f"{dataset.name}.{own}.index.json")
            files = found.files[:limit]
            ids: list[int | str] = [Path(name).stem for name in files]
            labels = found.labels[:limit]
            return Index(folder, files, ids, labels=labels, classes=found.classes, check=check)
        case "celeba":
            return _faces(dataset, split)
    raise AssertionError(place.layout)


def _coco(
    images: Path,
    annotations: dict[str, Any],
    limit: int | None,
    check: Callable[[Path], None] | None = None,
) -> Index:
    entries = sorted(annotations["images"], key=lambda entry: entry["id"])[:limit]
    kept = {entry["id"] for entry in entries}
    own = [a for a in annotations["annotations"] if a["image_id"] in kept]
    categories = sorted(annotations["categories"], key=lambda entry: entry["id"])
    return Index(
        images,
        [entry["file_name"] for entry in entries],
        [entry["id"] for entry in entries],
        [(entry["width"], entry["height"]) for entry in entries],
        {**annotations, "images": entries, "annotations": own},
        _dominant(entries, own, [category["id"] for category in categories]),
        [NOTHING, *(category["name"] for category in categories)],
        check=check,
    )


def _dominant(
    entries: list[dict[str, Any]], annotations: list[dict[str, Any]], categories: list[int]
) -> list[int]:
    """Return the class of each image: that of its largest object, 0 where there is none."""
    place = {identity: number for number, identity in enumerate(categories, 1)}
    largest: dict[Any, tuple[float, int]] = {}
    for annotation in annotations:
        if annotation.get("iscrowd"):
            continue
        found = (float(annotation["area"]), place[annotation["category_id"]])
        image = annotation["image_id"]
        if image not in largest or found[0] > largest[image][0]:
            largest[image] = found
    return [largest[entry["id"]][1] if entry["id"] in largest else 0 for entry in entries]


def _faces(dataset: DatasetSpec, split: str) -> Index:
    from icmbench.data.faces import open_faces

    folder = Path(dataset.folder)
    embedded = dataset.fetched is None
    if embedded:
        check_generated(folder, split)
    else:
        fetched = FetchedFiles(folder)
        for path in sorted(folder.glob("*.txt")):
            fetched.check(path)
    faces = open_faces(dataset, split)
    files = [faces.file(identity) for identity in faces.ids]
    check = None if embedded or split == "train" else FetchedFiles(folder).check
    return Index(faces.images, files, faces.ids, faces=faces, check=check)
