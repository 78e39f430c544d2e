"""Draft principles from the clauses of a document: the request to a model, its reply, the sieve, and the file to edit.

A clause is no principle: it explains, qualifies and repeats. A model drafts several candidates for it; what cannot be
read, what the linter finds fault with and what repeats another candidate is dropped. What is left is written to a file
in which every principle is marked ``draft: true``. No run accepts a draft: a person reads each beside its clause, edits
it, and deletes the mark. Without a model the file has an empty draft for each clause.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

from rapidfuzz import fuzz, utils

from constitutional_ai.constitutions.clauses import Clause
from constitutional_ai.constitutions.constitution import SIDES, Constitution, Principle, dumped
from constitutional_ai.constitutions.lint import NEAR, lint
from constitutional_ai.records import Conversation, Message
from constitutional_ai.safe_text import visible

LONGEST = 600
"""Letters of the longest text of a candidate; a principle is a sentence or two."""
SIDE = re.compile(rf"\W{{0,6}}({'|'.join(SIDES)})\W{{0,4}}:[*_\s]{{0,6}}(\S.*)", re.IGNORECASE)
QUOTED = re.compile(r"([\"“'])(.*)[\"”']$")
EXAMPLES: tuple[dict[str, str], ...] = (
    {
        "clause": "We hope that the assistant keeps confidences and does not pass on what people tell it.",
        "critique": "Say which parts of your last reply pass on something that a person told you in confidence.",
        "revision": "Write your reply again without passing on anything that was told in confidence.",
        "preference": "Which of these replies keeps confidences better?",
        "upheld": "You are a discreet assistant. You keep to yourself what people tell you.",
        "broken": "You are an indiscreet assistant. You pass on what people tell you.",
    },
    {
        "clause": "A person who is new to a subject should not meet words that nobody has explained to them.",
        "critique": "Say which words of your last reply a newcomer to the subject would not know.",
        "revision": "Write your reply again and explain each word that a newcomer to the subject would not know.",
        "preference": "Which of these replies is easier to follow for a newcomer to the subject?",
        "upheld": "You are a patient assistant. You explain every word that a newcomer would not know.",
        "broken": "You are an impatient assistant. You use difficult words and explain none of them.",
    },
    {
        "clause": "People must be able to tell what the assistant itself advises from what somebody paid for.",
        "critique": "Say where your last reply praises a product without saying why you do so.",
        "revision": "Write your reply again without advertising, and give your reasons for what you advise.",
        "preference": "Which of these replies sounds less like an advertisement?",
        "upheld": "You are an independent assistant. You advertise nothing, and give reasons for your advice.",
        "broken": "You are a salesman. You advertise products and hide why you do so.",
    },
)
"""Ours. They are about things that few documents say, so that copies of them are seen."""
REQUEST = """\
Below is one clause of a document about how an AI assistant should behave. Turn what it asks for into three texts, in \
plain words and without names of people or companies. Write each on one line, as in the example.

