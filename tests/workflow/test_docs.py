"""Links between the pages of the documentation."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    path
    for pattern in ("*.md", "config/*.md", "data/*.md", "docs/**/*.md", "examples/**/*.md")
    for path in sorted(REPOSITORY.glob(pattern))
]


def anchors(page: Path) -> set[str]:
    """Return the fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ +(.+)$", page.read_text())
    plain = (re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_docs_links_lead_to_pages(page: Path) -> None:
    text = re.sub(r"(?s)```.*?```", "", page.read_text())
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert not broken


def test_the_image_has_the_data_and_results_of_the_repository() -> None:
    """Docker ignores the two folders but for what ``.dockerignore`` takes back."""
    call = ["git", "ls-files", "data", "results"]
    done = subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    rules = (REPOSITORY / ".dockerignore").read_text().splitlines()
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    tracked = {"/".join(path.split("/")[:2]) for path in done.stdout.splitlines()}
    assert tracked and not [path for path in tracked if not any(fnmatch(path, k) for k in kept)]
