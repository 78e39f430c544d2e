from __future__ import annotations

from pathlib import Path

import pytest

from constitutional_ai.errors import ModelError, RecordError
from constitutional_ai.models.local.tokens import Tokens
from constitutional_ai.models.model import STOP_STRINGS, Sampling


def test_a_plain_model_stops_where_it_speaks_for_the_human(tiny: Path, tiny_plain: Path) -> None:
    asked = Sampling(stop=("x",))
    assert Tokens("tiny", tiny).generation("Hi", asked).stop == ("x",)
    assert Tokens("tiny", tiny_plain).generation("Hi", asked).stop == ("x", *STOP_STRINGS)


def test_what_was_said_ends_at_its_end_or_before_a_stop(tiny: Path) -> None:
    tokens = Tokens("tiny", tiny)
    request = tokens.generation("Hi", Sampling(stop=("help",)))
    said = tokens.tokenizer("No, you")["input_ids"]
    end = tokens.tokenizer.eos_token_id
    for given, text, finish, count in [
        (said, "No, you", "length", len(said)),
        ([*said, end], "No, you", "stop", len(said) + 1),
        (said + tokens.tokenizer(" help me")["input_ids"], "No, you", "stop", None),
        ([], "", "length", 0),
    ]:
        completion = tokens.completion(request, given)
        assert (completion.text, completion.finish_reason) == (text, finish)
        assert count is None or completion.completion_tokens == count


def test_what_has_no_room_and_what_is_empty_is_refused(tiny: Path) -> None:
    tokens = Tokens("tiny", tiny)
    with pytest.raises(RecordError, match="and 600 to come exceed the model's 512"):
        tokens.generation("Hi", Sampling(max_tokens=600))
    with pytest.raises(RecordError, match="an empty continuation has no probability"):
        tokens.scoring("Hi", ["x", ""])


def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(ModelError, match="cannot load 'hf:abacus': "):
        Tokens("hf:abacus", tmp_path)
