"""YAML as configuration uses it: plain values, no key twice, nothing that runs or grows."""

from __future__ import annotations

from typing import Any

import yaml

# The largest file here has some thousands.
_MOST_NODES = 200_000


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which plain YAML silently overwrites."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def get_single_data(self) -> Any:
        """Return the document, unless its aliases make it too large or endless."""
        node = self.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return self.construct_document(node)


def parse_yaml(text: str) -> Any:
    """Return what a YAML document holds.

    Raises:
        yaml.YAMLError: for tags that would run code, keys given twice, aliases that make the
            document grow without bound, and text that is not YAML.
        Exception: of other kinds, for damaged text.
    """
    return yaml.load(text, _Loader)


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Return the nodes of a document with every alias written out."""
    if id(node) not in known:
        known[id(node)] = None  # until it is counted
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    count = known[id(node)]
    if count is None or count > _MOST_NODES:
        what = (
            "an alias contains itself" if count is None else f"there are over {_MOST_NODES} nodes"
        )
        raise yaml.constructor.ConstructorError(
            None, None, f"{what}, with aliases written out", node.start_mark
        )
    return count
