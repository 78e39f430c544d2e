"""The house rules of the package, each a few lines, and each shown to be able to fail."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from constitutional_ai.cli import main
from constitutional_ai.runs import layout

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "constitutional_ai"
MODULES = sorted(PACKAGE.rglob("*.py"))
FRAGMENT = re.compile(r"(As|At|Beside|Between|By|For|From|In|Of|On|Those|To|Under|Where|With|Within|Without)\b")
VAGUE = {"said", "asked", "made", "found", "told", "begun"}
"""Participles that say what happened to a thing, not what it is."""
STAGE = re.compile(r"\b0[0-8]-[a-z]")
ID = re.compile(r"\b(?:OV|SL|FB|PM|RL|EV)-\d+\b")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def docstrings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Every docstring, those of fields and constants included, with its line."""
    for outer in ast.walk(node):
        if not isinstance(outer, Documented):
            continue
        for statement in outer.body:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, value.value.strip()


def identifiers(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that a module defines: functions, classes, parameters, variables and fields, with its line."""
    for inner in ast.walk(node):
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield inner.lineno, inner.name
        elif isinstance(inner, ast.arg):
            yield inner.lineno, inner.arg
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            yield inner.lineno, inner.id


def vague(names: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
    return [(line, name) for line, name in names if VAGUE & set(name.lower().split("_"))]


def stage_literals(node: ast.AST) -> list[str]:
    """Strings of code, docstrings aside, that hold a stage's name."""
    prose = {text for _, text in docstrings(node)}
    strings = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [text for text in strings if STAGE.search(text) and text.strip() not in prose]


def imports(node: ast.AST) -> Iterator[str]:
    """Dotted names of everything that a module imports, wherever the import stands."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from (alias.name for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom) and inner.module:
            yield from (f"{inner.module}.{alias.name}" for alias in inner.names)


def importers(room: str, modules: list[Path] = MODULES) -> set[str]:
    """First folder or file of every module outside ``room`` that imports from it."""
    start = f"constitutional_ai.{room}."
    outside = [path for path in modules if path.relative_to(PACKAGE).parts[0] != room]
    return {
        path.relative_to(PACKAGE).parts[0]
        for path in outside
        if any(name.startswith(start) for name in imports(tree(path)))
    }


def doubled(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def test_docstrings_begin_with_a_sentence() -> None:
    fragments = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in [*MODULES, *sorted(ROOT.glob("tests/**/*.py")), *sorted(ROOT.glob("benchmarks/*.py"))]
        for line, text in docstrings(tree(path))
        if FRAGMENT.match(text)
    ]
    assert fragments == []


def test_no_two_modules_share_a_name() -> None:
    shared = {"__init__.py", "settings.py"}
    names = [p.name for p in MODULES if "cli" not in p.parts and p.name not in shared]
    assert doubled(names) == []


def test_few_files_stand_at_the_root_of_the_package() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_stage_names_stand_in_one_file() -> None:
    literals = {
        str(path.relative_to(ROOT)): found
        for path in MODULES
        if path != PACKAGE / "runs" / "layout.py" and (found := stage_literals(tree(path)))
    }
    assert literals == {}
    assert len(stage_literals(tree(PACKAGE / "runs" / "layout.py"))) == len(layout.STAGES)


def test_only_the_command_line_imports_the_report() -> None:
    assert importers("report") == {"cli"}


def test_the_engine_stands_alone_behind_one_door() -> None:
    allowed = ("constitutional_ai.engine", "constitutional_ai.machine", "constitutional_ai.errors")
    inside = {name for path in (PACKAGE / "engine").rglob("*.py") for name in imports(tree(path))}
    ours = {name for name in inside if name.startswith("constitutional_ai")}
    assert {
        name for name in ours if not name.startswith(allowed) and name != "constitutional_ai.machine"
    } == set()
    doors = ("constitutional_ai.engine.open", "constitutional_ai.engine.sampling")
    outside = [path for path in MODULES if "engine" not in path.relative_to(PACKAGE).parts]
    through = {
        name for path in outside for name in imports(tree(path)) if name.startswith("constitutional_ai.engine")
    }
    assert {name for name in through if not name.startswith(doors)} == set()


def test_names_say_what_a_thing_is() -> None:
    found = [
        f"{p.relative_to(ROOT)}:{line}: {name}" for p in MODULES for line, name in vague(identifiers(tree(p)))
    ]
    assert found == []


def statuses() -> dict[str, str]:
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "docs" / "paper.md").read_text().splitlines()]
    return {row[0]: row[-1] for row in rows if ID.fullmatch(row[0])}


def test_an_id_that_a_docstring_cites_is_not_missing() -> None:
    status = statuses()
    cited = {name for path in MODULES for _, text in docstrings(tree(path)) for name in ID.findall(text)}
    assert cited
    assert {name for name in cited if name not in status or status[name].startswith("missing")} == set()


def test_every_rule_can_fail() -> None:
    bad = ast.parse(
        'def told(asked):\n    """Of each row the end."""\n    return open("03-sl-cai-model/records")\n'
    )
    assert [text for _, text in docstrings(bad) if FRAGMENT.match(text)] == ["Of each row the end."]
    assert [name for _, name in vague(identifiers(bad))] == ["told", "asked"]
    assert stage_literals(bad) == ["03-sl-cai-model/records"]
    assert doubled(["a.py", "b.py", "a.py"]) == ["a.py"]
    assert list(imports(ast.parse("def late():\n    from constitutional_ai.report import page"))) == [
        "constitutional_ai.report.page"
    ]


# -- the README, typed in order


def shell_lines(text: str) -> list[str]:
    """Lines of the README's shell blocks, in order, without comments and with continued lines joined."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for raw in lines if (line := raw.partition("#")[0].strip())]


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_puts_the_command_on_the_path_before_it_uses_it() -> None:
    lines = shell_lines(README)
    first = next(number for number, line in enumerate(lines) if line.startswith("cai "))
    assert ". .venv/bin/activate" in lines[:first]
    assert any(line.startswith("make ") for line in lines[: lines.index(". .venv/bin/activate")])


def command_of(words: list[str]) -> tuple[click.Command, str, list[str]]:
    """The click command that a line calls, its name, and the words that are left for it."""
    command: click.Command = main
    while isinstance(command, click.Group):
        name, *words = words
        command = command.commands[name]
    return command, name, words


@pytest.mark.parametrize("line", [line for line in shell_lines(README) if line.startswith("cai ")])
def test_every_command_of_the_readme_has_the_options_it_is_given(line: str) -> None:
    command, name, words = command_of(line.split()[1:])
    try:
        # click keeps the first help option that it makes: without both names, later tests would lack -h
        command.make_context(name, words, help_option_names=["-h", "--help"])
    except click.BadParameter:
        pass  # a file that a reader would have
    except click.UsageError as error:
        pytest.fail(f"{line}: {error.format_message()}")


@pytest.mark.parametrize("path", [str(p.relative_to(ROOT)) for p in MODULES if "cli" in p.parts])
def test_help_uses_plain_words(path: str) -> None:
    texts = [text for _, text in docstrings(tree(ROOT / path))]
    for node in ast.walk(tree(ROOT / path)):
        if isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant):
            texts.append(str(node.value.value))
    assert [text for text in texts if re.search(r"\b(said|asked|made|found|told|begun)\b", text)] == []


def unguarded_loads(node: ast.AST) -> list[int]:
    """Lines of calls such as ``AutoModel.from_pretrained`` that would ask whether to run a model folder's Python."""
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    loads = [
        n
        for n in calls
        if ast.unparse(n.func).startswith("Auto") or ast.unparse(n.func) == "auto.from_pretrained"
    ]
    loads = [n for n in loads if isinstance(n.func, ast.Attribute) and n.func.attr == "from_pretrained"]
    guards = ("**NO_CODE", "trust_remote_code=False")
    return [n.lineno for n in loads if not any(guard in ast.unparse(n) for guard in guards)]


def test_no_python_of_a_model_folder_is_run() -> None:
    found = {str(p.relative_to(ROOT)): lines for p in MODULES if (lines := unguarded_loads(tree(p)))}
    assert found == {}
    assert unguarded_loads(ast.parse("AutoModel.from_pretrained(path)")) == [1]
