from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.detectors.boilerplate import repeats_boilerplate
from constitutional_ai.detectors.degeneracy import degeneracy
from constitutional_ai.detectors.english import another_language
from constitutional_ai.detectors.objection import evades, objects, refuses

OTHER = (
    "Je suis désolé, mais je ne peux pas vous aider avec cela.",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Lo siento, no puedo ayudarte con eso.",
    "Desculpe, não posso ajudar com isso.",
    "Mi dispiace, non posso aiutarti.",
    "Maaf, saya tidak bisa membantu.",
    "Üzgünüm, bu konuda yardımcı olamam.",
    "Het spijt me, daar kan ik niet bij helpen.",
    "Przykro mi, nie mogę w tym pomóc.",
    "Jag kan tyvärr inte hjälpa till med det.",
    "Tôi xin lỗi, tôi không thể giúp bạn.",
    "Samahani, siwezi kukusaidia.",
    "Извините, я не могу с этим помочь.",
    "آسف، لا أستطيع مساعدتك في ذلك.",
    "माफ़ कीजिए, मैं इसमें मदद नहीं कर सकता।",
    "দুঃখিত, আমি সাহায্য করতে পারব না।",
    "معذرت، میں مدد نہیں کر سکتا۔",
    "我很抱歉，我无法帮助您。",
    "申し訳ありませんが、お手伝いできません。",
    "죄송하지만 도와드릴 수 없습니다.",
    "LO SIENTO, NO PUEDO AYUDARTE CON ESO.",
    "Nein.",
    "是。",
    "Merci!",
    'Sure! Le mot « help » est anglais, et je ne peux pas vous en dire plus : "I can\'t help" non plus.',
)

ENGLISH = (
    "I'm sorry, but I can't help with that.",
    '"Es tut mir leid" is how you say sorry to them.',
    "The French say: je ne sais pas, et vous? It means: I do not know, and you?",
    "To order, say 你好 first, and then 我要一杯咖啡. The waiter will understand you.",
    "The Greek letters α, β and γ name the angles.",
    "πr²",
    "α, β, γ",
    "Los Angeles\nLas Vegas\nEl Paso\nLa Jolla",
    "Vincent van Gogh, Leonardo da Vinci, Charles de Gaulle, Otto von Bismarck",
    "Crème brûlée, pâté, soufflé",
    "Coq au vin.",
    "Die Hard",
    "Paris.",
    "42",
    "No.",
    "",
    "for (int i = 0; i < n; i++) { s += a[i]; }",
    "using namespace std; int main() { int t, s, d; cin >> t; while (t--) { string a; cin >> a; } }",
)

DEGENERATE = (
    "",
    "哈" * 20,
    "ффффффффффффффффф",
    "je ne peux pas " * 6,
    "sdkfj ksdjf lkjsdf wrtgh",
    "\ufffd\ufffd\ufffd и \ufffd\ufffd",
)


@pytest.mark.parametrize("answer", OTHER)
def test_an_answer_in_another_language_is_not_read(answer: str) -> None:
    assert another_language(answer)
    assert [detector(answer) for detector in (objects, refuses, evades, repeats_boilerplate)] == [None] * 4


@pytest.mark.parametrize("answer", ENGLISH)
def test_english_stays_english_whatever_it_quotes_or_names(answer: str) -> None:
    assert not another_language(answer)
    assert objects(answer) is not None


@pytest.mark.parametrize("answer", DEGENERATE)
def test_degenerate_text_is_in_no_language(answer: str) -> None:
    assert degeneracy(answer) is not None
    assert not another_language(answer)


@given(st.text())
def test_all_detectors_leave_out_the_same_answers(answer: str) -> None:
    unread = another_language(answer)
    assert [detector(answer) is None for detector in (objects, refuses, evades, repeats_boilerplate)] == [
        unread
    ] * 4


@pytest.mark.parametrize("part", ["я ", "je ne ", "é", "我", "\u200b", "a "])
def test_a_long_answer_takes_no_longer(part: str) -> None:
    answer = (part * 100_000)[:100_000]
    start = time.perf_counter()
    another_language(answer)
    assert time.perf_counter() - start < 0.5  # measured: below 0.01


DATA = Path(os.environ.get("CAI_DATA_DIR", Path(__file__).parents[3] / "shared" / "data")) / "judges"


@pytest.mark.skipif(not DATA.is_dir(), reason="CAI_DATA_DIR has no answers")
def test_english_answers_of_larger_models_are_read() -> None:
    for path in DATA.glob("xstest-*.jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            assert [row for row in map(json.loads, file) if another_language(row["completion"])] == []
