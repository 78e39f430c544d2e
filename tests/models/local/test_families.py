"""Scores and texts of families that need care are those of one plain forward pass."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from constitutional_ai import machine
from constitutional_ai.errors import ModelError
from constitutional_ai.models.local.hugging_face import HuggingFaceModel
from constitutional_ai.models.local.tokens import Tokens
from constitutional_ai.models.model import Sampling
from constitutional_ai.records import Message
from tests.families import make_family

CONTEXTS = ("\n\nHuman: How do I bake bread?\n\nAssistant: The answer is:", "Hi", "\n\nHuman: No\n\nAssistant:")
ENDS = (" (A)", " (B)", " Mix flour and water.", " No")


@pytest.mark.parametrize("kind", ["prefixed", "state", "mamba"])
def test_scores_and_texts_are_those_of_one_unpadded_pass(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "best_dtype", lambda: torch.float32)
    folder = make_family(kind, tmp_path)
    model, tokenizer = HuggingFaceModel("hf:m", folder), AutoTokenizer.from_pretrained(folder)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def logps(ids: list[int]) -> torch.Tensor:
        return plain(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)

    async def ask() -> tuple[list[list[float]], list[str]]:
        scores = await asyncio.gather(*[model.score(context, ENDS) for context in CONTEXTS])
        sampling = Sampling(temperature=0, max_tokens=6)
        texts = await asyncio.gather(*[model.generate(context, sampling) for context in CONTEXTS])
        return scores, [text.text for text in texts]

    scores, texts = asyncio.run(ask())
    for context, row, text in zip(CONTEXTS, scores, texts, strict=True):
        before = tokenizer(context)["input_ids"]
        for end, score in zip(ENDS, row, strict=True):
            whole = tokenizer(context + end)["input_ids"]
            exact = logps(whole)
            expected = sum(float(exact[at - 1, whole[at]]) for at in range(len(before), len(whole)))
            assert score == pytest.approx(expected, abs=1e-3)
        ids = list(before)
        for _ in range(6):
            ids.append(int(logps(ids)[-1].argmax()))
        assert tokenizer.decode(ids[len(before) :], skip_special_tokens=True).strip().startswith(text)


@pytest.mark.parametrize(
    ("context", "end", "expected"),
    [
        ("Assistant:", " (A)", ["▁(A)"]),
        ("Assistant: ", "(A)", ["(A)"]),  # a token would span both
        ("x\n", "No", ["N", "o"]),
    ],
)
def test_a_prefixed_space_is_not_scored(tmp_path: Path, context: str, end: str, expected: list[str]) -> None:
    tokens = Tokens("m", make_family("prefixed", tmp_path))
    (ids,) = tokens.scoring(context, [end]).continuations
    assert "".join(tokens.tokenizer.convert_ids_to_tokens(ids)) == "".join(expected)


@pytest.mark.parametrize("end", [*ENDS, "(A)", "\n\nHuman"])
def test_other_tokenizers_give_a_continuation_by_itself(tiny: Path, end: str) -> None:
    tokens = Tokens("m", tiny)
    alone = tokens.tokenizer(end, add_special_tokens=False)["input_ids"]
    for context in ("Hi", "x(", (Message("user", "Hi"), Message("assistant", "The"))):
        assert tokens.scoring(context, [end]).continuations == [alone]


def test_the_token_that_ends_a_turn_ends_an_answer(tmp_path: Path) -> None:
    tokens = Tokens("m", make_family("base", tmp_path))
    turn = tokens.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert {turn, tokens.tokenizer.eos_token_id} <= tokens.ends
    assert turn != tokens.tokenizer.eos_token_id


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_python_of_a_folder_never_runs_whatever_is_answered(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    ran = tmp_path / "ran"
    folder = tmp_path / "m"
    folder.mkdir()
    for source in tiny.iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Own: pass\n")
    settings = json.loads((folder / file).read_text())
    names = {
        "AutoConfig": "own.Own",
        "AutoTokenizer": ["own.Own", "own.Own"],
        "AutoModelForCausalLM": "own.Own",
    }
    (folder / file).write_text(
        json.dumps({**settings, "model_type": "own", "tokenizer_class": "Own", "auto_map": names})
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    with pytest.raises(ModelError, match="never run here"):
        Tokens("hf:m", folder)
    assert not ran.exists()
