from __future__ import annotations

import json
from pathlib import Path

import pytest

from constitutional_ai.data.pairs import load_decided_pairs, load_pairs
from constitutional_ai.errors import InputError
from constitutional_ai.records import Message

HI = {"role": "user", "content": "Hi?"}
HELLO, OFF = {"role": "assistant", "content": "Hello!"}, {"role": "assistant", "content": "Go off."}
REPLIES = {"chosen": "Hello!", "rejected": "Go off."}
LLAMA = (
    "<|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)


NO_THOUGHT = "<think>\n\n</think>\n\n"


def written(folder: Path, *rows: object) -> Path:
    file = folder / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi?", **REPLIES},
        {"prompt": "\n\nHuman: Hi?\n\nAssistant:", **REPLIES},
        {"prompt": [HI], **REPLIES},
        {"prompt": [HI], "chosen": [HELLO], "rejected": [OFF]},
        {"prompt": "Hi?", "chosen": [HI, HELLO], "rejected": [HI, OFF], "messages": [HI, HELLO]},
        {"conversation": [HI], **REPLIES},
        {"messages": [HI], **REPLIES, "source": "elsewhere"},
        {"chosen": [HI, HELLO], "rejected": [HI, OFF]},
        {"chosen": "\n\nHuman: Hi?\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi?\n\nAssistant: Go off."},
        {
            "prompt": "Hi?",
            "prompt_id": "7",
            "chosen": [HI, HELLO],
            "rejected": [HI, OFF],
            "messages": [HI, OFF],
        },
        {"messages": [HI, HELLO], "chosen": [HI, HELLO], "rejected": [HI, OFF]},
        {
            "messages": [HI, {"role": "assistant", "content": "A third."}],
            "chosen": [HI, HELLO],
            "rejected": [HI, OFF],
        },
        {"messages": [HI, HELLO], **REPLIES},
        {"prompt": "\n\nHuman: Hi?\n\nAssistant: Hello!", **REPLIES},
        {"prompt": [], "messages": None, "chosen": [HI, HELLO], "rejected": [HI, OFF]},
        {"prompt": [HI], "chosen": HELLO, "rejected": OFF},
        {"prompt": [{"role": "system", "content": ""}, HI], **REPLIES},
        {"question": "Hi?", "system": "", **REPLIES},
        {"input": {"messages": [HI], "tools": []}, "preferred_output": [HELLO], "non_preferred_output": [OFF]},
        {"prompt": "Hi?", "response_0": "Go off.", "response_1": "Hello!", "safer_response_id": 1},
        {"prompt": "Hi?", "response_0": "Hello!", "response_1": "Go off.", "better_response_id": 0},
        {
            "conversations": [{"from": "human", "value": "Hi?"}],
            "chosen": {"from": "gpt", "value": "Hello!"},
            "rejected": {"from": "gpt", "value": "Go off."},
        },
        {
            "prompt": [
                {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "?"}]}
            ],
            "chosen": [{"role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]}],
            "rejected": [OFF],
        },
        # What TRL's apply_chat_template makes of a prompt with two answers.
        {
            "prompt": "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n",
            "chosen": "Hello!<|im_end|>\n",
            "rejected": "Go off.<|im_end|>\n",
        },
        *[
            {
                "prompt": f"<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n{before}",
                "chosen": f"{first}Hello!<|im_end|>\n",
                "rejected": f"{second}Go off.<|im_end|>\n",
            }
            for before, first, second in (
                (NO_THOUGHT, "", ""),
                ("", NO_THOUGHT, NO_THOUGHT),
                ("", "", NO_THOUGHT),
            )
        ],
        {
            "prompt": "<|turn>user\nHi?<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
            "chosen": "Hello!<turn|>\n",
            "rejected": "Go off.<turn|>\n",
        },
        {"prompt": f"<|begin_of_text|>{LLAMA}", "chosen": "Hello!<|eot_id|>", "rejected": "Go off.<|eot_id|>"},
        {
            "chosen": f"<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n{NO_THOUGHT}Hello!<|im_end|>\n",
            "rejected": "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\nGo off.<|im_end|>\n",
        },
    ],
)
def test_every_common_form_is_the_same_pair(tmp_path: Path, row: object) -> None:
    (pair,), unusable = load_pairs(written(tmp_path, row))
    assert (pair.conversation, pair.chosen, pair.rejected) == ((Message("user", "Hi?"),), "Hello!", "Go off.")
    assert unusable == {}


