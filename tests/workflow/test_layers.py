"""Data flow in one direction: the parts of the package import each other without a cycle."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path


def imports(package: Path) -> dict[str, set[str]]:
    """Return which parts of the package each part imports; counting lazy imports."""
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


def test_layers_have_no_import_cycle(repository: Path) -> None:
    graph = imports(repository / "workflow" / "icmbench")
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the cycle
    chain = ("utils", "registry", "codecs", "evaluate", "tasks", "train", "config", "analyse",
             "report", "track", "cli")  # fmt: skip
    for lower, higher in pairwise(chain):
        assert not any(name == higher for name in graph[lower]), (lower, higher)
    assert set(chain) <= set(order)
