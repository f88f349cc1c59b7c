"""What a split consists of, read from the layout of its data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from icmbench.data.images import ImageFiles, list_images
from icmbench.data.names import safe_id
from icmbench.data.readers.coco import normalised, read_annotations
from icmbench.data.specs import DatasetSpec, EmbeddedFaces, EmbeddedScenes, ImageSplit
from icmbench.errors import UserError, missing_file
from icmbench.utils.coco import (
    CocoAnnotations,
    CocoCategory,
    CocoImage,
    CocoObject,
    ImageId,
)

if TYPE_CHECKING:
    from icmbench.data.readers.faces import Faces

# Class of images without any object; the other classes of a detection set are its categories.
NOTHING = "nothing"


@dataclass(frozen=True)
class Index:
    """The content of a split.

    Attributes:
        images: folder or archive of the images.
        files: their names in it.
        ids: image ids.
        sizes: native width and height of each; None if only the images have them.
        objects: annotated in each image, in native pixels of the image; None without annotations.
        categories: of the objects, by id.
        labels: the class of each image, or None.
        classes: names of the classes.
        keys: by which the classes are matched with a network's; their names if empty.
        maps: files of the label maps of the images, or None.
        faces: attributes and parsing maps, or None.
        notes: what was changed on reading, for people.
    """

    images: Path
    files: list[str]
    ids: list[ImageId]
    sizes: list[tuple[int, int]] | None = None
    objects: Sequence[Sequence[CocoObject]] | None = None
    categories: Sequence[CocoCategory] = ()
    labels: Sequence[int] | None = None
    classes: Sequence[str] = ()
    keys: Sequence[str] = ()
    maps: Sequence[Path] | None = None
    faces: Faces | None = None
    notes: Sequence[str] = ()

    def annotations(self) -> CocoAnnotations | None:
        """Return the ground truth of exactly these images in COCO's format, or None."""
        if self.objects is None or self.sizes is None:
            return None
        entries: list[CocoImage] = [
            {"id": identity, "file_name": name, "width": width, "height": height}
            for identity, name, (width, height) in zip(
                self.ids, self.files, self.sizes, strict=True
            )
        ]
        objects = [own for of_image in self.objects for own in of_image]
        return {"images": entries, "annotations": objects, "categories": list(self.categories)}


def open_index(dataset: DatasetSpec, split: str, trusted: bool = False) -> Index:
    """Return the content of a split.

    Args:
        dataset: of a job.
        split: train, val or test.
        trusted: whether the annotations were validated before.

    Raises:
        UserError: for a split that the scale does not give, missing or damaged files.
    """
    folder = Path(dataset.folder)
    if isinstance(dataset.settings, EmbeddedScenes):
        annotations = read_annotations(folder / f"instances_{split}.json")
        return _coco(folder / f"{split}.zip", annotations)
    if isinstance(dataset.settings, EmbeddedFaces):
        return _faces(dataset, split)
    place = dataset.split(split)
    images, limit = folder / place.images, place.limit
    match place.layout or _layout(place):
        case "images":
            files = ImageFiles(images).names()[:limit]
            return Index(images, files, _stems(files))
        case "maps":
            return _with_maps(folder, place)
        case "classes":
            return _by_class(images, limit)
        case "coco":
            annotations = read_annotations(folder / (place.annotations or ""), trusted)
            return _coco(images, annotations, limit)
        case "voc":
            from icmbench.data.readers.voc import coco_annotations

            return _coco(images, coco_annotations(folder, place.sets), limit)
        case "imagenet":
            from icmbench.data.readers.imagenet import index

            found = index(folder, "train" if split == "train" else "val")
            files, labels = found.files[:limit], found.labels[:limit]
            return Index(
                folder,
                files,
                _stems(files),
                labels=labels,
                classes=found.classes,
                keys=found.wnids,
            )
        case "nips2017":
            from icmbench.data.readers.nips2017 import labels_of

            found_labels = labels_of(folder / (place.annotations or "images.csv"))
            files = list(found_labels)[:limit]
            return Index(
                images,
                files,
                _stems(files),
                labels=[found_labels[name] for name in files],
                classes=[str(label) for label in range(1000)],
            )
        case "celeba":
            return _faces(dataset, split)


