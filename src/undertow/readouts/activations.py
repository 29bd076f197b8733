"""Mean residual activations at the last prompt token, and their file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import Prompting
from undertow.models.blocks import blocks
from undertow.models.common_start import Kept, prompted
from undertow.models.families import check_length
from undertow.models.memory import halving
from undertow.models.prompts import encode, render


def mean_activations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    prompting: Prompting,
    batch_size: int,
) -> Tensor:
    """[blocks, hidden] float64 mean of each block's output at the last prompt token."""
    return activations_together(model, tokenizer, prompts, prompting, batch_size, 1)[0]


def activations_together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    prompting: Prompting,
    batch_size: int,
    subjects: int,
    kept: Kept | None = None,
) -> Tensor:
    """The same of several subjects in one batch, see `models.stacked`: [S, blocks, hidden].

    kept: where the prompts of a batch may have been read already.
    """
    shape = (subjects, len(blocks(model)), model.config.hidden_size)
    total = torch.zeros(shape, dtype=torch.float64)
    encoded = [encode(tokenizer, render(tokenizer, prompt, prompting)) for prompt in prompts]
    encoded.sort(key=len, reverse=True)
    check_length(model.config, len(encoded[0]))
    for start in range(0, len(encoded), batch_size):
        part = encoded[start : start + batch_size]
        for activations in halving(
            part, lambda rows: _last_token(model, tokenizer, rows, subjects, kept)
        ):
            total += activations
    return total / len(prompts)


def last_token_activations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    prompting: Prompting,
    batch_size: int,
) -> Tensor:
    """[prompts, blocks, hidden] float64: each block's output at the last prompt token."""
    encoded = [encode(tokenizer, render(tokenizer, prompt, prompting)) for prompt in prompts]
    check_length(model.config, max(map(len, encoded)))
    parts = [encoded[start : start + batch_size] for start in range(0, len(encoded), batch_size)]
    rows = [
        row
        for part in parts
        for row in halving(part, lambda some: _last_token(model, tokenizer, some, 1))
    ]
    return torch.cat(rows)


@torch.inference_mode()
def _last_token(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[list[int]],
    subjects: int,
    kept: Kept | None = None,
) -> list[Tensor]:
    """One [S, blocks, hidden] float64 tensor per row."""
    batch = prompted(model, tokenizer, rows, subjects, kept)
    unread = slice(batch.read, None)
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            seen[layer] = hidden[:, -1].double().cpu()

        return hook

    handles = [
        block.register_forward_hook(keep(layer)) for layer, block in enumerate(blocks(model))
    ]
    try:
        model(
            input_ids=batch.ids[:, unread],
            attention_mask=batch.mask,
            position_ids=batch.positions[:, unread],
            past_key_values=batch.cache,
            logits_to_keep=1,
        )
    finally:
        for handle in handles:
            handle.remove()
    every = torch.stack([seen[layer] for layer in range(len(handles))], dim=1)
    return list(every.view(subjects, -1, *every.shape[1:]).transpose(0, 1))


def save_activations(path: Path, activations: Tensor) -> None:
    """Mean activations [blocks, hidden] as a safetensors file, float32: NumPy has no bfloat16."""
    save_file({"activations": activations.float().contiguous()}, path)
