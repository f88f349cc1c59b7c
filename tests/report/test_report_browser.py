"""The page in a real browser: plots are drawn, buttons highlight, nothing is fetched or fails."""

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


def dump(page: Path, profile: Path) -> tuple[str, str]:
    """Return the document after its scripts ran, and the browser's log."""
    command = [
        str(CHROMIUM),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--no-first-run"),
        *("--enable-logging=stderr", "--virtual-time-budget=8000", "--dump-dom"),
        f"--user-data-dir={profile}",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def test_plots_are_drawn_and_buttons_highlight(built: Path, tmp_path: Path) -> None:
    page = (built / "report/somewhere2021.html").read_text(encoding="utf-8")
    copy = tmp_path / "page.html"
    copy.write_text(page + PRESS, encoding="utf-8")
    document, log = dump(copy, tmp_path / "profile")
    problems = [line for line in log.splitlines() if "CONSOLE" in line]
    assert problems == []
    figures = re.findall(r'<figure class="plot[^>]*>.*?</figure>', document, re.S)
    assert len(figures) == 6
    for figure in figures:
        assert "is-live" in figure[:60]
        assert figure.count('aria-roledescription="point"') == 12
    pressed = re.findall(r'aria-pressed="true" data-label="([^"]*)"', document)
    assert pressed == ["JPEG"] * 6  # in every legend of the study
    for figure in figures:
        # Symbols of the two other variants fade, those of the chosen one do not.
        opacities = re.findall(
            r'<path aria-label="[^"]*; variant: ([^;]*);[^>]* opacity="([^"]*)"', figure
        )
        assert len(opacities) == 12
        assert {label for label, opacity in opacities if float(opacity) == 1} == {"JPEG"}
        assert {float(opacity) for label, opacity in opacities if label != "JPEG"} == {0.1}


def test_a_study_is_highlighted_as_a_whole(built: Path, tmp_path: Path) -> None:
    page = (built / "report/classical.html").read_text(encoding="utf-8")
    copy = tmp_path / "page.html"
    copy.write_text(page + PRESS, encoding="utf-8")
    document, log = dump(copy, tmp_path / "profile")
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    assert document.count("is-live") >= 3
    # The first button is that of the study: its variants are pressed in all three legends.
    legends = re.findall(r'<div class="legend".*?</div>\s*</div>', document, re.S)
    assert len(legends) == 3
    for legend in legends:
        pressed = re.findall(r'aria-pressed="true" data-label="([^"]*)"', legend)
        assert pressed == ["somewhere2021: JPEG", "somewhere2021: J-FT"]
        assert legend.count('class="all" aria-pressed="true"') == 1
        assert 'aria-pressed="false" data-label="photographs2020: JPEG"' in legend


@pytest.mark.parametrize("name", ["index", "methods", "task-detection"])
def test_pages_load_without_complaint(built: Path, tmp_path: Path, name: str) -> None:
    document, log = dump(built / f"report/{name}.html", tmp_path / "profile")
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    drawn = re.findall(r'<figure class="plot is-live"', document)
    assert len(drawn) == (1 if name == "task-detection" else 0)


def test_published_curves_are_drawn_without_complaint(comparable: Path, tmp_path: Path) -> None:
    document, log = dump(comparable / "report/photographs2020.html", tmp_path / "profile")
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    figures = re.findall(r'<figure class="plot[^>]*>.*?</figure>', document, re.S)
    drawn = [figure for figure in figures if "ELIC (published)" in figure.partition("<img")[0]]
    (psnr,) = (figure for figure in drawn if "is-live" in figure[:60])
    assert psnr.count('aria-roledescription="point"') == 2 + 19 + 6
    assert 'stroke-dasharray="3,3"' in psnr