def _layout(place: ImageSplit) -> Literal["coco", "maps", "images"]:
    if place.annotations is not None:
        return "coco"
    return "images" if place.maps is None else "maps"


def _with_maps(folder: Path, place: ImageSplit) -> Index:
    """Return the images that have a label map of their name, which need not be all."""
    images, own = folder / place.images, folder / (place.maps or "")
    maps = {path.stem: path for path in list_images(own) if path.suffix.lower() == ".png"}
    if not maps:
        raise missing_file(own / "*.png", "name the folder of the label maps under 'maps'")
    names = {Path(name).stem: name for name in ImageFiles(images).names()}
    absent = sorted(maps.keys() - names.keys())
    if absent:
        raise UserError(
            f"{maps[absent[0]]}: no image of this name in {images} ({len(absent)} of {len(maps)} "
            "label maps have none); add the image, or remove the map"
        )
    stems = sorted(maps)[: place.limit]
    files = [names[stem] for stem in stems]
    paths = [maps[stem] for stem in stems]
    return Index(images, files, _stems(files), classes=place.classes or (), maps=paths)


def _by_class(images: Path, limit: int | None) -> Index:
    """Return images in a folder for each class, labelled by the place of its name."""
    if not images.is_dir():
        raise missing_file(images, "it holds a folder for each class")
    folders = {path.name: list_images(path) for path in sorted(images.iterdir()) if path.is_dir()}
    classes = [name for name, paths in folders.items() if paths and not name.startswith(".")]
    found = [(f"{name}/{path.name}", n) for n, name in enumerate(classes) for path in folders[name]]
    files = [name for name, _ in found][:limit]
    labels = [label for _, label in found][:limit]
    # Names repeat in other classes.
    ids = [safe_id(str(PurePosixPath(name).with_suffix(""))) for name in files]
    return Index(images, files, ids, labels=labels, classes=classes)


def _stems(files: Sequence[str]) -> list[ImageId]:
    return [safe_id(Path(name).stem) for name in files]


def _faces(dataset: DatasetSpec, split: str) -> Index:
    from icmbench.data.readers.faces import open_faces

    faces = open_faces(dataset, split)
    files = [faces.file(identity) for identity in faces.ids]
    return Index(faces.images, files, faces.ids, faces=faces)


def _coco(images: Path, annotations: CocoAnnotations, limit: int | None = None) -> Index:
    annotations, notes = normalised(annotations)
    entries = sorted(annotations["images"], key=lambda entry: entry["id"])[:limit]
    objects: dict[ImageId, list[CocoObject]] = {entry["id"]: [] for entry in entries}
    for own in annotations["annotations"]:
        if own["image_id"] in objects:
            objects[own["image_id"]].append(own)
    categories = sorted(annotations["categories"], key=lambda entry: entry["id"])
    place = {category["id"]: number for number, category in enumerate(categories, 1)}
    return Index(
        images,
        [entry["file_name"] for entry in entries],
        [entry["id"] for entry in entries],
        [(entry["width"], entry["height"]) for entry in entries],
        list(objects.values()),
        categories,
        [_dominant(own, place) for own in objects.values()],
        classes_of(categories),
        notes=notes,
    )


def classes_of(categories: Sequence[CocoCategory]) -> list[str]:
    """Return the names of the classes that images have for their objects."""
    return [NOTHING, *(category["name"] for category in categories)]


def _dominant(objects: Sequence[CocoObject], place: dict[int, int]) -> int:
    """Return the class of an image: that of its largest object, 0 where there is none."""
    counted = [own for own in objects if not own.get("iscrowd")]
    if not counted:
        return 0
    return place[max(counted, key=lambda own: float(own["area"]))["category_id"]]
