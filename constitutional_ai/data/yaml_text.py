"""Parse YAML that people wrote, without its surprises.

A key may be written once, aliases may not multiply, and numbers and texts are such that the rest of the program can
write them down again. Code is never constructed.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

LONGEST = 2 * 2**20
"""Characters of a text."""
MOST_NODES = 50_000
"""Keys and values of a text, each counted as often as aliases repeat it."""
DEEPEST = 50
"""Mappings and lists within each other."""
LARGEST = 2**63
"""Whole numbers are smaller: Python refuses to write those of thousands of digits."""
HALVES = re.compile(r"[\ud800-\udfff]")
"""Halves of characters, which UTF-8 cannot encode. PyYAML without libyaml lets them pass."""
# libyaml is ten times as fast, and bounds its recursion; PyYAML has it in all its wheels.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlFault(ValueError):
    """A text is not YAML, or holds what is refused here."""

    def __init__(self, problem: str, mark: yaml.Mark | None = None) -> None:
        super().__init__(problem)
        self.line = mark.line + 1 if mark else None
        """The line, from 1; None if the whole text is meant."""


def parse_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """Return the data of a YAML text, and its node tree for ``lines.line_of``. Raises YamlFault."""
    if len(text) > LONGEST:
        raise YamlFault(f"it has {len(text):,} characters, and at most {LONGEST:,} are read")
    try:
        node = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        raise YamlFault(f"not YAML: {error.problem}", error.problem_mark) from error
    except RecursionError as error:
        raise YamlFault(f"more than {DEEPEST} levels within each other") from error
    except (yaml.YAMLError, ValueError) as error:
        raise YamlFault(f"not YAML: {' '.join(str(error).split())[:200]}") from error
    if node is None:
        return None, None
    _Check().size(node)
    try:
        return _Constructor().construct_document(node), node
    except yaml.MarkedYAMLError as error:  # a key that is a list
        raise YamlFault(error.problem or "not YAML", error.problem_mark) from error


class _Check:
    """Walks a node tree once. Each method raises YamlFault."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._open: list[int] = []

    def size(self, node: yaml.Node) -> int:
        """Return the number of nodes of a tree in which each alias is replaced by what it stands for."""
        if id(node) in self._open:
            raise YamlFault("an alias refers to itself: write its value out", node.start_mark)
        if id(node) not in self._sizes:
            if len(self._open) >= DEEPEST:
                raise YamlFault(f"more than {DEEPEST} levels within each other", node.start_mark)
            self._open.append(id(node))
            self._sizes[id(node)] = self._size(node)
            self._open.pop()
        return self._sizes[id(node)]

    def _size(self, node: yaml.Node) -> int:
        total = 1
        if isinstance(node, yaml.ScalarNode):
            if HALVES.search(node.value):
                raise YamlFault("a text holds half of a character (\\ud…)", node.start_mark)
        elif isinstance(node, yaml.MappingNode):
            _refuse_twins(node)
            total += sum(self.size(key) + self.size(value) for key, value in node.value)
        else:
            total += sum(map(self.size, node.value))
        if total > MOST_NODES:
            raise YamlFault(f"more than {MOST_NODES:,} values, aliases written out", node.start_mark)
        return total


def _refuse_twins(mapping: yaml.MappingNode) -> None:
    """Raise YamlFault if a key is written twice: YAML would silently take the last."""
    keys: set[tuple[str, str]] = set()
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in keys:
                raise YamlFault(f"the key '{key.value[:60]}' is written twice: delete one", key.start_mark)
            keys.add((key.tag, key.value))


class _Constructor(yaml.constructor.SafeConstructor):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node. Raises YamlFault also where PyYAML raises anything at all."""
        try:
            value = super().construct_object(node, deep)
        except YamlFault:
            raise
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError, TypeError) as error:
            shown = f"'{node.value[:40]}'" if isinstance(node, yaml.ScalarNode) else "this key or value"
            raise YamlFault(f"{shown} is no value: put quotation marks around it", node.start_mark) from error
        if isinstance(value, int) and abs(value) >= LARGEST:
            raise YamlFault(f"a whole number of {LARGEST.bit_length() - 1} bits or more", node.start_mark)
        return value
