"""Pages in a real browser: plots are drawn, buttons work, nothing fails."""

from __future__ import annotations

import csv
import html
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

PLOT = re.compile(r'<figure class="plot.*?</figure>', re.S)
SYMBOL = re.compile(r'<path aria-label="[^"]*variant: ([^;]*);')
STUDY = "somewhere2021"


def loaded(built: Path, name: str, folder: Path, does: str = "") -> str:
    """Return the document of a page after a script, without a message on the console.

    The report is moved, and opened from its files.
    """
    shutil.copytree(built / "report", folder / "report", dirs_exist_ok=True)
    copy = folder / f"report/{name}.html"
    script = "const all = (s) => [...document.querySelectorAll(s)];"
    script += f'addEventListener("load", () => setTimeout(() => {{ {does} }}, 500));'
    copy.write_text(copy.read_text(encoding="utf-8") + f"<script>{script}</script>")
    command = [
        str(CHROMIUM),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"),
        *("--enable-logging=stderr", "--virtual-time-budget=8000", "--dump-dom"),
        f"--user-data-dir={folder / 'profile'}",
        copy.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    messages = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # Chromium's own page of a folder has one about itself.
    assert [line for line in messages if "crbug" not in line] == []
    return done.stdout


def symbols(document: str) -> list[list[str]]:
    """Return the labels of the symbols of each plot."""
    return [SYMBOL.findall(figure) for figure in PLOT.findall(document)]


@pytest.mark.parametrize(
    ("name", "plots"), [("index", 0), ("methods", 0), ("task-detection", 1), ("photographs2020", 1)]
)
def test_page_opens_without_errors(comparable: Path, tmp_path: Path, name: str, plots: int) -> None:
    document = loaded(comparable, name, tmp_path)
    assert len(re.findall(r'class="plot[^"]* is-live"', document)) == plots


def test_legend_switches_a_curve_in_every_plot(built: Path, tmp_path: Path) -> None:
    does = """
      for (const details of all("details")) details.open = true;
      document.querySelector('button[data-label="J-FT"]').click();
    """
    found = symbols(loaded(built, STUDY, tmp_path, does))
    assert len(found) == 6
    for labels in found:
        assert set(labels) <= {"JPEG", "JPEG, T-FT"} and "JPEG" in labels


def test_legend_switches_all_curves_of_a_study(built: Path, tmp_path: Path) -> None:
    document = loaded(built, "task-image-quality", tmp_path, 'all("button.all")[0].click();')
    assert {label for labels in symbols(document) for label in labels} == {"photographs2020: JPEG"}
    assert document.count('aria-pressed="false" data-label="somewhere2021') == 2


def test_axes_become_linear_and_logarithmic(built: Path, tmp_path: Path) -> None:
    does = """
      const figure = document.querySelector("figure.plot");
      for (const button of figure.querySelectorAll("button[data-axis]")) button.click();
    """
    document = loaded(built, STUDY, tmp_path, does)
    switched, other = PLOT.findall(document)[:2]
    scales = [re.findall(r"a (linear|log) scale", figure) for figure in (switched, other)]
    assert scales == [["linear", "log"], ["log", "linear"]]
    assert len(SYMBOL.findall(switched)) == 12


def test_click_on_a_symbol_opens_the_operating_point(built: Path, tmp_path: Path) -> None:
    point = f"runs/{STUDY}/jpeg/faster-rcnn/baseline/rate0-seed0"
    (tmp_path / point).mkdir(parents=True)
    (tmp_path / point / "evaluate.json").touch()
    does = """
      const symbol = document.querySelector(".mark-symbol path");
      symbol.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    """
    assert "evaluate.json" in loaded(built, STUDY, tmp_path, does)


def test_tables_are_copied_as_text(built: Path, tmp_path: Path) -> None:
    does = """
      for (const [place, format] of ["CSV", "Markdown", "LaTeX"].entries()) {
        all(".tablebox")[place].querySelector(`[data-format=${format}]`).click();
      }
    """
    document = loaded(built, STUDY, tmp_path, does)
    texts = [
        html.unescape(t) for t in re.findall(r"<textarea[^>]*>(.*?)</textarea>", document, re.S)
    ]
    rows = list(csv.reader(io.StringIO(texts[0])))
    assert rows[0][:3] == ["Variant", "Rate setting", "Rate (bpp)"] and len(rows) == 14
    assert [row[0] for row in rows[2:6]] == ["JPEG"] * 4  # repeated where cells are joined
    lines = texts[1].splitlines()
    assert lines[0].startswith("| Variant | Anchor |") and set(lines[1]) == set("| -")
    assert {line.count(" | ") for line in lines} == {lines[0].count(" | ")}
    assert texts[2].startswith("\\begin{tabular}{l") and "Box mAP (\\%)" in texts[2]
    assert texts[2].count("\\\\") == texts[2].count("\n") - 4
