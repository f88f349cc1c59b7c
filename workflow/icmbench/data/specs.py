"""Which images a data set role has: generated, or fetched through the catalogue."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from icmbench.data.classes import Classes
from icmbench.errors import UserError, unknown
from icmbench.utils.models import Strict

_BY_SOURCE = Field(discriminator="source")


class EmbeddedScenes(Strict):
    """Generated scenes with boxes and masks; needs no download."""

    source: Literal["embedded-scenes"]
    size: int = Field(128, ge=64, le=512, description="Side of the square images, in pixels.")
    objects: int = Field(4, ge=1, le=8, description="Most objects of an image; the least is one.")
    radius: list[float] = Field(
        [0.13, 0.27],
        min_length=2,
        max_length=2,
        description="Bounds of an object's radius, in sides of the image.",
    )
    train: int = Field(ge=0, description="Images of the train split.")
    val: int = Field(ge=0, description="Images of the val split.")
    test: int = Field(ge=1, description="Images of the test split.")
    seed: int = Field(2021, ge=0, description="Seed of the generator.")


class EmbeddedFaces(Strict):
    """Generated faces with attributes and parsing maps; needs no download."""

    source: Literal["embedded-faces"]
    size: int = Field(128, ge=64, le=512, description="Side of the square images, in pixels.")
    train: int = Field(ge=0, description="Images of the train split.")
    val: int = Field(ge=0, description="Images of the val split.")
    test: int = Field(ge=1, description="Images of the test split.")
    seed: int = Field(2021, ge=0, description="Seed of the generator.")


Layout = Literal["images", "coco", "maps", "classes", "voc", "imagenet", "nips2017", "celeba"]


class ImageSplit(Strict):
    """Where one split of a fetched data set lies inside its folder."""

    images: str = Field(description="Folder of the images, relative to the data set.")
    annotations: str | None = Field(
        None, description="COCO-format annotation file, relative to the data set."
    )
    layout: Layout | None = Field(
        None,
        description="How the ground truth is kept. images: there is none. coco: in the file "
        "``annotations``. maps: a PNG of labels for each image, in the folder ``maps``. null means "
        "the one of these three whose key is given. classes: a folder of images for each class. "
        "voc: PASCAL VOC's XML, of the ``sets``. imagenet: ImageNet's folders and development kit. "
        "nips2017: the table ``annotations`` of the NIPS 2017 set, with ImageId and TrueLabel. "
        "celeba: CelebA's and CelebAMask-HQ's attributes and masks.",
    )
    maps: str | None = Field(
        None,
        description="Folder of label PNGs, named as their images: class indices of the network, "
        "or of ``classes``; 255 marks pixels without a class. Images without one are left out.",
    )
    classes: list[str] | None = Field(
        None, description="Names of the classes in the maps, in the order of their indices."
    )
    sets: list[str] = Field([], description="Of PASCAL VOC, as VOC2007/trainval.")
    limit: int | None = Field(
        None, ge=1, description="Use only the first images, by sorted id; null takes all."
    )


ResizeFilter = Literal["bicubic", "bilinear"]


class Photographs(Strict):
    """How images from outside are resized, and what their rates are divided by."""

    short_side: int | None = Field(
        None,
        ge=16,
        description="Resize to this short side before the codec, as detectors do; null codes "
        "native pixels. Rates are recorded for both pixel counts.",
    )
    long_side: int | None = Field(None, ge=16, description="Bound on the resized long side.")
    resize_filter: ResizeFilter = Field(
        "bicubic",
        description="Filter of this resizing, Pillow's, as wide as the result's pixels. "
        "torchvision's presets resize with bilinear.",
    )
    center_crop: int | None = Field(
        None,
        ge=16,
        description="Side of the center crop after resizing. The train split is "
        "then neither resized nor cropped: training runs take random crops of whole images.",
    )
    rate_pixels: Literal["native", "coded"] = Field(
        "native",
        description="Pixels that rates are divided by. coded: those left after resizing and "
        "cropping, for studies whose images are defined to have that size.",
    )

    @model_serializer(mode="wrap")
    def _without_default_filter(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the default filter: jobs from before there was a choice are the same."""
        values: dict[str, Any] = handler(self)
        if values.get("resize_filter") == "bicubic":
            del values["resize_filter"]
        return values


