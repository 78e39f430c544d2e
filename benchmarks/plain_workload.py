"""Plain transformers: what one writes first. In a process of its own, which nothing of ours reaches, memory included.

python plain_workload.py FOLDER DTYPE   then a JSON object on each line of stdin, and its answer on a line of stdout:
``{"rows": [[token ids], …], "size": 16, "how": {…of generate…}}``: what each row says, in left-padded batches of 16;
``{"rows": [[token ids], …], "ends": [[token ids], …]}``: the scores of each row, a whole forward pass for every one.
Out: ``{"seconds": s, "made": what was said or scored}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

Rows = list[list[int]]


@torch.inference_mode()
def generated(model: Any, tokenizer: Any, rows: Rows, size: int, how: dict[str, Any]) -> Rows:
    """What each row says, up to its end."""
    said: Rows = []
    for at in range(0, len(rows), size):
        batch = tokenizer.pad({"input_ids": rows[at : at + size]}, return_tensors="pt").to(model.device)
        out = model.generate(**batch, pad_token_id=tokenizer.pad_token_id, **how)
        said += out[:, batch["input_ids"].shape[1] :].tolist()
    end = tokenizer.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in said]


@torch.inference_mode()
def scored(model: Any, rows: Rows, ends: Rows) -> list[list[float]]:
    return [[log_probability(model, row, end) for end in ends] for row in rows]


def log_probability(model: Any, before: list[int], after: list[int]) -> float:
    logits = model(torch.tensor([before + after], device=model.device)).logits[0, len(before) - 1 : -1]
    logps = logits.float().log_softmax(-1)
    return float(logps.gather(1, torch.tensor(after, device=model.device)[:, None]).sum())


def main() -> None:
    folder, dtype = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print goes elsewhere
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        if "ends" in asked:
            made: Any = scored(model, asked["rows"], asked["ends"])
        else:
            made = generated(model, tokenizer, asked["rows"], asked["size"], asked["how"])
        print(json.dumps({"seconds": time.perf_counter() - began, "made": made}), file=answers, flush=True)


if __name__ == "__main__":
    main()
