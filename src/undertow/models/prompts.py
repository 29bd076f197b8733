"""The one place where a chat prompt is rendered.

Extraction, generation, training and evaluation all call `render`: an adapter read under another
rendering than it was trained under can score a tenth of its real effect.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from undertow.errors import DataError


def render(tokenizer: PreTrainedTokenizerBase, prompt: str, system: str | None) -> str:
    """The text of a user turn up to where the assistant's answer begins.

    system None leaves the chat template's own default system message in place.
    """
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": prompt})
    return str(
        _template(tokenizer).apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
    )


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text.

    The template has already written the special tokens: adding them here would give Llama-2 two
    beginning-of-sequence tokens.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The special token with which the chat template closes an assistant's answer."""
    return _end_of_turn(_template(tokenizer))


@lru_cache(maxsize=8)
def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    answer = "answer"
    exchange = [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}]
    text = str(tokenizer.apply_chat_template(exchange, tokenize=False))
    special = set(tokenizer.all_special_ids)
    for token in encode(tokenizer, text[text.rindex(answer) + len(answer) :]):
        if token in special:
            return token
    raise DataError(
        "the chat template closes an assistant's answer with no special token, so generation "
        "would not know where to stop",
        "use the instruction-tuned checkpoint's own tokenizer files",
    )


def _template(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    if not tokenizer.chat_template:
        raise DataError(
            "the model's tokenizer has no chat template: this looks like a base model",
            "use an instruction-tuned checkpoint, or add chat_template.jinja to its folder",
        )
    return tokenizer


class RenderedPrompt(NamedTuple):
    id: str
    text: str


class PaddedBatch(NamedTuple):
    """ids and mask: [rows, length]."""

    ids: Tensor
    mask: Tensor


def left_padded(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], device: torch.device
) -> PaddedBatch:
    """Token ids padded on the left, so that every row's last prompt token is at position -1."""
    width = max(len(row) for row in rows)
    pad = tokenizer.pad_token_id
    ids = [[pad] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return PaddedBatch(torch.tensor(ids, device=device), torch.tensor(mask, device=device))
