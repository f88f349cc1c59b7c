"""Class names of networks, and which label of a network each class of a data set is.

A network's classes are a list of names in the order of its labels: a list of one's own, or one of
:data:`NAMED`. Classes are matched by name, never by number, so that COCO's 91 category ids, the 80
contiguous labels of YOLOX and VOC's 20 classes meet in one place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from icmbench.data.readers.voc import CLASSES as VOC
from icmbench.errors import UserError

ClassList = Literal["coco-91", "coco-80", "voc-21", "imagenet-1k"]
Classes = ClassList | Annotated[list[str], Field(min_length=1)]

# The 80 classes of COCO by name, in the order of their category ids.
_COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # ids below 91 without a class
BACKGROUND, NONE = "background", "n/a"
# VOC's names of classes that COCO has under another one.
_SAME = {
    "aeroplane": "airplane", "motorbike": "motorcycle", "diningtable": "dining table",
    "pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv",
    "__background__": BACKGROUND,
}  # fmt: skip


def class_names(classes: Classes) -> list[str]:
    """Return the names of a network's classes, in the order of its labels from 0.

    ``coco-91``: torchvision's detectors; a label is COCO's category id, 0 is the background.
    ``coco-80``: the 80 classes without gaps, as YOLOX numbers them. ``voc-21``: the background and
    VOC's 20. ``imagenet-1k``: WordNet ids, sorted, as every published classifier numbers them.

    >>> class_names("coco-91")[90], class_names("coco-80")[79], class_names("voc-21")[20]
    ('toothbrush', 'toothbrush', 'tvmonitor')
    """
    if not isinstance(classes, str):
        return list(classes)
    if classes == "coco-80":
        return list(_COCO)
    if classes == "voc-21":
        return [BACKGROUND, *VOC]
    if classes == "imagenet-1k":
        return [synset for synset, _ in _imagenet()]
    names = iter(_COCO)
    return [BACKGROUND, *(NONE if n in _COCO_GAPS else next(names) for n in range(1, 91))]


def shown_names(classes: Classes) -> list[str]:
    """Return the names for people: of ImageNet WordNet's words, otherwise as :func:`class_names`.

    >>> shown_names("imagenet-1k")[0]
    'tench'
    """
    if classes == "imagenet-1k":
        return [words.split(",")[0] for _, words in _imagenet()]
    return class_names(classes)


def find_labels(names: Sequence[str], classes: Classes) -> dict[str, int]:
    """Return the label that each class of a data set has in a network, for the classes it has.

    Names agree without regard to case, ``_`` and VOC's other names of COCO's classes. ImageNet's
    classes are found by WordNet id or by any of WordNet's words that only one class has. If all
    names are whole numbers, and no class of the network is one, they are the labels themselves.

    >>> find_labels(["TV monitor", "aeroplane"], ["tv", "airplane"])
    {'aeroplane': 1}
    >>> find_labels(["n01440764", "goldfish", "crane"], "imagenet-1k")
    {'n01440764': 0, 'goldfish': 1}
    >>> find_labels(["0", "2"], ["a", "b"])
    {'0': 0}
    """
    own = class_names(classes)
    if all(name.isdecimal() for name in names) and not any(name.isdecimal() for name in own):
        return {name: int(name) for name in names if int(name) < len(own)}
    known = _known(tuple(own), classes == "imagenet-1k")
    return {name: known[_plain(name)] for name in names if _plain(name) in known}


def require_labels(names: Sequence[str], classes: Classes, what: str) -> dict[str, int]:
    """Return the label of each of these classes.

    Raises:
        UserError: naming the first class that the network does not have.
    """
    found = find_labels(names, classes)
    absent = [name for name in names if name not in found]
    if absent:
        own = class_names(classes)
        title = classes if isinstance(classes, str) else ", ".join(own)[:100]
        more = f" ({len(absent)} of {len(names)} are unknown)" if len(absent) > 1 else ""
        raise UserError(
            f"{what}: class {absent[0]!r} is not one of the {len(own)} classes of the network "
            f"({title}){more}; rename it, or set the task's 'classes'"
        )
    return found


@cache
def _known(names: tuple[str, ...], imagenet: bool) -> dict[str, int]:
    known = {_plain(name): label for label, name in enumerate(names)}
    if imagenet:
        words = [
            (_plain(word), label)
            for label, (_, text) in enumerate(_imagenet())
            for word in text.split(",")
        ]
        counts = Counter(word for word, _ in words)
        known |= {word: label for word, label in words if counts[word] == 1}
    known.pop(_plain(NONE), None)
    return known


def _plain(name: str) -> str:
    plain = name.strip().lower()
    return _SAME.get(plain, " ".join(plain.replace("_", " ").split()))


@cache
def _imagenet() -> list[tuple[str, str]]:
    """Return WordNet id and words of ImageNet's classes, from timm's tables.

    Importing timm would import torch, which jobs without networks do without.
    """
    spec = find_spec("timm")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0], "data", "_info")
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines()
    words = dict(line.split("\t", 1) for line in lines)
    synsets = (folder / "imagenet_synsets.txt").read_text("utf-8").split()
    return [(synset, words[synset]) for synset in synsets]
