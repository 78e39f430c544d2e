"""The wheel holds every file of the package: one that is missing shows only where the repository is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.clean_wheel import copied

ROOT = Path(__file__).parent.parent
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """A wheel of this tree, built in a copy, without the network."""
    source, out = copied(tmp_path_factory.mktemp("wheel") / "source"), tmp_path_factory.mktemp("built")
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return ZipFile(built)


def test_every_file_of_the_package_is_in_the_wheel(wheel: ZipFile) -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "constitutional_ai").rglob("*") if path.is_file()}
    own = {name for name in files if "__pycache__" not in name}
    assert own - set(wheel.namelist()) == set()
    assert {Path(name).suffix for name in own} >= {
        ".py",
        ".yaml",
        ".jsonl",
        ".json",
        ".html",
        ".md",
        ".c",
        ".typed",
    }


def test_nothing_else_is_in_it_but_its_description(wheel: ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name} == {
        "constitutional_ai"
    }
    (commands,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert b"cai = constitutional_ai.cli:main" in wheel.read(commands)
