#!/bin/sh
# transformers 5.23.0, `transformers serve`, chat completions with `stop`.
#
# Expected: OpenAI's meaning, which vLLM's and llama.cpp's servers share: the reply ends before the stop sequence and does
# not hold it.
# Seen on 2026-11-30: the reply stops there, and the stop sequence stays at its end, with finish_reason "stop". A client
# that stops at "\n\nHuman:" therefore stores the marker as a part of each answer, here alone of all servers it asks.
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
    whole = reply(temperature=0)
    word = whole[4:7]
    stopped = reply(temperature=0, stop=[word])
finally:
    server.terminate()
print(f"without stop {whole!r}\nwith stop {word!r}: {stopped!r}")
raise SystemExit(0 if word in stopped and whole.startswith(stopped) and stopped != whole else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