Example clause: {example}
Clause: {clause}
"""
WANTED = {
    "critique": "a request to say where the assistant's last reply goes against it",
    "revision": "a request to write that reply again so that it keeps to it",
    "preference": "a question which of two replies keeps to it better",
    "upheld": "who an assistant is that keeps to it",
    "broken": "who an assistant is that goes against it",
}
"""What a side of a principle is, where it is asked for alone."""
ORDER = "Write {side}, in one or two short sentences."


def request(clause: Clause) -> str:
    """Return the request for one candidate."""
    example = EXAMPLES[0]
    lines = [example["clause"], *(f"{side.upper()}: {example[side]}" for side in SIDES), ""]
    return REQUEST.replace("{example}", "\n".join(lines)).replace("{clause}", clause.text)


def request_for(side: str, clause: Clause) -> Conversation:
    """Return the request for one side alone, behind the examples: for models that cannot keep the form of all."""
    turns = [(example["clause"], example[side]) for example in EXAMPLES]
    question = f"Clause: {{clause}}\n\n{ORDER.replace('{side}', WANTED[side])}"
    examples = [
        (Message("user", question.replace("{clause}", about)), Message("assistant", text))
        for about, text in turns
    ]
    return (
        *[turn for pair in examples for turn in pair],
        Message("user", question.replace("{clause}", clause.text)),
    )


def candidate(clause: Clause, document: str, number: int, reply: str) -> Principle | None:
    """Return the candidate that a reply holds, as a draft; None if it lacks a critique, a revision or a preference."""
    texts: dict[str, str] = {}
    for line in reply.splitlines():
        if match := SIDE.match(line):
            texts.setdefault(match[1].lower(), text_in(match[2]))
    return candidate_of(clause, document, number, texts)


def candidate_of(clause: Clause, document: str, number: int, texts: Mapping[str, str]) -> Principle | None:
    """Return the candidate with these texts by side, as a draft; None if it lacks one of the first three.

    One description of an assistant without the other is left out.
    """
    texts = {side: text for side, text in texts.items() if text}
    if not all(texts.get(side) for side in SIDES[:3]):
        return None
    if not (texts.get("upheld") and texts.get("broken")):
        texts = {side: texts[side] for side in SIDES[:3]}
    name = f"{name_of(clause)}-{number}"
    return Principle.model_validate({"name": name, **texts, "source": clause.anchor(document), "draft": True})


def text_in(reply: str) -> str:
    """Return the first line with words, without a label, marks or quotation marks; "" if there is none, or too long.

    >>> text_in('**Critique:** "Was it kind?"')
    'Was it kind?'
    """
    line = next((line for line in reply.splitlines() if any(map(str.isalpha, line))), "")
    labelled = SIDE.match(line)
    text = (labelled[2] if labelled else line).strip().strip("*").strip()
    quoted = QUOTED.match(text)
    text = quoted[2] if quoted else text
    return text if len(text) <= LONGEST else ""


def stub(clause: Clause, document: str) -> Principle:
    """Return an empty draft for a clause."""
    return Principle(name=name_of(clause), source=clause.anchor(document), draft=True)


def name_of(clause: Clause) -> str:
    """Return a name for the principles of a clause: the last words of its label and its line, which no other has.

    >>> name_of(Clause("Values > Being kind ¶2", 31, "…"))
    'being-kind-2-l31'
    """
    words = re.findall(r"\w+", clause.label.rpartition(" > ")[2].lower())
    return "-".join([*words[-6:], f"l{clause.line}"])


def fault_of(draft: Principle, earlier: Sequence[Principle]) -> str | None:
    """Return why a candidate is dropped: what the linter finds, or an earlier one that says the same; else None."""
    read = draft.model_copy(update={"draft": False})
    if findings := lint(Constitution(name="candidate", principles=(read,))):
        return findings[0].kind
    if any(_near(example, draft) for example in EXAMPLES):
        return "copies the example"
    if _near({side: ORDER.replace("{side}", what) for side, what in WANTED.items()}, draft):
        return "copies the request"
    return "near-duplicate" if any(_near(one.texts, draft) for one in earlier) else None


def _near(texts: Mapping[str, str], draft: Principle) -> bool:
    """Return whether the draft's question, or its request for a revision, nearly is the one of ``texts``."""
    return any(
        fuzz.ratio(texts.get(side, ""), draft.texts.get(side, ""), processor=utils.default_process) >= NEAR
        for side in ("preference", "revision")
    )


def sifted(candidates: Sequence[Sequence[Principle | None]]) -> tuple[list[list[Principle]], Counter[str]]:
    """Return the candidates of each clause that are kept, and counts of all: kept, and dropped for each reason."""
    kept: list[list[Principle]] = []
    counts: Counter[str] = Counter({"kept": 0})
    before: list[Principle] = []
    for of_clause in candidates:
        kept.append([])
        for draft in of_clause:
            fault = "unreadable" if draft is None else fault_of(draft, before)
            counts[fault or "kept"] += 1
            if draft is not None and fault is None:
                kept[-1].append(draft)
                before.append(draft)
    return kept, counts


HELP = """\
# A principle has a 'critique' and a 'revision', or a 'preference', or all three; 'upheld' and 'broken' if you will.
# Correct what is written, write what is not, delete what the clause does not ask for, and then each 'draft: true'.
"""


def drafts_file(document: str, clauses: Sequence[Clause], drafts: Sequence[Sequence[Principle]]) -> str:
    """Return the text of a file to edit: each clause as a comment above its drafts."""
    head = dumped({"name": document, "description": f"Drafts from {document}, to be read and edited."})
    parts = [head, HELP, "principles:\n"]
    for clause, of_clause in zip(clauses, drafts, strict=True):
        parts.append(_comment(f"{clause.label} (line {clause.line}): {clause.text}"))
        for draft in of_clause:
            data = draft.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
            parts.append(textwrap.indent(dumped([data]), "  "))
    return "\n".join(parts)


def _comment(text: str) -> str:
    """Return a text as lines of a YAML comment. Its own line breaks, of any kind, become spaces."""
    words = visible(" ".join(text.split()))
    return "".join(f"  # {line}\n" for line in textwrap.wrap(words, 108, break_on_hyphens=False))
