"""Token after token: draws, rows that end, text that is read ahead."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.engine import decode_loop, pieces, prompt_lookup
from constitutional_ai.engine.attention import Forward
from constitutional_ai.engine.decode_loop import Decoding, Draws, Ending, Row
from constitutional_ai.engine.prompt_lookup import Copying
from constitutional_ai.engine.row_engine import SharedEngine
from constitutional_ai.models.local.padded import PaddedEngine
from tests.engine.asked import BEGINNING, ROWS, all_say, greedy, said, says


def test_a_text_of_another_draw_is_told_from_what_a_plain_forward_pass_says(model: Any, tokenizer: Any) -> None:
    """So that the tests below can fail."""
    how = Decoding([3], 1.0, 12, ())
    (text,) = said(PaddedEngine(model, tokenizer, {2}), [ROWS[3]], how)
    assert says(model, ROWS[3], text, how)
    assert not says(model, ROWS[3], text, how._replace(seeds=[4]))
    assert not says(model, ROWS[3], text, how._replace(temperature=0.5))
    assert not says(model, ROWS[4], text, how)
    assert not says(model, ROWS[3], text[:-1], how)
    assert not says(model, ROWS[3], text, how, ends={text[-2]})
    assert not says(model, ROWS[3], text)  # it is not the likeliest


def test_rows_that_end_make_room_and_change_no_other(model: Any, forward: Forward, tokenizer: Any) -> None:
    rows = [ROWS[n % 12] for n in range(30)]
    how = Decoding(list(range(30)), 1.5, 40, ())
    ends = set(range(2, 40))  # so that rows end at every step
    together = said(SharedEngine(forward, tokenizer, ends), rows, how)
    assert len({len(tokens) for tokens in together}) > 5
    assert all_say(model, rows, together, how, ends=ends)


def test_both_engines_draw_what_a_plain_forward_pass_draws(
    model: Any, forward: Forward, tokenizer: Any
) -> None:
    model.generation_config.eos_token_id = 2
    how, ends = Decoding(list(range(12)), 1.0, 12, ("A", "the")), {0, 2}
    ending = Ending(tokenizer, ends, how.stop)
    for engine in (SharedEngine(forward, tokenizer, ends), PaddedEngine(model, tokenizer, ends)):
        texts = said(engine, ROWS, how)
        if isinstance(engine, PaddedEngine):  # a row that a stop string ends is padded while others go on
            texts = [t[:-1] if t[1:] and t[-1] == 0 and ending(t[:-1]) else t for t in texts]
        assert all_say(model, ROWS, texts, how, ends=ending)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_what_is_read_ahead_changes_no_draw(
    model: Any, forward: Forward, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """Rows of which some copy and some end (prompt-lookup decoding)."""
    loop = [7, 8, 9, 10, 11]
    rows = [[*BEGINNING, *loop * 3, n] for n in range(5, 11)] + [BEGINNING[:40] * 2, [*BEGINNING, 5]]
    how = Decoding(list(range(len(rows))), temperature, 60, ())
    ends, read = set(range(2, 5)), []
    monkeypatch.setattr(prompt_lookup, "ALIKE", 1)  # so that much is guessed, and much of it wrong
    monkeypatch.setattr(prompt_lookup, "MOST", 0.1)
    texts = said(SharedEngine(Counting(forward, read), tokenizer, ends), rows, how)
    assert all_say(model, rows, texts, how, ends=ends)
    assert 1 < max(read) <= 1 + prompt_lookup.AHEAD
    assert temperature or len(read) < max(map(len, texts))


class Late:
    """Rows that arrive three at a time, and what was said before the batch ended."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows, self.heard = list(enumerate(rows, start=100)), dict[int, list[int]]()

    def more(self, beginning: list[int]) -> list[tuple[list[int], int]]:
        come, self.rows = self.rows[:3], self.rows[3:]
        assert all(row[: len(beginning)] == beginning for _, row in come)
        return [(row, seed) for seed, row in come]

    def said(self, number: int, tokens: list[int]) -> None:
        assert number not in self.heard
        self.heard[number] = tokens


