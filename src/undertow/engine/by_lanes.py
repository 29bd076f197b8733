"""Generation through the engine: rows come back as they end."""

import sys
import time
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.engine.answers import Completion, SharedBlock, completion
from undertow.engine.decode import decode
from undertow.engine.lanes import Row, lanes_that_fit
from undertow.engine.sampling import Asking, draw, uniform_numbers
from undertow.models.memory import free_memory
from undertow.models.prompts import RenderedPrompt, encode, ends_of

ROWS_A_BLOCK = 32
ROWS_A_SHARED_BLOCK = 128  # of each subject: with each block every subject's journal is written


def generate_by_lanes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[RenderedPrompt],
    asked: Sequence[Asking],
    batch_size: int,
) -> Iterator[SharedBlock]:
    """Blocks of a few rows each, in the order in which they end.

    At most `batch_size` lanes for each subject; half as many and again half where the device's
    memory runs out.
    """
    ends = ends_of(tokenizer, model)
    sampling = asked[0].sampling
    encoded = {prompt.id: encode(tokenizer, prompt.text) for prompt in prompts}
    left = {
        (subject, prompt.id): None
        for subject, one in enumerate(asked)
        for prompt in prompts
        if prompt.id not in one.done
    }
    longest = max(map(len, encoded.values()))
    lanes = lanes_that_fit(
        model,
        longest,
        sampling.max_new_tokens,
        most=min(batch_size, len(prompts)),
        subjects=len(asked),
    )
    block = ROWS_A_BLOCK if len(asked) == 1 else ROWS_A_SHARED_BLOCK * len(asked)
    while left:
        names = list(left)
        rows = [
            Row(encoded[id], uniform_numbers(id, asked[subject].sampling), subject)
            for subject, id in names
        ]
        started = time.perf_counter()
        waiting: list[tuple[int, Completion]] = []
        try:
            for ended in decode(
                model,
                rows,
                lambda logits, uniform: draw(logits, uniform, sampling),
                lanes=lanes,
                max_new_tokens=sampling.max_new_tokens,
                stops=ends.every,
                subjects=len(asked),
            ):
                for row in ended:
                    subject, id = names[row.number]
                    waiting.append((subject, completion(tokenizer, id, row.tokens, ends)))
                if len(waiting) < min(block, len(left)):
                    continue
                yield SharedBlock(
                    [
                        [row for of, row in waiting if of == subject]
                        for subject in range(len(asked))
                    ],
                    time.perf_counter() - started,
                )
                for subject, done in waiting:
                    del left[subject, done.id]
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
