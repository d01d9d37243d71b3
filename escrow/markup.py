"""HTML and its kin: the text a person would see, and the text that only a machine reads.

Pure, one forward pass. A parser of our own because the standard library's is quadratic on some inputs in the Pythons we
support (CVE-2025-6069), because nothing here needs a tree, and because nothing is lost where a browser would read the markup
otherwise: the raw text is judged as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAG = re.compile(r"<(?:!|/?[A-Za-z])")
_NAME = re.compile(r"/?([A-Za-z][A-Za-z0-9:-]{0,40})")
_ATTRIBUTE = re.compile(r"([A-Za-z_:@-][\w:@.-]{0,60})\s{0,8}=\s{0,8}(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]{1,2000}))")
_HIDING = re.compile(
    r"display\s{0,4}:\s{0,4}none|visibility\s{0,4}:\s{0,4}hidden|font-size\s{0,4}:\s{0,4}0(?!\s{0,4}\.?[1-9])|opacity\s{0,4}:\s{0,4}0(?![.\d])"
    r"|(?:left|top|text-indent)\s{0,4}:\s{0,4}-\d{3,}|color\s{0,4}:\s{0,4}(?:#fff(?:fff)?\b|white|transparent)|(?:max-)?(?:height|width)\s{0,4}:\s{0,4}0(?![.\d])",
    re.IGNORECASE,
)
_BOOLEAN_HIDDEN = re.compile(r"\shidden(?=[\s/>=]|$)", re.IGNORECASE)
_SPOKEN = frozenset({"alt", "title", "aria-label", "aria-description", "content", "placeholder", "summary", "label", "value", "longdesc"})
_VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})
_BLOCK = frozenset({"p", "div", "br", "li", "tr", "td", "th", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "section", "pre"})
_CODE = frozenset({"script", "style", "template", "noscript"})


@dataclass(frozen=True, slots=True)
class Markup:
    """visible: with tags taken out. attributes: alt, title and their like. hidden: comments, and what style or `hidden` hides."""

    visible: str
    attributes: str
    hidden: str


def looks_marked_up(text: str) -> bool:
    """Whether a text has a tag or a comment in it."""
    return "<" in text and _TAG.search(text) is not None


def read(text: str) -> Markup:
    """Split marked-up text. Linear: every search starts where the last ended, and a search that fails is not repeated."""
    visible: list[str] = []
    spoken: list[str] = []
    hidden: list[str] = []
    at, inside, depth = 0, "", 0  # inside: the element that hides, depth: how many of its name are open
    while True:
        match = _TAG.search(text, at)
        start = match.start() if match else len(text)
        (hidden if inside else visible).append(text[at:start])
        if match is None:
            break
        if text.startswith("<!--", start):
            end = text.find("-->", start + 4)
            hidden.append("\n\n" + text[start + 4 : end if end >= 0 else len(text)] + "\n\n")
            if end < 0:
                break
            at = end + 3
            continue
        end = text.find(">", start)
        if end < 0:
            hidden.append(text[start:])
            break
        tag = text[start + 1 : end]
        at = end + 1
        named = _NAME.match(tag)
        if named is None:  # <!DOCTYPE …>, <![CDATA[…]]>
            hidden.append(tag)
            continue
        name = named.group(1).lower()
        if name in _BLOCK:
            (hidden if inside else visible).append("\n")
        if tag[0] == "/":
            if name == inside:
                depth -= 1
                if depth == 0:
                    inside = ""
                    hidden.append("\n\n")
            continue
        hides = name in _CODE or _BOOLEAN_HIDDEN.search(tag) is not None
        for attribute in _ATTRIBUTE.finditer(tag, named.end()):
            value = attribute.group(2) or attribute.group(3) or attribute.group(4) or ""
            label = attribute.group(1).lower()
            if label == "style" and _HIDING.search(value):
                hides = True
            elif " " in value and (label in _SPOKEN or label.startswith("data-")):
                spoken.append(value)
        if inside:
            depth += name == inside and not tag.endswith("/")
        elif hides and name not in _VOID and not tag.endswith("/"):
            inside, depth = name, 1
    return Markup("".join(visible), "\n\n".join(spoken), "".join(hidden).strip())
