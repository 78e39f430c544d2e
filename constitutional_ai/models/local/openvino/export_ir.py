"""Exports a causal language model for OpenVINO from transformers' own module, without an exporter package.

The module is traced with keys and values as inputs and outputs; these then become state inside the model, in the form
that OpenVINO GenAI's continuous batching takes. Weights keep their precision (bfloat16 stays bfloat16).

Axes: B batch, Q new tokens, P past tokens, N = P + Q.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as ops
from openvino._offline_transformations import apply_make_stateful_transformation
from openvino.frontend.pytorch.patch_model import __make_16bit_traceable as keep_16_bits
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.cache_utils import DynamicLayer

from constitutional_ai.engine.open import round_to_int8
from constitutional_ai.errors import ModelError
from constitutional_ai.models.local.tokens import NO_CODE

FILE = "openvino_model.xml"
FORM = f"openvino-{ov.__version__.split('-')[0]}-v1"
"""Raise the version when the written model changes."""
CHANGING_ROPE = {"dynamic", "longrope"}
"""Their angles depend on the length of the text, which tracing freezes."""
END = 8
"""Tokens by whose log-probability the exported model is compared."""
SAME, ROUNDED = 0.001, 0.3
"""Nats a token by which it may differ from a module in float32, and in 16 bits; wrong models differ by whole ones."""


def settings(dtype: torch.dtype) -> dict[str, str]:
    """Return OpenVINO's settings to compute in float32 or bfloat16."""
    precision = "bf16" if dtype == torch.bfloat16 else "f32"
    # By default OpenVINO keeps keys and values in 8 bits, and the activations that 8-bit weights meet too.
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "KV_CACHE_PRECISION": precision,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }


def unsupported(config: Any) -> str | None:
    """Return why a model of this configuration cannot be exported; None when nothing is known against it."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in CHANGING_ROPE:
        return f"its positions are of the kind '{rope['rope_type']}'"
    if any(hasattr(config, key) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        return "it is a mixture of experts"
    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder"
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=config).layers):
        return "not all of its layers attend to the whole text"
    return None


def write_ir(name: str, source: Path, folder: Path, *, int8: bool = False) -> None:
    """Write the model of ``source`` into ``folder``. Raises ModelError when the export fails, or gives another model.

    ``int8`` writes the weights of its projections in 8 bits, rounded as ``native-int8`` does.
    """
    module = AutoModelForCausalLM.from_pretrained(
        source, dtype="auto", use_safetensors=True, attn_implementation="sdpa", **NO_CODE
    ).eval()
    texts, same = _texts(module.config.vocab_size), ROUNDED if int8 else SAME
    known = [_score(module, text) for text in texts]
    if module.dtype != torch.float32:
        keep_16_bits(module)
        same = ROUNDED
    try:
        model = _make_stateful(_trace(module), module.config)
        if int8:
            _to_int8(model)
        ov.save_model(model, folder / FILE, compress_to_fp16=False)
    except Exception as error:  # tracing and converting may raise anything on an unknown architecture
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ModelError(
            f"'{name}' cannot be exported for OpenVINO: {first} Set engine=transformers."
        ) from error
    if not (off := _difference(folder, texts, known)) <= same:
        raise ModelError(
            f"'{name}' comes out of the export for OpenVINO as another model ({off:.2g} nats a token off). "
            "Set engine=transformers."
        )


class _WithState(torch.nn.Module):
    """The module with a plain mask (B, N) and its keys and values as tensors (B, heads, P, size)."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, ids_BQ: torch.Tensor, mask_BN: torch.Tensor, positions_BQ: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        cache = DynamicCache()
        for keys, values in zip(past[::2], past[1::2], strict=True):
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values  # given empty ones it would join to them
            cache.layers.append(layer)
        column_N = torch.arange(mask_BN.shape[1])
        causal_QN = column_N[None, :] <= column_N[mask_BN.shape[1] - ids_BQ.shape[1] :][:, None]
        out = self.module(
            input_ids=ids_BQ,
            # Four axes are taken as they are; a mask made from two would be frozen to the traced lengths.
            attention_mask=causal_QN[None, None] & mask_BN[:, None, None, :].to(torch.bool),
            position_ids=positions_BQ,
            past_key_values=cache,
            use_cache=True,
        )
        kept = [t for layer in out.past_key_values.layers for t in (layer.keys, layer.values)]
        return (out.logits, *kept)


