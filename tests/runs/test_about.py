"""``run.json`` and ``stage.json`` are read as what they must be, or refused in a sentence."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.suite import open_evaluation
from constitutional_ai.runs import layout
from constitutional_ai.runs.about import read_about
from constitutional_ai.runs.manifest import StageManifest
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Silent

MADE = {"config": {}, "inputs": {}}
OUTSIDE = ("../x", "/x", "a/../../x", "")
BAD = [  # (content, what is wrong)
    (b"[]", "must be an object with keys"),
    (b"\xff{}", "codec can't decode"),
    (b"{'stages': {}}", "Expecting property name"),
    (b'{"stages": {}, "stages": {}}', "the key 'stages' is written twice"),
    (b'{"stages": []}', "stages: must be an object with keys"),
    (b'{"stages": {"a": 5}}', "stages.a: must be an object with keys"),
    (b'{"stages": {"a": {"inputs": {}}}}', "stages.a.config: is missing"),
    (
        b'{"stages": {"a": {"config": {}, "inputs": {"b": 1}}}}',
        "stages.a.inputs.b: must be a text",
    ),
    (b'{"date": 5}', "date: must be a text"),
    (b'{"x": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
    (b'{"x": ' + b"[" * 100_000, "recursion"),
    *(
        (json.dumps({"stages": {name: MADE}}).encode(), "is not the name of a stage")
        for name in ("../x", "/x", "a/../../x", "")
    ),
]


@pytest.mark.parametrize(
    ("content", "what"), BAD, ids=lambda value: value[:40] if isinstance(value, str) else ""
)
def test_what_is_no_run_json_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / layout.RUN).write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json") as caught:
        read_about(tmp_path)
    assert what in str(caught.value)
    result = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert result.stderr.startswith("cai: ")
    assert len(result.stderr) < 1300


def test_redo_deletes_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    stages = {"answers/../../mine": MADE}
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / layout.RUN).write_text(json.dumps({"stages": stages}))
    with (
        pytest.raises(InputError, match="is not the name of a stage"),
        open_evaluation(tmp_path / "evaluation", Silent(), "answers"),
    ):
        pass
    assert (tmp_path / "mine").exists()


def test_stages_that_name_each_other_are_no_circle(tmp_path: Path) -> None:
    for stage, other in ((layout.RESPONSES, layout.REVISIONS), (layout.REVISIONS, layout.RESPONSES)):
        done = StageManifest(stage, {}, {other: "same", stage: "same"}, "same", 1, 0, 0, 0, 0.0, "")
        (tmp_path / stage).mkdir()
        (tmp_path / stage / layout.MANIFEST).write_text(json.dumps(asdict(done)))
    assert not Run(tmp_path).is_stale(layout.REVISIONS)
