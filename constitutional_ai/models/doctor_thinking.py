"""Tell whether a model thinks before it answers, and what that costs (for ``cai doctor``)."""

from __future__ import annotations

from constitutional_ai.errors import OnlyThought, RecordError
from constitutional_ai.models.chat_template import Thinking, template_thinking
from constitutional_ai.models.load import LOCAL_SCHEMES, model_path
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.records import Message

QUESTION = (Message("user", "What is 17 + 25? Answer with the number."),)
THOUGHT, ANSWER = 256, 64
"""Tokens that the answer may spend on a thought, and beside it."""
TEMPLATES: dict[Thinking, str] = {
    "never": "its chat template has no switch",
    "switch": "its chat template has a switch, which thinking_tokens turns on",
    "always": "its chat template always opens a thought, which is closed unless thinking_tokens is set",
    "effort": "its chat template lowers the effort and cannot switch it off: set thinking_tokens",
}


async def describe_thinking(model: Model) -> str:
    """Return whether the model thinks with thinking on and with it off, and how many tokens an answer then takes."""
    off, on = await _ask(model, 0), await _ask(model, THOUGHT)
    if off.startswith(THINKS):
        summary = f"{off} even with thinking off, so set thinking_tokens; with it on, {on}"
    else:
        summary = f"{on} with thinking on; {off} with it off"
    return f"{summary}{_from_template(model)}"


THINKS = "thinks"


async def _ask(model: Model, thinking: int) -> str:
    """Return what one greedy answer shows."""
    try:
        answer = await model.generate(QUESTION, Sampling(temperature=0, max_tokens=ANSWER, thinking=thinking))
    except OnlyThought:
        return f"{THINKS}, and gives no answer within {ANSWER + thinking} tokens"
    except RecordError as error:
        return f"gives no answer ({error})"
    verb = THINKS if answer.thought is not None else "does not think"
    return f"{verb} ({answer.completion_tokens} tokens)"


def _from_template(model: Model) -> str:
    """Return what the chat template says, where the model is on this machine."""
    if not model.name.startswith(LOCAL_SCHEMES):
        return ""
    from constitutional_ai.models.local.tokens import Tokens

    return f"; {TEMPLATES[template_thinking(Tokens(model.name, model_path(model.name)).tokenizer)]}"
