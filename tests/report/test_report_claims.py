"""Claims on the page: verdicts in words, effects with intervals, and the table at a glance."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from icmbench.analyse.run import analyse_run
from icmbench.config.study import Study
from icmbench.errors import UserError
from icmbench.report.build import build_report
from icmbench.report.claims import glance_table, load_claims, study_claims
from icmbench.report.results import load_results
from icmbench.report.style import variant_styles
from icmbench.utils.files import read_json, write_json

STUDY = "somewhere2021"
OLD, NEW = "jpeg/faster-rcnn/baseline", "jpeg/faster-rcnn/t-ft"
AT = {"form": "point", "metric": "box_map", "rate_index": 1, "expect": "above", "source": "p. 3"}
POINT = {k: v for k, v in AT.items() if k not in ("expect", "source")}
CLAIMS: dict[str, dict[str, Any]] = {
    "helps": AT | {"sentence": "T-FT <helps>.", "variant": NEW, "anchor": OLD, "published": 1.5,
                   "note": "Something stands in."},
    "hurts": AT | {"sentence": "T-FT hurts.", "variant": OLD, "anchor": NEW},
    "open": AT | {"sentence": "It is above its own value.", "variant": NEW, "threshold": 27.0},
    "absent": AT | {"sentence": "VVC is better.", "variant": "vvc", "anchor": OLD},
    "order": {"form": "order", "sentence": "The order is so.", "source": "p. 4",
              "variants": [NEW, OLD], "metric": "box_map", "quantity": "at_rate",
              "bpp": "lowest", "expect": "better", "level": 0.9},
    "fades": {"form": "difference", "sentence": "The gain is constant.", "source": "p. 5",
              "first": POINT | {"variant": NEW, "anchor": OLD},
              "second": POINT | {"variant": NEW, "anchor": OLD, "rate_index": 3},
              "expect": "equal", "margin": 0.5},
}  # fmt: skip


@pytest.fixture
def stated(root: Path) -> Path:
    """The synthetic results with claims; T-FT gains 4 points at every point of every image."""
    plan = read_json(root / "plan.json")
    sound = {name: claim for name, claim in CLAIMS.items() if name != "absent"}
    content = {k: v for k, v in plan["studies"][STUDY].items() if k != "claims"}
    study = Study.model_validate(content | {"claims": sound}).model_dump()
    study["claims"]["absent"] = CLAIMS["absent"]  # as of a variant that the run leaves out
    plan["studies"][STUDY] = study
    for point in plan["points"]:
        if not Path(point["folder"]).is_absolute() or root.name not in point["folder"]:
            point["folder"] = str(root / "runs" / point["key"])
    write_json(root / "plan.json", plan)
    analyse_run(root)
    return root


class Page(HTMLParser):
    """Text of each element that has an id, nested ones included."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[str | None] = []
        self.of: dict[str, list[str]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img", "br", "path"):
            self.stack.append(dict(attrs).get("id"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        for name in filter(None, self.stack):
            self.of.setdefault(name, []).append(" ".join(data.split()))

    def text(self, name: str) -> str:
        return " ".join(filter(None, self.of.get(name, [])))


def test_claims_on_the_page(stated: Path) -> None:
    build_report(stated)
    html = (stated / f"report/{STUDY}.html").read_text(encoding="utf-8")
    page = Page(html)
    section = page.text(f"{STUDY}-claims")
    for words in (
        "3 supported, 1 contradicted, 1 inconclusive, 1 not run at this scale",
        "\N{CHECK MARK} supported",
        "\N{BALLOT X} contradicted",
        "? inconclusive the interval does not clear the threshold",
        "\N{EM DASH} not run at this scale vvc was not run",
        "+4.00 points",
        "\N{MINUS SIGN}4.00 points",
        "Box mAP of JPEG, T-FT minus JPEG, rate index 1",
        "above 0 points",
        "above 27 %",
        "within 0.5 points of 0",
        "Something stands in.",
        "6 images of detection (test); 1 seed. The 95 % interval (40 resamples)",
        "not the variation between trainings",
        "First: Box mAP of JPEG, T-FT minus JPEG, rate index 1",
        "Published numbers are the paper's own and decide nothing here: they come from another",
        "p. 5",
    ):
        assert words in section, words
    entry = (stated / "report/index.html").read_text(encoding="utf-8")
    glance = Page(entry).text("claims")
    assert "somewhere2021" in glance and "photographs2020" not in glance
    for claim in CLAIMS.values():
        assert claim["sentence"] in glance
    assert f'href="{STUDY}.html#{STUDY}-claims"' in entry and f'href="#{STUDY}-claims"' in html
    assert "T-FT &lt;helps&gt;." in html and "T-FT &lt;helps&gt;." in entry
    other = (stated / "report/photographs2020.html").read_text(encoding="utf-8")
    assert "photographs2020-claims" not in entry + other
    # The table as a file has every digit and column of the analysis.
    link = re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]*)"', html)
    assert link is not None
    saved = pd.read_csv(io.BytesIO(base64.b64decode(link[1])))
    source = pd.read_csv(stated / "tables/claims.csv")
    assert saved["effect"].tolist() == pytest.approx(source["effect"].tolist(), nan_ok=True)
    assert list(saved.columns) == list(source.columns)


def test_swapping_results_flips_the_page(stated: Path) -> None:
    plan = read_json(stated / "plan.json")
    folders = {
        (p["variant"], p["rate_index"]): p["folder"] for p in plan["points"] if p["study"] == STUDY
    }
    other = {OLD: NEW, NEW: OLD}
    for point in plan["points"]:
        if point["study"] == STUDY and point["variant"] in other:
            point["folder"] = folders[other[point["variant"]], point["rate_index"]]
    write_json(stated / "plan.json", plan)
    before = verdicts(stated)
    analyse_run(stated)
    after = verdicts(stated)
    assert (before["helps"], before["hurts"], before["order"]) == (
        "supported",
        "contradicted",
        "supported",
    )
    assert (after["helps"], after["hurts"], after["order"]) == (
        "contradicted",
        "supported",
        "contradicted",
    )


def verdicts(root: Path) -> dict[str, str]:
    table = pd.read_csv(root / "tables/claims.csv").set_index("claim")
    return {str(name): str(verdict) for name, verdict in table["verdict"].items()}


def test_published_stands_apart_from_measured(stated: Path) -> None:
    results = load_results(stated)
    rows = load_claims(results)
    part = study_claims(rows, results, STUDY, variant_styles(results.plan, STUDY))
    assert part is not None
    measured, published = (part.table.columns.index(c) for c in ("Measured here", "Published"))
    row = next(row for row in part.table.rows if row[0].text == "T-FT <helps>.")
    assert row[measured].text == "+4.00 points" and row[measured].note == "[4.00, 4.00]"
    assert row[published].text == "+1.50 points"
    without = next(row for row in part.table.rows if row[0].text == "T-FT hurts.")
    assert without[published].text == "\N{EN DASH}"
    # One claim has another level than the rest, so the caption names none.
    assert "95 %" not in part.table.caption
    captions = [table.caption for table in part.parts]
    assert captions == ["What “The gain is constant.” rests on."]
    glance = glance_table(rows, results)
    assert glance is not None and len(glance.rows) == len(CLAIMS)
    assert glance.rows[0][0].rows == len(CLAIMS)


def test_without_claims_or_their_tables(root: Path, stated: Path) -> None:
    (stated / "tables/claims.csv").unlink()
    build_report(stated)
    entry = (stated / "report/index.html").read_text(encoding="utf-8")
    text = (stated / f"report/{STUDY}.html").read_text(encoding="utf-8")
    assert "tables/claims.csv is missing: repeat the analysis." in text
    assert "tables/claims.csv is missing: repeat the analysis." in entry
    assert "This study states 6 claims; none is decided yet." in text
    (stated / "tables/claims.csv").write_text("study,claim\n")
    (stated / "tables/tables.sha256").unlink()
    with pytest.raises(UserError, match="column 'form' is missing"):
        load_claims(load_results(stated))


def test_a_study_without_claims_has_no_section(built: Path) -> None:
    pages = [(built / f"report/{name}.html").read_text("utf-8") for name in ("index", STUDY)]
    assert all("-claims" not in text and "Claims at a glance" not in text for text in pages)
