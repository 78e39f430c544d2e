from __future__ import annotations

import inspect

import pytest

from constitutional_ai import errors
from constitutional_ai.errors import CaiError, InputError, RecordError, did_you_mean


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = [
        line.split("*")[1].split()[0] for line in errors.__doc__.splitlines() if line.strip().startswith("*")
    ]
    defined = [
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)
    ]
    assert sorted(drawn) == sorted(defined)


def test_what_the_user_can_mend_and_what_one_record_suffers_are_apart() -> None:
    assert not issubclass(RecordError, CaiError)
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize(
    ("word", "said"),
    [("ronds", " Did you mean 'rounds'?"), ("xyz", " Known: rounds, style."), ("", " Known: rounds, style.")],
)
def test_a_near_word_is_named_and_else_all_of_them(word: str, said: str) -> None:
    assert did_you_mean(word, {"style": 1, "rounds": 2}) == said