def test_dialogues_differ_in_the_last_reply_even_when_replies_start_alike(tmp_path: Path) -> None:
    talk = "\n\nHuman: Hi?\n\nAssistant: Yes?\n\nHuman: A joke: now!\n\nAssistant:"
    row = {"chosen": f"{talk} Why not.\n\nTwo men …", "rejected": f"{talk} Why?"}
    (pair,), _ = load_pairs(written(tmp_path, row))
    assert [m.content for m in pair.conversation] == ["Hi?", "Yes?", "A joke: now!"]
    assert (pair.chosen, pair.rejected) == ("Why not.\n\nTwo men …", "Why?")


TALK = [HI, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "A joke: now!"}]


@pytest.mark.parametrize("prompt", ["Hi?", "A joke: now!", TALK, TALK[2:], [*TALK, HELLO]])
@pytest.mark.parametrize("before", [[], TALK, TALK[2:]])
def test_a_prompt_that_stands_twice_in_a_row_is_read_once(
    tmp_path: Path, prompt: object, before: list[object]
) -> None:
    row = {"messages": TALK, "prompt": prompt, "chosen": [*before, HELLO], "rejected": [*before, OFF]}
    (pair,), _ = load_pairs(written(tmp_path, row))
    assert [m.content for m in pair.conversation] == ["Hi?", "Yes?", "A joke: now!"]


def test_replies_that_repeat_a_long_prompt_lose_it_and_short_ones_do_not(tmp_path: Path) -> None:
    ask = "Name a tree with white bark."
    rows = [
        {"prompt": ask, "chosen": f"{ask}\n\nThe birch.", "rejected": f"{ask} Oak."},
        {"prompt": "Hi", "chosen": "Hi there!", "rejected": "Hi."},
    ]
    pairs, _ = load_pairs(written(tmp_path, *rows))
    assert [(p.chosen, p.rejected) for p in pairs] == [("The birch.", "Oak."), ("Hi there!", "Hi.")]


@pytest.mark.parametrize(
    ("prompt", "after", "kept"),
    [
        ("おすすめの木を一本教えてください", "白樺です。", "白樺です。"),
        ("おすすめの木を一本教えてください", "\n白樺です。", "白樺です。"),
        ("Name a good car", "\n\nThe 2CV.", "The 2CV."),
        ("Name a good car", "toon? The 2CV.", None),
        ("Назови хорошую машину", "ми? Нет.", None),
        ("木は？", "白樺です。", None),
        ("Write a sum, in Python:", "\n\n    a = 1\n    a + b\n", "    a = 1\n    a + b"),
    ],
)
def test_a_repeated_prompt_is_cut_at_the_end_of_a_word_and_before_indentation(
    tmp_path: Path, prompt: str, after: str, kept: str | None
) -> None:
    row = {"prompt": prompt, "chosen": prompt + after, "rejected": f"{prompt}{after} Oak."}
    (pair,), _ = load_pairs(written(tmp_path, row))
    assert pair.chosen == ((prompt + after).strip() if kept is None else kept)


@pytest.mark.parametrize(
    "prompt",
    ["\n\nSystem: Be brief.\n\nHuman: Hi?\n\nAssistant:", "System: Be brief.\n\nHuman: Hi?"],
)
def test_a_plain_prompt_may_have_a_system_turn(tmp_path: Path, prompt: str) -> None:
    (pair,), _ = load_pairs(written(tmp_path, {"prompt": prompt, **REPLIES}))
    assert pair.conversation == (Message("system", "Be brief."), Message("user", "Hi?"))


def test_a_system_turn_in_its_own_column_begins_the_prompt(tmp_path: Path) -> None:
    (pair,), _ = load_pairs(written(tmp_path, {"system": "Be brief.", "question": "Hi?", **REPLIES}))
    assert pair.conversation == (Message("system", "Be brief."), Message("user", "Hi?"))


RESPONSES = {"prompt": "Hi?", "response_0": "Hello!", "response_1": "Go off."}


