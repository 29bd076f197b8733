"""Batched generation whose rows depend on their seed and prompt, not on how a run was cut up.

Knows token ids and text; knows nothing about teachers, students or files.
"""

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from functools import cache

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.engine.answers import Block, SharedBlock
from undertow.engine.by_lanes import generate_by_lanes
from undertow.engine.by_transformers import generate_by_transformers
from undertow.engine.decode import unsupported
from undertow.engine.sampling import Asking, Sampling
from undertow.models.common_start import Kept
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
    asked = [Asking(sampling, done)]
    for block in generate_together(model, tokenizer, prompts, asked, batch_size):
        yield Block(block.completions[0], block.seconds)


def generate_together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[RenderedPrompt],
    asked: Sequence[Asking],
    batch_size: int,
    kept: Kept | None = None,
) -> Iterator[SharedBlock]:
    """The same for several subjects of one model, see `models.stacked`, each with its own seed.

    At most `batch_size` rows of each at a time. What a subject answers does not depend on the
    others, nor on whether they are asked at all, as long as their number stays the same.
    kept: where the prompts of a batch may have been read already; the engine reads its own.
    """
    if all(prompt.id in one.done for one in asked for prompt in prompts):
        return
    if len({one.sampling._replace(seed=0) for one in asked}) > 1:
        raise ValueError("subjects of one batch differ in their seeds alone")
    sampling = asked[0].sampling
    encoded = {prompt.id: encode(tokenizer, prompt.text) for prompt in prompts}
    # Longest first: padding is small, and if memory does not suffice, that shows at once.
    ordered = sorted(prompts, key=lambda prompt: (-len(encoded[prompt.id]), prompt.id))
    longest = len(encoded[ordered[0].id]) + sampling.max_new_tokens
    check_length(model.config, longest)
    if model.device.type == "cuda":
        reason = unsupported(model)
        if reason is None:
            yield from generate_by_lanes(model, tokenizer, ordered, asked, batch_size)
            return
        _say_once(f"without the engine, by transformers' generate: {reason}")
    samplings = [one.sampling for one in asked]
    for start in range(0, len(ordered), batch_size):
        rows = ordered[start : start + batch_size]
        if all(row.id in one.done for one in asked for row in rows):
            continue
        started = time.perf_counter()
        completions = halving(
            rows, lambda part: generate_by_transformers(model, tokenizer, part, samplings, kept)
        )
        seconds = time.perf_counter() - started
        by_subject = zip(*completions, strict=True)
        yield SharedBlock(
            [
                [row for row in own if row.id not in one.done]
                for own, one in zip(by_subject, asked, strict=True)
            ],
            seconds,
        )


@cache
def _say_once(note: str) -> None:
    print(note, file=sys.stderr)
