"""Read one row of a file of prompts, in our own form and in those of public data sets (docs/data.md).

The form of a row is known by its columns. A column that its form does not have is refused: a misspelt ``split`` would
train on a prompt that is meant to be held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from constitutional_ai.data.dialogues import begins_dialogue
from constitutional_ai.data.pairs import ANSWERS, prompt_turns
from constitutional_ai.data.rendered import is_rendered
from constitutional_ai.data.turns import is_saved_list, joined
from constitutional_ai.errors import did_you_mean, first_fault, shortened
from constitutional_ai.records import Conversation, Kind, Message

Split = Literal["train", "held_out"]
PROMPTS = ("prompt", "conversation", "messages", "conversations", "input", "transcript")
"""Columns with a prompt, or with a dialogue that gives prompts. They must agree where several are filled."""


class PromptRow(NamedTuple):
    """What a row says."""

    conversation: Conversation
    """A prompt, or a whole dialogue."""
    kind: Kind | None
    tags: tuple[str, ...]
    split: Split | None


class _Row(BaseModel):
    """A row in our own form, TRL's, H4's, ShareGPT's or OpenAI's."""

    model_config = ConfigDict(extra="forbid")

    prompt: Any = None
    conversation: Any = None
    messages: Any = None
    conversations: Any = None
    input: Any = None
    system: str | None = None
    kind: Kind | None = None
    tags: tuple[str, ...] | None = None
    split: Split | None = None
    id: Any = None
    prompt_id: Any = None
    source: Any = None
    license: Any = None

    @field_validator("tags", mode="before")
    @classmethod
    def _tags_of_a_cell(cls, tags: Any) -> Any:
        return [tag.strip() for tag in tags.split(",")] if isinstance(tags, str) else tags


class _XSTest(_Row):
    """A prompt of XSTest. Versions without labels say by the type which prompts are unsafe: the contrasts."""

    type: str
    label: Literal["safe", "unsafe"] | None = None
    focus: Any = None
    note: Any = None
    id_v1: Any = None
    id_v2: Any = None

    @field_validator("type")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in XSTEST_SAFE + XSTEST_UNSAFE:
            raise ValueError(f"no type of XSTest.{did_you_mean(name, XSTEST_SAFE + XSTEST_UNSAFE)}")
        return name


class _ORBench(_Row):
    """A prompt of OR-Bench. Only the name of its file says whether its prompts are harmful."""

    category: str


class _RedTeamAttempt(_Row):
    """A red-team attempt of hh-rlhf: a whole dialogue."""

    transcript: str
    min_harmlessness_score_transcript: Any = None
    num_params: Any = None
    model_type: Any = None
    rating: Any = None
    task_description: Any = None
    task_description_harmlessness_score: Any = None
    red_team_member_id: Any = None
    is_upworker: Any = None


FORMS: dict[str, type[_Row]] = {"type": _XSTest, "category": _ORBench, "transcript": _RedTeamAttempt}
"""The column by which each form of others is known."""
XSTEST_SAFE = (
    "homonyms",
    "figurative_language",
    "safe_targets",
    "safe_contexts",
    "definitions",
    "nons_group_real_discr",
    "real_group_nons_discr",
    "historical_events",
    "privacy_public",
    "privacy_fictional",
)
XSTEST_UNSAFE = (
    "contrast_homonyms",
    "contrast_figurative_language",
    "contrast_safe_targets",
    "contrast_safe_contexts",
    "contrast_definitions",
    "contrast_discr",
    "contrast_historical_events",
    "contrast_privacy",
)
COLUMNS = {column for form in FORMS.values() for column in form.model_fields}
"""Columns of any form. A table of several forms has all of them in each row, null where they do not apply."""


def prompt_row(row: Mapping[str, Any]) -> PromptRow:
    """Return what a row says. Raises ValueError that names the wrong column."""
    form = next((form for column, form in FORMS.items() if row.get(column) is not None), _Row)
    try:
        read = form.model_validate({k: v for k, v in row.items() if v is not None or k not in COLUMNS})
    except ValidationError as error:
        fault = first_fault(error)
        if fault.kind != "extra_forbidden":
            raise ValueError(str(fault)) from error
        raise ValueError(_unknown(str(fault.place[-1]), form, row)) from error
    tags = read.tags or tuple(getattr(read, column) for column in ("type", "category") if hasattr(read, column))
    return PromptRow(_conversation(row, read.system), read.kind or _kind_of(read), tags, read.split)


def _unknown(key: str, form: type[_Row], row: Mapping[str, Any]) -> str:
    if key in ANSWERS | {"completion", "response"}:
        return f"unknown key '{key}': a row of prompts holds no answers. Delete the columns of answers."
    near = did_you_mean(key, form.model_fields)
    if "Did you mean" in near or any(row.get(column) for column in PROMPTS):
        return f"unknown key '{shortened(key)}'.{near}"
    held, wanted = [", ".join(f"'{shortened(name)}'" for name in names) for names in (list(row)[:10], PROMPTS)]
    return f"unknown key '{shortened(key)}'. The row holds {held}; wanted is one of {wanted}."


def _kind_of(row: _Row) -> Kind | None:
    if not isinstance(row, _XSTest):
        return None
    unsafe = row.label == "unsafe" if row.label else row.type in XSTEST_UNSAFE
    return "red_team" if unsafe else "borderline"


def _conversation(row: Mapping[str, Any], system: str | None) -> Conversation:
    filled = {key: row[key] for key in PROMPTS if row.get(key) not in (None, [])}
    if not filled:
        raise ValueError("needs either 'prompt' or 'conversation', 'messages', 'conversations' or 'input'.")
    read = {key: _turns(value, key) for key, value in filled.items()}
    if (conversation := joined(list(read.values()))) is None:
        raise ValueError(f"{' and '.join(read)} hold different prompts. Delete one.")
    if all(m.role != "user" for m in conversation):
        raise ValueError(f"{next(iter(read))}: has no human turn.")
    if not system or not system.strip():
        return conversation
    if conversation[0].role != "system":
        return (Message("system", system), *conversation)
    if conversation[0].content.strip() != system.strip():
        raise ValueError(f"system and {' and '.join(read)} hold different system turns. Delete one.")
    return conversation


def _turns(value: Any, key: str) -> Conversation:
    """Return the turns of a column. Only a text that begins as a dialogue is read as one: prompts hold anything."""
    if isinstance(value, str) and not (
        begins_dialogue(value) or is_rendered(value) or is_saved_list(value, "user")
    ):
        turns: Conversation = (Message("user", value),)
    else:
        turns = prompt_turns(value, key)
    if turns[-1].role == "assistant" and not turns[-1].content.strip():  # the text ends in "Assistant:"
        turns = turns[:-1]
    for number, message in enumerate(turns):
        if not message.content.strip():
            raise ValueError(f"{key}: is empty." if isinstance(value, str) else f"{key}.{number}: is empty.")
    return turns
