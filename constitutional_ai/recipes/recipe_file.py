"""Read a recipe file, or a built-in recipe by name, and apply the changes of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from pydantic import BaseModel, ValidationError

from constitutional_ai.data.lines import find_yaml, line_of, read_yaml
from constitutional_ai.data.yaml_text import YamlFault, parse_yaml
from constitutional_ai.errors import Fault, InputError, did_you_mean, first_fault, shortened
from constitutional_ai.recipes.recipe import Recipe, check_feedback
from constitutional_ai.runs import layout

BUILT_IN = Path(__file__).parent
FORMER_KEYS = {"rl_cai": ("truncated", "gae_lambda", "value_learning_rate"), "evaluation": ("snapshots",)}
"""Removed keys, by section. They are ignored in the ``recipe.yaml`` of an old run, and an error in other recipes."""

SECTIONS = {name for name, field in Recipe.model_fields.items() if isinstance(field.default, BaseModel)}
"""Keys that hold further keys. In a file they may be left empty; other keys mean what is written, also ``null``."""


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, or a built-in recipe by name, and apply ``key.key=value`` changes.

    Raises InputError naming the line, or the command line, when a setting is wrong.
    """
    path = find_yaml(name, BUILT_IN, "recipe")
    data, node = read_yaml(path)
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold keys such as 'models:'; see {BUILT_IN / 'demo.yaml'}.")
    data = {key: value for key, value in data.items() if value is not None or key not in SECTIONS}
    if (path.parent / layout.RUN).exists():
        _drop_former_keys(data)
    changed = [apply_change(data, change) for change in changes]
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        _raise_input_error(path, node, error, changed)
    check_feedback(recipe.models, recipe.feedback, recipe.rl_cai.reward)
    return recipe


def is_recipe(name: str) -> bool:
    """Return whether ``name`` is a built-in recipe, or looks like a file."""
    return (BUILT_IN / f"{name}.yaml").is_file() or Path(name).is_file() or name.endswith((".yaml", ".yml"))


def _drop_former_keys(data: dict[str, Any]) -> None:
    """Remove keys that recipes no longer have."""
    for section, keys in FORMER_KEYS.items():
        for key in keys:
            if isinstance(data.get(section), dict):
                data[section].pop(key, None)


def apply_change(data: dict[str, Any], change: str) -> tuple[str, ...]:
    """Set ``a.b=value`` in ``data``, where the value is YAML, and return its keys."""
    key, equals, value = change.partition("=")
    if not equals:
        raise InputError(f"'{shortened(change)}' has no '='. Write key=value, for example revisions.rounds=2.")
    *around, last = place = tuple(key.split("."))
    for step in around:
        inner = data[step] = data.get(step) or {}
        if not isinstance(inner, dict):
            raise InputError(f"'{shortened(change)}': {step} has no keys. Write {step}=value.")
        data = inner
    try:
        data[last] = parse_yaml(value)[0]
    except YamlFault as fault:
        raise InputError(f"'{shortened(change)}': {fault}.") from fault
    return place


def _raise_input_error(
    path: Path, node: yaml.Node | None, error: ValidationError, changed: Sequence[tuple[str, ...]]
) -> NoReturn:
    """Raise InputError about the first fault, with its place."""
    fault = explained(error, Recipe)
    place = tuple(map(str, fault.place))
    on_command_line = any(place[: len(c)] == c or c[: len(place)] == place for c in changed)
    where = "on the command line" if on_command_line else f"{path}:{line_of(node, place)}"
    raise InputError(f"{where}: {fault}") from error


def explained(error: ValidationError, settings: type[BaseModel]) -> Fault:
    """Return the first fault of ``settings``. For an unknown key or value, it says which ones are known."""
    first = first_fault(error)
    place, text = tuple(map(str, first.place)), first.message
    if first.kind == "extra_forbidden":
        text = f"unknown key '{shortened(place[-1])}'.{did_you_mean(place[-1], _keys(settings, place[:-1]))}"
    elif first.kind == "model_type" and (known := _keys(settings, place)):
        text = (
            f"holds further keys ({', '.join(known)}), not a value. Write {'.'.join(place)}.{known[0]}=value, or in a "
            f"file {known[0]} below {place[-1]}"
        )
    elif first.kind == "literal_error":
        text = f"unknown value '{shortened(str(first.value))}'.{did_you_mean(str(first.value), first.allowed)}"
    return first._replace(message=text)


def _keys(section: type[BaseModel], place: Sequence[str]) -> list[str]:
    """Return the keys of the section at a place."""
    for step in place:
        annotation = section.model_fields[step].annotation
        forms = [form for form in (annotation, *get_args(annotation)) if isinstance(form, type)]
        inner = [form for form in forms if issubclass(form, BaseModel)]
        if not inner:
            return []
        section = inner[0]
    return list(section.model_fields)
