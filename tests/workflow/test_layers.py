"""Data flow in one direction: each part of the package imports only parts of lower layers."""

from __future__ import annotations

import ast
from pathlib import Path

LAYERS = (
    "errors", "utils", "registry", "plugins", "metrics", "data", "jobs", "summaries", "networks",
    "codecs", "evaluate", "tasks", "train", "config", "analyse", "report", "track", "commands",
    "workflow", "cli", "__main__",
)  # fmt: skip


def imports(package: Path) -> dict[str, set[str]]:
    """Return the parts that each part of the package imports, counting lazy imports."""
    found: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        own = path.relative_to(package).parts[0].removesuffix(".py")
        found.setdefault(own, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module.split(".")]
                if node.module == "icmbench":
                    names = [["icmbench", alias.name] for alias in node.names]
                found[own] |= {n[1] for n in names if n[0] == "icmbench" and len(n) > 1}
    return {name: others - {name, "__version__"} for name, others in found.items()}


def test_layers_import_only_lower_ones(repository: Path) -> None:
    graph = imports(repository / "workflow" / "icmbench")
    assert set(graph) - {"__init__"} == set(LAYERS)
    wrong = {
        f"{name} imports {other}"
        for place, name in enumerate(LAYERS)
        for other in graph[name]
        if other not in LAYERS[:place]
    }
    assert not wrong
