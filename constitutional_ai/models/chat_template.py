"""Settle what a model's chat template leaves open, so that a conversation is the same text everywhere and on any day.

A settled template is saved with every trained model. It needs no arguments, and so TRL, servers and this package render
the same prompt. Four things are settled:

* a thought is switched off, or closed where the template always opens one, unless ``enable_thinking`` is true;
* a training text continues the prompt that is sampled from, which templates that write an empty thought break;
* a date is always ``DATE``, because another date changes every score;
* a system turn that the template refuses or drops is put at the head of the human turn after it.

What a settled template still drops is refused: words must not be lost without a trace.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import date
from typing import Any, Literal
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.thinking import closing_of

DATE = date(2026, 1, 1)
"""The day that every template writes. It never changes: a preference model must see the day it was trained under."""
MARK = "{#- settled -#}"
HUMAN, ANSWER, SYSTEM = "a human turn", "an answer", "a system turn"
"""Texts of the conversations that show what a template does."""
SWITCHES = ("thinking", "enable_reasoning", "reasoning")
"""Other names of ``enable_thinking``: DeepSeek's, Granite's and Command A's among them."""
LOWEST_EFFORTS = ("none", "no_think", "off", "minimal", "low")
COMMENT, STATEMENT = (re.compile(p, re.DOTALL) for p in (r"\{#.*?#\}", r"\{[{%](.*?)[%}]\}"))
STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
DATES = re.compile(r"strftime_now\(\s*(?:\"([^\"]*)\"|'([^']*)')\s*\)")

Thinking = Literal["never", "switch", "always", "effort"]
"""What a chat template does about thoughts: nothing; it has a switch; it always opens one, which settling closes; or it
asks for an effort that can be lowered and not switched off."""

DEFAULT = "{%- if enable_thinking is not defined -%}{%- set enable_thinking = false -%}{%- endif -%}"
FOLD_SYSTEM = (
    "{%- set folded = namespace(turns=[], system='') -%}{%- for turn in messages -%}"
    "{%- if turn['role'] == 'system' and loop.index0 >= FIRST and not loop.last"
    " and messages[loop.index0 + 1]['role'] == 'user' -%}{%- set folded.system = turn['content'] + '\n\n' -%}"
    "{%- else -%}{%- set folded.turns = folded.turns + [turn if not folded.system else"
    " {'role': 'user', 'content': folded.system + turn['content']}] -%}{%- set folded.system = '' -%}{%- endif -%}"
    "{%- endfor -%}{%- set messages = folded.turns -%}"
)
AT_THE_HEAD = (("system", "user"), ("system", "user", "assistant"), ("system", "user", "assistant", "user"))
LATER = tuple((*AT_THE_HEAD[1], *more) for more in AT_THE_HEAD[:2])
"""Conversations with a system turn in either place. Mistral drops it where the last turn is an answer."""
CONTINUES = (
    "{%- if messages and messages[-1]['role'] == 'assistant' and not add_generation_prompt -%}"
    "{{- turns(messages[:-1], true) -}}CLOSE_THOUGHT{{- messages[-1]['content'] -}}{{- END_OF_TURN -}}"
    "{%- else -%}{{- turns(messages, add_generation_prompt) -}}"
    "{%- if add_generation_prompt -%}CLOSE_THOUGHT{%- endif -%}{%- endif -%}"
)
IF_CLOSED = "{%- if not enable_thinking -%}"
CLOSE_THOUGHT = IF_CLOSED + "{{- CLOSING -}}{%- endif -%}"
LINE = "\n"


