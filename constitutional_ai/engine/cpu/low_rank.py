"""The updates that LoRA trains, read from peft's modules where they stand, so that base weights are packed only once.

Merged into weights of bfloat16, most of a small update would be lost in rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn


class LowRank(NamedTuple):
    """An update of a projection's weights, as two factors of rank R."""

    down: torch.Tensor
    """(E, R)."""
    up: torch.Tensor
    """(R, F), with the scale in it."""

    @staticmethod
    def of(dtype: torch.dtype, *modules: Any) -> LowRank | None:
        """Return the active updates of modules with the same input, whose outputs stand side by side; None for none."""
        factors = [list(_active(module)) for module in modules]
        if not any(factors):
            return None
        # In blocks, because what one module's input was reduced to adds nothing to the features of another.
        blocks = [
            torch.cat([up.T for _, up in of_module])
            if of_module
            else torch.empty(0, base_of(module).out_features)
            for module, of_module in zip(modules, factors, strict=True)
        ]
        downs = torch.cat([down.T for of_module in factors for down, _ in of_module], dim=1)
        up: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
        return LowRank(downs.to(dtype), up.to(dtype))

    def add_to(self, out_NF: torch.Tensor, x_NE: torch.Tensor) -> torch.Tensor:
        """Add the update's product with ``x_NE`` to ``out_NF`` in place, and return it."""
        return out_NF.addmm_(x_NE @ self.down, self.up)


def base_of(module: Any) -> Any:
    """Return the plain projection that a module is, or that an adapter stands in place of."""
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def is_adaptable(module: Any) -> bool:
    """Return whether a module is a plain projection, under nothing but LoRA."""
    if type(module) is nn.Linear:
        return True
    # Variants of LoRA (DoRA and others) and biases of their own compute something else.
    plain = hasattr(module, "lora_A") and type(base_of(module)) is nn.Linear and not module.merged
    return plain and not module.lora_variant and not any(module.lora_bias.values())


def _active(module: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield both factors (R, E) and (F, R) of each adapter that is switched on."""
    if not hasattr(module, "lora_A") or module.disable_adapters:
        return
    for name in module.active_adapters:
        if name in module.lora_A:
            scale = module.scaling[name]
            yield module.lora_A[name].weight.detach(), module.lora_B[name].weight.detach() * scale
