#!/bin/sh
# datasets 5.2.0, conversations of which some turns hold a thought ("reasoning_content") and others do not, and a chat
# template that asks `is defined` of it, as templates do.
#
# Expected: the same rows are the same rows, whether given as a list or read from a JSON Lines file.
# Seen on 2026-11-30: Dataset.from_list gives every turn every key, with None where a row had none; load_dataset("json")
# keeps the turns as they are. So a script that moves from one to the other renders other texts: the template is told
# that turns without a thought have one, and writes "None" into it, as text to train on.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 jinja2==3.1.6
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hub"
cat > "$folder/try.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from datasets import Dataset, load_dataset
from jinja2 import Template

TEMPLATE = Template(
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content is defined %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% endfor %}"
)
thought = {"role": "assistant", "content": "Hello.", "reasoning_content": "They greet."}
rows = [
    {"messages": [{"role": "user", "content": "Hi?"}, thought]},
    {"messages": [{"role": "user", "content": "Bye?"}, {"role": "assistant", "content": "Goodbye."}]},
]
file = Path(sys.argv[0]).with_name("rows.jsonl")
file.write_text("".join(json.dumps(row) + "\n" for row in rows))
seen = {
    "as it is": TEMPLATE.render(rows[1]),
    "json": TEMPLATE.render(load_dataset("json", data_files=str(file), split="train")[1]),
    "from_list": TEMPLATE.render(Dataset.from_list(rows)[1]),
}
for how, text in seen.items():
    print(f"{how}: {text}")
plain = "<user>Bye?<assistant>Goodbye."
spoilt = "<user><think>None</think>Bye?<assistant><think>None</think>Goodbye."
raise SystemExit(0 if seen == {"as it is": plain, "json": plain, "from_list": spoilt} else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
