#!/bin/sh
# transformers 5.23.0, pipeline("decision") with a chat template whose generation prompt opens a thought whatever it is
# told ("<think>" and a line break at the end), as templates of models that only think have it.
#
# Expected: an error, a warning, or a closed thought before the label: the pipeline sends enable_thinking=False so that
# the first token of the reply is the label.
# Seen on 2026-11-30: nobody checks that the template listened. The prompt ends inside the open thought, the labels are
# read there, and the answer looks like any other: a probability that says nothing of how the model would answer. The
# reply has no measure of it either (no share of probability that the labels hold together).
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/env/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0
cat > "$folder/try.py" <<'PYTHON'
import warnings

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, pipeline

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}"
)
inner = Tokenizer(models.BPE())
inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
letters = pre_tokenizers.ByteLevel.alphabet()
special = ["<|end|>", "<|user|>", "<|assistant|>", "<think>", "</think>"]
trained = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=letters, show_progress=False)
inner.train_from_iterator(["Yes No"] * 9, trained)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", chat_template=TEMPLATE)
torch.manual_seed(0)
shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **shape)).eval()

decide = pipeline("decision", model=model, tokenizer=tokenizer)
request = {"state": "The dog barked.", "questions": {"loud": {"type": "noul", "instructions": "Is it loud?"}}}
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    answer = decide(request)["loud"]
((inputs, _),) = decide.decision_config.prepare_inputs(request, tokenizer)
end = tokenizer.decode(inputs["input_ids"][0])[-24:]
print(f"the prompt ends with {end!r}; answer {answer}; warnings {[str(w.message) for w in warned]}")
with torch.inference_mode():
    logits = model(input_ids=inputs["input_ids"]).logits[0, -1]
yes_no = logits[[tokenizer("Yes")["input_ids"][0], tokenizer("No")["input_ids"][0]]].softmax(-1)
same = abs(float(yes_no[0]) - answer["noul"]) < 1e-4
print(f"P(Yes) right after the opened thought: {float(yes_no[0]):.4f}; the same number: {same}")
as_described = end.endswith("<|assistant|>\n<think>\n") and same and not warned and set(answer) == {"type", "noul"}
raise SystemExit(0 if as_described else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
