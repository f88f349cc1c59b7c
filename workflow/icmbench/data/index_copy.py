"""A copy of a split's index that opens at once, however large its annotation file is.

An Arrow file has a row for each image: what lists need as columns, its objects with their masks as
JSON text. It is mapped into memory, so the objects of an image are read when they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from icmbench.data.index import Index, classes_of
from icmbench.errors import UserError
from icmbench.utils.coco import CocoObject
from icmbench.utils.files import atomic_path, reading

_ROWS = 4096  # of a record batch
_ADVICE = "delete it; it is made again"


def write_copy(path: Path, index: Index) -> None:
    """Write the copy of an annotated split's index, atomically.

    Raises:
        CannotWrite: for a full disk or a read-only folder.
    """
    import pyarrow as pa

    assert index.objects is not None and index.sizes is not None and index.labels is not None
    texts = isinstance(index.ids[0], str)
    categories = json.dumps(index.categories)
    schema = pa.schema(
        {
            "id": pa.string() if texts else pa.int64(),
            "file": pa.string(),
            "width": pa.int32(),
            "height": pa.int32(),
            "label": pa.int32(),
            "objects": pa.binary(),
        },
        {"categories": categories},
    )
    widths, heights = zip(*index.sizes, strict=True)
    with atomic_path(path) as temporary, pa.ipc.new_file(temporary, schema) as file:
        for first in range(0, len(index.ids), _ROWS):
            rows = slice(first, first + _ROWS)
            objects = [json.dumps(own).encode() for own in index.objects[rows]]
            lists = (index.ids, index.files, widths, heights, index.labels)
            file.write_batch(
                pa.record_batch([*(own[rows] for own in lists), objects], schema=schema)
            )


def read_copy(path: Path, images: Path) -> Index | None:
    """Return the index of a split, without notes; None where there is no copy, or a damaged one.

    Args:
        path: of the copy.
        images: folder or archive of the images.
    """
    objects = _Objects(path)
    try:
        with reading(path, _ADVICE):
            table = objects.open()
            ids, files, widths, heights, labels = (
                table[name].to_pylist() for name in ("id", "file", "width", "height", "label")
            )
            categories = json.loads(table.schema.metadata[b"categories"])
    except (FileNotFoundError, UserError):
        return None
    sizes = list(zip(widths, heights, strict=True))
    classes = classes_of(categories)
    return Index(images, files, ids, sizes, objects, categories, labels, classes)


class _Objects(Sequence[Sequence[CocoObject]]):
    """The objects of each image, read one image at a time."""

    def __init__(self, path: Path) -> None:
        self._path, self._table = path, None

    def __getstate__(self) -> dict[str, object]:
        # A loader's worker process maps the file itself.
        return {**self.__dict__, "_table": None}

    def open(self) -> Any:
        """Return the table."""
        if self._table is None:
            import pyarrow as pa

            self._table = pa.ipc.open_file(pa.memory_map(str(self._path))).read_all()
        return self._table

    def __len__(self) -> int:
        return int(self.open().num_rows)

    @overload
    def __getitem__(self, index: int) -> Sequence[CocoObject]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[CocoObject]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        text = self.open()["objects"][index].as_py()
        with reading(self._path, _ADVICE):
            return json.loads(text)
