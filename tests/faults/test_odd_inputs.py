"""The property test of tests/data/test_checks.py, with ten times the examples."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from conftest import fetched  # noqa: F401
from test_checks import clean, fuzz  # noqa: F401

pytestmark = pytest.mark.faults

test_check_of_many_combined_kinds = fuzz(500)
