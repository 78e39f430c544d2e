"""Plain transformers, as one writes it first, in a process of its own that shares no memory with our engine.

python plain_workload.py FOLDER DTYPE reads a JSON object from each line of stdin and writes one to stdout for it:
``{"prompts": [[token ids], …], "size": 16, "how": {…for generate…}}``: completions, in left-padded batches of 16;
``{"prompts": [[token ids], …], "ends": [[token ids], …]}``: log-probabilities, a whole forward pass for each end.
Out: ``{"seconds": s, "results": completions or log-probabilities}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TokenIds = list[list[int]]


@torch.inference_mode()
def generated(model: Any, tokenizer: Any, prompts: TokenIds, size: int, how: dict[str, Any]) -> TokenIds:
    """Return the completion of each prompt, its end token included."""
    completions: TokenIds = []
    for at in range(0, len(prompts), size):
        batch = tokenizer.pad({"input_ids": prompts[at : at + size]}, return_tensors="pt").to(model.device)
        out = model.generate(**batch, pad_token_id=tokenizer.pad_token_id, **how)
        completions += out[:, batch["input_ids"].shape[1] :].tolist()
    end = tokenizer.eos_token_id
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in completions]


@torch.inference_mode()
def scored(model: Any, prompts: TokenIds, ends: TokenIds) -> list[list[float]]:
    """Return the log-probability of every end after each prompt."""
    return [[log_probability(model, prompt, end) for end in ends] for prompt in prompts]


def log_probability(model: Any, before: list[int], after: list[int]) -> float:
    """Return the natural log-probability of ``after``, given ``before``."""
    logits = model(torch.tensor([before + after], device=model.device)).logits[0, len(before) - 1 : -1]
    logps = logits.float().log_softmax(-1)
    return float(logps.gather(1, torch.tensor(after, device=model.device)[:, None]).sum())


def main() -> None:
    folder, dtype = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print must not mix with the answers
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        if "ends" in request:
            results: Any = scored(model, request["prompts"], request["ends"])
        else:
            results = generated(model, tokenizer, request["prompts"], request["size"], request["how"])
        reply = {"seconds": time.perf_counter() - start, "results": results}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
