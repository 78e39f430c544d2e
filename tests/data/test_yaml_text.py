"""YAML that people wrote is read as they meant it, or refused with its line, in bounded time."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml

from constitutional_ai.data import yaml_text
from constitutional_ai.data.yaml_text import YamlFault, parse_yaml

MULTIPLIED = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED = [  # (text, line, what is wrong)
    ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' is written twice"),
    ("a:\n  b: 1\n  b: 1\n", 3, "the key 'b' is written twice"),
    ("a: 1\nb: 2001-99-99\n", 2, "'2001-99-99' is no value"),
    ("a: !!bool x", 1, "'x' is no value"),
    ("a: !!int ''", 1, "'' is no value"),
    ("a: !!timestamp x", 1, "'x' is no value"),
    ("a: !!python/object/apply:os.getcwd []", 1, "this key or value is no value"),
    ("? [a]\n: 1", 1, "found unhashable key"),
    ("\na: " + "9" * 5000, 2, "is no value"),
    ("a: 0x" + "f" * 5000, 1, "a whole number of 63 bits or more"),
    (f"a: -{2**63}", 1, "a whole number of 63 bits or more"),
    ("a: &x [*x]", 1, "an alias refers to itself"),
    ("\n\n" + MULTIPLIED, 7, "more than 50,000 values"),
    ("a: " + "[" * 900 + "]" * 900, None, "more than 50 levels"),
    ("a: [", None, "not YAML"),
    ('a: "\\ud800"', 1, ""),
    ('a: "\\U00110000"', None, "not YAML"),
    ("a" * (yaml_text.LONGEST + 1), None, "at most 2,097,152 are read"),
]


@pytest.mark.parametrize("loader", [yaml_text.LOADER, yaml.SafeLoader], ids=["libyaml", "plain"])
@pytest.mark.parametrize(("text", "line", "what"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_has_two_readings_or_none_is_refused_with_its_line(
    text: str, line: int | None, what: str, loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_text, "LOADER", loader)
    start = time.process_time()
    with pytest.raises(YamlFault) as caught:
        parse_yaml(text)
    assert what in str(caught.value)
    assert line is None or caught.value.line == line
    assert len(str(caught.value)) < 300
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("a: [1, 2.5, yes, null, 'x']", {"a": [1, 2.5, True, None, "x"]}),
        ("base: &b {x: 1}\nmine: {<<: *b, x: 2}", {"base": {"x": 1}, "mine": {"x": 2}}),
        ("a: &x kind\nb: *x", {"a": "kind", "b": "kind"}),
        (f"a: {2**63 - 1}", {"a": 2**63 - 1}),
        ("1: a\n'1': b", {1: "a", "1": "b"}),
    ],
)
def test_other_yaml_means_what_it_always_means(text: str, data: Any) -> None:
    assert parse_yaml(text)[0] == data == yaml.safe_load(text)


def test_a_value_of_a_megabyte_is_read_at_once() -> None:
    start = time.process_time()
    assert len(parse_yaml("method: " + "x" * 2**20)[0]["method"]) == 2**20
    assert time.process_time() - start < 2
