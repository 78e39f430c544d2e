"""Split a document in prose into clauses, by its own headings and numbering: Markdown, plain text or HTML.

A clause is a paragraph or an item of a list; a list that continues a sentence belongs to it. Its label is made of the
headings above it and its own number or, without one, its place below the last heading: ``Honesty > Doubt ¶2``.
Headings, comments, code, tables, pictures and what stands before the text between ``---`` lines are no clauses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from constitutional_ai.constitutions.constitution import LARGEST, Source
from constitutional_ai.constitutions.html_blocks import blocks_of_html, is_html
from constitutional_ai.data.lines import read_text
from constitutional_ai.errors import InputError

MOST_CLAUSES = 5_000
MOST_LINES = 100_000
"""Lines of the longest document: a million headings without a clause would take 14 s."""
LONGEST_HEADING = 12
"""Words of a heading without marks, which is a line by itself without a full stop."""
MARKED = re.compile(r"(#{1,6})[ \t]+(.+?)[ \t#]*$")
BOLD = re.compile(r"(?:\*\*|__)([^*_]{1,120})(?:\*\*|__):?$")
BULLET = re.compile(r"[-*+•–][ \t]+(?=\S)")
KIND = r"(?:Article|Section|Clause|Rule|Principle|Chapter|Part)[ \t]+[\dIVXLC]{1,8}(?:\.\d{1,4}){0,5}"
DOTTED = r"\d{1,4}(?:\.\d{1,4}){1,5}"
ITEM = re.compile(r"(?:\d{1,3}[.)]|\((?:[A-Za-z]|[ivx]{1,6}|\d{1,3})\)|[A-Za-z][)])[ \t]+(?=\S)")
"""Matches the number of an item that begins a line within a paragraph, where ``3.5 million`` is none."""
NUMBER = re.compile(
    rf"(?:{ITEM.pattern}|(?P<dotted>{DOTTED})[.):]?[ \t]+(?=\S)|(?:{KIND}[.):]|§+[ \t]*[\d.]{{1,12}})[ \t]+(?=\S))"
)
ALONE = re.compile(rf"(?:{KIND}|§+[ \t]*[\d.]{{1,12}})[.:]?$", re.I)
"""Matches a number that is a heading by itself, even right above its text."""
LEVEL_ALONE = 4
UNDERLINE = re.compile(r"(={2,}|-{2,})$")
NO_CLAUSE = re.compile(r"\||!\[[^\]]*\]\([^)]*\)\s*$|(?:[-*_][ \t]*){3,}$|[\W\d_]*$")
"""Matches rows of tables, pictures, rules, and lines without words."""
LINK = re.compile(r"\[([^\]\[]{1,300})\]\([^()]{0,2000}\)")
EMPHASIS = re.compile(r"(\*\*|__|(?<!\w)[*_](?=\S))(.{1,200}?)(?<=\S)\1")


class Clause(NamedTuple):
    """A part of a document that may become a principle."""

    label: str
    line: int
    text: str

    def anchor(self, document: str) -> Source:
        """Return the ``source`` of a principle that is made of it."""
        return Source(document=document, clause=self.label, line=self.line)


class Block(NamedTuple):
    """A heading (of level 1 and up), an item of a list, or a paragraph."""

    line: int
    level: int
    text: str
    is_bullet: bool = False
    number: str = ""


def read_clauses(path: Path) -> list[Clause]:
    """Return the clauses of a document, in order.

    Raises InputError if it is no text, holds scripts, has no clause, or more than ``MOST_CLAUSES``, or is too large or
    too long.
    """
    text = read_text(path, largest=LARGEST)
    if len(text.splitlines()) > MOST_LINES:
        raise InputError(f"{path} has more than {MOST_LINES:,} lines. Split it, and name one part.")
    if is_html(text):
        blocks: Iterable[Block] = (_of_html(*block) for block in blocks_of_html(path, text))
    else:
        blocks = _blocks(text)
    clauses = list(_labelled(path, _joined(blocks)))
    if not clauses:
        raise InputError(f"{path} holds no clause: no paragraph and no item of a list.")
    return clauses


def _of_html(line: int, tag: str, text: str) -> Block:
    if tag[0] == "h":
        return Block(line, int(tag[1]), text)
    number = NUMBER.match(text)
    return Block(line, 0, text, tag == "li", number[0].strip() if number else "")


def _blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of Markdown or plain text."""
    lines = _without_comments(text)
    marked = any(MARKED.match(line) or UNDERLINE.match(line.strip()) for _, line in lines if line.strip())
    paragraph: list[str] = []
    start = 0
    for number, line in [*lines, (0, "")]:
        words = line.strip()
        heading = MARKED.match(words) or ALONE.match(words)
        begins = BULLET.match(words) or ITEM.match(words)
        if paragraph and (not words or heading or begins or NO_CLAUSE.match(words)):
            if UNDERLINE.match(words) and len(paragraph) == 1:
                yield Block(start, 1 if words[0] == "=" else 2, paragraph[0])
            else:
                yield _block(start, " ".join(paragraph), marked)
            paragraph = []
        if heading:
            yield Block(
                number, *((len(heading[1]), heading[2]) if heading.re is MARKED else (LEVEL_ALONE, words))
            )
        elif words and not NO_CLAUSE.match(words):
            start = start if paragraph else number
            paragraph.append(words)