def settle(tokenizer: Any, name: str) -> None:
    """Settle the chat template of a tokenizer that has one. Settling it again changes nothing.

    ``name`` is the model's, for errors. Raises ModelError when there are several templates and none is the default.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        if "default" not in template:
            raise ModelError(
                f"'{name}' has the chat templates {', '.join(template)}, and none is named 'default'."
            )
        template = tokenizer.chat_template = template["default"]
    if not template or MARK in template:
        return
    human = [{"role": "user", "content": HUMAN}]
    try:
        prompt = _applied(tokenizer, human, add_generation_prompt=True)
    except RecordError as error:
        raise ModelError(f"the chat template of '{name}' cannot render one human turn: {error}") from error
    if HUMAN not in prompt:
        raise ModelError(
            f"the chat template of '{name}' leaves out what a turn says: it may take lists of parts. Save the "
            "model with a template for text."
        )
    head = _switches(template) + _fixed_dates(template)
    tokenizer.chat_template = head + template
    fold = _fold(tokenizer)
    tokenizer.chat_template = fold + head + template
    continued = _continued(tokenizer, template)
    if head or fold or continued:
        tokenizer.chat_template = MARK + fold + head + (continued or template)


def _switches(template: str) -> str:
    """Return the statements that switch thinking off, if the template has a switch."""
    switches = [name for name in ("enable_thinking", *SWITCHES) if _uses(template, name)]
    # gpt-oss writes any effort into its system message, and names none.
    effort = next((e for e in LOWEST_EFFORTS if re.search(rf"['\"]{e}['\"]", template)), "low")
    efforts = not switches and _uses(template, "reasoning_effort")
    if not (switches or efforts):
        return ""
    text = DEFAULT
    for name in switches:
        if name != "enable_thinking":
            text += f"{{%- if {name} is not defined -%}}{{%- set {name} = enable_thinking -%}}{{%- endif -%}}"
    if efforts:
        text += (
            "{%- if reasoning_effort is not defined and not enable_thinking -%}"
            f"{{%- set reasoning_effort = '{effort}' -%}}{{%- endif -%}}"
        )
    return text


def _uses(template: str, variable: str) -> bool:
    """Return whether a template reads a variable of this name. A key and an attribute are other things."""
    statements = " ".join(STATEMENT.findall(COMMENT.sub("", template)))
    return re.search(rf"(?<![\w.]){variable}\b(?!\s*=[^=])", STRING.sub("''", statements)) is not None


def template_thinking(tokenizer: Any) -> Thinking:
    """Return what the chat template of a tokenizer, once settled, does about thoughts."""
    template, messages = tokenizer.chat_template or "", [{"role": "user", "content": HUMAN}]
    if re.search(r"set reasoning_effort = '(?:minimal|low)'", template):
        return "effort"
    try:
        off, on = [
            rendered(tokenizer, messages, add_generation_prompt=True, **switch)
            for switch in ({}, {"enable_thinking": True})
        ]
    except RecordError:
        return "never"
    if off == on:
        return "never"
    own = template.replace(DEFAULT, "").replace(IF_CLOSED, "")
    return "switch" if any(_uses(own, name) for name in ("enable_thinking", *SWITCHES)) else "always"


def _fixed_dates(template: str) -> str:
    """Return the macro that writes ``DATE`` instead of today, in each format that the template asks for."""
    if "strftime_now" not in template:
        return ""
    formats = {double or single for double, single in DATES.findall(template)}
    dates = json.dumps({form: DATE.strftime(form) for form in sorted(formats)}, ensure_ascii=False)
    return (
        "{%- macro strftime_now(format) -%}"
        f"{{{{- {dates}.get(format, '{DATE.isoformat()}') -}}}}"
        "{%- endmacro -%}"
    )


def _fold(tokenizer: Any) -> str:
    """Return the statements that put system turns into human turns, where the template refuses or drops them."""
    for first, conversations in ((0, AT_THE_HEAD), (1, LATER)):
        if not all(takes(tokenizer, tuple((role, False) for role in roles)) for roles in conversations):
            return FOLD_SYSTEM.replace("FIRST", str(first))
    return ""


def _continued(tokenizer: Any, template: str) -> str | None:
    """Return a template whose training texts continue its prompts; None if they do so already."""
    prompt = render(tokenizer, [("user", HUMAN)], add_generation_prompt=True)
    whole = render(tokenizer, [("user", HUMAN), ("assistant", ANSWER)])
    if prompt is None or whole is None or ANSWER not in whole:
        return None
    tag = closing_of(prompt)
    if whole.startswith(prompt) and tag is None:
        return None
    closing = f"{'' if prompt.endswith(LINE) else LINE}{LINE}{tag}{LINE}{LINE}" if tag else ""
    close = CLOSE_THOUGHT.replace("CLOSING", _literal(closing)) if closing else ""
    end = whole[whole.rindex(ANSWER) + len(ANSWER) :]
    turns = "{%- macro turns(messages, add_generation_prompt) -%}" + template + "{%- endmacro -%}"
    return DEFAULT + turns + CONTINUES.replace("CLOSE_THOUGHT", close).replace("END_OF_TURN", _literal(end))


def _literal(text: str) -> str:
    """Return a string of a template. Not ASCII only: Jinja would read halves of one character."""
    return json.dumps(text, ensure_ascii=False)


def render(tokenizer: Any, turns: list[tuple[str, str]], *, add_generation_prompt: bool = False) -> str | None:
    """Return a conversation as the template renders it; None if it refuses."""
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        return rendered(tokenizer, messages, add_generation_prompt=add_generation_prompt)
    except RecordError:
        return None


def rendered(tokenizer: Any, messages: list[dict[str, str]], **more: Any) -> str:
    """Return messages as the chat template renders them. Raises RecordError if it refuses them, or drops a turn.

    Some templates refuse a role or an order of turns; some cut what a text says before ``</think>``.
    """
    text = _applied(tokenizer, messages, **more)
    if (number := _dropped(tokenizer, shape_of(messages), more)) is not None:
        role = messages[number]["role"]
        raise RecordError(
            f"the model's chat template leaves out turn {number + 1} of this conversation ({role})"
        )
    return text


def _applied(tokenizer: Any, messages: list[dict[str, str]], **more: Any) -> str:
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, **more)
    except (TemplateError, ValueError, TypeError) as error:
        raise RecordError(f"the model's chat template refuses this conversation: {error}") from error
    return text


Shape = tuple[tuple[str, bool], ...]
"""The role of each turn, and whether it is blank: all that templates refuse or drop a turn for."""
_DROPPED: WeakKeyDictionary[Any, dict[Any, int | None]] = WeakKeyDictionary()


def shape_of(messages: Iterable[dict[str, str]]) -> Shape:
    """Return the shape of a conversation."""
    return tuple((m["role"], not m["content"].strip()) for m in messages)


def takes(tokenizer: Any, shape: Shape) -> bool:
    """Return whether the template renders every turn of a conversation, which needs an answer unless it ends in one."""
    try:
        return _dropped(tokenizer, shape, {"add_generation_prompt": shape[-1][0] != "assistant"}) is None
    except RecordError:
        return False


def _dropped(tokenizer: Any, shape: Shape, more: dict[str, Any]) -> int | None:
    """Return the number of the first turn that the template drops. Each shape is rendered once.

    A turn's own text cannot show it: templates trim it, and a short one may stand elsewhere.
    """
    known = _DROPPED.setdefault(tokenizer, {})
    key = tokenizer.chat_template, shape, tuple(sorted(more.items()))
    if key not in known:
        texts = ["" if blank else f"Turn {number}." for number, (_, blank) in enumerate(shape)]
        turns = [{"role": role, "content": text} for (role, _), text in zip(shape, texts, strict=True)]
        text = _applied(tokenizer, turns, **more)
        known[key] = next((n for n, each in enumerate(texts) if each not in text), None)
    return known[key]
