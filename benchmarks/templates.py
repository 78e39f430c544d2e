"""Print the table of docs/backends.md about chat templates: what tokenizers of known families do, and what we do.

    python benchmarks/templates.py FOLDER...

A folder holds a tokenizer, and its chat template if it has one. Its row is what is measured on it: nothing is known
about a family beforehand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from constitutional_ai.models.chat_template import (
    ANSWER,
    DATE,
    HUMAN,
    SYSTEM,
    render,
    settle,
    template_thinking,
)
from constitutional_ai.models.rendering import escape_tokens, uses_plain_format
from constitutional_ai.models.thinking import opens_thought
from constitutional_ai.models.turn_tokens import controls, end_of_turn

QUESTION, REPLY, RULE = ("user", HUMAN), ("assistant", ANSWER), ("system", SYSTEM)
COLUMNS = (
    "family",
    "template",
    "thinking",
    "system turn",
    "two human turns",
    "an answer continues its prompt",
    "date",
    "` (A)` and `(A)` begin with",
    "an answer ends with",
    "tokens escaped",
)


def main(folders: list[str]) -> None:
    """Print the table of the tokenizers in ``folders``."""
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for folder in folders:
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in row(Path(folder))) + " |")


def row(folder: Path) -> Iterator[str]:
    """Yield the cells of one tokenizer. Where two facts are parted by an arrow, the second is ours."""
    own, ours = [AutoTokenizer.from_pretrained(folder, trust_remote_code=False) for _ in range(2)]
    settle(ours, folder.name)
    yield folder.name
    if uses_plain_format(ours):
        yield from ("none: the plain format", *["–"] * 5)
    else:
        yield "as it is" if own.chat_template == ours.chat_template else "settled"
        yield thinking(own, ours)
        yield change(system(own), system(ours))
        yield taken(ours, [QUESTION, QUESTION])
        yield change(continues(own), continues(ours))
        yield date(own, ours)
    yield tokens(ours)
    end = end_of_turn(ours)
    yield code(ours.convert_ids_to_tokens(end)) if end is not None else "no token"
    yield escaped(ours)


def change(before: str, after: str) -> str:
    """Return one fact, or the family's and ours."""
    return before if before == after else f"{before} → {after}"


def code(text: str) -> str:
    """Return text as code."""
    return f"`{text}`".replace("\n", "\\n")


def prompt(tokenizer: Any, *turns: tuple[str, str]) -> str | None:
    """Return a rendered prompt; None if the template refuses it."""
    return render(tokenizer, list(turns), add_generation_prompt=True)


def thinking(own: Any, ours: Any) -> str:
    """Return whether the template thinks by itself, and what settles it."""
    text = prompt(own, QUESTION)
    opened = "opened in every prompt" if text and opens_thought(text) else "left to the model"
    how = {"never": "none", "switch": f"a switch, {opened} → off", "always": f"{opened} → closed"}
    return {**how, "effort": "an effort → the lowest"}[template_thinking(ours)]


def system(tokenizer: Any) -> str:
    """Return what becomes of a system turn."""
    text = prompt(tokenizer, RULE, QUESTION)
    if text is None:
        return "refused"
    if SYSTEM not in text:
        return "dropped"
    first = text.replace(SYSTEM + "\n\n", "", 1) == prompt(tokenizer, QUESTION)
    return "in the first human turn" if first else "a turn"


def taken(tokenizer: Any, turns: list[tuple[str, str]]) -> str:
    """Return whether the template takes these turns."""
    return "taken" if prompt(tokenizer, *turns) is not None else "refused: left out and counted"


def continues(tokenizer: Any) -> str:
    """Return whether the text of an answered question begins with the prompt that asks it."""
    whole, asking = render(tokenizer, [QUESTION, REPLY]), prompt(tokenizer, QUESTION)
    return "yes" if whole and asking and whole.startswith(asking) else "no"


def date(own: Any, ours: Any) -> str:
    """Return whether the template asks for today."""
    if "strftime_now" not in own.chat_template:
        return "none"
    written = [line for line in (prompt(ours, QUESTION) or "").splitlines() if str(DATE.year) in line]
    return f"today → {code(written[0]) if written else 'fixed, not written by default'}"


def tokens(tokenizer: Any) -> str:
    """Return how `` (A)`` and ``(A)`` begin by themselves, and inside a text."""
    return "; ".join(
        change(first(tokenizer, text), first(tokenizer, text, before="\n")) for text in (" (A)", "(A)")
    )


def first(tokenizer: Any, text: str, before: str = "") -> str:
    """Return the first two tokens of ``text`` behind ``before``."""
    ids = tokenizer(before + text, add_special_tokens=False)["input_ids"]
    start = len(tokenizer(before, add_special_tokens=False)["input_ids"]) if before else 0
    return code(" ".join(tokenizer.convert_ids_to_tokens(ids[start : start + 2])))


def escaped(tokenizer: Any) -> str:
    """Return the number of control tokens in which a space is put, and of those that are marked special."""
    special = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    special |= set(tokenizer.all_special_tokens)
    control = controls(tokenizer).texts
    assert not any(t in escape_tokens(t, tokenizer) for t in control if len(t) > 1)
    unmarked = [code(text) for text in control if text not in special]
    return f"{len(control)}, of them not marked special: {', '.join(sorted(unmarked))}"


if __name__ == "__main__":
    main(sys.argv[1:])