def test_the_safer_response_is_not_always_the_better_one(tmp_path: Path) -> None:
    file = written(tmp_path, {**RESPONSES, "better_response_id": 1, "safer_response_id": 0})
    assert load_pairs(file).usable[0].chosen == "Go off."
    assert load_pairs(file, prefer="safer").usable[0].chosen == "Hello!"


@pytest.mark.parametrize(
    ("columns", "strength"),
    [
        ({}, None),
        ({"strength": -2}, 2.0),
        ({"preference_strength": 1}, 1.0),
        ({"margin": 0.5}, 0.5),
        ({"margin": "0.5", "strength": None}, 0.5),
        ({"score_chosen": 9, "score_rejected": 7.5}, 1.5),
        ({"chosen_rating": 3, "rejected_rating": 3}, 0.0),
    ],
)
def test_a_margin_and_a_difference_of_ratings_are_strengths(
    tmp_path: Path, columns: dict[str, object], strength: float | None
) -> None:
    (pair,), _ = load_pairs(written(tmp_path, {"prompt": "Hi?", **REPLIES, **columns}))
    assert pair.strength == strength


def test_ties_are_not_decided_and_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"Hi {n}?", **REPLIES, "score_chosen": 5, "score_rejected": n} for n in (3, 5)]
    pairs, unusable = load_decided_pairs(written(tmp_path, *rows))
    assert ([p.strength for p in pairs], unusable) == ([2], {"a tie": 1})
    with pytest.raises(InputError, match="1 × a tie"):
        load_decided_pairs(written(tmp_path, rows[1]))


UNUSABLE = [
    (
        {"prompt": "Ho?", "chosen": [HI, HELLO], "rejected": [HI, OFF]},
        "the prompt is not the one of the dialogues",
    ),
    (
        {"prompt": TALK, "chosen": [HI, HELLO], "rejected": [HI, OFF]},
        "the prompt is not the one of the dialogues",
    ),
    ({"prompt": "Hi?", **REPLIES, "margin": -1}, "the rejected reply has the higher rating"),
    (
        {"prompt": "Hi?", **REPLIES, "score_chosen": 1, "score_rejected": 2},
        "the rejected reply has the higher rating",
    ),
    ({"prompt": "Hi?", "chosen": "Hello!", "rejected": " "}, "an empty turn"),
    ({"prompt": " ", **REPLIES}, "an empty turn"),
    ({"prompt": "Hi?", "chosen": "Hello!", "rejected": "Hello! "}, "both replies are the same"),
    (REPLIES, "no reply to a human turn"),
    ({"messages": [HI, {"role": "assistant", "content": "Yes?"}], **REPLIES}, "no reply to a human turn"),
    ({"prompt": "Hi?", "chosen": [HI], "rejected": [OFF]}, "no reply to a human turn"),
    (
        {"chosen": "\n\nHuman: Hi?\n\nAssistant: Hello!", "rejected": "\n\nHuman: Ho?\n\nAssistant: Off."},
        "the dialogues differ before the last reply",
    ),
    (
        {
            "chosen": "\n\nHuman: Hi?\n\nAssistant: Hello!",
            "rejected": "\n\nHuman: Hi?\n\nAssistant: A\n\nHuman: B\n\nAssistant: C",
        },
        "the dialogues differ before the last reply",
    ),
]


@pytest.mark.parametrize(("row", "why"), UNUSABLE)
def test_rows_without_a_usable_pair_are_left_out_and_counted(tmp_path: Path, row: object, why: str) -> None:
    pairs, unusable = load_pairs(written(tmp_path, {"prompt": "Tea?", **REPLIES}, row))
    assert (len(pairs), unusable) == (1, {why: 1})


