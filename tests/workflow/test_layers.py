"""Data flow one way: the package's folders import each other without a cycle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path


def imports(package: Path) -> dict[str, set[str]]:
    """Return which parts of the package each part imports; lazy imports count, too."""
    files = {path: part(path.relative_to(package).parts) for path in package.rglob("*.py")}
    found: dict[str, set[str]] = {name: set() for name in files.values()}
    for path, own in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module.split(".")]
                if node.module == "icmbench":
                    names = [["icmbench", alias.name] for alias in node.names]
                for name in names:
                    if name[0] == "icmbench" and len(name) > 1 and name[1] != own:
                        found[own].add(name[1])
    return found


def part(path: tuple[str, ...]) -> str:
    return path[0].removesuffix(".py")


def test_no_folder_depends_on_what_depends_on_it(repository: Path) -> None:
    graph = imports(repository / "workflow" / "icmbench")
    assert {"config", "codecs", "tasks", "train", "evaluate", "analyse", "report"} <= set(graph)
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the cycle
    for before, after in (("config", "data"), ("coded", "tasks"), ("analyse", "report")):
        assert order.index(before) < order.index(after)
