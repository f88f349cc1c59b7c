"""Class names of data sets meet those of networks: by name, by ImageNet's ids, by number."""

from __future__ import annotations

import pytest
from torchvision.models import ResNet50_Weights
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.segmentation import FCN_ResNet50_Weights

from icmbench.data.classes import class_names, find_labels, require_labels, shown_names
from icmbench.errors import UserError


def test_coco_91_is_torchvisions_numbering() -> None:
    theirs = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    ours = class_names("coco-91")
    assert [name for name in theirs if name not in ("N/A", "__background__")] == [
        name for name in ours if name not in ("n/a", "background")
    ]
    assert len(ours) == len(theirs) == 91
    found = find_labels(theirs, "coco-91")
    assert all(found.get(name, label) == label for label, name in enumerate(theirs))


def test_coco_80_has_the_same_classes_without_gaps() -> None:
    kept = [name for name in class_names("coco-91") if name not in ("n/a", "background")]
    assert class_names("coco-80") == kept and len(set(kept)) == 80


def test_voc_21_is_torchvisions_numbering_and_finds_coco_names() -> None:
    theirs = FCN_ResNet50_Weights.DEFAULT.meta["categories"]
    assert list(find_labels(theirs, "voc-21").values()) == list(range(21))
    found = find_labels(class_names("coco-80"), "voc-21")
    assert sorted(found.values()) == list(range(1, 21))
    assert found["airplane"] == 1 and found["tv"] == 20 and "truck" not in found


def test_imagenet_is_torchvisions_numbering() -> None:
    theirs = ResNet50_Weights.DEFAULT.meta["categories"]
    found = find_labels(theirs, "imagenet-1k")
    assert all(found[name] == theirs.index(name) for name in found)
    # A few of torchvision's names are of two classes (crane, maillot), or are its own.
    assert len(found) > 980 and "crane" not in found
    assert find_labels(["n01440764", "n15075141"], "imagenet-1k") == {
        "n01440764": 0,
        "n15075141": 999,
    }
    assert shown_names("imagenet-1k")[999] == "toilet tissue"


def test_numbers_are_labels_only_where_no_class_is_called_so() -> None:
    assert find_labels(["0", "999", "1000"], "imagenet-1k") == {"0": 0, "999": 999}
    assert find_labels(["7", "3"], ["3", "7"]) == {"7": 1, "3": 0}
    assert find_labels(["0", "cat"], ["dog", "cat"]) == {"cat": 1}


def test_unknown_class_is_one_line_with_the_number_of_unknown_ones() -> None:
    with pytest.raises(UserError) as error:
        require_labels(["person", "wolf", "yeti"], "coco-80", "set")
    message = str(error.value)
    assert "'wolf'" in message and "2 of 3" in message and "coco-80" in message
    assert "\n" not in message
