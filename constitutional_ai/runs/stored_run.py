"""A run directory, for reading: the output, the settings and the input digests of every stage.

::

    runs/demo/
      run.json  recipe.yaml  constitution.yaml
      01-responses/  records.jsonl  failures.jsonl  stage.json
      …
      03-sl-cai-model/  dataset.jsonl  model/  metrics.jsonl  stage.json

A stage is complete if and only if its ``stage.json`` exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from constitutional_ai.runs import layout
from constitutional_ai.runs.about import read_about
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.manifest import StageManifest
from constitutional_ai.runs.rows import StoredRows, load_json
from constitutional_ai.runs.runner import HasId
from constitutional_ai.runs.written_files import check_written

Row = TypeVar("Row", bound=HasId)


@dataclass(frozen=True)
class StoredRun:
    """A run directory, for reading."""

    folder: Path

    def stage(self, name: str) -> Path:
        """Return the folder of a stage."""
        return self.folder / name

    def snapshots(self) -> list[Path]:
        """Return the folders of the snapshots of reinforcement learning, each named after the prompts seen (RL-6)."""
        folders = (self.stage(layout.RL_CAI_MODEL) / layout.SNAPSHOTS).glob("*")
        return sorted(folder for folder in folders if folder.name.isdecimal())

    def manifest(self, stage: str) -> StageManifest | None:
        """Return the content of ``stage.json``; None while the stage is not complete. Raises InputError."""
        return load_json(self.stage(stage) / layout.MANIFEST, StageManifest)

    def stored_rows(self, stage: str, row_type: type[Any], file: str = layout.RECORDS) -> StoredRows[Any]:
        """Return the rows of a file of a stage; none if the file does not exist.

        Reading them raises InputError if the stage is complete and the file is no longer what the stage wrote.
        """
        return StoredRows(self.stage(stage) / file, row_type, lambda: self._check_file(stage, file))

    def rows(self, stage: str, row_type: type[Row], file: str = layout.RECORDS) -> list[Row]:
        """Return the rows of ``stored_rows`` as a list."""
        return list(iter(self.stored_rows(stage, row_type, file)))

    def check(self, stage: str, *, in_full: bool = False) -> None:
        """Raise InputError if a stage is complete and a file in it is no longer what the stage wrote.

        Large files, which are weights, are read only ``in_full``; otherwise their size is compared.
        """
        if manifest := self.manifest(stage):
            self._check_file(stage)
            for file, expected in manifest.files.items():
                check_written(self.stage(stage) / file, stage, expected, in_full=in_full)

    def _check_file(self, stage: str, file: str = layout.RECORDS) -> None:
        if (manifest := self.manifest(stage)) and not (file == layout.RECORDS and self._is_model(manifest)):
            expected = manifest.output if file == layout.RECORDS else manifest.files.get(file, "")
            check_written(self.stage(stage) / file, stage, expected)

    def _is_model(self, manifest: StageManifest) -> bool:
        return "base_model" in manifest.notes or (self.stage(manifest.stage) / layout.WEIGHTS).is_dir()

    def is_stale(self, stage: str) -> bool:
        """Return whether a complete stage was made from something else than earlier stages have now."""
        manifest = self.manifest(stage)
        inputs = manifest.inputs if manifest else {}
        earlier = [
            (name, m.output) for name in layout.earlier(stage) if name in inputs and (m := self.manifest(name))
        ]
        return any(output != inputs[name] or self.is_stale(name) for name, output in earlier)

    def output_digest(self, stage: str) -> str:
        """Return the digest of a complete stage's output, which is an input of later stages.

        Raises InputError if its records are no longer those that the stage wrote. Weights, which are large, are not
        read.
        """
        manifest = self.manifest(stage)
        assert manifest is not None, f"{stage} is not complete"
        self._check_file(stage)
        return manifest.output

    def started_stages(self) -> dict[str, Any]:
        """Return the ``config`` and ``inputs`` of every stage that was started."""
        return dict(read_about(self.folder).get("stages", {}))

    def budget(self, tokens: int | None, hours: float | None, *, excluding: str) -> Budget:
        """Return the budget of the whole run, less the cost of the complete stages other than ``excluding``."""
        done = [m for m in map(self.manifest, self.started_stages()) if m is not None and m.stage != excluding]
        unknown = next((m.stage for m in done if m.prompt_tokens is None), None)
        return Budget(
            tokens,
            hours,
            spent=sum(m.tokens for m in done),
            seconds=sum(m.seconds for m in done),
            unknown=unknown and f"the model of {unknown} did not say how many tokens it read and wrote",
        )
