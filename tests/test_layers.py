"""Imports point down, and light commands load no heavy library. Both checks are shown to be able to fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "trl", "datasets", "scipy", "matplotlib")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as lint; lint()",
        "--no-cache",
    ]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(folder)}
    )


def copy_of_the_package(folder: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(
        ROOT / "constitutional_ai", folder / "constitutional_ai", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


def test_imports_point_down() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "upward"),
    [
        ("records.py", "import constitutional_ai.pipeline"),
        ("sl_cai/revise.py", "from constitutional_ai.rl_cai import label"),
        ("runs/runner.py", "def late():\n    from constitutional_ai.report import page"),
        ("models/load.py", "from constitutional_ai.training import settings"),
    ],
)
def test_an_import_that_points_up_is_found(tmp_path: Path, module: str, upward: str) -> None:
    copy = copy_of_the_package(tmp_path)
    path = copy / "constitutional_ai" / module
    path.write_text(path.read_text() + f"\n{upward}\n")
    result = lint(copy)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout
    assert "constitutional_ai." + module.removesuffix(".py").replace("/", ".") in result.stdout


def test_a_new_module_must_be_given_a_layer(tmp_path: Path) -> None:
    copy = copy_of_the_package(tmp_path)
    (copy / "constitutional_ai" / "utils.py").touch()
    result = lint(copy)
    assert result.returncode == 1
    assert "constitutional_ai.utils" in result.stdout + result.stderr


def loaded_by(code: str) -> set[str]:
    """Which heavy libraries are loaded once ``code`` has run in a new process."""
    ask = f"{code}\nimport sys; print('LOADED', *[m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return set(result.stdout.rpartition("LOADED")[2].split())


HELP = "from constitutional_ai.cli import main; main({}, standalone_mode=False)"


@pytest.mark.parametrize(
    "code",
    [
        "import constitutional_ai",
        "from constitutional_ai import constitutions, models, recipes, records\n"
        "import constitutional_ai.recipes.recipe, constitutional_ai.models.load",
        HELP.format(["--help"]),
        HELP.format(["run", "--help"]),
        HELP.format(["check", "default"]),
    ],
)
def test_light_things_load_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


def test_what_is_heavy_would_be_found() -> None:
    assert "scipy" in loaded_by("from constitutional_ai.metrics.intervals import rate; rate('x', 'm', [True])")


def test_the_command_answers_at_once() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "constitutional_ai", "--help"], capture_output=True, text=True, timeout=20
    )
    assert result.returncode == 0
    assert "cai run demo" in result.stdout
