from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.models.local.exported import digest_of_weights, export_once, local_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "exported"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"1234")
    return folder


def making(folder: Path) -> None:
    (folder / "made").touch()


def never(folder: Path) -> None:
    raise AssertionError("made again")


def test_the_same_weights_are_exported_once_wherever_they_lie(weights: Path, tmp_path: Path) -> None:
    made = export_once(weights, "form-1", making)
    assert (made / "made").exists()
    assert export_once(Path(shutil.copytree(weights, tmp_path / "elsewhere")), "form-1", never) == made


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_other_weights_or_another_version_are_exported_anew(weights: Path, file: str) -> None:
    before = export_once(weights, "form-1", making)
    assert export_once(weights, "form-2", making) != before
    (weights / file).write_bytes(b"4321")
    assert export_once(weights, "form-1", making) != before


def test_a_tokenizer_changes_no_weights(weights: Path) -> None:
    before = digest_of_weights(weights)
    (weights / "tokenizer.json").write_text("{}")
    assert digest_of_weights(weights) == before


def test_an_export_that_fails_leaves_nothing_behind(weights: Path, cache: Path) -> None:
    def failing(folder: Path) -> None:
        making(folder)
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        export_once(weights, "form-1", failing)
    assert list(cache.iterdir()) == []


def test_of_two_that_export_at_once_the_first_is_kept(weights: Path) -> None:
    def overtaken(folder: Path) -> None:
        export_once(weights, "form-1", making)
        (folder / "late").touch()

    made = export_once(weights, "form-1", overtaken)
    assert [f.name for f in made.iterdir()] == ["made"]


def test_a_folder_is_where_it_is_and_a_hub_id_that_cannot_be_had_is_an_oserror(weights: Path) -> None:
    assert local_folder(weights) == weights
    with pytest.raises(OSError):
        local_folder("no-such-organisation/no-such-model")


def test_an_export_that_anybody_may_exchange_is_refused(weights: Path, cache: Path) -> None:
    export = export_once(weights, "form-1", making)
    for folder in (export, cache):
        before = folder.stat().st_mode
        folder.chmod(0o777)
        with pytest.raises(InputError, match=f"anybody may write in {folder}.* Type: chmod o-w"):
            export_once(weights, "form-1", never)
        folder.chmod(before)
    assert export_once(weights, "form-1", never) == export
