"""A run whose complete stages are in a remote folder can be made by machines that share no disk."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from constitutional_ai import pipeline
from constitutional_ai.cli import main
from constitutional_ai.errors import CaiError, InputError
from constitutional_ai.pipeline import make_shard, merge_shards, rebuilt_remote
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Response, usage
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import BudgetSpent
from constitutional_ai.runs.remote_folder import RemoteFolder
from constitutional_ai.runs.rows import read_rows
from constitutional_ai.runs.runner import Silent
from constitutional_ai.runs.shards import Shard
from tests.pipeline.tiny_run import echoing, make

if find_spec("fsspec") is None:
    pytest.skip("fsspec is not installed", allow_module_level=True)
HAS_S3 = all(find_spec(name) for name in ("moto", "s3fs"))
SECRET = "kept-in-the-environment"
MADE_TWICE = "01-responses in runs/run is another than in"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a bucket of an S3-compatible server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key-id")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
        yield "s3://bucket"
    server.stop()


SYSTEMS = ["file", pytest.param("s3", marks=pytest.mark.skipif(not HAS_S3, reason="needs moto and s3fs"))]


@pytest.fixture(params=SYSTEMS)
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a run."""
    if request.param == "file":
        return f"file://{tmp_path}/bucket/run"
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}/run"


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go on on a machine, which has a disk of its own; returns the working folder of the run there."""

    def go(machine: str) -> Path:
        home = tmp_path / machine
        home.mkdir(exist_ok=True)
        monkeypatch.chdir(home)
        return home / "runs" / "run"

    return go


At = Callable[[str], Path]


def recipe(out: str | Path, **changes: Any) -> dict[str, Any]:
    prompts = {"red_team": {"limit": 7}, "helpful": {"limit": 3}, "borderline": {"limit": 2}}
    return echoing(Path("unused"), prompts=prompts) | {"out": str(out)} | changes


def shard(out: str, stage: str, index: int, of: int, **changes: Any) -> None:
    settings = Recipe.model_validate(recipe(out, **changes))
    make_shard(settings, stage, Shard(index, of), progress=Silent(), notify=str)


def records(run: Path) -> list[bytes]:
    return [(run / stage / layout.RECORDS).read_bytes() for stage in (layout.RESPONSES, layout.REVISIONS)]


def test_two_machines_make_the_run_of_one(
    out: str, at: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = list[set[str]]()
    monkeypatch.setattr(pipeline, "check_models", lambda recipe, stages, notify: unfinished.append(stages))
    make(recipe(tmp_path / "whole"), until=layout.REVISIONS)
    first = at("first")
    make(recipe(out), until=layout.RESPONSES)
    second = at("second")
    _, said = make(recipe(out), until=layout.REVISIONS)
    assert f"complete stages are kept in {out}, and this machine works in runs/run." in said
    assert f"01-responses is complete in {out}, and was copied to runs/run." in said
    at("first")
    make(recipe(out), until=layout.REVISIONS)
    assert [layout.RESPONSES in stages for stages in unfinished] == [True, True, False, False]
    assert [layout.REVISIONS in stages for stages in unfinished] == [True, False, True, False]
    assert records(first) == records(second) == records(tmp_path / "whole")
    assert read_stages(first) == read_stages(second) == read_stages(tmp_path / "whole")
    names = set(RemoteFolder(out).files())
    assert {layout.RUN, layout.RECIPE, layout.CONSTITUTION, "02-revisions/stage.json"} <= names
    assert not [name for name in names if Path(name).name in (layout.CALLS, layout.LOCK, layout.COUNTS)]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def read_stages(run: Path) -> Any:
    return json.loads((run / layout.RUN).read_text())["stages"]


def test_shards_of_several_machines_are_merged_on_another(out: str, at: At, tmp_path: Path) -> None:
    make(recipe(tmp_path / "whole"), until=layout.REVISIONS)
    for index in (1, 2):
        at(f"machine-{index}")
        shard(out, layout.RESPONSES, index, 2)
    merging = at("merging")
    assert merge_shards(out, progress=Silent(), notify=str) == [layout.RESPONSES]
    for index in (2, 1, 3):
        at(f"machine-{index}")
        shard(out, layout.REVISIONS, index, 3)
    shutil.rmtree(at("machine-3"))  # its disk is lost, and nothing with it
    shard(out, layout.REVISIONS, 3, 3)
    at("merging")
    make(recipe(out), until=layout.REVISIONS)
    assert records(merging) == records(tmp_path / "whole")
    left = [name for name in RemoteFolder(out).files() if name.startswith("shards/")]
    assert {Path(name).name for name in left} == {layout.RUN, layout.RECIPE, layout.CONSTITUTION}
    own = at("machine-1")
    make(recipe(out), until=layout.REVISIONS)
    assert records(own) == records(merging)
    assert [path.name for path in own.glob("shards/*/0*")] == [layout.RESPONSES]
    assert (Shard(1, 3).folder(own) / layout.RESPONSES).is_symlink()


def test_a_stage_is_complete_there_or_not_there(out: str, at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is killed between the files and ``stage.json`` is typed again, on this machine or another."""
    at("first")
    write = RemoteFolder.write

    def cut(folder: RemoteFolder, name: str, content: bytes) -> None:
        if name.endswith(layout.MANIFEST):
            raise KeyboardInterrupt
        write(folder, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "write", cut)
        with pytest.raises(KeyboardInterrupt):
            make(recipe(out), until=layout.RESPONSES)
    there = RemoteFolder(out)
    assert "01-responses/records.jsonl" in there.files()
    assert "01-responses/stage.json" not in there.files()
    second = at("second")
    make(recipe(out), until=layout.RESPONSES)
    assert there.read("01-responses/stage.json") == (second / "01-responses" / layout.MANIFEST).read_bytes()
    at("first")
    with pytest.raises(InputError, match=MADE_TWICE):
        make(recipe(out), until=layout.RESPONSES)
    make(recipe(out), until=layout.RESPONSES, redo=layout.RESPONSES)
    assert there.read("01-responses/stage.json") != (second / "01-responses" / layout.MANIFEST).read_bytes()


