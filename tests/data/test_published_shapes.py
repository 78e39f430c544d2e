"""Test rows in the shapes of published data sets: each is the pair that it means, or refused with the wrong field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.pairs import load_pairs
from constitutional_ai.data.prompt_rows import prompt_row
from constitutional_ai.errors import InputError

TREE, BIRCH, OAK = "Name a tree with white bark.", "The birch.", "An oak, maybe."


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


GOOD, BAD = [user(TREE), assistant(BIRCH)], [user(TREE), assistant(OAK)]
READ: dict[str, tuple[dict[str, Any], float | None]] = {
    "ultrafeedback h4": (
        {
            "prompt": TREE,
            "prompt_id": "1",
            "chosen": GOOD,
            "rejected": BAD,
            "messages": GOOD,
            "score_chosen": 8.0,
            "score_rejected": 5.0,
        },
        3.0,
    ),
    "argilla hyphen tie": (
        {
            "source": "x",
            "prompt": TREE,
            "chosen": GOOD,
            "chosen-rating": 4.0,
            "chosen-model": "m",
            "rejected": BAD,
            "rejected-rating": 4.0,
            "rejected-model": "n",
        },
        0.0,
    ),
    "argilla dpo mix": (
        {"dataset": "x", "chosen": GOOD, "rejected": BAD, "chosen_rating": 5.0, "rejected_rating": 4.0},
        1.0,
    ),
    "skywork": ({"chosen": GOOD, "rejected": BAD, "source": "magpie"}, None),
    "tulu3 multiturn": (
        {
            "id": "a",
            "prompt": "And another?",
            "chosen": [user("Hi"), assistant("Hello"), user("And another?"), assistant(BIRCH)],
            "rejected": [user("Hi"), assistant("Hello"), user("And another?"), assistant(OAK)],
        },
        None,
    ),
    "hh": (
        {
            "chosen": f"\n\nHuman: {TREE}\n\nAssistant: {BIRCH}",
            "rejected": f"\n\nHuman: {TREE}\n\nAssistant: {OAK}",
        },
        None,
    ),
    "full-hh": (
        {
            "prompt": f"\n\nHuman: {TREE}\n\nAssistant:",
            "response": f" {BIRCH}",
            "chosen": f" {BIRCH}",
            "rejected": f" {OAK}",
        },
        None,
    ),
    "pku": (
        {
            "prompt": TREE,
            "response_0": OAK,
            "response_1": BIRCH,
            "is_response_0_safe": True,
            "is_response_1_safe": True,
            "better_response_id": 1,
            "safer_response_id": 1,
            "response_0_sha256": "x",
        },
        None,
    ),
    "orpo": ({"source": "x", "chosen": GOOD, "rejected": BAD, "prompt": TREE, "question": TREE}, None),
    "orpo empty": ({"source": "x", "chosen": GOOD, "rejected": BAD, "prompt": TREE, "question": ""}, None),
    "rewardbench": (
        {
            "prompt": TREE,
            "chosen": BIRCH,
            "chosen_model": "m",
            "rejected": OAK,
            "rejected_model": "n",
            "subset": "x",
            "id": 1,
        },
        None,
    ),
    "magpie": ({"uuid": "1", "instruction": TREE, "chosen": GOOD, "rejected": BAD}, None),
    "sharegpt multi": (
        {
            "conversations": [{"from": "human", "value": TREE}],
            "chosen": {"from": "gpt", "value": BIRCH},
            "rejected": {"from": "gpt", "value": OAK},
        },
        None,
    ),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "argilla orca": (
        {
            "system": "Be brief.",
            "input": TREE,
            "chosen": BIRCH,
            "rejected": OAK,
            "generations": [BIRCH, OAK],
            "order": ["a", "b"],
            "rating": [9.0, 9.0],
            "status": "tie",
            "chosen_score": 9.0,
            "in_gsm8k_train": False,
        },
        "rejected_score: is missing, because the other score is given.",
    ),
    "capybara": (
        {
            "source": "x",
            "conversation": [{"input": TREE, "output": None}],
            "prompt": TREE,
            "chosen": GOOD,
            "rejected": BAD,
            "rating_chosen": 5,
            "rating_rejected": 5,
            "chosen_model": "a",
        },
        "conversation.0.role: is missing.",
    ),
    "helpsteer2 pref": (
        {
            "split": "train",
            "prompt": TREE,
            "response_1": BIRCH,
            "response_2": OAK,
            "preference_strength": -2,
            "preference_statement": "x",
        },
        "response_0: is missing",
    ),
    "oasst pairwise": (
        {
            "lang": "en",
            "prompt": f"prompter: {TREE}\nassistant: Hm?\nprompter: Which?",
            "chosen": BIRCH,
            "rejected": OAK,
        },
        "prompt: is a dialogue with 'prompter:'",
    ),
    "oasst tokens": (
        {"prompt": f"<|prompter|>{TREE}<|endoftext|><|assistant|>", "chosen": BIRCH, "rejected": OAK},
        "prompt: it holds the control token <|prompter|>",
    ),
    "phi tokens": (
        {
            "prompt": f"<|user|>\n{TREE}<|end|>\n<|assistant|>\n",
            "chosen": f"{BIRCH}<|end|>",
            "rejected": f"{OAK}<|end|>",
        },
        "prompt: it holds the control token <|user|>",
    ),
    "cohere tokens": (
        {
            "prompt": "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            "chosen": BIRCH,
            "rejected": OAK,
        },
        "prompt: it holds the control token <|START_OF_TURN_TOKEN|>",
    ),
    "gptoss tokens": (
        {
            "prompt": f"<|start|>user<|message|>{TREE}<|end|><|start|>assistant",
            "chosen": BIRCH,
            "rejected": OAK,
        },
        "prompt: it holds the control token <|start|>",
    ),
    "zephyr whole": (
        {
            "chosen": f"<|user|>\n{TREE}</s>\n<|assistant|>\n{BIRCH}</s>",
            "rejected": f"<|user|>\n{TREE}</s>\n<|assistant|>\n{OAK}</s>",
        },
        "chosen: it holds the control token <|user|>",
    ),
    "guanaco": (
        {"prompt": f"### Human: {TREE}\n### Assistant:", "chosen": BIRCH, "rejected": OAK},
        "prompt: is a dialogue with '### Human:'",
    ),
    "vicuna": (
        {"prompt": f"USER: {TREE} ASSISTANT:", "chosen": BIRCH, "rejected": OAK},
        "prompt: is a dialogue with 'USER:'",
    ),
    "rewardbench2": (
        {"id": "1", "prompt": TREE, "chosen": [BIRCH], "rejected": [OAK, OAK + "!"], "num_correct": 1},
        "chosen.0: must be a message, such as {'role': 'user', 'content': '…'}.",
    ),
    "instruction texts": (
        {"instruction": TREE, "chosen": BIRCH, "rejected": OAK},
        "instruction: is not read, and the prompt does not hold it",
    ),
    "ultrainteract": (
        {"task": "x", "trajectory": [{"from": "user", "value": TREE}], "chosen": BIRCH, "rejected": OAK},
        "trajectory: is not read, and the prompt does not hold it",
    ),
    "index str": (
        {"prompt": TREE, "responses": [BIRCH, OAK], "chosen": "0", "rejected": "1"},
        "chosen: names an answer in another column",
    ),
    "letter": (
        {"prompt": TREE, "response_a": BIRCH, "response_b": OAK, "chosen": "A", "rejected": "B"},
        "chosen: names an answer in another column",
    ),
    "repr lists": (
        {"prompt": TREE, "chosen": str(GOOD), "rejected": str(BAD)},
        "chosen: holds a list as a text",
    ),
    "json str lists": (
        {"prompt": TREE, "chosen": json.dumps(GOOD), "rejected": json.dumps(BAD)},
        "chosen: holds a list as a text",
    ),
    "tool role": (
        {"chosen": [user(TREE), {"role": "tool", "content": "4"}, assistant(BIRCH)], "rejected": BAD},
        "chosen.1.role: must be one of system, developer, user, assistant, not 'tool'.",
    ),
    "history": (
        {"history": [["Hi", "Hello"]], "prompt": TREE, "chosen": BIRCH, "rejected": OAK},
        "history: is not read, and the prompt does not hold it",
    ),
    "input+instruction": (
        {"instruction": "Name a tree", "input": TREE, "chosen": BIRCH, "rejected": OAK},
        "instruction: is not read, and the prompt does not hold it",
    ),
    "system_prompt": (
        {"system_prompt": "Be brief.", "prompt": TREE, "chosen": BIRCH, "rejected": OAK},
        "system_prompt: is not read, and the prompt does not hold it",
    ),
}
NO_ANSWERS = {
    "ultrafeedback raw": "source instruction models completions correct_answers",
    "helpsteer2": "prompt response helpfulness correctness",
    "helpsteer3": "domain context response1 response2 overall_preference",
    "nectar": "prompt answers turns",
    "wildguard": "prompt adversarial response prompt_harm_label response_refusal_label",
    "beavertails": "prompt response category is_safe",
    "lmsys arena": "question_id model_a model_b winner conversation_a conversation_b turn",
    "arena kaggle": "id model_a model_b prompt response_a response_b winner_model_a winner_tie",
    "oasst": "message_id parent_id text role lang rank",
    "kto": "prompt completion label",
    "conv_A": "conv_A conv_B label",
    "shp": "history human_ref_A human_ref_B labels",
    "stack": "qid question response_j response_k",
    "webgpt": "question answer_0 answer_1 score_0",
    "llamafactory rank": "instruction input output",
}
"""Columns of sources without a pair of answers that is read."""


@pytest.mark.parametrize("name", READ)
def test_a_published_shape_is_the_pair_that_it_means(tmp_path: Path, name: str) -> None:
    row, strength = READ[name]
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(row))
    (pair,), _ = load_pairs(file)
    last = "And another?" if "multiturn" in name else TREE
    assert (pair.conversation[-1].content, pair.chosen, pair.rejected) == (last, BIRCH, OAK)
    assert pair.strength == strength


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_shape_is_refused_with_its_line_and_field(tmp_path: Path, name: str) -> None:
    row, why = REFUSED[name]
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": TREE, "chosen": BIRCH, "rejected": OAK}) + "\n" + json.dumps(row))
    with pytest.raises(InputError) as caught:
        load_pairs(file)
    assert str(caught.value).startswith(f"{file}:2: {why}")


@pytest.mark.parametrize("columns", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_a_source_without_two_answers_is_refused_with_what_is_known(tmp_path: Path, columns: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(dict.fromkeys(columns.split(), TREE)))
    with pytest.raises(InputError, match=r":1: holds no two answers, but .*\. Known: 'chosen' with"):
        load_pairs(file)


@pytest.mark.parametrize(
    "text",
    [
        "User: Hi\nAssistant: Hello\nUser: What now?",
        "<|user|>\nHi<|end|>\n<|assistant|>\n",
        "Human: Hi\nAssistant: Hello",
        '[{"role": "user", "content": "Hi"}]',
    ],
)
def test_a_prompt_that_the_dialogues_repeat_is_what_it_looks_like(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pairs.jsonl"
    answers = {key: [user(text), assistant(reply)] for key, reply in (("chosen", BIRCH), ("rejected", OAK))}
    file.write_text(json.dumps({"prompt": text, **answers}))
    (pair,), _ = load_pairs(file)
    assert [m.content for m in pair.conversation] == [text]


@pytest.mark.parametrize("letters", [("A", "B"), ("2", "1")])
def test_a_letter_may_be_an_answer(tmp_path: Path, letters: tuple[str, str]) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        json.dumps({"prompt": TREE, "chosen": letters[0], "rejected": letters[1], "answer": letters[0]})
    )
    (pair,), _ = load_pairs(file)
    assert (pair.chosen, pair.rejected) == letters


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": TREE, "adversarial": False, "prompt_harm_label": "unharmful"}, "unknown key 'adversarial'"),
        ({"prompt": TREE, "response": BIRCH, "category": {"theft": False}}, "unknown key 'response'"),
        ({"prompt": TREE, "category": {"theft": False}}, "category: must be a text"),
        ({"conversation_id": "1", "conversation": [user(TREE)], "turn": 1}, "unknown key 'conversation_id'"),
        ({"prompt": [user(TREE)], "completion": [assistant(OAK)], "label": True}, "unknown key 'completion'"),
        ({"instruction": TREE, "input": "", "output": OAK}, "unknown key 'instruction'"),
        ({"prompt": TREE, "input": "In Finland."}, "prompt and input hold different prompts"),
        ({"prompt": [TREE]}, "prompt.0: must be a message"),
        ({"prompt": json.dumps([TREE])}, "prompt: holds a list as a text"),
        ({"messages": str([user(TREE)])}, "messages: holds a list as a text"),
        (
            {"prompt": f"<|user|>\n{TREE}<|end|>\n<|assistant|>\n"},
            "prompt: it holds the control token <|user|>",
        ),
        ({"prompt": TREE, "split": "validation"}, "split: must be"),
    ],
)
def test_a_row_of_another_form_is_no_prompt(row: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}"):
        prompt_row(row)
