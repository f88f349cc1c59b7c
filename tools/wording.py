"""List words that the project's texts avoid, and what to write instead; exit with 1 if any."""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatch
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FILES = (
    "*.md", ".*.yml", "config.yaml", "Makefile", "config/*", "data/*.md", "docs/**/*.md",
    "envs/*.sh", "envs/*.yaml", "examples/**/*.py", "examples/**/*.md", "examples/**/*.yaml",
    "benchmarks/*.py", "tools/*.py",
    "workflow/**/*.py", "workflow/**/*.smk", "workflow/**/*.yaml", "workflow/**/*.rst",
    "workflow/**/*.j2", "Snakefile",
)  # fmt: skip


def main() -> int:
    """Print every use as ``file:line: words -> what to write``."""
    words, allowed = [], []
    for line in (REPOSITORY / "tools/wording.txt").read_text().splitlines():
        if line.startswith("allow "):
            _, pattern, text = line.split(maxsplit=2)
            allowed.append((pattern, re.compile(text, re.IGNORECASE)))
        elif "->" in line and not line.startswith("#"):
            expression, better = (part.strip() for part in line.split("->"))
            words.append((re.compile(expression, re.IGNORECASE), better))
    found = 0
    for path in sorted({path for pattern in FILES for path in REPOSITORY.glob(pattern)}):
        name = str(path.relative_to(REPOSITORY))
        kept = [text for pattern, text in allowed if fnmatch(name, pattern)]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for text in kept:
                line = text.sub("", line)
            for expression, better in words:
                for match in expression.finditer(line):
                    print(f"{name}:{number}: {match[0]!r} -> {better}")
                    found += 1
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
