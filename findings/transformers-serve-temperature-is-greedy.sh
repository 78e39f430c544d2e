#!/bin/sh
# transformers 5.23.0, `transformers serve`, chat completions with a `temperature`, for a model whose
# generation_config.json does not say "do_sample" (as checkpoints without that file, and those saved after training).
#
# Expected: OpenAI's meaning: temperature 2 draws from a flattened distribution, and seeds give different texts.
# Seen on 2026-11-30: every temperature is greedy. `temperature: 0` turns sampling off, no other value turns it on, and
# nothing says so: the request is answered with 200, and three seeds give one and the same text. So drawing several
# samples, for votes or best-of-n, gives copies. "do_sample" inside the request's own field `generation_config`, a JSON
# text, does turn it on.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'transformers[serving]==5.23.0' accelerate==1.15.0
cat > "$folder/try.py" <<'PYTHON'
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

folder, port = str(Path(sys.argv[0]).parent / "model"), "8437"
inner = Tokenizer(models.BPE())
inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
letters = pre_tokenizers.ByteLevel.alphabet()
trained = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=letters, show_progress=False)
inner.train_from_iterator(["How do I bake bread?"] * 9, trained)
template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}assistant:"
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", chat_template=template)
tokenizer.save_pretrained(folder)
torch.manual_seed(0)
shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **shape)).save_pretrained(folder)


def reply(**more: object) -> str:
    body = {"model": folder, "messages": [{"role": "user", "content": "Hi?"}], "max_tokens": 24, **more}
    address = f"http://127.0.0.1:{port}/v1/chat/completions"
    with urlopen(Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


command = ["-m", "transformers.cli.transformers", "serve", folder, "--device", "cpu", "--port", port]
server = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
try:
    for _ in range(240):
        try:
            urlopen(f"http://127.0.0.1:{port}/health").close()
            break
        except OSError:
            time.sleep(1)
    hot = [reply(temperature=2.0, seed=seed) for seed in (1, 2, 3)]
    cold = reply(temperature=0)
    asked = json.dumps({"do_sample": True, "temperature": 2.0, "max_new_tokens": 24})
    drawn = [reply(generation_config=asked, seed=seed) for seed in (1, 2, 3)]
finally:
    server.terminate()
print(f"temperature 2: {len(set(hot))} different of 3, the greedy one: {hot[0] == cold}")
print(f"do_sample in the field generation_config: {len(set(drawn))} different of 3")
raise SystemExit(0 if set(hot) == {cold} and len(set(drawn)) == 3 else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
