from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.detectors.degeneracy import degeneracy

TEXT = (
    "Paris.",
    "42",
    "2 + 2 = 4",
    "No, no, no, no, no!",
    "Sooo goooood!!!",
    "1. Apples\n2. Pears\n3. Plums",
    "Title\n==============================\nA line.",
    "I'm sorry, but I can't assist with that.",
    "def f(x):\n    return {k: v for k, v in x.items() if v is not None}",
    "grid = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "Well done! \U0001f389\U0001f389\U0001f389",
    "Four families: " + "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 4,
    "Well done! " + "\U0001f44d\U0001f3fd" * 5,  # a skin tone is no emoji of its own
    "Five flags: " + "".join(chr(0x1F1E6 + ord(c) - ord("a")) for c in "gbfrdeites"),
    "A film to see. \u2605\u2605\u2605\u2605\u2605\u2605\u2605\u2605\u2606\u2606",
    "Black sets up: \u265c\u265e\u265d\u265b\u265a\u265d\u265e\u265c",
    "HTML, CSS and XML",
    "Die Donaudampfschifffahrtsgesellschaft fuhr gestern nicht.",
    "Das schlechteste Strumpfband schmerzt.",
    "我今天很高兴认识你，我们一起去吃饭吧。",
    "Сегодня хорошая погода.",
    "مرحبا كيف حالك",
    "नमस्ते, आप कैसे हैं?",
    "สวัสดีครับ",
)

NO_TEXT = (
    ("", "empty"),
    (" \n\t", "empty"),
    ("\u200b\ufeff", "empty"),
    ("aaaaaaaaaaaaaaaaaa", "looping"),
    ("Yes!!!!!!!!!!!!!!!!!!", "looping"),
    ("so so so so so so so so", "looping"),
    ("1. 1. 1. 1. 1. 1. 1. 1. 1. 1. ok ok ok ok ok ok ok ok", "looping"),
    ("I can help. I can help. I can help. I can help. I can help.", "looping"),
    ("Here is the answer.\n" * 5, "looping"),
    (
        "I'm here to help you, but I'm not here to help you. I'm here to help you, and I'm here to help you. "
        "I'm not here to help you, but I'm here to help you.",
        "looping",
    ),
    ("\U0001f35e\U0001f30d\U0001f30e\U0001f31f\U0001f30a" * 2, "looping"),
    ("I love you all \u2764\ufe0f" + "\u2764\ufe0f " * 7, "looping"),
    ("Take care \u2728\U0001f31f\u2b50\u2728\U0001f496\u2600\ufe0f\u2764\U0001f64f", "looping"),
    ("\U0001f468\u200d\U0001f469\u200d\U0001f467" * 8, "looping"),
    ("".join(chr(0x1F1E6 + ord(c) - ord("a")) for c in "gb" * 8), "looping"),
    ("哈" * 12, "looping"),
    ("!@#$%^&*()_+{}|:<>?", "gibberish"),
    ("sdkfj ksdjf lkjsdf wrtgh", "gibberish"),
    ("\ufffd\ufffd\ufffd and \ufffd\ufffd", "gibberish"),
)


@pytest.mark.parametrize("answer", TEXT)
def test_text_is_text(answer: str) -> None:
    assert degeneracy(answer) is None


@pytest.mark.parametrize(("answer", "why"), NO_TEXT)
def test_says_why_an_answer_is_no_text(answer: str, why: str) -> None:
    assert degeneracy(answer) == why


@given(st.text())
def test_any_text_gets_one_of_four_verdicts_and_the_same_one_again(answer: str) -> None:
    verdict = degeneracy(answer)
    assert verdict in {None, "empty", "looping", "gibberish"}
    assert degeneracy(answer) == verdict


@given(st.text(alphabet=" \n\t\r\u200b\u00a0"))
def test_nothing_visible_is_empty(answer: str) -> None:
    assert degeneracy(answer) == "empty"


@given(st.from_regex(r"[a-z]{2,6} [a-z]{2,6} [a-z]{3,6}", fullmatch=True))
def test_a_phrase_said_ten_times_is_a_loop(phrase: str) -> None:
    assert degeneracy(f"{phrase}. " * 10) == "looping"


@pytest.mark.parametrize("part", ["a", "ab ", "not a ", " ", "\n", ".", "\U0001f30d\u200d ", "我今", "a1b2 "])
def test_a_long_answer_takes_no_longer(part: str) -> None:
    answer = (part * 100_000)[:100_000]
    start = time.perf_counter()
    degeneracy(answer)
    assert time.perf_counter() - start < 0.5  # measured: below 0.01


DATA = Path(os.environ.get("CAI_DATA_DIR", Path(__file__).parents[3] / "shared" / "data")) / "judges"


@pytest.mark.skipif(not DATA.is_dir(), reason="CAI_DATA_DIR has no answers")
def test_answers_of_larger_models_are_text() -> None:
    for path in DATA.glob("xstest-*.jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            assert [row for row in map(json.loads, file) if degeneracy(row["completion"])] == []
