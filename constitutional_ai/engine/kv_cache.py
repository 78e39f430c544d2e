"""The KV cache of a batch: keys and values of each sequence's own tokens, without the prefix that all share.

They are written in place; transformers' ``DynamicCache`` copies all of them at every step.
"""

from __future__ import annotations

from typing import Any

import torch


class KVCache:
    """A tensor (layers, 2, sequences, key heads, columns, head size) with a column for each token."""

    def __init__(self, model: Any, sequences: int, columns: int, layers: int | None = None) -> None:
        """``layers=1`` keeps those of one layer only, until the next one's are written over them."""
        config = model.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (layers or config.num_hidden_layers, 2, sequences, config.num_key_value_heads, columns, size)
        # A mask is added to scores, so NaN in a masked column would still spread: start from zeros.
        new = torch.empty if model.skips_masked else torch.zeros
        self.all = new(shape, dtype=model.dtype, device=model.device)
        self._sequences, self._attended = slice(0), slice(0)
        self.column = 0
        """The column in which the next forward pass writes its first token."""

    def at(self, sequences: slice, column: int, attended: slice) -> KVCache:
        """Prepare the next forward pass: it writes tokens of ``sequences`` from ``column`` on.

        It attends to the columns ``attended``.
        """
        self._sequences, self._attended, self.column = sequences, attended, column
        return self

    def layer(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of the sequences in work, all columns of them."""
        keys, values = self.all[number % len(self.all)]
        return keys[self._sequences], values[self._sequences]

    def attended(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values that the forward pass attends to in layer ``number``."""
        keys, values = self.layer(number)
        return keys[:, :, self._attended], values[:, :, self._attended]

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values; return those to attend to. transformers calls this in every layer."""
        columns = slice(self.column, self.column + key.shape[2])
        for kept, new in zip(self.layer(layer_idx), (key, value), strict=True):
            kept[:, :, columns] = new
        return self.attended(layer_idx)

    def move(self, to: list[int], source: list[int]) -> None:
        """Copy the sequences ``source`` over those at ``to``."""
        self.all[:, :, to] = self.all[:, :, source]

    def fill(self, sequence: int, column: int, kv: torch.Tensor) -> None:
        """Write known keys and values (layers, 2, K, tokens, D) from ``column`` on."""
        if kv.shape[-2]:
            self.all[:, :, sequence, :, column : column + kv.shape[-2]] = kv

    def copy(self, sequence: int, columns: slice) -> torch.Tensor:
        """Return a copy (layers, 2, K, tokens, D) of some columns of one sequence."""
        return self.all[:, :, sequence, :, columns].clone()
