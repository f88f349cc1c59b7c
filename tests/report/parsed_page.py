"""An HTML page taken apart for tests."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

VOID = {"meta", "link", "img", "br", "path", "rect", "input"}


class ParsedPage(HTMLParser):
    """The parts of a page; elements that are closed out of order fail the test.

    Attributes:
        ids: of all elements.
        addresses: tag and address of everything that the page links to or embeds.
        tables: rows of the text of cells.
        plots: Vega-Lite specifications.
        texts: text of every element that has an id, nested elements included; "" is the page.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.plots: list[dict[str, Any]] = []
        self.texts: dict[str, str] = {"": ""}
        self._open: list[tuple[str, str | None]] = []
        self._in_cell = False
        self._specification: str | None = None
        self.feed(path.read_text(encoding="utf-8"))
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if named.get("id"):
            self.ids.append(str(named["id"]))
        for name in ("src", "href"):
            if address := named.get(name):
                self.addresses.append((tag, address))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True
        elif tag == "script" and named.get("type") == "application/json":
            self._specification = ""
        if tag not in VOID:
            self._open.append((tag, named.get("id")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        opened, _ = self._open.pop()
        assert opened == tag, (tag, self.getpos())
        if tag in ("td", "th"):
            self._in_cell = False
        elif tag == "script" and self._specification is not None:
            self.plots.append(json.loads(self._specification))
            self._specification = None

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] in ("script", "style"):
            if self._specification is not None:
                self._specification += data
            return
        words = " ".join(data.split())
        if not words:
            return
        if self._in_cell:
            self.tables[-1][-1][-1] = f"{self.tables[-1][-1][-1]} {words}".strip()
        for name in {"", *(identity for _, identity in self._open if identity)}:
            self.texts[name] = f"{self.texts.get(name, '')} {words}".strip()

    @property
    def text(self) -> str:
        """All text of the page."""
        return self.texts[""]
