"""Write a run's training rows as other trainers read them (docs/export.md has the source of each form).

A trainer elsewhere takes each ``chosen`` for the better answer, so ties are left out and counted. The soft label stays
beside every pair as ``p_chosen``, which those trainers ignore; only the closed form ``messages`` has no room for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constitutional_ai.errors import InputError
from constitutional_ai.report.export import Written
from constitutional_ai.report.export.training_rows import Rows, training_rows
from constitutional_ai.runs.rows import replacing, write_atomically
from constitutional_ai.runs.run import Run

Row = dict[str, Any]
SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}
"""ShareGPT's names of the roles."""
DATASET_INFO = "dataset_info.json"
"""LLaMA-Factory's list of data sets."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a trainer writes a row of each kind; None where it trains on none of that kind."""

    sft: Callable[[Row], Row]
    pair: Callable[[Row], Row] | None
    prompt: Callable[[Row], Row]
    suffix: str = ".jsonl"
    info: Mapping[str, Row] | None = None
    """Entries of ``DATASET_INFO`` by the file's stem."""
    alternating: bool = False
    """Whether it takes only prompts whose turns alternate, from the user's to the user's, after one of the system."""


def _sharegpt(messages: Rows) -> Rows:
    """Return messages as ShareGPT has them."""
    return [{"from": SPEAKERS[m["role"]], "value": m["content"]} for m in messages]


def _trl_sft(row: Row) -> Row:
    return {"prompt": row["prompt"], "completion": row["completion"]}


def _trl_pair(row: Row) -> Row:
    return {key: row[key] for key in ("prompt", "chosen", "rejected", "p_chosen", "source")}


def _trl_prompt(row: Row) -> Row:
    return {"prompt": row["prompt"], "source": row["source"]}


def _openrlhf_prompt(row: Row) -> Row:
    return {"prompt": row["prompt"], "label": "", "source": row["source"]}


def _messages_sft(row: Row) -> Row:
    return {"messages": row["prompt"] + row["completion"]}


def _messages_pair(row: Row) -> Row:
    return {
        "input": {"messages": row["prompt"]},
        "preferred_output": row["chosen"],
        "non_preferred_output": row["rejected"],
    }


def _messages_prompt(row: Row) -> Row:
    return {"messages": row["prompt"]}


def _sharegpt_sft(row: Row) -> Row:
    return {"conversations": _sharegpt(row["prompt"] + row["completion"])}


def _sharegpt_pair(row: Row) -> Row:
    chosen, rejected = [_sharegpt(row[side])[0] for side in ("chosen", "rejected")]
    return {
        "conversations": _sharegpt(row["prompt"]),
        "chosen": chosen,
        "rejected": rejected,
        "p_chosen": row["p_chosen"],
    }


def _sharegpt_prompt(row: Row) -> Row:
    return {"conversations": _sharegpt(row["prompt"])}


def _alpaca_prompt(row: Row) -> Row:
    """Return a prompt without an answer, which LLaMA-Factory's ShareGPT cannot have."""
    *before, last = row["prompt"]
    system = "".join(m["content"] for m in before[:1] if m["role"] == "system")
    texts = [m["content"] for m in before if m["role"] != "system"]
    turns = zip(texts[::2], texts[1::2], strict=True)
    return {"instruction": last["content"], "history": [list(turn) for turn in turns], "system": system}


def _verl_prompt(row: Row) -> Row:
    # verl hands ``extra_info`` to a reward function, and nothing else that holds the prompt.
    return {
        "data_source": "constitutional-ai",
        "prompt": row["prompt"],
        "ability": row["source"],
        "reward_model": {"style": "model", "ground_truth": ""},
        "extra_info": {"index": row["id"], "prompt": row["prompt"]},
    }


_PAIR_COLUMNS = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
_PROMPT_COLUMNS = {"prompt": "instruction", "history": "history", "system": "system"}
_INFO: dict[str, Row] = {
    "sft": {"formatting": "sharegpt", "columns": {"messages": "conversations"}},
    "preference": {"formatting": "sharegpt", "ranking": True, "columns": _PAIR_COLUMNS},
    "prompts": {"formatting": "alpaca", "columns": _PROMPT_COLUMNS},
}

FORMS: dict[str, Form] = {
    "trl": Form(_trl_sft, _trl_pair, _trl_prompt),
    "llama-factory": Form(_sharegpt_sft, _sharegpt_pair, _alpaca_prompt, info=_INFO, alternating=True),
    "verl": Form(_messages_sft, None, _verl_prompt, suffix=".parquet"),
    "openrlhf": Form(_trl_sft, _trl_pair, _openrlhf_prompt),
    "messages": Form(_messages_sft, _messages_pair, _messages_prompt),
    "sharegpt": Form(_sharegpt_sft, _sharegpt_pair, _sharegpt_prompt),
}


def to_trainer(name: str, run: Run, out: Path) -> list[Written]:
    """Write the files of a form, each whole or not at all. Raises InputError if the run has nothing to export."""
    form, rows = FORMS[name], training_rows(run)
    sets = {
        "sft": (form.sft, rows.sft),
        "preference": (form.pair, rows.pairs),
        "preference-test": (form.pair, rows.held_out_pairs),
        "prompts": (form.prompt, rows.prompts),
        "prompts-test": (form.prompt, rows.held_out_prompts),
    }
    written = []
    for stem, (form_of, all_rows) in sets.items():
        kept, left_out = _usable(all_rows, form)
        if form_of and kept:
            path = out / f"{stem}{form.suffix}"
            out.mkdir(parents=True, exist_ok=True)
            _write(path, [form_of(row) for row in kept])
            written.append(Written(path, len(kept), left_out))
    if not written:
        raise InputError(f"{run.folder} has no records to train on yet. Make some with: cai run")
    if form.info:
        _write_info(out / DATASET_INFO, form.info, [one.file for one in written])
    return written


def _usable(rows: Rows, form: Form) -> tuple[Rows, str]:
    """Return the rows that the trainer can use, and a note about the others."""
    decided = [row for row in rows if not row.get("tie")]
    kept = [row for row in decided if not form.alternating or _alternates(row["prompt"])]
    ties, odd = len(rows) - len(decided), len(decided) - len(kept)
    notes = [f"{ties:,} ties"] if ties else []
    notes += [f"{odd:,} whose turns do not alternate"] if odd else []
    return kept, f"left out: {', '.join(notes)}" if notes else ""


def _alternates(prompt: Rows) -> bool:
    roles = [m["role"] for m in prompt][prompt[0]["role"] == "system" :]
    return len(roles) % 2 == 1 and all(
        role == ("user", "assistant")[turn % 2] for turn, role in enumerate(roles)
    )


def _write(path: Path, rows: Rows) -> None:
    if path.suffix == ".jsonl":
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    with replacing(path) as scratch:
        pq.write_table(pa.Table.from_pylist(rows), scratch)


def _write_info(path: Path, info: Mapping[str, Row], files: list[Path]) -> None:
    entries = {
        f"cai_{file.stem.replace('-', '_')}": {"file_name": file.name, **info[file.stem.removesuffix("-test")]}
        for file in files
    }
    write_atomically(path, json.dumps(entries, indent=1) + "\n")
