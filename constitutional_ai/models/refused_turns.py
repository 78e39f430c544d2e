"""Tell which conversations a chat template takes, before a model is asked about them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from constitutional_ai.models.chat_template import shape_of, takes
from constitutional_ai.models.load import LOCAL_SCHEMES, model_path
from constitutional_ai.models.rendering import uses_plain_format
from constitutional_ai.records import Conversation, Prompt, as_messages

REFUSED = "turns that the chat template refuses"


class TurnFilter:
    """Knows which conversations a tokenizer's chat template takes."""

    def __init__(self, tokenizer: Any) -> None:
        """``tokenizer`` has a settled chat template, or none."""
        self._tokenizer = tokenizer

    def takes(self, conversation: Conversation) -> bool:
        """Return whether the template renders every turn of the conversation."""
        return self.takes_messages(as_messages(conversation))

    def takes_messages(self, messages: Iterable[dict[str, str]]) -> bool:
        """Return whether the template renders every one of the messages."""
        return uses_plain_format(self._tokenizer) or takes(self._tokenizer, shape_of(messages))


def turn_filters(names: Iterable[str | None]) -> list[TurnFilter]:
    """Return the filters of the models whose weights are on this machine; servers have their own templates.

    Raises ModelError for a model without a tokenizer, or with a template that cannot be used.
    """
    local = sorted({name for name in names if name is not None and name.startswith(LOCAL_SCHEMES)})
    if not local:
        return []
    from constitutional_ai.models.local.tokens import settled_tokenizer

    return [TurnFilter(settled_tokenizer(name, model_path(name))) for name in local]


def refused_prompts(prompts: Iterable[Prompt], names: Iterable[str | None]) -> set[str]:
    """Return the ids of the prompts that a named model's chat template refuses, or drops a turn of.

    Raises as ``turn_filters`` does.
    """
    # Every template takes one human turn: most files load no tokenizer.
    doubtful = [prompt for prompt in prompts if [m.role for m in prompt.conversation] != ["user"]]
    filters = turn_filters(names) if doubtful else []
    return {p.id for p in doubtful if not all(one.takes(p.conversation) for one in filters)}
