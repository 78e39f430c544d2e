"""OpenVINO as an engine. Before its import: its converter would send statistics of its use to a server unasked."""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import fails, and OpenVINO does without
