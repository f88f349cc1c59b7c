"""Pages in a real browser: plots are drawn, buttons highlight, nothing fails."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

# Presses the first button of the first legend, as the keyboard does, and opens the folded plots.
PRESS = """
<script>
addEventListener("load", () => setTimeout(() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const button = document.querySelector(".legend button");
  button.focus();
  button.click();
}, 500));
</script>
"""
PLOT = re.compile(r'<figure class="plot.*?</figure>', re.S)
PRESSED = re.compile(r'aria-pressed="true" data-label="([^"]*)"')


def loaded(page: Path, folder: Path, added: str = "") -> str:
    """Return the document after its scripts ran without a message on the console."""
    copy = folder / page.name
    copy.write_text(page.read_text(encoding="utf-8") + added, encoding="utf-8")
    command = [
        str(CHROMIUM),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--no-first-run"),
        *("--enable-logging=stderr", "--virtual-time-budget=8000", "--dump-dom"),
        f"--user-data-dir={folder / 'profile'}",
        copy.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


@pytest.mark.parametrize(
    ("name", "plots"), [("index", 0), ("methods", 0), ("task-detection", 1), ("photographs2020", 1)]
)
def test_page_opens_without_errors(comparable: Path, tmp_path: Path, name: str, plots: int) -> None:
    document = loaded(comparable / f"report/{name}.html", tmp_path)
    assert document.count('class="plot is-live"') == plots


def test_buttons_highlight_a_variant_in_every_plot(built: Path, tmp_path: Path) -> None:
    document = loaded(built / "report/somewhere2021.html", tmp_path, PRESS)
    figures = PLOT.findall(document)
    assert len(figures) == 6 and all("is-live" in figure[:60] for figure in figures)
    assert PRESSED.findall(document) == ["JPEG"] * 6
    for figure in figures:
        # Symbols of the other variants fade, those of the chosen one do not.
        symbols = re.findall(
            r'<path aria-label="[^"]*; variant: ([^;]*);[^>]* opacity="([^"]*)"', figure
        )
        assert len(symbols) == 12
        assert {label for label, opacity in symbols if float(opacity) == 1} == {"JPEG"}


def test_button_of_a_study_highlights_all_its_variants(built: Path, tmp_path: Path) -> None:
    document = loaded(built / "report/classical.html", tmp_path, PRESS)
    legends = re.findall(r'<div class="legend".*?</div>\s*</div>', document, re.S)
    assert len(legends) == 3
    for legend in legends:
        assert PRESSED.findall(legend) == ["somewhere2021: JPEG", "somewhere2021: J-FT"]
        assert 'aria-pressed="false" data-label="photographs2020: JPEG"' in legend
