"""Read the headings, paragraphs and items of an HTML page. A page with scripts is refused; nothing is fetched."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from constitutional_ai.errors import InputError

HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
BLOCKS = HEADINGS | {"p", "li", "blockquote", "dd", "dt", "div", "section", "article", "body", "main"}
UNREAD = {"style", "head", "title", "nav", "footer", "table", "pre", "code", "template", "noscript", "svg"}
ACTIVE = {"script", "iframe", "object", "embed", "applet", "frame"}
PAGE = re.compile(
    r"\s*(?:<\?xml[^>]{0,200}>\s*)?<(?:!doctype\s+html|html|body|h[1-6]|p|ol|ul|div|article)\b", re.I
)


NAME = re.compile(r"<(/?[a-zA-Z][a-zA-Z0-9]{0,20})")
TAG = re.compile(r"<[/!?a-zA-Z]")
HANDLER = re.compile(r"[\s\"'/]on[a-z]{2,20}(?=\s{0,5}=)|(?:java|vb)script:|data:text/html", re.I)


def is_html(text: str) -> bool:
    """Return whether a text is an HTML page."""
    return PAGE.match(text) is not None


def blocks_of_html(path: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the tag (``h1`` to ``h6``, ``li`` or ``p``) and the text of each block with words.

    Raises InputError naming the line of anything that a browser would run.
    """
    words: list[str] = []
    start, kind, unread = 1, "p", 0
    for line, tag, piece in _pieces(text):
        if not tag:
            if not unread:
                start = start if words else line
                words += [piece] if words or piece.strip() else []
            continue
        _refuse_scripts(path, line, tag, piece)
        closes, name = tag.startswith("/"), tag.lstrip("/")
        if name in UNREAD:
            unread = max(0, unread - 1) if closes else unread + 1
        elif name in BLOCKS:
            yield from _block(start, kind, words)
            words = []
            kind = name if not closes and (name in HEADINGS or name == "li") else "p"
    yield from _block(start, kind, words)


def _block(line: int, kind: str, words: list[str]) -> Iterator[tuple[int, str, str]]:
    text = " ".join(html.unescape("".join(words)).split())
    if any(map(str.isalpha, text)):
        yield line, kind, text


def _pieces(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield each text and each tag with its line: ``""`` and the text, or the name (``p``, ``/p``) and the whole tag.

    Every letter is looked at once or twice, whatever is left open; the library's parser takes the square of the length.
    """
    at, line = 0, 1
    while at < len(text):
        opening = text.find("<", at)
        before = text[at:] if opening < 0 else text[at:opening]
        if before:
            # the text's own first line, not that of the line breaks before it
            yield line + before[: len(before) - len(before.lstrip())].count("\n"), "", before
        line += before.count("\n")
        if opening < 0:
            return
        if not TAG.match(text, opening):  # "fewer than <5"
            yield line, "", "<"
            at = opening + 1
            continue
        is_comment = text.startswith("<!--", opening)
        closing = text.find("-->" if is_comment else ">", opening)
        end = len(text) if closing < 0 else closing + (3 if is_comment else 1)
        tag = text[opening:end]
        if not is_comment and (name := NAME.match(tag)):
            yield line, name[1].lower(), tag
        line, at = line + tag.count("\n"), end


def _refuse_scripts(path: Path, line: int, tag: str, whole: str) -> None:
    handler = HANDLER.search(whole)
    if tag in ACTIVE or handler:
        what = (
            f"<{tag}>" if tag in ACTIVE else f"'{handler[0].strip()[:20]}' in <{tag[:20]}>" if handler else ""
        )
        raise InputError(f"{path}:{line}: HTML with scripts ({what}). Save the page as text, and name that.")
