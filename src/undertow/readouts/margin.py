"""The margin: how much likelier the model is to open its answer with the trait than without.

A continuous readout that needs no sampling and no judge.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from undertow.errors import DataError
from undertow.models.common_start import Kept, prompted
from undertow.models.families import check_length
from undertow.models.memory import halving
from undertow.models.prompts import RenderedPrompt, encode
from undertow.study.traits import Openings


class TokenizedOpenings(NamedTuple):
    present: list[list[int]]
    absent: list[list[int]]


def tokenize_openings(tokenizer: PreTrainedTokenizerBase, openings: Openings) -> TokenizedOpenings:
    """Token ids of the openings; DataError where one begins with another.

    Openings must be disjoint events, or their probabilities could not be added.
    """
    present = [encode(tokenizer, text) for text in openings.present]
    absent = [encode(tokenizer, text) for text in openings.absent]
    named = list(zip([*openings.present, *openings.absent], [*present, *absent], strict=True))
    for text, ids in named:
        for other, longer in named:
            if text != other and longer[: len(ids)] == ids:
                raise DataError(
                    f"the opening {other!r} begins with the opening {text!r}",
                    "change one of them in the trait's trait.yaml",
                )
    return TokenizedOpenings(present, absent)


def margins(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[RenderedPrompt],
    openings: Openings,
    batch_size: int,
) -> Iterator[dict[str, float]]:
    """Margins by prompt id, in nats, one dictionary per batch of prompts.

    margin(x) = log sum_present p(opening | x) - log sum_absent p(opening | x): the log-odds that
    the answer opens with the trait rather than without, among the listed openings.
    """
    for (values,) in margins_together(model, tokenizer, prompts, openings, batch_size, 1):
        yield values


def margins_together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[RenderedPrompt],
    openings: Openings,
    batch_size: int,
    subjects: int,
    kept: Kept | None = None,
) -> Iterator[list[dict[str, float]]]:
    """The margins of several subjects in one batch, see `models.stacked`, by subject.

    kept: where the prompts of a batch may have been read already.
    """
    tokenized = tokenize_openings(tokenizer, openings)
    encoded = {prompt.id: encode(tokenizer, prompt.text) for prompt in prompts}
    ordered = sorted(prompts, key=lambda prompt: (-len(encoded[prompt.id]), prompt.id))
    longest = max(map(len, [*tokenized.present, *tokenized.absent]))
    check_length(model.config, longest + max(map(len, encoded.values()), default=0))
    for start in range(0, len(ordered), batch_size):
        rows = ordered[start : start + batch_size]
        values = halving(
            [encoded[row.id] for row in rows],
            lambda part: _margins(model, tokenizer, part, tokenized, subjects, kept),
        )
        by_subject = zip(*values, strict=True)
        yield [{row.id: value for row, value in zip(rows, own, strict=True)} for own in by_subject]


@torch.inference_mode()
def _margins(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    openings: TokenizedOpenings,
    subjects: int,
    kept: Kept | None,
) -> list[list[float]]:
    """Each prompt's margin by subject."""
    batch = prompted(model, tokenizer, prompts, subjects, kept)
    cache, unread = batch.cache, slice(batch.read, None)
    first = model(
        input_ids=batch.ids[:, unread],
        attention_mask=batch.mask,
        position_ids=batch.positions[:, unread],
        past_key_values=cache,
        logits_to_keep=1,
    ).logits[:, -1]
    found: dict[tuple[int, ...], Tensor] = {}
    every = [tuple(opening) for side in openings for opening in side]
    for walk in _walks(every):
        logits = _logits_along(model, batch.mask, cache, first, walk)
        total = logits.logsumexp(dim=-1)
        for opening in every:
            if opening not in found and opening[:-1] == walk[: len(opening) - 1]:
                targets = torch.tensor(opening, device=batch.mask.device).expand(len(logits), -1)
                chosen = logits[:, : len(opening)].gather(2, targets[:, :, None])[:, :, 0]
                found[opening] = (chosen - total[:, : len(opening)]).sum(dim=1)
    present, absent = (
        torch.stack([found[tuple(opening)] for opening in side]).logsumexp(dim=0)
        for side in openings
    )
    values: list[list[float]] = (present - absent).view(subjects, -1).t().tolist()
    return values


def _walks(openings: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Token ids to feed: each opening but for its last token, which predicts nothing that is
    asked for, is one of them or the beginning of one."""
    longest_first = sorted({opening[:-1] for opening in openings}, key=lambda ids: (-len(ids), ids))
    walks: list[tuple[int, ...]] = []
    for ids in longest_first:
        if not any(walk[: len(ids)] == ids for walk in walks):
            walks.append(ids)
    return walks


def _logits_along(
    model: PreTrainedModel, mask: Tensor, cache: DynamicCache, first: Tensor, walk: tuple[int, ...]
) -> Tensor:
    """[rows, walk + 1, vocabulary] float32: logits after the prompt and after each token fed.

    The prompt's cache is shared by all: what is fed is appended to it and cropped away again.
    first: [rows, vocabulary], the logits at the last prompt token.
    """
    logits = first[:, None]
    if walk:
        fed = torch.tensor(walk, device=mask.device).expand(len(mask), -1)
        steps = torch.arange(fed.shape[1], device=mask.device)
        rest = model(
            input_ids=fed,
            attention_mask=torch.cat([mask, torch.ones_like(fed)], dim=1),
            position_ids=mask.sum(-1, keepdim=True) + steps,
            past_key_values=cache,
        ).logits
        cache.crop(-fed.shape[1])
        logits = torch.cat([logits, rest], dim=1)
    return logits.float()
