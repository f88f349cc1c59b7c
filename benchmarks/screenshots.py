"""Screenshots of pages for the documentation, by headless Chromium.

    python benchmarks/screenshots.py docs/images study=results/mini/report/chamain2021.html:1500

writes the first 1500 of the page's pixels in height, ``WIDTH`` wide, to docs/images/study.png; with
``:400x1500`` it is 400 wide, as on a phone. A page is a file or an http address. Fewer colours make
the files a third as large.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT, COLOURS = 1280, 1500, 128
_WAIT_MS = 10_000  # virtual time for scripts
_NARROWEST = 500  # of Chromium's windows; a narrower page is shown in a frame


def screenshot(address: str, target: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Write the top of a page as PNG.

    Args:
        address: of a page, or the path of its file.
        target: file to write.
        width, height: of the window in pixels.
    """
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder, "page.png")
        address = address if "://" in address else Path(address).absolute().as_uri()
        frame = Path(folder, "frame.html")
        frame.write_text(
            '<!DOCTYPE html><body style="margin: 0"><iframe style="border: 0; display: block" '
            f'width="{width}" height="{height}" src="{address}"></iframe>'
        )
        command = [
            *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--hide-scrollbars", f"--virtual-time-budget={_WAIT_MS}"),
            f"--user-data-dir={folder}/profile",
            f"--window-size={max(width, _NARROWEST)},{height}",
            f"--screenshot={taken}",
            address if width >= _NARROWEST else frame.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        image = Image.open(taken).convert("RGB").crop((0, 0, width, height))
    target.parent.mkdir(parents=True, exist_ok=True)
    few = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(target, optimize=True)


if __name__ == "__main__":
    for shot in sys.argv[2:]:
        name, _, page = shot.partition("=")
        page, _, size = page.rpartition(":") if page[-1].isdigit() else (page, "", str(HEIGHT))
        width, _, height = size.rpartition("x")
        screenshot(page, Path(sys.argv[1], f"{name}.png"), int(width or WIDTH), int(height))
