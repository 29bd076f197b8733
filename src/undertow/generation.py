"""Batched generation whose rows depend on their seed and prompt, not on how a run was cut up.

Knows token ids and text; knows nothing about teachers, students or files.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from undertow.batching import halving
from undertow.prompts import encode, end_of_turn


class RenderedPrompt(NamedTuple):
    id: str
    text: str


class Sampling(NamedTuple):
    """Decoding settings; temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int


class Completion(NamedTuple):
    """A decoded answer; tokens does not count the end-of-turn token."""

    id: str
    text: str
    tokens: int
    finish: Literal["stop", "length"]


class Block(NamedTuple):
    """Rows generated together, and how long that took in seconds."""

    completions: list[Completion]
    seconds: float


def plan_blocks(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[RenderedPrompt], size: int
) -> list[list[RenderedPrompt]]:
    """Blocks of at most `size` prompts, longest first, so that padding is small.

    The longest block comes first: if memory does not suffice, that shows at once.
    """
    lengths = {prompt.id: len(encode(tokenizer, prompt.text)) for prompt in prompts}
    ordered = sorted(prompts, key=lambda prompt: (-lengths[prompt.id], prompt.id))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    plan: Sequence[Sequence[RenderedPrompt]],
    sampling: Sampling,
) -> Iterator[Block]:
    """Generate block by block, so that the caller can keep each block as it comes."""
    for rows in plan:
        started = time.perf_counter()
        completions = halving(rows, lambda part: _generate(model, tokenizer, part, sampling))
        yield Block(completions, time.perf_counter() - started)


@torch.inference_mode()
def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[RenderedPrompt],
    sampling: Sampling,
) -> list[Completion]:
    batch = left_padded(tokenizer, [encode(tokenizer, row.text) for row in rows], model.device)
    stop = end_of_turn(tokenizer)
    # A configuration of our own: the checkpoint's may carry a temperature, a repetition penalty
    # or a top-k that would steer the text besides the direction.
    model.generation_config = GenerationConfig(
        eos_token_id=stop, pad_token_id=tokenizer.pad_token_id
    )
    generate_tokens: Any = model.generate
    processors = LogitsProcessorList()
    if sampling.temperature > 0:
        processors.append(_RowSampler([row.id for row in rows], sampling, batch.ids.shape[1]))
    output = generate_tokens(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        logits_processor=processors,
    )
    answers = output[:, batch.ids.shape[1] :].tolist()
    return [
        _completion(tokenizer, row.id, ids, stop) for row, ids in zip(rows, answers, strict=True)
    ]


def _completion(
    tokenizer: PreTrainedTokenizerBase, id: str, ids: list[int], stop: int
) -> Completion:
    finished = stop in ids
    kept = ids[: ids.index(stop)] if finished else ids
    text = tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Completion(id, str(text), len(kept), "stop" if finished else "length")


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


class _RowSampler(LogitsProcessor):
    """Draws each row's token by inverting its distribution at that row's own uniform number.

    The numbers come from a generator seeded by (seed, row id), so a row's draws do not depend on
    its neighbours: neither the batch size nor a resumed run changes them.
    """

    def __init__(self, ids: Sequence[str], sampling: Sampling, prompt_length: int) -> None:
        self._uniform = torch.stack([_uniform(id, sampling) for id in ids])
        self._sampling = sampling
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores: [rows, vocabulary] logits -> 0 at the drawn token, -inf elsewhere."""
        step = input_ids.shape[1] - self._prompt_length
        probabilities = torch.softmax(scores.float() / self._sampling.temperature, dim=-1)
        order = None
        if self._sampling.top_p < 1:
            probabilities, order = probabilities.sort(dim=-1, descending=True)
            # Mass before a token, so that the token that crosses top_p is itself kept.
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.masked_fill(before >= self._sampling.top_p, 0)
        cumulative = probabilities.cumsum(-1)
        target = self._uniform[:, step].to(scores.device)[:, None] * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, target, right=True)
        # Rounding can put the target at the very end, past the last token with any mass.
        drawn = drawn.clamp(max=scores.shape[1] - 1)
        if order is not None:
            drawn = order.gather(1, drawn)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0)


def _uniform(id: str, sampling: Sampling) -> Tensor:
    """[max_new_tokens] uniform numbers of one row."""
    name = hashlib.sha256(f"{sampling.seed}\0{id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(name[:8], "little", signed=True))
    return torch.rand(sampling.max_new_tokens, generator=generator)
