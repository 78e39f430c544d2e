"""Test that a settled chat template gives one text for a conversation, in training, in sampling and on any day."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import AutoTokenizer

from constitutional_ai.errors import ModelError, OnlyThought, RecordError
from constitutional_ai.models.chat_template import DATE, rendered, settle
from constitutional_ai.models.local.tokens import Tokens
from constitutional_ai.models.model import Sampling
from constitutional_ai.models.refused_turns import TurnFilter
from constitutional_ai.models.thinking import opens_thought
from constitutional_ai.records import Message

REAL = {
    path.stem: path.read_text()
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    if not path.stem.endswith("_training")
}
"""Templates of today's models, as TRL carries them."""
IMAGES = {"idefics3", "llava_next", "smolvlm"}
"""They take lists of parts, and leave out a turn that is a text."""
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENS = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
SYSTEM, HUMAN, ANSWER = (
    {"role": role, "content": text}
    for role, text in (("system", "Be kind."), ("user", "Name a fruit."), ("assistant", "An apple."))
)


@pytest.fixture(scope="module")
def tokenizer(make_tiny: Callable[..., Path]) -> Any:
    return AutoTokenizer.from_pretrained(make_tiny())


def settled(tokenizer: Any, template: str | dict[str, str]) -> Any:
    tokenizer.chat_template = template
    settle(tokenizer, "m")
    return tokenizer


def text_of(tokenizer: Any, *turns: dict[str, str], **more: Any) -> str:
    text: str = tokenizer.apply_chat_template(list(turns), tokenize=False, **more)
    return text


def prompt_of(tokenizer: Any, *turns: dict[str, str], **more: Any) -> str:
    return text_of(tokenizer, *turns, add_generation_prompt=True, **more)


@pytest.mark.parametrize("name", sorted(REAL.keys() - IMAGES))
def test_real_templates_are_settled(tokenizer: Any, name: str) -> None:
    settled(tokenizer, REAL[name])
    prompt, whole = prompt_of(tokenizer, HUMAN), text_of(tokenizer, HUMAN, ANSWER)
    assert whole.startswith(prompt)
    assert not opens_thought(prompt)
    assert "An apple." in whole[len(prompt) :]
    assert (
        text_of(tokenizer, HUMAN, ANSWER, continue_final_message=True) == whole[: whole.rindex("An apple.") + 9]
    )
    with_system = prompt_of(tokenizer, SYSTEM, HUMAN)
    assert 0 <= with_system.index("Be kind.") < with_system.index("Name a fruit.")
    assert str(date.today().year) not in prompt or date.today().year == DATE.year


@pytest.mark.parametrize("name", sorted(REAL))
def test_settling_twice_changes_nothing(tokenizer: Any, name: str) -> None:
    if name in IMAGES:
        with pytest.raises(ModelError, match="leaves out what a turn says"):
            settled(tokenizer, REAL[name])
        return
    once = settled(tokenizer, REAL[name]).chat_template
    assert settled(tokenizer, once).chat_template == once


@pytest.mark.parametrize("name", ["llama3", "phi3", "qwen2_5", "cohere2"])
def test_a_template_that_leaves_nothing_open_stays_as_it_is(tokenizer: Any, name: str) -> None:
    assert settled(tokenizer, REAL[name]).chat_template == REAL[name]


@pytest.mark.parametrize("template", [OPENS, REAL["qwen3"], REAL["deepseek_r1_distill"]])
def test_thinking_is_off_unless_it_is_asked_for(tokenizer: Any, template: str) -> None:
    settled(tokenizer, template)
    assert prompt_of(tokenizer, HUMAN).endswith("<think>\n\n</think>\n\n")
    assert not prompt_of(tokenizer, HUMAN, enable_thinking=True).endswith("</think>\n\n")


@pytest.mark.parametrize(
    ("switch", "off", "on"),
    [
        ("enable_thinking", "False", "True"),
        ("thinking", "False", "True"),
        ("reasoning", "False", "True"),
        ("reasoning_effort", "low", "high"),
    ],
)
def test_every_name_of_the_switch_is_known(tokenizer: Any, switch: str, off: str, on: str) -> None:
    effort = switch == "reasoning_effort"
    default = (
        "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'high' %}{% endif %}{# 'low' #}"
    )
    used = f"{default if effort else ''}[{{{{ {switch} }}}}]"
    settled(tokenizer, used + CHATML)
    assert prompt_of(tokenizer, HUMAN).startswith(f"[{off}]")
    assert prompt_of(tokenizer, HUMAN, enable_thinking=True).startswith(f"[{on}]")


@pytest.mark.parametrize("form", ["%d %b %Y", "%Y-%m-%d", "%B %d, %Y"])
def test_a_date_is_always_the_same_day(tokenizer: Any, form: str) -> None:
    settled(tokenizer, f"Today is {{{{ strftime_now('{form}') }}}}." + CHATML)
    assert prompt_of(tokenizer, HUMAN).startswith(f"Today is {DATE.strftime(form)}.")


def test_a_refused_system_turn_stands_at_the_head_of_the_human_turn(tokenizer: Any) -> None:
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    )
    settled(tokenizer, refusing)
    assert prompt_of(tokenizer, SYSTEM, HUMAN) == (
        "<|im_start|>user\nBe kind.\n\nName a fruit.<|im_end|>\n<|im_start|>assistant\n"
    )


ROLES = ("system", "user", "assistant")
MOVES_TO_THE_HEAD = {"cohere2", "deepseekv3"}
"""They render a later system turn, before all other turns."""


