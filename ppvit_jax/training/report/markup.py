"""HTML and SVG elements, whose text is escaped unless it is HTML already."""

import html
import re
from collections.abc import Iterable, Sequence

# Elements without an end tag.
_VOID = {"meta", "img"}
# Control characters, which HTML forbids; line breaks and tabs stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


class Html(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Returns a value as HTML text; control characters and lone surrogates become escapes such as \\x00."""
    if isinstance(value, Html):
        return value
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return Html(html.escape(_CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)))


def join(children: Iterable[object]) -> Html:
    """Returns the escaped children one after another."""
    return Html("".join(map(escape, children)))


def element(tag: str, /, *children: object, **attributes: object) -> Html:
    """Returns an element.

    Args:
      tag: the name of the element, such as "p".
      children: its content: HTML, or values whose text is escaped.
      attributes: as in class_="wide" or aria_label="Loss"; None leaves the attribute out.
    """
    texts = [
        f' {title.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for title, value in attributes.items()
        if value is not None
    ]
    start = f"<{tag}{''.join(texts)}>"
    return Html(start) if tag in _VOID else Html(f"{start}{join(children)}</{tag}>")


def section(title: str, *children: object, id_: str) -> Html:
    """Returns a section with a heading."""
    heading = element("h2", title, id=f"{id_}-title")
    return element("section", heading, *children, id=id_, aria_labelledby=f"{id_}-title")


def table(caption: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """Returns a table that scrolls sideways where the page is narrow.

    Args:
      caption: its title, which is read aloud before the table.
      head: headings of the columns.
      rows: cells; the first of a row is its heading.
    """
    heads = element("tr", *(element("th", text, scope="col") for text in head))
    lines = [
        element("tr", element("th", first, scope="row"), *(element("td", cell) for cell in rest))
        for first, *rest in rows
    ]
    content = element(
        "table",
        element("caption", caption),
        element("thead", heads),
        element("tbody", *lines),
    )
    return element("div", content, class_="scroll", role="region", aria_label=caption, tabindex=0)


def details(summary: str, *children: object) -> Html:
    """Returns a part of the page that the reader opens."""
    return element("details", element("summary", summary), *children)
