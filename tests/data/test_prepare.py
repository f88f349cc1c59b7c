"""The data set of a role: generated, or fetched with its scale's rules."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_source import Toy

from icmbench.data.dataset import Split, resized_archive
from icmbench.data.manifest import read_manifest
from icmbench.data.prepare import prepare, resize_faces
from icmbench.errors import UserError


def test_prepare_refuses_a_subset_unless_the_scale_allows_it(
    toy: Toy, tmp_path: Path, fetched: Any
) -> None:
    toy.data_dir.mkdir()
    shutil.copy(toy.catalogue, toy.data_dir / "catalogue.yaml")
    toy.write_unpacked(tmp_path / "mirror" / "toy", images=2)
    with pytest.raises(UserError, match=r"'toy'.*allow_subset"):
        prepare(fetched(toy.folder, "toy", {"images": "img"}), str(tmp_path / "mirror"))
    allowed = fetched(toy.folder, "toy", {"images": "img"}, allow_subset=True)
    manifest = read_manifest(prepare(allowed, str(tmp_path / "mirror")))
    assert manifest is not None and manifest.subset


def test_faces_are_resized_and_their_masks_merged_once(tmp_path: Path, fetched: Any) -> None:
    """The same pixels as from the files of the data set, which are then not read again."""
    folder = tmp_path / "celebamask_hq"
    masks = folder / "CelebAMask-HQ-mask-anno" / "0"
    masks.mkdir(parents=True)
    (folder / "CelebA-HQ-img").mkdir()
    rows = {"0": 119613, "1": 119614, "2": 182638}  # two of the train split, one of the test split
    (folder / "CelebA-HQ-to-CelebA-mapping.txt").write_text(
        "idx orig_idx orig_file\n" + "".join(f"{i} {k} {k + 1:06d}.jpg\n" for i, k in rows.items())
    )
    (folder / "CelebAMask-HQ-attribute-anno.txt").write_text(
        "3\nSmiling Young\n" + "".join(f"{i}.jpg -1 1\n" for i in rows)
    )
    rng = np.random.default_rng(0)
    for identity in map(int, rows):
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(image).resize((1024, 1024)).save(folder / f"CelebA-HQ-img/{identity}.jpg")
        for part in ("skin", "hair", "l_eye"):
            mask = rng.integers(0, 2, (8, 8), np.uint8) * 255
            large = Image.fromarray(mask).resize((512, 512), Image.Resampling.NEAREST)
            large.convert("RGB").save(masks / f"{identity:05d}_{part}.png")
    Path(f"{folder}.manifest.json").write_text('{"digest": "d"}')
    place = {"images": "CelebA-HQ-img", "layout": "celeba"}
    dataset = fetched(folder, "celebamask_hq", place, short_side=200, rate_pixels="coded")
    native = fetched(folder, "celebamask_hq", place)

    def samples() -> list[Any]:
        splits = [Split(dataset, name) for name in ("train", "test")]
        return [
            array for s in splits for i in range(len(s)) for array in (s.image(i), s.parsing(i))
        ]

    expected = samples()
    assert [array.shape for array in expected] == 3 * [(200, 200, 3), (200, 200)]
    assert len(np.unique(expected[1])) == 4
    path = resize_faces(dataset)
    assert path is not None and path.is_file() and resize_faces(native) is None
    shutil.rmtree(masks)
    for found, array in zip(samples(), expected, strict=True):
        assert found.dtype == np.uint8 and np.array_equal(found, array)
    split = Split(dataset, "test")
    assert split.native_size(0) == (1024, 1024) and split.rate_pixels(0) == 200 * 200
    # Other images, sizes or limits have an archive of their own.
    limited = fetched(folder, "celebamask_hq", {**place, "limit": 1}, short_side=200)
    Path(f"{folder}.manifest.json").write_text('{"digest": "e"}')
    assert len({path, resized_archive(dataset), resized_archive(limited)}) == 3
    with pytest.raises(UserError, match=r"00000_\*\.png"):
        Split(dataset, "train").parsing(0)
