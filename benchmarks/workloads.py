"""Prompts for the engines: the project's own texts, in the paper's formats."""

from __future__ import annotations

import json
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

import constitutional_ai
from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.models.local.bundled import bundled_folder
from constitutional_ai.models.model import Context
from constitutional_ai.records import Message
from constitutional_ai.rl_cai.feedback import questions, worked_choices
from constitutional_ai.seeding import rng
from constitutional_ai.sl_cai import critique_requests, worked_critiques

FOLDER = Path(constitutional_ai.__file__).parent
BASE = bundled_folder("smollm2-135m")
PREFIX = 2000
"""The least tokens of few-shots before a critique: the paper's have 1,966."""


def lines(name: str) -> list[dict[str, Any]]:
    """Return the rows of one of the project's own JSONL files."""
    return [json.loads(line) for line in (FOLDER / "data" / name).read_text("utf-8").splitlines()]


def critiques(count: int = 64) -> list[Context]:
    """Return prompts in the paper's format: worked dialogues, repeated up to ``PREFIX``, and an open one."""
    shots = (FOLDER / "data" / "few_shots" / worked_critiques.CRITIQUE_REVISION).read_text("utf-8")
    dialogues = [text.removesuffix("\n\nHuman:") for text in json.loads(shots)]
    before, tokenizer = "", AutoTokenizer.from_pretrained(BASE)
    for dialogue in cycle(dialogues):
        if len(tokenizer(before)["input_ids"]) >= PREFIX:
            break
        before += dialogue
    prompts, pairs = lines("red_team.jsonl")[:count], lines("helpfulness_pairs.jsonl")
    requests = [p.critique for p in load_constitution("default").principles if p.critique]
    return [
        before
        + str(
            critique_requests.to_critique(
                (Message("user", prompt["conversation"][0]["content"]),), pair["chosen"], request, "plain"
            )
        )
        for prompt, pair, request in zip(prompts, cycle(pairs), cycle(requests), strict=False)
    ]


def chats(count: int = 128) -> list[Context]:
    """Return conversations of one short human turn."""
    return [
        (Message("user", row["conversation"][0]["content"]),) for row in islice(lines("helpful.jsonl"), count)
    ]


def feedback(shots: bool) -> list[Context]:
    """Return questions about a pair under 16 principles in both orders; ``shots``: after worked examples (FB-7)."""
    pair = lines("helpfulness_pairs.jsonl")[0]
    principles = load_constitution("default").for_preference
    worked = worked_choices.load_few_shots(FOLDER / "data" / "few_shots")
    talk = (Message("user", pair["conversation"][0]["content"]),)
    before = worked.multiple_choice(principles, rng(0, "few shots")) if shots else ""
    contexts: list[Context] = []
    for principle in principles[:16]:
        contexts += [
            questions.to_choose(talk, principle.preference or "", *answers, "plain", before)
            for answers in ((pair["chosen"], pair["rejected"]), (pair["rejected"], pair["chosen"]))
        ]
    return contexts