@pytest.mark.parametrize("beginning", [BEGINNING, []], ids=["behind a beginning", "of their own"])
def test_rows_that_join_later_say_what_a_plain_forward_pass_says(
    model: Any, forward: Forward, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, beginning: list[int]
) -> None:
    monkeypatch.setattr(decode_loop, "JOIN", 2)
    rows = [[*beginning, *row[len(BEGINNING) :], 9] for row in ROWS]
    rows.sort(key=len, reverse=True)
    how, late, ends = Decoding([0, 1, 2], 1.5, 20, ()), Late(rows[3:]), set(range(2, 20))
    together = SharedEngine(forward, tokenizer, ends).generate(rows[:3], how, threading.Event(), late)
    assert dict(enumerate(together)) == late.heard and not late.rows
    seeds = [number if number < 3 else 97 + number for number in range(len(rows))]
    assert all_say(model, rows, together, how._replace(seeds=seeds), ends=ends)


class Counting:
    """Notes how many tokens of each row were read at once while generating."""

    def __init__(self, forward: Forward, read: list[int]) -> None:
        self.config, self.device, self.dtype = forward.config, forward.device, forward.dtype
        self.leaves_out = forward.leaves_out
        self._forward, self._read = forward, read

    def __call__(self, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        if rest[-1] == tokens.shape[1]:  # logits after every token are asked for
            self._read.append(tokens.shape[1])
        return self._forward(tokens, *rest)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(0, 29))
def test_what_is_guessed_followed_the_same_three_tokens_before(tokens: list[int], begun: int) -> None:
    begun = min(begun, len(tokens) - 1)
    copied, row = Copying(tokens[:begun]), Row(0, 0, tokens[: begun + 1], begun, 0)
    for at in range(begun + 1, len(tokens) + 1):  # it is asked at every step
        row.tokens = tokens[:at]
        guess = copied.guess(row)
    assert len(guess) <= prompt_lookup.AHEAD
    places = [at for at in range(len(tokens) - 3) if tokens[at : at + 3] == tokens[-3:]]
    assert guess == (tokens[places[-1] + 3 :][: prompt_lookup.AHEAD] if places else [])


def test_more_is_read_ahead_the_more_comes_true_and_the_fewer_rows_there_are() -> None:
    few_to_many = (1, 8, 64, 128)
    often, never = Copying(), Copying()
    for _ in range(30):
        often.heard(64, 64)
        never.heard(0, 64)
    widths = [[copied.width(rows) for rows in few_to_many] for copied in (often, Copying(), never)]
    for of_one in widths:
        assert of_one == sorted(of_one, reverse=True)
    for of_one in zip(*widths, strict=True):
        assert list(of_one) == sorted(of_one, reverse=True)
    assert widths[0][-1] > 0  # all of 128 rows copy
    assert widths[1][0] > 0 and widths[1][-1] == 0  # nothing is known yet
    assert widths[2][-1] == 0


def test_a_batch_that_is_cancelled_ends_at_its_next_token(
    forward: Forward, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, cancelled = SharedEngine(forward, tokenizer, {2}), threading.Event()
    draw = Draws.__call__

    def third(self: Draws, logits: torch.Tensor, rows: Any, steps: list[int]) -> torch.Tensor:
        if max(steps) == 2:
            cancelled.set()
        return draw(self, logits, rows, steps)

    monkeypatch.setattr(Draws, "__call__", third)
    assert max(len(tokens) for tokens in engine.generate(ROWS, greedy(12), cancelled)) == 3
    assert engine.generate(ROWS, greedy(12), cancelled) == [[]] * 12


def test_a_batch_that_is_cancelled_while_it_is_read_reads_no_piece_more(
    forward: Forward, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 64)
    engine, cancelled, calls = SharedEngine(forward, tokenizer, {2}), threading.Event(), []
    read = engine.read

    def second(*asked: Any, **more: Any) -> torch.Tensor:
        calls.append(asked)
        if len(calls) == 2:  # the beginning, and a piece
            cancelled.set()
        return read(*asked, **more)

    engine.read = second  # type: ignore[method-assign]
    assert engine.generate(ROWS, greedy(12), cancelled) == [[]] * 12
    assert len(calls) == 2


@pytest.mark.parametrize("stop", ["\n\nHuman:", "é日", "x"])
@pytest.mark.parametrize("before", ["", "y", "日本" * 30])
def test_a_stop_string_is_found_in_the_last_tokens(tokenizer: Any, stop: str, before: str) -> None:
    ending, tokens = Ending(tokenizer, {2}, (stop,)), tokenizer(before + stop)["input_ids"]
    assert ending(tokens)
    assert not any(ending(tokens[:n]) for n in range(1, len(tokens)))