def turns_in(roles: str) -> list[dict[str, str]]:
    names = {role[0]: role for role in ROLES}
    return [{"role": names[r], "content": f"Words number {n}, of {r}."} for n, r in enumerate(roles)]


@pytest.mark.parametrize("name", sorted(REAL.keys() - IMAGES))
def test_no_template_drops_a_turn_without_a_word(tokenizer: Any, name: str) -> None:
    turn_filter = TurnFilter(settled(tokenizer, REAL[name]))
    for length in range(1, 5):
        for roles in map("".join, itertools.product("sua", repeat=length)):
            turns = turns_in(roles)
            try:
                text = rendered(tokenizer, turns, add_generation_prompt=roles[-1] != "a")
            except RecordError:
                assert not turn_filter.takes_messages(turns), roles
                continue
            assert turn_filter.takes_messages(turns), roles
            places = [text.find(turn["content"]) for turn in turns]
            assert all(text.count(turn["content"]) == 1 for turn in turns), roles
            spoken = [place for place, role in zip(places, roles, strict=True) if role != "s"]
            assert spoken == sorted(spoken), roles


@pytest.mark.parametrize("name", sorted(REAL.keys() - IMAGES))
@pytest.mark.parametrize("roles", ["su", "sua", "suau", "suaua", "uasu", "uasua", "suasu", "suasua"])
def test_a_system_turn_before_a_human_turn_is_rendered_by_every_template(
    tokenizer: Any, name: str, roles: str
) -> None:
    text = text_of(settled(tokenizer, REAL[name]), *turns_in(roles), add_generation_prompt=roles[-1] == "u")
    places = [text.index(turn["content"]) for turn in turns_in(roles)]
    assert places == sorted(places) or name in MOVES_TO_THE_HEAD


def test_a_template_that_hides_a_system_turn_from_the_training_text_gets_it_in_the_human_turn(
    tokenizer: Any,
) -> None:
    """Mistral's writes it into the last turn, if that is a human's."""
    mistral = (
        "{% set system = messages[0].content if messages[0].role == 'system' %}{% for m in messages %}"
        "{% if m.role == 'user' %}[INST]{{ system ~ ' ' if loop.last and system else '' }}{{ m.content }}[/INST]"
        "{% elif m.role == 'assistant' %}{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    settled(tokenizer, mistral)
    assert prompt_of(tokenizer, SYSTEM, HUMAN) == "[INST]Be kind.\n\nName a fruit.[/INST]"
    assert text_of(tokenizer, SYSTEM, HUMAN, ANSWER) == "[INST]Be kind.\n\nName a fruit.[/INST]An apple.</s>"


@pytest.mark.parametrize("kept", ["loop.first", "loop.last", "m.role != 'system'", "m.role != 'assistant'"])
def test_a_dropped_turn_is_named(tokenizer: Any, kept: str) -> None:
    tokenizer.chat_template = f"{{% for m in messages %}}{{{{ m.content if {kept} }}}}{{% endfor %}}"
    turns = [SYSTEM, HUMAN, ANSWER]
    dropped = {"loop.first": "2 .*user", "loop.last": "1 .*system", "m.role != 'system'": "1 .*system"}
    with pytest.raises(RecordError, match=f"leaves out turn {dropped.get(kept, '3 .*assistant')}"):
        rendered(tokenizer, turns)
    assert not TurnFilter(tokenizer).takes_messages(turns)
    tokenizer.chat_template = CHATML  # what was seen of one template is not held against another
    assert TurnFilter(tokenizer).takes_messages(turns)
    assert rendered(tokenizer, turns)


def test_a_blank_turn_may_be_dropped(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m.content if m.role != 'system' }}{% endfor %}"
    assert rendered(tokenizer, [{"role": "system", "content": " "}, HUMAN]) == "Name a fruit."


def test_of_several_templates_the_default_is_taken(tokenizer: Any) -> None:
    assert settled(tokenizer, {"default": CHATML, "tool_use": "x"}).chat_template == CHATML
    with pytest.raises(ModelError, match="the chat templates rag, tool_use, and none is named 'default'"):
        settled(tokenizer, {"rag": CHATML, "tool_use": "x"})


@pytest.fixture
def thinker(make_tiny: Callable[..., Path]) -> Tokens:
    """The tokenizer of a model that thinks, whose tags are no control tokens."""
    folder = make_tiny()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = OPENS
    tokenizer.save_pretrained(folder)
    return Tokens("m", folder)


def test_a_thought_is_told_from_the_answer_by_its_tokens(thinker: Tokens) -> None:
    request = thinker.generation((Message("user", "Hi"),), Sampling(max_tokens=8, thinking=100))
    assert request.in_thought
    assert request.sampling.max_tokens == 108
    ids = thinker.tokenizer("(A) is rude.\n</think>\n\n(B)<|im_end|>", add_special_tokens=False)["input_ids"]
    completion = thinker.completion(request, ids)
    assert (completion.text, completion.thought) == ("(B)", "(A) is rude.")
    assert completion.completion_tokens == len(ids)
    with pytest.raises(OnlyThought, match="spent its 108 tokens thinking"):
        thinker.completion(request, ids[:3])


def test_a_thought_that_is_switched_off_is_closed_in_the_prompt(thinker: Tokens) -> None:
    request = thinker.generation((Message("user", "Hi"),), Sampling(max_tokens=8))
    assert not request.in_thought
    assert thinker.tokenizer.decode(request.tokens).endswith("<think>\n\n</think>\n\n")
