"""Describe every key of a recipe: its value, what it may be, what it does, and where the paper says so.

All of it is read from the settings' classes, through their JSON schema, so that no second list can go out of date.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from constitutional_ai.errors import InputError, shortened
from constitutional_ai.recipes.paper_sections import SECTIONS_OF
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.recipes.recipe_file import load_recipe

ID = re.compile(r"\b(?:SL|FB|PM|RL)-\d+\b")
SHOWN_BOUND = 10**10
"""Bounds beyond this are those of the machine, and are not shown."""
IN_PAGE = ("demo", "paper")
"""The built-in recipes that have a column in the page."""
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
HEAD = """# Every key of a recipe

<!-- Generated: cai recipe --markdown > docs/recipes.md -->

What a recipe may set, read from the code. A recipe names only the keys that it changes; `cai recipe NAME` prints all
of them with the values of that recipe, `cai recipe NAME KEY` one of them or a section, and `cai recipe --schema` a JSON
schema with which an editor completes and checks recipes. Any key can be set on the command line, as in
`cai run demo revisions.rounds=2`.

"Default" is the value where a recipe says nothing, which is the paper's where the paper gives one. `demo` and `paper`
are the built-in recipes; their columns are empty where they leave the default. Ids such as SL-8 are those of
[paper.md](paper.md).
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a recipe, or a section, which holds further keys."""

    name: str
    """Dotted, as on the command line: ``revisions.rounds``."""
    default: Any
    """The value where a recipe says nothing; for a section, None."""
    values: str
    """What it may be, in words; empty for a section."""
    text: str
    """What it does, in one line."""

    @property
    def is_section(self) -> bool:
        return not self.values

    @property
    def paper(self) -> str:
        """The sections of the paper that say so, with the ids of docs/paper.md; empty if the key is ours."""
        ids = dict.fromkeys(ID.findall(self.text))
        return "; ".join(f"{SECTIONS_OF[one]} ({one})" for one in ids)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors."""
    schema = _without_titles(Recipe.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Recipe of cai run",
        **schema,
    }


@cache
def recipe_keys() -> tuple[Key, ...]:
    """Return every key of a recipe, each section before its keys, in the order in which a recipe is written."""
    schema = Recipe.model_json_schema()
    return tuple(_keys_of(schema, schema["$defs"], ""))


def keys_under(name: str | None) -> list[Key]:
    """Return the key of that name, or a section and its keys; all for None. Raises InputError for an unknown name."""
    chosen = [k for k in recipe_keys() if name is None or k.name == name or k.name.startswith(f"{name}.")]
    if not chosen:
        raise InputError(f"no key '{name}'.{_nearest(str(name))} To see all keys, type: cai recipe")
    return chosen


def key_lines(keys: Sequence[Key], values: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Yield the lines that describe keys. ``values`` are those of a recipe, by dotted key; None shows the defaults."""
    for key in keys:
        yield ""
        if key.is_section:
            yield f"{key.name}:"
        else:
            value = shown(values.get(key.name, key.default) if values is not None else key.default)
            default = "" if value == shown(key.default) else f"  (default: {shown(key.default)})"
            yield f"{key.name}={value}{default}"
            yield f"  {key.values}"
        yield f"  {key.text}"
        if key.paper:
            yield f"  Paper: {key.paper}"


def recipe_page() -> str:
    """Return docs/recipes.md."""
    recipes = {name: values_of(load_recipe(name)) for name in IN_PAGE}
    lines, table = [HEAD.rstrip(), "", "## Keys outside of sections"], False
    for key in sorted(recipe_keys(), key=lambda key: "." in key.name or key.is_section):  # stable
        if key.is_section:
            lines += ["", f"{'#' * (2 + key.name.count('.'))} {key.name}", "", _cell(key.text)]
            table = False
            continue
        if not table:
            lines += [
                "",
                f"| key | default | {' | '.join(f'`{name}`' for name in recipes)} | values | meaning |",
            ]
            lines += ["|---" * (4 + len(recipes)) + "|"]
            table = True
        settings = [
            _cell(shown(values[key.name])) if values.get(key.name, key.default) != key.default else ""
            for values in recipes.values()
        ]
        meaning = _cell(key.text + (f" Paper: {key.paper}." if key.paper else ""))
        cells = (key.name, _cell(shown(key.default)), *settings, _cell(key.values), meaning)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """Return a value as it is typed after ``key=``."""
    if isinstance(value, (list, tuple, dict)):
        plain = json.loads(json.dumps(value))
        return yaml.safe_dump(plain, default_flow_style=True, width=10**6).strip()
    return value if isinstance(value, str) else json.dumps(value)


def values_of(recipe: Recipe) -> dict[str, Any]:
    """Return the values of a recipe by dotted key; those of a section that is null are None."""
    data = recipe.model_dump(mode="json")
    values: dict[str, Any] = {}
    for key in recipe_keys():
        value: Any = data
        for step in key.name.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if not key.is_section:
            values[key.name] = value
    return values


def _keys_of(section: Mapping[str, Any], sections: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    for name, field in section["properties"].items():
        inner = next((_section(form, sections) for form in _forms(field) if "$ref" in form), None)
        # pydantic leaves out the description of a section that is the same as its class's
        text = " ".join((field.get("description") or (inner or {}).get("description", "")).split())
        text = text.replace("``", "`")
        if inner is None:
            yield Key(prefix + name, field.get("default"), _words(field), text)
            continue
        yield Key(prefix + name, None, "", text)
        yield from _keys_of(inner, sections, f"{prefix}{name}.")


def _forms(field: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    forms: Sequence[Mapping[str, Any]] = field.get("anyOf", [field])
    return forms


def _section(form: Mapping[str, Any], sections: Mapping[str, Any]) -> Mapping[str, Any]:
    section: Mapping[str, Any] = sections[form["$ref"].rpartition("/")[2]]
    return section


def _words(field: Mapping[str, Any]) -> str:
    """Return in words what a value may be."""
    return ", or ".join(_form(form) for form in _forms(field))


def _form(form: Mapping[str, Any]) -> str:
    if "enum" in form:
        return f"one of {', '.join(map(str, form['enum']))}"
    if "const" in form:
        return str(form["const"])
    kind = form.get("type")
    if kind == "array" and "prefixItems" in form:
        return f"a list of {len(form['prefixItems'])} numbers"
    if kind == "array":
        return f"a list of: {_words(form['items'])}"
    if kind == "object":
        names = form["propertyNames"].get("enum", ())
        return f"a mapping from {', '.join(names)} to a {_words(form['additionalProperties'])}"
    return "null" if kind == "null" else f"{TYPES[str(kind)]}{_range(form)}"


def _range(form: Mapping[str, Any]) -> str:
    words = (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    )
    bounds = [
        f"{word} {form[bound]:,.15g}"
        for bound, word in words
        if bound in form and abs(form[bound]) < SHOWN_BOUND
    ]
    return f", {' and '.join(bounds)}" if bounds else ""


def _nearest(name: str) -> str:
    """Return the keys that a name most likely means, compared by their last parts: sections are what people forget."""
    lasts = {key.name.rpartition(".")[2] for key in recipe_keys()}
    near = difflib.get_close_matches(shortened(name).rpartition(".")[2], lasts, n=1, cutoff=0.6)
    meant = [key.name for key in recipe_keys() if key.name.rpartition(".")[2] in near]
    return f" Did you mean {' or '.join(meant)}?" if meant else ""


def _without_titles(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_titles(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
