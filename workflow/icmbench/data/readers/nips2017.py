"""The table of the NIPS 2017 ImageNet-compatible set (Kurakin et al., 2018): a class an image."""

from __future__ import annotations

import csv
from pathlib import Path

from icmbench.errors import damaged_file, missing_file
from icmbench.utils.files import reading

_FETCH = "fetch the data set again"


def labels_of(table: Path) -> dict[str, int]:
    """Return the ImageNet class, from 0, of each image by file name, sorted.

    The table has them from 1, as ``TrueLabel``.

    Raises:
        UserError: naming a table that is missing or not this one.
    """
    try:
        with reading(table, _FETCH), table.open(encoding="utf-8", newline="") as stream:
            found = {
                f"{row['ImageId']}.png": int(row["TrueLabel"]) - 1 for row in csv.DictReader(stream)
            }
    except FileNotFoundError:
        raise missing_file(table, _FETCH) from None
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_file(table, f"no ImageId or TrueLabel ({error})", _FETCH) from None
    if not found or not all(0 <= label < 1000 for label in found.values()):
        raise damaged_file(table, "its classes are not 1 to 1000", _FETCH)
    return dict(sorted(found.items()))
