from __future__ import annotations

from pathlib import Path

import pytest

from constitutional_ai.constitutions.published import import_constitution
from constitutional_ai.errors import InputError

PAGE = """\
Our values
==========

## Agreed

We agreed on these:

- The AI should be **as kind** as it can be.
- [x] It should not mock anybody,
  whoever they are.

---

### Later
1. It should say *when* it is unsure.
2) It should weigh a_b and 2 * 3 alike.
"""
PAGES_STATEMENTS = [
    "The AI should be as kind as it can be.",
    "It should not mock anybody, whoever they are.",
    "It should say when it is unsure.",
    "It should weigh a_b and 2 * 3 alike.",
]


@pytest.mark.parametrize("name", ["page.md", "page.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_the_items_of_a_page_become_principles_and_without_marks(
    tmp_path: Path, name: str, end: str
) -> None:
    (tmp_path / name).write_bytes(PAGE.replace("\n", end).encode("utf-8-sig"))
    assert [p.preference for p in import_constitution(tmp_path / name).principles] == PAGES_STATEMENTS


REFUSED = [  # (file, its text, what the error says after the path)
    ("a.md", "# Values\n\nThe AI should be kind.\n", ":3: text outside the list of statements"),
    ("a.md", "The AI should be kind.\nIt should be wise.\n", ":1: text outside the list of statements"),
    ("a.md", "- Be kind.\n\nAnd this we think besides.\n", ":3: text outside the list of statements"),
    ("a.md", "- Be kind.\n  - Even to wasps.\n", ":2: a list within a list"),
    ("a.md", "- Be kind.\n- **Wisdom**: be wise.\n", ":2: a named definition"),
    ("a.md", "- Be kind.\n- **Wisdom:** be wise.\n", ":2: a named definition"),
    ("a.md", "- Be kind.\n- Wisdom (0.3): be wise.\n", ":2: a named definition"),
    ("a.md", "- Be kind.\n- Read [this](elsewhere.md).\n", ":2: a text with a link"),
    ("a.md", "| statement | votes |\n|---|---|\n| Be kind. | 12 |\n", ":1: text outside"),
    ("a.md", "# Values\n", " holds no principle"),
    ("a.txt", "- name: kindness\n  definition: Be kind.\n  weight: 2\n", ":2: a named field"),
    ("a.txt", "name: kindness\ndefinition: Be kind.\n", ":1: a named field"),
    ("a.txt", "Be kind to people.\nBe wise, 0.4\n", ":2: a text with a number at one end"),
    ("a.txt", "Kindness - Be kind - 0.5\n", ":1: a text with a number at one end"),
    ("a.md", "- Be kind. (188 agree, 12 disagree)\n", ":1: a text with a number at one end"),
    ("a.md", "- Be kind. — 88 % agreed\n", ":1: a text with a number at one end"),
    ("a.md", "- #12 Be kind.\n", ":1: a text with a number at one end"),
    ("a.txt", "0.8: Be honest with others.\n", ":1: a text with a number at one end"),
    ("a.txt", "(0.8) Be honest with others.\n", ":1: a text with a number at one end"),
    ("a.txt", "Be kind to people.\n[3] Be honest with others.\n", ":2: a text with a number at one end"),
    ("a.txt", "0.8) Be honest with others.\n", ":1: a text with a number at one end"),
    ("a.md", "- **0.8** Be honest.\n", ":1: a text with a number at one end"),
    ("a.md", "- *12* Be honest.\n", ":1: a text with a number at one end"),
    ("a.md", "- 30% Be honest.\n", ":1: a text with a number at one end"),
    ("a.md", "- 3× Be honest.\n", ":1: a text with a number at one end"),
    ("a.md", "- Be honest **0.8**\n", ":1: a text with a number at one end"),
    ("a.md", "- Be honest **12**\n", ":1: a text with a number at one end"),
    ("a.md", "- Be honest `0.8`\n", ":1: a text with a number at one end"),
    ("a.md", "- Be honest 30%\n", ":1: a text with a number at one end"),
    ("a.md", "- Be honest ×3\n", ":1: a text with a number at one end"),
    ("a.md", "- Be honest x3\n", ":1: a text with a number at one end"),
    ("a.txt", "Be honest with others. 12 votes\n", ":1: a text with a number at one end"),
    ("a.md", "- Be honest (12 votes)\n", ":1: a text with a number at one end"),
    ("a.txt", "Be honest with others, weight 0.8\n", ":1: a text with its weight"),
    ("a.txt", "Be honest with others. (weight: high)\n", ":1: a text with its weight"),
    ("a.md", "- Be honest, priority: high\n", ":1: a text with its weight"),
    ("a.txt", "Weight 2: be honest with others.\n", ":1: a text with its weight"),
    ("a.md", "1. Honesty (30%). Be honest.\n", ":1: a named definition"),
    ("a.md", "- Be kind.[^1]\n", ":1: a text with a link"),
    ("a.txt", "Kindness\nBe kind to people.\nWisdom\nBe wise with money.\n", ":1: a heading"),
    ("a.txt", "17 Be kind to people.\n", ":1: a text with a number at one end"),
    ("a.txt", "comment-id,agrees,comment-body\n0,188,Be kind.\n", ":1: a row of a table"),
    ("a.txt", "0;188;Be kind.\n", ":1: a row of a table"),
    ("a.txt", "Be kind.\t12\n", ":1: a row of a table"),
    ("a.txt", "kindness | 0.4 | Be kind.\n", ":1: a row of a table"),
    ("a.txt", "Be kind to people.\n12\n", ":2: a text without words"),
    ("a.txt", "Our values\nBe kind to people.\nBe wise with money.\n", ":1: a heading"),
    ("a.txt", "Our values:\nBe kind to people\n", ":1: a heading"),
    ("a.txt", "Be kind to people.\n> As she said.\n", ":2: a quotation"),
    ("a.txt", "<h1>Values</h1>\n", ":1: HTML"),
    ("a.json", '["Be kind.", "# Values"]', ": [1] is a heading"),
    ("a.json", '["Be kind.", "- Be wise."]', ": [1] is an item of a list"),
    ("a.json", '["0,188,12,Be kind."]', ": [0] is a row of a table"),
]


@pytest.mark.parametrize(("name", "text", "said"), REFUSED)
def test_what_is_no_statement_is_refused_with_its_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        import_constitution(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}{said}")


def test_sentences_with_numbers_commas_and_colons_are_statements(tmp_path: Path) -> None:
    lines = [
        "Which answer, of the 2, is kinder?",
        "Note: choose the answer that says less.",
        "Choose the answer that would please 1,000 people, or more.",
        "Which is wiser: the first or the second?",
        "Answer within 3 sentences.",
        "Choose the answer that puts the most weight on truth.",
        "In the worst case (5%), say so to them.",
        "Prefer the answer that is fit for children under 12",
        "Choose the answer, of the 2, that would get 12 votes.",
    ]
    (tmp_path / "mine.txt").write_text("\n\n".join(lines))
    assert [p.preference for p in import_constitution(tmp_path / "mine.txt").principles] == lines
