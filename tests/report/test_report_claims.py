"""Claims on the pages: verdicts, effects with intervals, and the table of all claims."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from parsed_page import ParsedPage

from icmbench.analyse.run import analyse_run
from icmbench.config.study import Study
from icmbench.errors import UserError
from icmbench.report.claims import VERDICTS, _reason, study_claims, verdict_matrix
from icmbench.report.pages import build_report
from icmbench.report.results import load_results
from icmbench.report.style import variant_styles
from icmbench.utils.files import read_json, write_json

STUDY = "somewhere2021"
OLD, NEW = "jpeg/faster-rcnn/baseline", "jpeg/faster-rcnn/t-ft"
POINT = {"form": "point", "metric": "box_map", "rate_index": 1}
AT = POINT | {"expect": "above", "source": "p. 3"}
CLAIMS: dict[str, dict[str, Any]] = {
    "helps": AT | {"sentence": "T-FT <helps>.", "variant": NEW, "anchor": OLD, "published": 1.5,
                   "note": "Something stands in."},
    "hurts": AT | {"sentence": "T-FT hurts.", "variant": OLD, "anchor": NEW},
    "open": AT | {"sentence": "It is above its own value.", "variant": NEW, "threshold": 27.0},
    "absent": AT | {"sentence": "VVC is better.", "variant": "vvc", "anchor": OLD},
    "order": {"form": "order", "sentence": "The order is so.", "source": "p. 4",
              "variants": [NEW, OLD], "metric": "box_map", "quantity": "at_rate",
              "bpp": 1.5, "expect": "better", "level": 0.9},
    "fades": {"form": "difference", "sentence": "The gain is constant.", "source": "p. 5",
              "first": POINT | {"variant": NEW, "anchor": OLD},
              "second": POINT | {"variant": NEW, "anchor": OLD, "rate_index": 3},
              "expect": "equal", "margin": 0.5},
    "given": AT | {"sentence": "T-FT helps a saturated detector.", "variant": NEW, "anchor": OLD,
                   "preconditions": ["saturated"]},
}  # fmt: skip
# It gains 4 points.
SATURATED = POINT | {"sentence": "It is saturated.", "source": "ours", "variant": NEW,
                     "anchor": OLD, "expect": "below", "threshold": 0.5}  # fmt: skip
EXPECTED = {
    "helps": "supported",
    "hurts": "contradicted",
    "open": "inconclusive",
    "absent": "not run",
    "order": "supported",
    # 0 in every resample, for whatever reason, decides nothing.
    "fades": "inconclusive",
    "given": "not decided",
}


@pytest.fixture(scope="module")
def stated(made_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic results with claims and their report.

    T-FT gains 4 points at every point of every image.
    """
    root = Path(shutil.copytree(made_results, tmp_path_factory.mktemp("stated") / "tiny"))
    (root / "plan.sha256").unlink(missing_ok=True)
    plan = read_json(root / "plan.json")
    content = plan["studies"][STUDY] | {"claims": CLAIMS, "preconditions": {"saturated": SATURATED}}
    plan["studies"][STUDY] = Study.model_validate(content).model_dump()
    write_json(root / "plan.json", plan)
    analyse_run(root)
    build_report(root)
    return root


