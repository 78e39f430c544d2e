"""A constitution: the only human oversight of harm (OV-1).

The paper's has two unrelated lists: 16 pairs of a critique and a revision request (SL-6), and 16 preference questions
(FB-6). So a principle may have a revision side, a preference side, or both.

Anchors, scopes and drafts are ours: a principle may say which clause of which document it is from, which prompts it is
for, and that nobody has read it yet. A draft is in no constitution: ``load_constitution`` refuses it.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from constitutional_ai.data.lines import find_yaml, line_of, read_yaml
from constitutional_ai.errors import InputError, did_you_mean, first_fault
from constitutional_ai.records import Prompt
from constitutional_ai.seeding import seed_of

BUILT_IN = Path(__file__).parent
LARGEST = 4_000_000
"""Bytes of the largest document or list of statements that is read."""
LARGEST_YAML = 2_000_000
"""Bytes of the largest constitution: YAML takes some 10 s for each million."""


DRAFTS, NO_DRAFTS = {"drafts": True}, {"drafts": False}
"""Contexts of validation: whether drafts are wanted. In a constitution they are not, unless the reader says so."""
UNREAD = "'{name}' is a draft. Edit it and delete its line 'draft: true', or delete the principle"


class Source(BaseModel):
    """Anchors a principle in what it was made of."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    document: str = Field(min_length=1)
    """Name of the file, without its folder."""
    clause: str | None = Field(default=None, min_length=1)
    """The clause's headings and number, as ``cai constitution coverage`` prints them; the id of a row in a table."""
    line: int | None = Field(default=None, ge=1)
    """The line on which it began when it was read."""


class Principle(BaseModel):
    """One principle, with the requests and questions that apply it."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1)
    critique: str | None = Field(default=None, min_length=1)
    """Request to the model to find fault with its last answer."""
    revision: str | None = Field(default=None, min_length=1)
    """Request to the model to rewrite its last answer."""
    preference: str | None = Field(default=None, min_length=1)
    """Question that asks which of two answers is better."""
    upheld: str | None = Field(default=None, min_length=1)
    """Description of an assistant that follows the principle ("You are …"). Ours, for feedback by likelihood."""
    broken: str | None = Field(default=None, min_length=1)
    """Description of an assistant that breaks the principle."""
    proposition: str | None = Field(default=None, min_length=1)
    """Question about one answer that yes or no answers. Ours, for RL with the reward ``propositions``."""
    wanted: bool = True
    """Whether the proposition should be true of an answer."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Relative chance of being drawn (the paper draws uniformly), and weight of the proposition in the reward."""
    rank: int = Field(default=1, ge=1, le=100)
    """Priority in comparisons, 1 first: a rank decides what the ranks above it leave open (``decided_by_rank``)."""
    tags: tuple[str, ...] = ()
    applies_to: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Kinds or tags of the prompts for which it is drawn, such as ``red_team`` or ``self-harm``; empty: for all."""
    source: Source | None = None
    draft: bool = False
    """Whether a person has still to read it and delete this line."""

    @property
    def texts(self) -> dict[str, str]:
        """The texts that are not empty, by the names of their fields."""
        return {side: text for side in (*SIDES, "proposition") if (text := getattr(self, side))}

    @model_validator(mode="after")
    def _has_a_whole_side(self, info: ValidationInfo) -> Principle:
        if self.draft and info.context == NO_DRAFTS:
            raise ValueError(UNREAD.format(name=self.name))
        if self.draft:
            return self
        if self.critique and not self.revision:
            raise ValueError("has a critique request but no revision request")
        if bool(self.upheld) != bool(self.broken):
            raise ValueError("has only one of 'upheld' and 'broken'; write both or neither")
        if not (self.revision or self.preference or self.proposition):
            raise ValueError("has neither a revision request nor a preference question nor a proposition")
        return self


SIDES = ("critique", "revision", "preference", "upheld", "broken")
"""The fields of a principle that models read, but for the proposition."""


class _Yaml(yaml.SafeDumper):
    """A dumper that quotes texts with U+0085, U+2028 or U+2029: unquoted, YAML reads these line breaks as spaces."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if set(data) & set("\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Yaml.add_representer(str, _Yaml.represent_str)


def dumped(data: Any) -> str:
    """Return data as YAML that keeps every text as it is."""
    text: str = yaml.dump(data, Dumper=_Yaml, sort_keys=False, allow_unicode=True, width=112)
    return text


