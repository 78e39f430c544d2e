"""Score a file of conversations with a preference model (``cai score``)."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydantic import AliasChoices, BaseModel, Field, ValidationError
from rich.console import Console
from rich.progress import open as open_with_bar

from constitutional_ai.data.dialogues import conversation_of, split_prompt
from constitutional_ai.data.lines import STANDARD
from constitutional_ai.errors import CaiError, InputError, RecordError, first_fault
from constitutional_ai.models.thinking import without_thoughts
from constitutional_ai.records import Completion, Conversation, Message, Prompt, Response
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel, Scorable, finite
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.rows import print_rows, write_rows

STAGE = layout.PREFERENCE_MODEL
BATCH = 256
"""Number of rows in memory at the same time."""
MAX_BYTES = 8 * 2**20
"""Maximum size of a row, as of a request to ``cai serve``. Reading one of 279,614 turns takes 0.27 GB."""


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """One row of the file of scores."""

    line: int
    """Its number in the file of conversations, from 1."""
    id: str | int | None
    score: float


class ScoredFile(NamedTuple):
    """The scores of a file, and why some rows have none."""

    scores: array[float]
    reasons: list[str]
    """A reason for each row that could not be scored, with its line."""


class _ConversationRow(BaseModel):
    """A conversation, a prompt and its answer, or a record of a run's 01-responses or 08-evaluation."""

    id: str | int | None = None
    context: str | Conversation | Prompt = Field(
        (), validation_alias=AliasChoices("messages", "conversation", "prompt", "text")
    )
    """The whole conversation if there is no reply."""
    reply: str | Conversation | Completion | Response = Field(
        (), validation_alias=AliasChoices("completion", "response")
    )

    def conversation(self) -> Conversation:
        """Return the conversation that is scored: it ends with the answer."""
        context, reply = self.context, self.reply
        if isinstance(reply, Response):
            return (*reply.prompt.conversation, Message("assistant", reply.text))
        if isinstance(context, str):
            if isinstance(reply, str):
                return conversation_of(context + reply, context)
            context = split_prompt(context)[0] if reply else conversation_of(context)
        return (*(context.conversation if isinstance(context, Prompt) else context), *_turns(reply))


def _turns(reply: str | Conversation | Completion) -> Conversation:
    text = reply.text if isinstance(reply, Completion) else reply
    return (Message("assistant", text),) if isinstance(text, str) else text


def preference_model_folder(name: str) -> Path:
    """Return the folder of a preference model: that of the run ``name``, or ``name`` itself. Raises InputError."""
    path = Path(name).expanduser()
    if not (path / layout.RUN).exists():
        if not (path / "config.json").exists():
            raise InputError(
                f"'{name}' is neither a run nor the folder of a preference model, with its config.json."
            )
        return path
    run = read_run(path)
    if run.manifest(STAGE) is None:
        raise InputError(
            f"{path} has no preference model yet. Make it: cai run RECIPE out={path} --until {STAGE}"
        )
    run.check(STAGE, in_full=True)
    return path / STAGE / layout.WEIGHTS


def score_file(model: str, file: Path, out: Path) -> ScoredFile:
    """Write a row for each conversation of ``file`` that can be scored, in the same order. Raises InputError."""
    if out != STANDARD and out.exists():
        raise InputError(f"{out} already exists. Delete it, or choose another file with --out.")
    folder, result = preference_model_folder(model), ScoredFile(array("d"), [])
    if file != STANDARD and not file.is_file():
        raise InputError(f"no file '{file}' to read conversations from.")
    try:
        rows = _scored(file, PreferenceModel(folder), Scorable(folder), result)
        if out == STANDARD:
            print_rows(ScoredRow, rows)
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_rows(out, ScoredRow, rows)
    except OSError as error:
        if isinstance(error, CaiError):
            raise
        raise InputError(f"cannot read '{file}' or write '{out}': {error.strerror}.") from error
    if not result.scores:
        if out != STANDARD:
            out.unlink()
        raise InputError(f"no conversation in {file} could be scored. {' '.join(result.reasons[:1])}".rstrip())
    return result


def _scored(file: Path, model: PreferenceModel, scorable: Scorable, result: ScoredFile) -> Iterator[ScoredRow]:
    rows = _rows(file, scorable, result)
    while batch := list(islice(rows, BATCH)):
        scores = finite(model.scores([conversation for _, _, conversation in batch]))
        result.scores.extend(scores)
        for (line, name, _), score in zip(batch, scores, strict=True):
            yield ScoredRow(line, name, score)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield each line; of one that is too long only a beginning that is too long."""
    while line := stream.readline(MAX_BYTES + 1):
        yield line
        if len(line) > MAX_BYTES:
            while not line.endswith(b"\n") and (line := stream.readline(MAX_BYTES)):
                pass


def _opened(file: Path) -> AbstractContextManager[BinaryIO]:
    """Open a file, with a bar that shows how much of it is read; standard input has no known length."""
    if file == STANDARD:
        return nullcontext(sys.stdin.buffer)
    bar = Console(stderr=True)
    return open_with_bar(file, "rb", description="scoring", console=bar, transient=True)


def _rows(
    file: Path, scorable: Scorable, result: ScoredFile
) -> Iterator[tuple[int, str | int | None, Conversation]]:
    with _opened(file) as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if not line.strip():
                continue
            try:
                if len(line) > MAX_BYTES:
                    raise RecordError(f"it has more than {MAX_BYTES} bytes")
                row = _ConversationRow.model_validate_json(line)
                conversation = without_thoughts(row.conversation())
                scorable.check(conversation)
            except (ValidationError, RecordError) as error:
                why = first_fault(error) if isinstance(error, ValidationError) else error
                result.reasons.append(f"line {number}: {why}")
            else:
                yield number, row.id, conversation
