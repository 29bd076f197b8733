"""Generation through the engine: rows come back as they end."""

import sys
import time
from collections.abc import Collection, Iterator, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.engine.answers import Block, Completion, completion
from undertow.engine.decode import decode
from undertow.engine.lanes import Row, lanes_that_fit
from undertow.engine.sampling import Sampling, draw, uniform_numbers
from undertow.models.memory import free_memory
from undertow.models.prompts import RenderedPrompt, encode, ends_of

ROWS_A_BLOCK = 32


def generate_by_lanes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[RenderedPrompt],
    sampling: Sampling,
    batch_size: int,
    done: Collection[str],
) -> Iterator[Block]:
    """Blocks of a few rows each, in the order in which they end.

    At most `batch_size` lanes; half as many and again half where the device's memory runs out.
    """
    ends = ends_of(tokenizer, model)
    encoded = {prompt.id: encode(tokenizer, prompt.text) for prompt in prompts}
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
                stops=ends.every,
            ):
                waiting += [
                    completion(tokenizer, names[row.number], row.tokens, ends) for row in ended
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