def test_claims_table_shows_verdict_effect_and_condition(stated: Path) -> None:
    results = load_results(stated)
    table = study_claims(results, STUDY, variant_styles(results.plan, STUDY))
    assert table is not None
    cells = {row[1].text: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    rows = {name: cells[claim["sentence"]] for name, claim in CLAIMS.items()}
    for name, verdict in EXPECTED.items():
        assert rows[name]["Verdict here"].text == f"{VERDICTS[verdict]} {verdict}"
    # Grouped by verdict, in the order of the page.
    found = [row[0].text for row in table.rows]
    assert [found.count(name) for name in dict.fromkeys(found)] == [2, 1, 2, 1, 1]
    helps = rows["helps"]
    assert helps["Measured here"].text == "+4.00 points"
    assert helps["Measured here"].note == "[4.00, 4.00]"
    assert helps["Published"].text == "+1.50 points"
    assert rows["hurts"]["Measured here"].text == "\N{MINUS SIGN}4.00 points"
    assert rows["hurts"]["Published"].text == "\N{EN DASH}"
    expected = {name: row["Supported if"].text for name, row in rows.items()}
    assert (expected["helps"], expected["open"]) == ("above 0 points", "above 27 %")
    assert expected["fades"] == "within 0.5 points of 0"
    claims = {name: row["Claim"] for name, row in rows.items()}
    evidence = {name: claim.evidence for name, claim in claims.items()}
    assert evidence["helps"][0].startswith("Box mAP of JPEG, T-FT minus JPEG")
    assert "Something stands in." in evidence["helps"]
    assert "Source: p. 3" in evidence["helps"]
    assert claims["absent"].note and "vvc" in evidence["absent"][0]
    assert len(evidence["fades"]) == 1 + 3 + 1  # the difference and its two sides
    assert claims["order"].note.endswith("1.00 of 1 pairs")
    assert "saturated" in claims["given"].note
    assert "Preconditions: saturated: contradicted" in " ".join(evidence["given"])
    # One claim has another level than the rest, so the caption cannot name one.
    assert "In brackets: the interval that decides" in table.caption
    counts = {"supported": 2, "contradicted": 1, "inconclusive": 2, "not decided": 1, "not run": 1}
    words = ", ".join(f"{n} {word}" for word, n in counts.items())
    assert table.caption.startswith(words)
    matrix = verdict_matrix(results)
    assert matrix is not None
    assert [cell.text for cell in matrix.rows[0]] == [STUDY, "2", "1", "2", "1", "1"]
    assert matrix.rows[0][1].link == f"{STUDY}.html#{STUDY}-supported"


def test_missed_rates_are_beside_the_claim(stated: Path) -> None:
    """In words, with the target, wherever the verdict is."""
    results = load_results(stated)
    rows = results.claims["claim"] == "helps"
    results.claims.loc[rows, "notes"] = f"missed-rate:{NEW} 0.0642 0.048"
    table = study_claims(results, STUDY, variant_styles(results.plan, STUDY))
    assert table is not None
    (cell,) = [row[1] for row in table.rows if row[1].text == CLAIMS["helps"]["sentence"]]
    assert all(word in cell.note for word in ("JPEG, T-FT", "0.0642 bpp", "0.048"))


def test_claims_are_on_the_study_page_and_counted_on_the_entry_page(stated: Path) -> None:
    study, entry = (ParsedPage(stated / f"report/{name}.html") for name in (STUDY, "index"))
    for claim in CLAIMS.values():
        assert claim["sentence"] in study.texts[f"{STUDY}-claims"]
    # What kind of statement they are.
    for words in ("scale tiny", "drawn scenes", "1 seed", "not decided"):
        assert words in entry.texts["claims"]
    for place in ("claims", "supported", "not-decided"):
        assert ("a", f"{STUDY}.html#{STUDY}-{place}") in entry.addresses
        assert f"{STUDY}-{place}" in study.ids
    other = ParsedPage(stated / "report/photographs2020.html")
    assert "photographs2020-claims" not in other.ids


def test_missing_or_damaged_claims_are_reported(stated: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(stated, tmp_path / "copy"))
    (root / "tables/claims.csv").unlink()
    results = load_results(root)
    assert "tables/claims.csv" in " ".join(results.missing)
    assert study_claims(results, STUDY, variant_styles(results.plan, STUDY)) is None
    (root / "tables/claims.csv").write_text("study,claim\n")
    with pytest.raises(UserError, match="'verdict'"):
        load_results(root)


def test_a_study_without_claims_has_no_section(built: Path) -> None:
    entry, study = (ParsedPage(built / f"report/{name}.html") for name in ("index", STUDY))
    assert not [name for name in study.ids if "claims" in name]
    assert not [address for _, address in entry.addresses if "#" in address and "claims" in address]


def test_reasons_name_whole_variants_by_their_labels() -> None:
    labels = {"a/b/j-ft": "J-FT", "a/b/j": "J"}
    reason = "a/b/j-ft lacks a point; not run: a/b/j-ft-noise, a/b/j."
    row = SimpleNamespace(reason=reason, notes="", tau=None)
    assert _reason(row, labels) == "J-FT lacks a point; not run: a/b/j-ft-noise, J."
