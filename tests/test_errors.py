from __future__ import annotations

import inspect
import time
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from constitutional_ai import errors
from constitutional_ai.errors import (
    CaiError,
    InputError,
    RecordError,
    did_you_mean,
    first_fault,
    shortened,
    unique_keys,
)


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = [
        line.split("*")[1].split()[0] for line in errors.__doc__.splitlines() if line.strip().startswith("*")
    ]
    defined = [
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)
    ]
    assert sorted(drawn) == sorted(defined)


def test_errors_of_the_user_and_of_one_record_are_separate() -> None:
    assert not issubclass(RecordError, CaiError)
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("word", "said"),
    [("ronds", " Did you mean 'rounds'?"), ("xyz", " Known: rounds, style."), ("", " Known: rounds, style.")],
)
def test_a_near_word_is_suggested_or_else_all_are_listed(word: str, said: str) -> None:
    assert did_you_mean(word, {"style": 1, "rounds": 2}) == said


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int | Literal["all"] = 1
    names: tuple[str, ...] | str = ()
    levels: dict[Literal["low", "high"], float] = Field(default={})


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: Inner
    text: str = ""

    @field_validator("text")
    @classmethod
    def _is_calm(cls, text: str) -> str:
        if "!" in text:
            raise ValueError("speak calmly")
        return text


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({}, "inner: is missing"),
        ({"iner": {}}, "iner: is not a known key"),  # explains that ``inner`` is missing
        ({"inner": {"Int": 1}}, "inner.Int: is not a known key"),
        ({"inner": {"count": "x"}}, "inner.count: must be a whole number"),
        ({"inner": {"names": ["a", 2]}}, "inner.names.1: must be a text"),
        ({"inner": {"names": 2}}, "inner.names: must be a list"),
        ({"inner": {"levels": {"mid": 1}}}, "inner.levels.mid: must be 'low' or 'high'"),
        ({"inner": {}, "text": "Now!"}, "text: speak calmly"),
        ([], "must be an object with keys"),
    ],
)
def test_the_first_fault_names_the_field_that_is_wrong(value: Any, fault: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(value)
    assert str(first_fault(caught.value)).startswith(fault)


def test_a_value_of_a_megabyte_is_neither_compared_nor_repeated() -> None:
    start = time.process_time()
    assert did_you_mean("x" * 2**20, ["method", "votes"]) == " Known: method, votes."
    assert len(shortened("x" * 2**20)) == 100
    assert time.process_time() - start < 1


def test_a_key_that_is_written_twice_is_named_soon() -> None:
    assert unique_keys([("a", 1), ("b", 2)]) == {"a": 1, "b": 2}
    start = time.process_time()
    with pytest.raises(ValueError, match="the key '5' is written twice"):
        unique_keys([(str(n), n) for n in range(100_000)] + [("5", 0)])
    assert time.process_time() - start < 2
