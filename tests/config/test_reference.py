"""The generated reference pages and JSON Schemas: up to date, and true of all shipped files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from icmbench.config.reference import SCHEMAS, reference
from icmbench.utils.files import read_json

REPOSITORY = Path(__file__).parents[2]
FILES = [
    (path, kind)
    for pattern, kind in (
        ("config.yaml", "config"),
        ("examples/own_codec/config.yaml", "config"),
        ("workflow/scales/*.yaml", "scale"),
        ("workflow/studies/*.yaml", "study"),
        ("examples/own_codec/studies/*.yaml", "study"),
    )
    for path in sorted(REPOSITORY.glob(pattern))
]


def test_reference_is_up_to_date() -> None:
    stale = [
        str(path)
        for path, text in reference().items()
        if not (REPOSITORY / path).exists() or (REPOSITORY / path).read_text() != text
    ]
    assert not stale, "run: make reference"


@pytest.mark.parametrize(("path", "kind"), FILES, ids=lambda value: getattr(value, "name", value))
def test_schema_accepts_shipped_file(path: Path, kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = REPOSITORY / SCHEMAS / f"{kind}.schema.json"
    jsonschema.validate(yaml.safe_load(path.read_text()), read_json(schema))
    first = path.read_text().partition("\n")[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == schema


def test_schema_refuses_unknown_key() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = read_json(REPOSITORY / SCHEMAS / "scale.schema.json")
    content = yaml.safe_load((REPOSITORY / "workflow/scales/smoke.yaml").read_text())
    content["codecs"]["jpeg"] = {"qualty": 3}
    with pytest.raises(jsonschema.ValidationError, match="qualty"):
        jsonschema.validate(content, schema)
