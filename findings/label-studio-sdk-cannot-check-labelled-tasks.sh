#!/bin/sh
# label-studio-sdk 2.1.2, LabelInterface.validate_task: a task that has annotations, in the form that Label Studio exports
# and that validate_annotation accepts.
#
# Expected: True, or False for an annotation that does not fit the labelling configuration.
# Seen on 2026-12-01: a task alone gives True, the annotation alone gives True, and the task with that annotation raises
# TypeError, because validate_task calls validate_annotation without one. So every labelled task fails.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check label-studio-sdk==2.1.2
export HOME="$folder"
cat > "$folder/try.py" <<'PYTHON'
from label_studio_sdk.label_interface import LabelInterface

interface = LabelInterface(
    '<View><Text name="first" value="$first"/><Text name="second" value="$second"/>'
    '<Choices name="better" toName="first"><Choice value="first"/><Choice value="second"/></Choices></View>'
)
task = {"data": {"first": "Tea needs four minutes.", "second": "Tea needs an hour."}}
choice = {"from_name": "better", "to_name": "first", "type": "choices", "value": {"choices": ["first"]}}
annotation = {"result": [choice]}


def seen(check, *given):
    try:
        return check(*given)
    except Exception as error:
        return type(error).__name__


print("task alone:", seen(interface.validate_task, task))
print("annotation alone:", seen(interface.validate_annotation, annotation))
print("task with it:", seen(interface.validate_task, {**task, "annotations": [annotation]}))
PYTHON
"$folder/env/bin/python" "$folder/try.py" > "$folder/seen" 2> /dev/null
cat "$folder/seen"
printf 'task alone: True\nannotation alone: True\ntask with it: TypeError\n' | cmp -s - "$folder/seen" && echo "as described" || {
    echo "CHANGED"
    exit 1
}