class Constitution(BaseModel):
    """A named list of principles."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    name: str
    description: str = ""
    principles: tuple[Principle, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Constitution:
        twice = [name for name, count in Counter(p.name for p in self.principles).items() if count > 1]
        if twice:
            raise ValueError(f"two principles are named '{twice[0]}'")
        return self

    @model_validator(mode="after")
    def _holds_no_draft(self, info: ValidationInfo) -> Constitution:
        drafts = [p.name for p in self.principles if p.draft]
        if drafts and info.context != DRAFTS:
            raise ValueError(UNREAD.format(name=drafts[0]))
        return self

    @model_validator(mode="after")
    def _every_prompt_has_a_principle(self) -> Constitution:
        for use in (self.for_revision, self.for_preference, self.for_likelihood, self.propositions):
            if use and all(p.applies_to for p in use):
                raise ValueError(
                    f"'applies_to' leaves prompts without a principle like '{use[0].name}': let one such principle "
                    "apply to all, without 'applies_to'"
                )
        return self

    @cached_property
    def digest(self) -> str:
        """12 hex digits that identify the texts, weights and scopes of the principles; records store them.

        Principles that are only a proposition make no record, and have a digest of their own.
        """
        return _digest(p for p in self.principles if p.revision or p.preference)

    @cached_property
    def propositions_digest(self) -> str:
        """12 hex digits that identify the propositions, on which a reward rests."""
        return _digest(self.propositions)

    @cached_property
    def for_revision(self) -> tuple[Principle, ...]:
        """Principles with a revision request."""
        return tuple(p for p in self.principles if p.revision)

    @cached_property
    def for_preference(self) -> tuple[Principle, ...]:
        """Principles with a preference question."""
        return tuple(p for p in self.principles if p.preference)

    @cached_property
    def for_likelihood(self) -> tuple[Principle, ...]:
        """Principles with a preference question and both descriptions."""
        return tuple(p for p in self.for_preference if p.upheld)

    @cached_property
    def propositions(self) -> tuple[Principle, ...]:
        """Principles with a proposition."""
        return tuple(p for p in self.principles if p.proposition)

    def to_yaml(self) -> str:
        """Return the text of a file that ``load_constitution`` reads."""
        data = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        return dumped(data)


def _digest(principles: Iterable[Principle]) -> str:
    text = "\n".join(p.model_dump_json(exclude=_unread(p)) for p in principles)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _unread(principle: Principle) -> set[str]:
    """Return the fields that models do not read, and empty ones that older versions lack."""
    unread = {"tags", "source", "draft"}
    unread |= set() if principle.applies_to else {"applies_to"}
    unread |= set() if principle.rank > 1 else {"rank"}
    return unread if principle.proposition else {*unread, "proposition", "wanted"}


def applying_to(prompt: Prompt | None, principles: Sequence[Principle]) -> tuple[Principle, ...]:
    """Return the principles to draw from for a prompt: those for all prompts, and those for its kind or tags.

    None is a prompt of unknown kind.
    """
    marks = {prompt.kind, *prompt.tags} if prompt else set()
    return tuple(p for p in principles if not p.applies_to or marks & set(p.applies_to))


def draw(principles: Sequence[Principle], rng: random.Random) -> Principle:
    """Draw one principle, with replacement and independently of every other draw (SL-9, FB-6).

    Each principle gets an exponentially distributed number, seeded by its name and with its weight as the rate; the
    smallest wins. So adding or removing a principle changes only the draws that this principle wins.
    """
    return race(principles, rng.random())


def race(principles: Sequence[Principle], start: float) -> Principle:
    """Return the winner of one draw, of which ``start`` is the seed."""
    return min(principles, key=lambda p: -math.log((seed_of(start, p.name) + 1) / 2**63) / p.weight)


def load_constitution(name: str | Path, *, drafts: bool = False) -> Constitution:
    """Load a constitution from a file, or a built-in one by name.

    Raises InputError naming the line and the key. A draft is one such error, unless ``drafts`` are wanted, to look at.
    """
    path = find_yaml(name, BUILT_IN, "constitution")
    data, node = read_yaml(path, LARGEST_YAML)
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold 'name:' and 'principles:'; see {BUILT_IN / 'default.yaml'}.")
    try:
        return Constitution.model_validate(data, context=DRAFTS if drafts else NO_DRAFTS)
    except ValidationError as error:
        place, message, kind, *_ = first_fault(error)
        if kind == "extra_forbidden":
            model = Source if "source" in place[:-1] else Principle if "principles" in place else Constitution
            known = model.model_fields
            message = f"unknown key '{place[-1]}'.{did_you_mean(str(place[-1]), known)}"
        where = ".".join(map(str, place)) or "the constitution"
        raise InputError(f"{path}:{line_of(node, place)}: {where}: {message}") from error
