"""A model that reads instructions first, whatever it is asked."""

from __future__ import annotations

import asyncio

import pytest

from constitutional_ai.constitutions.constitution import Constitution, Principle
from constitutional_ai.constitutions.in_context import OPENING, as_instructions
from constitutional_ai.models.instructed import InstructedModel
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.records import Message

ASKED = Message("user", "Tea?")


@pytest.mark.parametrize(
    ("context", "read"),
    [
        ((ASKED,), "\n\nSystem: Be kind.\n\nHuman: Tea?\n\nAssistant:"),
        (
            (Message("system", "You serve."), ASKED, Message("assistant", "Yes")),
            "\n\nSystem: Be kind.\n\nYou serve.\n\nHuman: Tea?\n\nAssistant: Yes",
        ),
        ("\n\nHuman: Tea?\n\nAssistant:", "\n\nSystem: Be kind.\n\nHuman: Tea?\n\nAssistant:"),
    ],
)
def test_instructions_stand_before_everything(context: Context, read: str) -> None:
    seen: list[str] = []
    inner = ScriptedModel(
        say=lambda text: seen.append(text) or "ok", weigh=lambda text, _: float(seen.append(text) or 0)
    )
    model = InstructedModel(inner, "Be kind.")
    assert asyncio.run(model.generate(context, Sampling())).text == "ok"
    asyncio.run(model.score(context, ["a"]))
    assert seen == [read, read]
    assert (model.name, model.format) == (inner.name, inner.format)


def test_each_principle_is_one_line_of_the_instructions() -> None:
    principles = (
        Principle(name="a", preference="Which is\nkinder?", upheld="You are kind.", broken="You are rude."),
        Principle(name="b", preference="Which is\nkinder?"),
        Principle(name="c", revision="Mend it."),
    )
    text = as_instructions(Constitution(name="three", principles=principles))
    assert text == f"{OPENING}\n- You are kind.\n- Which is kinder?\n- Mend it."
