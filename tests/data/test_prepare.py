"""The data set of a role: generated, or fetched with its scale's rules."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from toy_source import Toy

from icmbench.data.manifest import read_manifest
from icmbench.data.prepare import prepare
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
