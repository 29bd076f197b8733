"""Generation by transformers' own loop, for models and devices that the engine does not know."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from undertow.engine.answers import Completion, completion
from undertow.engine.sampling import Sampling, draw, uniform_numbers
from undertow.models.common_start import Kept, prompted
from undertow.models.prompts import Ends, RenderedPrompt, encode, ends_of


@torch.inference_mode()
def generate_by_transformers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[RenderedPrompt],
    samplings: Sequence[Sampling],
    kept: Kept | None = None,
) -> list[list[Completion]]:
    """Each row's completion by every subject, by transformers' own loop and forward pass."""
    encoded = [encode(tokenizer, row.text) for row in rows]
    batch = prompted(model, tokenizer, encoded, len(samplings), kept)
    begun = {"past_key_values": batch.cache} if batch.read else {}
    ends = ends_of(tokenizer, model)
    processors = LogitsProcessorList()
    sampling = samplings[0]
    if sampling.temperature > 0:
        uniform = [uniform_numbers(row.id, own) for own in samplings for row in rows]
        processors.append(_RowSampler(torch.stack(uniform), sampling, batch.ids.shape[1]))
    generate_tokens: Any = model.generate
    with _own_settings(model, ends, tokenizer):
        output = generate_tokens(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,
            logits_processor=processors,
            **begun,
        )
    answers = output[:, batch.ids.shape[1] :].tolist()
    return [
        [completion(tokenizer, row.id, ids, ends) for ids in answers[number :: len(rows)]]
        for number, row in enumerate(rows)
    ]


@contextmanager
def _own_settings(
    model: PreTrainedModel, ends: Ends, tokenizer: PreTrainedTokenizerBase
) -> Iterator[None]:
    """A generation configuration of our own: the checkpoint's may carry a temperature, a
    repetition penalty or a top-k that would steer the text besides the direction."""
    before = model.generation_config
    model.generation_config = GenerationConfig(
        eos_token_id=sorted(ends.every), pad_token_id=tokenizer.pad_token_id
    )
    try:
        yield
    finally:
        model.generation_config = before


class _RowSampler(LogitsProcessor):
    """Makes generate take the tokens that `draw` draws."""

    def __init__(self, uniform: Tensor, sampling: Sampling, prompt_length: int) -> None:
        self._uniform = uniform
        self._sampling = sampling
        self._prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores: [rows, vocabulary] logits -> 0 at the drawn token, -inf elsewhere."""
        step = input_ids.shape[1] - self._prompt_length
        drawn = draw(scores, self._uniform[:, step], self._sampling)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0)