def test_the_same_pair_counts_once(tmp_path: Path) -> None:
    pairs, unusable = load_pairs(written(tmp_path, *[{"prompt": "Hi?", **REPLIES}] * 3))
    assert (len(pairs), unusable) == (1, {"the same pair again": 2})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"prompt": "Hi?", "chosen": "a", "rejected": "b"}\n{"prompt": "Hi?", "cho', r":2: .*JSON"),
        (b'\n{"prompt": "Hi?", "chosen": "a"}', ":2: rejected: is missing"),
        (b'{"chosen": [], "rejected": []}', ":1: chosen"),
        (b"[1]", ":1: "),
        (b"", "holds no usable pairs"),
        (b'{"prompt": "Hi?", "chosen": "a", "rejected": "a"}', "1 × both replies are the same"),
        (b"caf\xe9", "not UTF-8"),
    ],
)
def test_a_row_that_is_no_pair_is_named_by_its_line(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(data)
    with pytest.raises(InputError, match=said):
        load_pairs(file)


NO_PAIR = [  # the row, and how its error begins
    (
        {"prompt": "Hi?", "answer": "Hello!"},
        "holds no two answers, but 'prompt', 'answer'. Known: 'chosen' with 'rejected'",
    ),
    ({"prompt": "Hi?", "chosen": "Hello!"}, "rejected: is missing"),
    ({"prompt": "Hi?", "chosen": None, "rejected": "b"}, "chosen: is missing"),
    ({"prompt": 3, **REPLIES}, "prompt: must be a text or a list"),
    ({"prompt": "Human: Hi?\nAssistant: Hello!", **REPLIES}, "prompt: put a blank line"),
    ({"prompt": "Human: Hi? Assistant:", **REPLIES}, "prompt: put a blank line"),
    ({"prompt": "System: S\n\nHuman: Hi?\nAssistant: Hello!", **REPLIES}, "prompt: put a blank line"),
    ({"prompt": ["Hi?"], **REPLIES}, "prompt.0: must be a message"),
    ({"chosen": [HI, {"role": "assistant"}], "rejected": [HI, OFF]}, "chosen.1.content: is missing"),
    ({"chosen": [HI, HELLO], "rejected": [HI, {"content": "Off."}]}, "rejected.1.role: is missing"),
    ({"chosen": [HI, HELLO], "rejected": [HI, {"role": "tool", "content": "x"}]}, "rejected.1.role: must be"),
    ({"conversations": [{"from": "bot", "value": "Hi?"}], **REPLIES}, "conversations.0.from: must be"),
    ({"conversations": [{"from": "human", "value": 3}], **REPLIES}, "conversations.0.value: must be"),
    (
        {"prompt": [{"role": "user", "content": [{"type": "image_url"}]}], **REPLIES},
        "prompt.0.content.0.type: only",
    ),
    ({"prompt": [{"role": "user", "content": [{"type": "text"}]}], **REPLIES}, "prompt.0.content.0.text: must"),
    ({"prompt": [{"role": "user", "content": ["Hi?"]}], **REPLIES}, "prompt.0.content.0: must"),
    ({"prompt": [HI], "chosen": {**HELLO, "tool_calls": [{}]}, "rejected": OFF}, "chosen.tool_calls: "),
    (
        {"prompt": "<|im_start|>user\nHi?<|im_end|>Yes?<|im_start|>", **REPLIES},
        "prompt: it holds the control token",
    ),
    ({"prompt": LLAMA, "chosen": "A<|im_sep|>B", "rejected": "C"}, "chosen: it holds the control token"),
    (
        {"input": {"messages": [{"role": "user"}]}, "preferred_output": [HELLO], "non_preferred_output": [OFF]},
        "input.messages.0.content: is missing",
    ),
    ({"input": {"messages": [HI]}, "preferred_output": [HELLO]}, "non_preferred_output: is missing"),
    (RESPONSES, "better_response_id: is missing"),
    ({**RESPONSES, "safer_response_id": 2}, "safer_response_id: must be 0 or 1"),
    ({**RESPONSES, "response_1": None, "safer_response_id": 0}, "response_1: is missing"),
    ({"prompt": "Hi?", **REPLIES, "margin": "much"}, "margin: must be a finite number"),
    ({"prompt": "Hi?", **REPLIES, "score_chosen": 3}, "score_rejected: is missing"),
    ({"prompt": "Hi?", **REPLIES, "rejected_rating": 3}, "chosen_rating: is missing"),
    ({"prompt": "Hi?", "system": 3, **REPLIES}, "system.0.content: must"),
]


@pytest.mark.parametrize(("row", "said"), NO_PAIR)
def test_the_error_names_the_field_of_the_form_that_the_row_has(tmp_path: Path, row: object, said: str) -> None:
    file = written(tmp_path, {"prompt": "Tea?", **REPLIES}, row)
    with pytest.raises(InputError) as caught:
        load_pairs(file)
    assert str(caught.value).startswith(f"{file}:2: {said}")