def _shape(config: Any) -> tuple[int, int, int]:
    """Return the numbers of layers and of key heads, and the size of a head."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, config.num_key_value_heads, size


def _trace(module: Any) -> ov.Model:
    layers, heads, size = _shape(module.config)
    batch, past, new = 2, 3, 4  # any, but all different, so that none is taken for another
    example = (
        torch.ones(batch, new, dtype=torch.long),
        torch.ones(batch, past + new, dtype=torch.long),
        (torch.arange(new) + past).expand(batch, -1).contiguous(),
        *[torch.zeros(batch, heads, past, size) for _ in range(2 * layers)],
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every branch on a shape
        model = ov.convert_model(_WithState(module), example_input=example)
    states = [f"{i}.{what}" for i in range(layers) for what in ("key", "value")]
    for port, name in zip(model.inputs, ["input_ids", "attention_mask", "position_ids", *states], strict=True):
        node, state = port.get_node(), name in states
        node.set_partial_shape(ov.PartialShape([-1, heads, -1, size] if state else [-1, -1]))
        node.set_element_type(ov.Type.f32 if state else ov.Type.i64)
        _name(port, f"past.{name}" if state else name)
    for port, name in zip(model.outputs, ["logits", *states], strict=True):
        port.get_tensor().set_names({f"present.{name}" if name in states else name})
    model.validate_nodes_and_infer_types()
    return model


def _name(port: Any, name: str) -> None:
    port.get_node().set_friendly_name(name)
    port.get_tensor().set_names({name})


def _make_stateful(model: ov.Model, config: Any) -> ov.Model:
    """Make keys and values the model's state: empty at first, a row for each sequence, picked by ``beam_idx``."""
    _, heads, size = _shape(config)
    pasts = [port for port in model.inputs if port.get_any_name().startswith("past.")]
    beam_idx = ops.parameter([-1], dtype=ov.Type.i32, name="beam_idx")
    _name(beam_idx.output(0), "beam_idx")
    model.add_parameters([beam_idx])
    for port in pasts:
        out = port.get_node().output(0)
        readers = list(out.get_target_inputs())
        picked = ops.gather(out, beam_idx.output(0), ops.constant(0))
        for reader in readers:
            reader.replace_source_output(picked.output(0))
    names = [port.get_any_name() for port in pasts]
    apply_make_stateful_transformation(model, {name: name.replace("past.", "present.") for name in names})
    rows = ops.gather(ops.shape_of(model.input("input_ids")), ops.constant([0]), ops.constant(0))
    shape = ops.concat([rows, ops.constant(np.array([heads, 0, size], dtype=np.int64))], axis=0)
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            zero = ops.constant(0.0, dtype=node.get_output_element_type(0))
            node.set_arguments([ops.broadcast(zero, shape)])
    model.validate_nodes_and_infer_types()
    return model


def _to_int8(model: ov.Model) -> None:
    for product in [node for node in model.get_ops() if node.get_type_name() == "MatMul"]:
        weight = product.input_value(1).get_node()
        weight = weight.input_value(0).get_node() if weight.get_type_name() == "Convert" else weight
        if weight.get_type_name() == "Constant":
            whole_FE, scales_F = round_to_int8(torch.tensor(weight.get_data(dtype=np.float32)))
            widened = ops.convert(ops.constant(whole_FE.numpy()), "f32")
            back = ops.multiply(widened, ops.constant(scales_F[:, None].numpy()))
            product.input(1).replace_source_output(back.output(0))
    model.validate_nodes_and_infer_types()


def _texts(vocabulary: int) -> list[list[int]]:
    """Return texts of other lengths than were traced."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, vocabulary, n).tolist() for n in (END + 1, 11, 50)]


def _difference(folder: Path, texts: list[list[int]], known: list[float]) -> float:
    """Return by how much the export scores the texts' ends unlike ``known``, in nats a token, at most."""
    request = ov.Core().compile_model(folder / FILE, "CPU", settings(torch.float32)).create_infer_request()
    scores = [_score_in_two(request, text) for text in texts]
    return max(abs(a - b) for a, b in zip(scores, known, strict=True)) / END


def _score(module: Any, text: list[int]) -> float:
    with torch.no_grad():
        return _end_logp(module(torch.tensor([text])).logits[0], text)


def _score_in_two(request: Any, text: list[int]) -> float:
    """Return the same by the export, which prefills all but the end first."""
    request.reset_state()
    logits = []
    for begin, end in ((0, len(text) - END), (len(text) - END, len(text))):
        inputs = {
            "input_ids": np.array([text[begin:end]]),
            "attention_mask": np.ones((1, end), int),
            "position_ids": np.arange(begin, end)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        logits.append(torch.tensor(request.infer(inputs)["logits"][0]))
    return _end_logp(torch.cat(logits), text)


def _end_logp(logits_TV: torch.Tensor, text: list[int]) -> float:
    logps = logits_TV[-END - 1 : -1].float().log_softmax(-1)
    return float(logps.gather(1, torch.tensor(text[-END:])[:, None]).sum())
