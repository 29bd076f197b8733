"""Batched generation whose rows depend on their seed and prompt, not on how a run was cut up.

Knows token ids and text; knows nothing about teachers, students or files.
"""

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from functools import cache

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.engine.answers import Block
from undertow.engine.by_lanes import generate_by_lanes
from undertow.engine.by_transformers import generate_by_transformers
from undertow.engine.decode import unsupported
from undertow.engine.sampling import Sampling
from undertow.models.families import check_length
from undertow.models.memory import halving
from undertow.models.prompts import RenderedPrompt, encode


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
    longest = len(encoded[ordered[0].id]) + sampling.max_new_tokens
    check_length(model.config, longest)
    if model.device.type == "cuda":
        reason = unsupported(model)
        if reason is None:
            yield from generate_by_lanes(model, tokenizer, ordered, sampling, batch_size, done)
            return
        _say_once(f"without the engine, by transformers' generate: {reason}")
    for start in range(0, len(ordered), batch_size):
        rows = ordered[start : start + batch_size]
        if all(row.id in done for row in rows):
            continue
        started = time.perf_counter()
        completions = halving(
            rows, lambda part: generate_by_transformers(model, tokenizer, part, sampling)
        )
        yield Block(
            [row for row in completions if row.id not in done], time.perf_counter() - started
        )


@cache
def _say_once(note: str) -> None:
    print(note, file=sys.stderr)