def _block(line: int, text: str, marked: bool) -> Block:
    bullet = BULLET.match(text)
    bare = text[bullet.end() :] if bullet else text
    number = NUMBER.match(bare)
    if not bullet and (level := _level_of_heading(bare, number, marked)):
        return Block(line, level, bare)
    return Block(line, 0, bare, bool(bullet), number[0].strip() if number else "")


def _level_of_heading(text: str, number: re.Match[str] | None, marked: bool) -> int:
    """Return the level of a heading without ``#``; 0 if the text is none.

    Where a document marks its headings, only a line in bold is one besides.
    """
    if BOLD.match(text):
        return 5
    if marked or len(text.split()) > LONGEST_HEADING or text.endswith((".", "?", "!", ";", ":", ",")):
        return 0
    return 1 + number["dotted"].count(".") if number and number["dotted"] else 1


def _without_comments(text: str) -> list[tuple[int, str]]:
    """Return the lines that are neither in a comment, nor in code, nor in the preamble, with their numbers."""
    kept: list[tuple[int, str]] = []
    lines = text.splitlines()
    end = ""  # of what is being left out
    for number, line in enumerate(lines, start=1):
        words = line.strip()
        if end:
            end = "" if end in words else end
        elif words == "---" and number == 1 and "---" in map(str.strip, lines[1:60]):
            end = "---"
        elif fence := re.match(r"```|~~~", words):
            end = fence[0]
        elif words.startswith("<!--"):
            end = "" if "-->" in words else "-->"
        else:
            kept.append((number, line))
            continue
        kept.append((number, ""))
    return kept


def _joined(blocks: Iterable[Block]) -> Iterator[Block]:
    """Join a list without numbers to the sentence that it continues, which ends with a colon."""
    last: Block | None = None
    goes_on = False
    for block in blocks:
        goes_on = (
            block.is_bullet and not block.number and last is not None and (goes_on or last.text.endswith(":"))
        )
        if goes_on and last is not None and not last.level:
            last = last._replace(text=f"{last.text} {block.text}")
            continue
        if last is not None:
            yield last
        last = block
    if last is not None:
        yield last


def _labelled(path: Path, blocks: Iterable[Block]) -> Iterator[Clause]:
    headings: list[tuple[int, str]] = []
    seen: Counter[str] = Counter()
    place = count = 0
    for block in blocks:
        text = _plain(block.text)
        if block.level:
            headings = [*[h for h in headings if h[0] < block.level], (block.level, text.rstrip(":"))]
            place = 0
            continue
        if count == MOST_CLAUSES:
            raise InputError(f"{path}:{block.line}: more than {MOST_CLAUSES:,} clauses. Split the document.")
        if ALONE.match(block.number):  # "Article 2: …" stands beside "Article 1", not below it
            headings = [h for h in headings if h[0] < LEVEL_ALONE]
        count, place = count + 1, place + 1
        above = " > ".join(heading for _, heading in headings)
        label = f"{above} {block.number.strip('.:() ') or f'¶{place}'}".strip()
        seen[label] += 1
        yield Clause(label if seen[label] == 1 else f"{label} ({seen[label]})", block.line, text)


def _plain(text: str) -> str:
    """Return a text without emphasis and the addresses of its links."""
    return " ".join(EMPHASIS.sub(r"\2", LINK.sub(r"\1", text)).split())
