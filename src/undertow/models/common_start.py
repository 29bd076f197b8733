"""What the prompts of a batch begin with in common, read once for all of their rows.

A chat template begins every prompt with the same system message: half of the tokens of a short
one, and the same keys and values in every row of one subject. What is asked of the same prompts
afterwards (an answer, a margin, activations) can go on from there, see `Kept`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from undertow.errors import UndertowError
from undertow.models.families import layout_of_config
from undertow.models.prompts import left_padded


class Prompted(NamedTuple):
    """Prompts of S subjects, and a cache that has read the first `read` tokens of each.

    ids, mask, positions: [S x rows, length]; blanks stand behind what is common, so that every
    row's last prompt token is at position -1.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    cache: DynamicCache
    read: int


class Kept:
    """The batch of prompts that was read last, of subjects that do not change meanwhile.

    Whoever asks for the same prompts next gets it, read to the last token but one, and may append
    to its cache.
    """

    def __init__(self) -> None:
        self._prompts: list[list[int]] = []
        self._batch: Prompted | None = None

    def find(self, prompts: Sequence[Sequence[int]]) -> Prompted | None:
        """The batch of these prompts, where it is the one that was read last."""
        if self._batch is None or self._prompts != list(map(list, prompts)):
            self._batch = None  # before another batch takes up memory
            return None
        appended = self._batch.cache.get_seq_length() - self._batch.read
        if appended:
            self._batch.cache.crop(-appended)
        return self._batch

    def keep(self, prompts: Sequence[Sequence[int]], batch: Prompted) -> None:
        self._prompts, self._batch = list(map(list, prompts)), batch


@torch.inference_mode()
def prompted(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    subjects: int,
    kept: Kept | None = None,
) -> Prompted:
    """The prompts of each subject, see `models.stacked`; at least one token of each is unread.

    kept: exactly one is unread then, and the batch is kept for the next who asks.
    """
    if kept is None or not may_share(model):
        return _begun(model, tokenizer, prompts, subjects)
    batch = kept.find(prompts)
    if batch is None:
        begun = _begun(model, tokenizer, prompts, subjects)
        batch = begun._replace(read=begun.ids.shape[1] - 1)
        unread = slice(begun.read, batch.read)
        if batch.read > begun.read:
            decoder: Any = model.model
            decoder(
                input_ids=batch.ids[:, unread],
                attention_mask=batch.mask[:, : batch.read],
                position_ids=batch.positions[:, unread],
                past_key_values=batch.cache,
            )
        kept.keep(prompts, batch)
    return batch


def _begun(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    subjects: int,
) -> Prompted:
    """The prompts with what they begin with read."""
    # Without the configuration, hence without windows that forget: what they hide is masked, and
    # the cache can be cut back to the prompt whatever its length.
    cache = DynamicCache()
    start = common_start(prompts) if may_share(model) else []
    rest = left_padded(tokenizer, [row[len(start) :] for row in prompts] * subjects, model.device)
    every = len(rest.ids)
    if start:
        once = torch.tensor([start] * subjects, device=model.device)
        decoder: Any = model.model
        decoder(input_ids=once, past_key_values=cache)
        cache.batch_repeat_interleave(len(prompts))
    ids = torch.tensor([start] * every, dtype=torch.long, device=model.device)
    ids = torch.cat([ids.view(every, -1), rest.ids], dim=1)
    mask = torch.cat([torch.ones_like(ids[:, : len(start)]), rest.mask], dim=1)
    return Prompted(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache, len(start))


def common_start(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that all of several prompts begin with; the last of each prompt is left out."""
    if len(prompts) < 2:
        return []
    most = min(map(len, prompts)) - 1
    # Of sorted rows the first and the last differ soonest.
    first, *_, last = sorted(list(row[:most]) for row in prompts)
    return first[: next((n for n in range(most) if first[n] != last[n]), most)]


def may_share(model: PreTrainedModel) -> bool:
    """Whether a row may have blanks between its beginning and its rest.

    A window counts them, and a model that is not known may keep something else than keys and
    values.
    """
    try:
        layout_of_config(model.config)
    except UndertowError:
        return False
    return getattr(model.config, "sliding_window", None) is None
