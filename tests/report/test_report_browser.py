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

from icmbench.report.pages import build_report
from icmbench.utils.files import read_json, write_json

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
    drawn = [tag for tag in re.findall(r'<div class="live[^>]*>', document) if "hidden" not in tag]
    assert len(drawn) == plots


def test_legend_switches_a_curve_in_every_plot(built: Path, tmp_path: Path) -> None:
    does = """
      for (const details of all("details")) details.open = true;
      document.querySelector('button[data-label="J-FT"]').click();
    """
    found = symbols(loaded(built, STUDY, tmp_path, does))
    assert len(found) == 6
    for labels in found:
        assert set(labels) <= {"JPEG", "JPEG, T-FT"} and "JPEG" in labels


def test_plots_begin_with_their_own_curves(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A curve that is on in one plot alone goes off in all, and another one comes on in all."""
    monkeypatch.setattr("icmbench.report.charts.FRAME", 1)
    plan = read_json(root / "plan.json")
    comparison = plan["studies"][STUDY]["comparisons"][0]
    comparison["variants"] = comparison["variants"][:1]
    write_json(root / "plan.json", plan)
    build_report(root)
    first, second = symbols(loaded(root, STUDY, tmp_path))[:2]
    assert set(first) == {"JPEG, T-FT"} and set(second) == {"JPEG"}
    does = """
      for (const label of ["J-FT", "JPEG"]) {
        document.querySelector(`[data-label="${label}"]`).click();
      }
    """
    first, second = symbols(loaded(root, STUDY, tmp_path / "again", does))[:2]
    assert set(first) == {"JPEG, T-FT", "J-FT"} and set(second) == {"J-FT"}


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


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", ["index", "methods", STUDY, "task-image-quality"])
def test_nothing_overflows_the_page(built: Path, tmp_path: Path, name: str, width: int) -> None:
    """Windows are at least 500 pixels wide, so the page is opened again in a frame."""
    does = f"""
      if (parent === window) {{
        document.body.innerHTML = `<iframe src="${{location}}"></iframe>`;
        document.querySelector("iframe").style = "border: 0; width: {width}px; height: 900px";
        addEventListener("message", ({{ data }}) => document.body.append(data));
        return;
      }}
      for (const details of all("details")) details.open = true;
      for (const button of all("[data-format=LaTeX]")) button.click();
      const boxes = ".table, .live, .legend, textarea"; // they scroll
      const out = (one) => one.getBoundingClientRect().right > innerWidth + 1;
      setTimeout(() => {{
        const wide = all("body *").filter((one) => out(one) && !one.parentElement.closest(boxes));
        const {{ scrollWidth, clientWidth }} = document.documentElement;
        const found = [innerWidth, scrollWidth - clientWidth, ...wide.map((one) => one.outerHTML)];
        parent.postMessage(`found ${{found.join("|")}} end`, "*");
      }}, 2000);
    """
    found = re.search(r"found (.*?) end", loaded(built, name, tmp_path, does), re.S)
    assert found and found[1] == f"{width}|0"


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
