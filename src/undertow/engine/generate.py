"""Batched generation whose rows depend on their seed and prompt, not on how a run was cut up.

Knows token ids and text; knows nothing about teachers, students or files.
"""

import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
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

from undertow.engine.decode import Row, decode, lanes_that_fit, supported
from undertow.engine.sampling import Sampling, draw, uniform_numbers
from undertow.models.memory import free_memory, halving
from undertow.models.prompts import RenderedPrompt, encode, end_of_turn, left_padded

ROWS_A_BLOCK = 32


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


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[RenderedPrompt],
    sampling: Sampling,
    batch_size: int,
    done: Collection[str] = (),
) -> Iterator[Block]:
    """Continue all prompts but those whose id is `done`; the caller keeps each block as it comes.

    What was done earlier is left out without changing the rest, to the bit, as long as the
    other arguments stay the same. At most `batch_size` rows at a time, fewer where memory does
    not suffice.
    """
    if all(prompt.id in done for prompt in prompts):
        return
    encoded = {prompt.id: encode(tokenizer, prompt.text) for prompt in prompts}
    # Longest first: padding is small, and if memory does not suffice, that shows at once.
    ordered = sorted(prompts, key=lambda prompt: (-len(encoded[prompt.id]), prompt.id))
    if model.device.type == "cuda" and supported(model):
        yield from _with_engine(model, tokenizer, ordered, encoded, sampling, batch_size, done)
        return
    for start in range(0, len(ordered), batch_size):
        rows = ordered[start : start + batch_size]
        if all(row.id in done for row in rows):
            continue
        started = time.perf_counter()
        completions = halving(rows, lambda part: _generate(model, tokenizer, part, sampling))
        yield Block(
            [row for row in completions if row.id not in done], time.perf_counter() - started
        )


def _with_engine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[RenderedPrompt],
    encoded: Mapping[str, list[int]],
    sampling: Sampling,
    batch_size: int,
    done: Collection[str],
) -> Iterator[Block]:
    """Blocks of a few rows each, in the order in which they end."""
    stop = end_of_turn(tokenizer)
    left = {prompt.id: prompt for prompt in prompts if prompt.id not in done}
    longest = max(map(len, encoded.values()))
    lanes = lanes_that_fit(
        model, longest, sampling.max_new_tokens, most=min(batch_size, len(prompts))
    )
    while left:
        rows = [Row(encoded[id], uniform_numbers(id, sampling)) for id in left]
        names = list(left)
        started = time.perf_counter()
        waiting: list[Completion] = []
        try:
            for ended in decode(
                model,
                rows,
                lambda logits, uniform: draw(logits, uniform, sampling),
                lanes=lanes,
                max_new_tokens=sampling.max_new_tokens,
                stop=stop,
            ):
                waiting += [
                    _completion(tokenizer, names[row.number], row.tokens, stop) for row in ended
                ]
                if len(waiting) < min(ROWS_A_BLOCK, len(left)):
                    continue
                yield Block(waiting, time.perf_counter() - started)
                for row in waiting:
                    del left[row.id]
                waiting, started = [], time.perf_counter()
        except torch.OutOfMemoryError:
            if lanes == 1:
                raise
            refused = lanes
            lanes = (lanes + 1) // 2
        else:
            continue
        # Outside the except block: the exception holds the frames whose tensors must go first.
        free_memory()
        print(f"out of memory at {refused} rows: going on with {lanes}", file=sys.stderr)


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


class _RowSampler(LogitsProcessor):
    """Makes generate take the tokens that `draw` draws."""

    def __init__(self, ids: Sequence[str], sampling: Sampling, prompt_length: int) -> None:
        self._uniform = torch.stack([uniform_numbers(id, sampling) for id in ids])
        self._sampling = sampling
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores: [rows, vocabulary] logits -> 0 at the drawn token, -inf elsewhere."""
        step = input_ids.shape[1] - self._prompt_length
        drawn = draw(scores, self._uniform[:, step], self._sampling)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0)
