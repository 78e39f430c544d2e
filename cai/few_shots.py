"""The paper's few-shot examples, written out before a request so that a pretrained model sees what is wanted.

They are not part of this project: the user names the folder with the paper's three files. A prefix goes straight
before a request in the plain format, which begins with its own blank line.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.constitution import Principle, draw
from cai.constitution_files import read_json
from cai.errors import InputError
from cai.models.model import ASSISTANT, HUMAN
from cai.records import Message
from cai.rl_cai import requests

CRITIQUE_REVISION = "CritiqueRevisionFewShotPrompts.json"
MULTIPLE_CHOICE = "RLMadisonFewShotPrompts.json"
CHAIN_OF_THOUGHT = "RLMadisonPrecogFewShotPrompts.json"
SLOT = "{}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A question whose better answer is known."""

    asked: str
    better: str
    worse: str

    def shown(self, principle: str, better_first: bool) -> str:
        """As the feedback model is asked (FB-4), and answered."""
        answers = (self.better, self.worse) if better_first else (self.worse, self.better)
        asked = requests.question((Message("user", self.asked),), principle, *answers)
        return f"\n\n{asked}\n\n{requests.ANSWER}{requests.CHOICES[0 if better_first else 1]}"


@dataclass(frozen=True, slots=True)
class FewShots:
    critique_revision: str
    r"""Five whole dialogues with their critiques and revisions (SL-11); begins with ``\n\nHuman:``."""
    choices: tuple[Choice, ...]
    thoughts: tuple[str, ...]

    def multiple_choice(self, principles: Sequence[Principle], rng: random.Random) -> str:
        r"""Each example under a principle of its own, in a drawn order (FB-7); begins with ``\n\nConsider``."""
        return "".join(c.shown(_question(principles, rng), rng.random() < 0.5) for c in self.choices)

    def chain_of_thought(self, principles: Sequence[Principle], rng: random.Random) -> str:
        """Each example under a principle of its own, its answers in the order they were written in (FB-12)."""
        # As in the released principles, a line break before and "Options:" after. Never str.format: texts hold braces.
        return "\n\n".join(
            shot.replace(SLOT, f"\n{_question(principles, rng)} Options:") for shot in self.thoughts
        )


def load_few_shots(folder: Path) -> FewShots:
    """From the paper's repository or its ``prompts/`` folder. Raises InputError naming what is missing or wrong."""
    inner = folder / "prompts"
    folder = inner if inner.is_dir() else folder
    return FewShots(
        critique_revision="".join(_dialogue(*item) for item in _items(folder / CRITIQUE_REVISION)),
        choices=tuple(_choice(*item) for item in _items(folder / MULTIPLE_CHOICE)),
        thoughts=tuple(_thought(*item) for item in _items(folder / CHAIN_OF_THOUGHT)),
    )


def _question(principles: Sequence[Principle], rng: random.Random) -> str:
    return draw(principles, rng).preference or ""


def _items(path: Path) -> list[tuple[str, Any]]:
    """Every example with its place, for errors."""
    data = read_json(path)
    if not (isinstance(data, list) and data):
        raise InputError(f"{path} must hold a list of examples, as the paper's file of that name does.")
    return [(f"{path}: [{number}]", item) for number, item in enumerate(data)]


def _dialogue(place: str, item: Any) -> str:
    """All but one end with the stop sequence; the next begins with it."""
    if not (isinstance(item, str) and item.startswith(HUMAN)):
        raise InputError(f"{place} must be a dialogue that begins with {HUMAN!r}.")
    return item.removesuffix(HUMAN)


def _choice(place: str, item: Any) -> Choice:
    match item:
        case {"prompt": str(prompt), "corrects": [str(better)], "incorrects": [str(worse)]}:
            begins, ends = prompt.startswith(f"{HUMAN} "), prompt.endswith(ASSISTANT)
            if begins and ends and prompt.count(HUMAN) == prompt.count(ASSISTANT) == 1:
                return Choice(prompt[len(HUMAN) + 1 : -len(ASSISTANT)], better, worse)
    raise InputError(
        f"{place} must hold 'prompt', one human turn from {HUMAN!r} to {ASSISTANT!r}, and 'corrects' and "
        "'incorrects', a list of one text each."
    )


def _thought(place: str, item: Any) -> str:
    """The released ones begin with two, one and no line breaks."""
    match item:
        case {"prompt": str(prompt)} if prompt.count(SLOT) == 1:
            return prompt.strip()
    raise InputError(f"{place} must hold 'prompt', a text with one {SLOT!r} where the principle goes.")