def test_a_stage_that_was_changed_there_is_refused(out: str, at: At) -> None:
    at("first")
    make(recipe(out), until=layout.RESPONSES)
    there, name = RemoteFolder(out), "01-responses/records.jsonl"
    content = there.read(name)
    assert content
    there.write(name, content.replace(b"a", b"b", 1))
    second = at("second")
    with pytest.raises(InputError, match=r"is not what its stage\.json says"):
        make(recipe(out), until=layout.RESPONSES)
    assert not (second / layout.RESPONSES).exists()
    there.write(name, content)
    make(recipe(out), until=layout.RESPONSES)
    assert (second / name).read_bytes() == content
    with pytest.raises(CaiError, match="was made with seed: 0, the recipe now says 1"):
        make(recipe(out, seed=1), until=layout.RESPONSES)


def test_a_place_with_other_files_holds_no_run(out: str, at: At) -> None:
    at("first")
    RemoteFolder(out).write("holiday.jpg", b"...")
    with pytest.raises(InputError, match="holds files that are not part of a run"):
        make(recipe(out), until=layout.RESPONSES)


def test_each_shard_has_an_equal_part_of_the_tokens(out: str, at: At) -> None:
    """Machines that share no disk see no counts of each other, and stay within the budget together."""
    tokens, dearest, spent = 150, 40, []
    for index in (1, 2):
        run = at(f"machine-{index}")
        with pytest.raises(BudgetSpent, match="Each of the 2 shards has an equal part"):
            shard(out, layout.RESPONSES, index, 2, budget={"tokens": tokens})
        file = Shard(index, 2).folder(run) / layout.RESPONSES / layout.RECORDS
        spent.append(sum(sum(usage(row)) for row in read_rows(file, Response)))
    assert all(0 < each < tokens / 2 + dearest for each in spent)
    assert tokens / 2 < sum(spent) < tokens + 2 * dearest


def test_work_is_rebuilt_from_the_remote_folder_alone(out: str, at: At) -> None:
    at("first")
    make(recipe(out, seed=3), until=layout.RESPONSES)
    at("second")
    rebuilt, constitution = rebuilt_remote(out)
    assert (rebuilt.out, rebuilt.seed, constitution.digest) == (out, 3, rebuilt_remote(out)[1].digest)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("s3://name:secret@bucket/run", "because logins in it would be written to files"),
        ("s3://bucket/run?X-Amz-Signature=secret", "because logins in it would be written to files"),
        ("zip://run::s3://bucket/secret.zip", "must be a folder, or an address that begins with file://"),
        ("s3://bucket/../secret", "must name a folder"),
        ("file://", "must name a folder"),
    ],
)
def test_an_address_that_may_hold_a_login_is_refused_without_repeating_it(
    address: str, text: str, tmp_path: Path, at: At
) -> None:
    at("first")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe("runs/x")))
    for words in (["run", str(file), f"out={address}"], ["merge", address]):
        result = CliRunner().invoke(main, words, env={"COLUMNS": "400"})
        assert (result.exit_code, text in result.output, "secret" in result.output) == (1, True, False), (
            result.output
        )


def test_faults_of_a_place_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: At) -> None:
    """Libraries' messages are not repeated: nobody knows what is in them."""
    at("first")

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"the key {SECRET} is wrong")

    monkeypatch.setattr("fsspec.url_to_fs", refuse)
    with pytest.raises(InputError) as caught:
        make(recipe("s3://bucket/run"), until=layout.RESPONSES)
    assert str(caught.value).startswith("s3://bucket/run cannot be used (RuntimeError). Check")

    def lack(*_: Any, **__: Any) -> None:
        raise ImportError("Install gcsfs")

    monkeypatch.setattr("fsspec.url_to_fs", lack)
    with pytest.raises(InputError, match="gs:// needs the package 'gcsfs'"):
        make(recipe("gs://bucket/run"), until=layout.RESPONSES)


def test_the_command_merges_what_is_there(out: str, at: At) -> None:
    for index in (1, 2):
        at(f"machine-{index}")
        shard(out, layout.RESPONSES, index, 2)
    at("third")
    result = CliRunner().invoke(main, ["merge", out], env={"COLUMNS": "400"})
    assert result.exit_code == 0, result.output
    assert f"merged in {out}: {layout.RESPONSES}." in result.output
    assert RemoteFolder(out).read("shards/1-of-2/01-responses/stage.json") is None
