"""Documents in prose: every clause once, with its place; no heading, comment, code or script among them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from constitutional_ai.constitutions.clauses import MOST_CLAUSES, read_clauses
from constitutional_ai.constitutions.constitution import Constitution, Principle, Source
from constitutional_ai.constitutions.coverage import coverage, coverage_csv, coverage_lines
from constitutional_ai.errors import InputError

MARKDOWN = """\
---
title: ours
---
# Values

<!-- a note
to nobody -->
Be *kind* to [people](http://x.example),
even in a hurry.

## Honesty

It should:

- say what it knows,
- and **not** more.

1. Never lie.
2. Admit errors in
   3.5 million cases.

```
code = 1
```

| a | 12 |
|---|---|

![picture](x.png)

Asides
------
Be brief.

**Last words**

Be brief.
"""
PLAIN = """\
OUR RULES

Article 1
Everyone is free.
1) Nobody may be held.

Article 2: Everyone has a name.

1.2 Privacy

(a) Keep secrets.
(b) Keep still.

We met 3 times, and then
12 of us wrote this down.
"""
HTML = """\
<!DOCTYPE html><html><head><title>T</title><style>p {}</style></head><body>
<nav><a href="#x">Menu of this page</a></nav>
<h1>Values</h1>
<!-- not this -->
<p>Be <b>kind</b> &amp;
fair, if <5 ask.</p>
<h2 id="x">Honesty</h2>
<ol><li>Never lie.</li><li>Admit <a href="#x">errors</a>.</li></ol>
<table><tr><td>12</td></tr></table>
</body></html>
"""
READ = [
    ("a.md", MARKDOWN, [
        ("Values ¶1", 8, "Be kind to people, even in a hurry."),
        ("Values > Honesty ¶1", 13, "It should: say what it knows, and not more."),
        ("Values > Honesty 1", 18, "1. Never lie."),
        ("Values > Honesty 2", 19, "2. Admit errors in 3.5 million cases."),
        ("Values > Asides ¶1", 33, "Be brief."),
        ("Values > Asides > Last words ¶1", 37, "Be brief."),
    ]),
    ("a.txt", PLAIN, [
        ("OUR RULES > Article 1 ¶1", 4, "Everyone is free."),
        ("OUR RULES > Article 1 1", 5, "1) Nobody may be held."),
        ("OUR RULES Article 2", 7, "Article 2: Everyone has a name."),
        ("OUR RULES > 1.2 Privacy a", 11, "(a) Keep secrets."),
        ("OUR RULES > 1.2 Privacy b", 12, "(b) Keep still."),
        ("OUR RULES > 1.2 Privacy ¶3", 14, "We met 3 times, and then 12 of us wrote this down."),
    ]),
    ("a.html", HTML, [
        ("Values ¶1", 5, "Be kind & fair, if <5 ask."),
        ("Values > Honesty ¶1", 8, "Never lie."),
        ("Values > Honesty ¶2", 8, "Admit errors."),
    ]),
    ("a.txt", "Be kind.\n\nBe kind.\n", [("¶1", 1, "Be kind."), ("¶2", 3, "Be kind.")]),
    ("a.md", "# A\nBe kind.\n# A\nBe fair.\n", [("A ¶1", 2, "Be kind."), ("A ¶1 (2)", 4, "Be fair.")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "clauses"), READ)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_document_is_split_by_its_own_headings_and_numbers(
    tmp_path: Path, name: str, text: str, clauses: list[tuple[str, int, str]], end: str
) -> None:
    (tmp_path / name).write_bytes(text.replace("\n", end).encode())
    assert [tuple(clause) for clause in read_clauses(tmp_path / name)] == clauses


REFUSED = [
    ("<p>Be kind.</p><script>x()</script>", ":1: HTML with scripts (<script>)"),
    ("<p>Be kind.</p>\n<p onclick='x()'>Be fair.</p>", ":2: HTML with scripts ('onclick' in <p>)"),
    ("<p><a href=' JavaScript:x()'>Be kind.</a></p>", ":1: HTML with scripts ('JavaScript:' in <a>)"),
    ("<p>Be kind.<iframe src='x'></iframe></p>", ":1: HTML with scripts (<iframe>)"),
    ("# Values\n\n---\n\n12\n", " holds no clause"),
    (
        "1. Be kind.\n" * (MOST_CLAUSES + 1),
        f":{MOST_CLAUSES + 1}: more than 5,000 clauses. Split the document.",
    ),
    ("<p>x</p>" * (MOST_CLAUSES + 1), ":1: more than 5,000 clauses. Split the document."),
    ("1. a\n" * 1_000_000, " holds more than 4 MB of text. Split it"),
    ("Hm\r\r" * 900_000, " has more than 100,000 lines. Split it"),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_a_hostile_document_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        read_clauses(tmp_path / "a.txt")
    assert str(caught.value).startswith(f"{tmp_path / 'a.txt'}{sentence}")
    assert "\n" not in str(caught.value)


UNENDING = ["<p>" + "<!" * 100_000, "<p>" + "<a " * 100_000, "<p>" + "&" * 300_000, "<p>x<!--" + "-" * 300_000,
            "[" * 300_000 + "a", "*a " * 100_000, "(" * 300_000, "1." * 150_000, "<p " + "x='" * 100_000]  # fmt: skip


@pytest.mark.parametrize("text", UNENDING, ids=range(len(UNENDING)))
def test_what_never_ends_is_read_in_time(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    start = time.process_time()
    try:
        read_clauses(tmp_path / "a.txt")
    except InputError as error:
        assert "holds no clause" in str(error)
    assert time.process_time() - start < 2


def test_a_document_of_23_000_words_is_read_and_covered_in_time(tmp_path: Path) -> None:
    words = [f"word{n * 7919 % 4001}" for n in range(23_000)]
    paragraphs = [" ".join(words[start : start + 80]) for start in range(0, len(words), 80)]
    text = "".join(f"## Part {n}\n\n{paragraph}.\n\n" for n, paragraph in enumerate(paragraphs))
    (tmp_path / "long.md").write_text(text)
    start = time.process_time()
    clauses = read_clauses(tmp_path / "long.md")
    read = time.process_time() - start
    assert len(clauses) == len(paragraphs)
    assert read < 2
    mine = Constitution(name="mine", principles=(Principle(name="a", preference="Which?"),))
    assert len(coverage(mine, "long.md", clauses).uncovered) == len(paragraphs)
    assert time.process_time() - start < 10


def test_coverage_names_what_is_missing_on_either_side(tmp_path: Path) -> None:
    text = "# A\n\nBe kind to all people.\n\nBe fair.\n\nBe wise.\n\nBe kind to all the people.\n"
    (tmp_path / "a.md").write_text(text)
    clauses = read_clauses(tmp_path / "a.md")

    def principle(name: str, clause: str, document: str = "a.md", **more: object) -> Principle:
        source = Source(document=document, clause=clause)
        return Principle.model_validate({"name": name, "preference": "Which?", "source": source, **more})

    held = (
        principle("kind", "A ¶1"),
        principle("drafted", "A ¶2", draft=True),
        principle("empty", "A ¶3", draft=True, preference=None),
        principle("gone", "A ¶9"),
        principle("elsewhere", "A ¶1", "b.md"),
        Principle(name="none", preference="Which?"),
    )
    mine = Constitution.model_validate({"name": "mine", "principles": held}, context={"drafts": True})
    covered = coverage(mine, "a.md", clauses)
    assert coverage_lines(covered) == [
        "a.md: 2 of 4 clauses have a principle, 1 of them only a draft",
        "no principle: line 7: A ¶3",
        "no principle: line 9: A ¶4",
        "no clause: gone",
        "no clause: elsewhere",
        "no clause: none",
        "near-duplicates, 91 %: line 3: A ¶1; line 9: A ¶4",
    ]
    assert coverage_csv(covered).splitlines()[:3] == [
        "clause,line,words,principles",
        "A ¶1,3,5,kind",
        "A ¶2,5,2,drafted",
    ]


def test_an_anchor_finds_its_clause_in_another_edition(tmp_path: Path) -> None:
    text = "# The book\n\n## Ann’s care\n\nBe kind.\n\n## A\n\n### Twice\n\nBe fair.\n\n## B\n\n### Twice\n\nBe wise.\n"
    (tmp_path / "book.md").write_text(text)
    clauses = read_clauses(tmp_path / "book.md")
    anchors = {"near": "Ann's Care ¶1", "both": "Twice ¶1", "one": "B > Twice ¶1"}
    mine = Constitution(
        name="mine",
        principles=tuple(
            Principle(name=name, preference="Which?", source=Source(document="book.html", clause=clause))
            for name, clause in anchors.items()
        ),
    )
    covered = coverage(mine, "book.md", clauses)
    assert set(covered.principles) == {"The book > Ann’s care ¶1", "The book > B > Twice ¶1"}
    assert [p.name for p in covered.unanchored] == ["both"]
