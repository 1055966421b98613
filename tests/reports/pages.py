"""A page as a reader sees it: parsed strictly, by the standard library alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

from domainfusion.reports import RunSummary, render_html

VOID = {"meta", "br", "input", "link", "img", "hr"}


@dataclass
class Element:
    """A parsed element: its own tag and attributes, and its children, elements or text."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def words(self) -> str:
        """The text with white space as a browser shows it."""
        return " ".join(self.text.split())

    def all(self, tag: str = "", wanted: str = "", **attributes: str) -> Iterator[Element]:
        """Yields the descendants of a tag, with a class and with attributes, in the order of the document."""
        for child in self.children:
            if isinstance(child, str):
                continue
            has_class = wanted in child.attributes.get("class", "").split() if wanted else True
            if (not tag or child.tag == tag) and has_class and all(child.attributes.get(key) == value for key, value in attributes.items()):
                yield child
            yield from child.all(tag, wanted, **attributes)

    def one(self, tag: str = "", wanted: str = "", **attributes: str) -> Element:
        (found,) = self.all(tag, wanted, **attributes)
        return found


class Page(HTMLParser):
    """Parses a page and refuses tags that are not closed in the order in which they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("document")
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert self._open == [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"<{tag}> has an attribute twice"
        element = Element(tag, {key: value or "" for key, value in attrs})
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def page(summary: RunSummary) -> Element:
    return Page(render_html(summary)).root