class FetchedImages(Photographs):
    """A data set of the catalogue, fetched into the data folder."""

    source: Literal["catalogue"]
    name: str = Field(description="Name in data/catalogue.yaml.")
    splits: dict[Literal["train", "val", "test"], ImageSplit]
    allow_subset: bool = Field(
        False,
        description="Accept a mirror that holds only a part of the data set. Never compare such "
        "a result with a published one.",
    )
    otherwise: Annotated[EmbeddedScenes | EmbeddedFaces | FetchedImages, _BY_SOURCE] | None = Field(
        None,
        description="Data set to use where this one is neither fetched nor in the mirror, in place "
        "of a download. The report names what was used.",
    )

    @property
    def resized_once(self) -> bool:
        """Whether its images are resized when it is fetched, not at every reading.

        Samples of CelebAMask-HQ take long to read: an image of 1024 x 1024, a file for each part of
        its map.
        """
        resizes = self.short_side is not None and self.center_crop is None
        return resizes and self.name == "celebamask_hq"


class FolderImages(ImageSplit, Photographs):
    """Images of one's own. Paths are absolute, or relative to the working directory.

    The keys ``images``, ``annotations``, ... are those of the test split.
    """

    source: Literal["folder"] = "folder"
    train: ImageSplit | None = Field(None, description="The train split, if a study trains.")
    val: ImageSplit | None = Field(None, description="The val split, if a study validates.")

    @property
    def splits(self) -> dict[Literal["train", "val", "test"], ImageSplit]:
        """The splits that are given."""
        given = {"train": self.train, "val": self.val, "test": self._test}
        return {name: split for name, split in given.items() if split is not None}  # type: ignore[misc]

    @property
    def _test(self) -> ImageSplit:
        return ImageSplit.model_validate(self.model_dump(include=set(ImageSplit.model_fields)))


def _folder_by_default(value: Any) -> Any:
    """Let a data set without ``source`` be a folder."""
    return {"source": "folder", **value} if isinstance(value, dict) else value


Dataset = Annotated[
    EmbeddedScenes | EmbeddedFaces | FetchedImages | FolderImages,
    _BY_SOURCE,
    BeforeValidator(_folder_by_default),
]


class Needs(Strict):
    """What a task needs of a data set.

    Attributes:
        truth: kind of ground truth; maps: a class for every pixel.
        classes: number of classes of a network that is trained on the data set, or None;
            detectors count the background.
        labels: the classes of a network that has them already, or None.
        published: whether the network's weights are published ones, which fix the labels.
    """

    truth: Literal["none", "label", "boxes", "masks", "maps"] = "none"
    classes: int | None = None
    labels: Classes | None = None
    published: bool = False


class DatasetSpec(Strict):
    """The data set of a role as jobs open it.

    Attributes:
        role: what studies call it, e.g. ``detection``.
        folder: folder that holds its files.
        manifest: small file that lists them; rules depend on it instead of bulk data.
        settings: where the images come from, and how they are resized.
    """

    role: str
    folder: str
    manifest: str
    settings: Dataset

    @property
    def name(self) -> str:
        """The name in the catalogue, the role of a folder, or the name of the generator."""
        settings = self.settings
        if isinstance(settings, FolderImages):
            return self.role
        return settings.name if isinstance(settings, FetchedImages) else settings.source

    @property
    def fetched(self) -> FetchedImages | FolderImages | None:
        """The settings of images from outside; None for generated ones."""
        settings = self.settings
        return settings if isinstance(settings, FetchedImages | FolderImages) else None

    @property
    def center_crop(self) -> int | None:
        """Side of the center crop after resizing, or None."""
        return self.fetched.center_crop if self.fetched else None

    @property
    def short_side(self) -> int | None:
        """Side that images are resized to before the codec, or None."""
        return self.fetched.short_side if self.fetched else None

    @property
    def long_side(self) -> int | None:
        """Bound on the resized long side, or None."""
        return self.fetched.long_side if self.fetched else None

    @property
    def resize_filter(self) -> ResizeFilter:
        """Filter of resizing."""
        return self.fetched.resize_filter if self.fetched else "bicubic"

    @property
    def rate_pixels(self) -> Literal["native", "coded"]:
        """Pixels that rates are divided by."""
        return self.fetched.rate_pixels if self.fetched else "native"

    def split(self, name: str) -> ImageSplit:
        """Return where a split of images from outside is.

        Raises:
            UserError: for a split that the scale does not give.
        """
        given = self.fetched.splits if self.fetched else {}
        splits = {str(key): value for key, value in given.items()}
        if name not in splits:
            raise UserError(f"data set role {self.role!r}: {unknown('split', name, splits)}")
        return splits[name]
