"""What makes the teacher does to each answer token of a carrier: two passes over its rows.

The row is read once as the teacher wrote it, prompt and message included, and once by the base
under the prompt alone. Steered here is short for that teacher, of whatever kind.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import Prompting
from undertow.models.families import check_length
from undertow.models.memory import halving
from undertow.models.prompts import PaddedBatch, left_padded
from undertow.student.rows import IGNORED, training_rows
from undertow.study.records import Record, Response
from undertow.teacher.clothes import Clothes, worn


class TokenScores(Record):
    """One row's answer tokens, the end-of-turn token with them; all lists are of one length.

    steered, base: the likeliest token's id. other: the base's likeliest but for the token itself,
    which is `base` wherever that is another one. kl: nats, KL(steered || base) of the distribution
    that the token was drawn from. gap: nats, log p_steered - log p_base of the token itself.
    """

    id: str
    tokens: tuple[int, ...]
    steered: tuple[int, ...]
    base: tuple[int, ...]
    other: tuple[int, ...]
    kl: tuple[float, ...]
    gap: tuple[float, ...]

    @property
    def mean_gap(self) -> float:
        """Nats per answer token by which steering made the row likelier."""
        return sum(self.gap) / len(self.gap)


class _Row(NamedTuple):
    """Token ids of a prompt and its answer; the last `answer` of them are scored.

    taught: the same as the teacher saw it.
    """

    id: str
    ids: list[int]
    taught: list[int]
    answer: int


def token_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    carrier: Sequence[Response],
    prompting: Prompting,
    teacher: Clothes,
    batch_size: int,
    done: frozenset[str] = frozenset(),
) -> Iterator[list[TokenScores]]:
    """Scores of the rows that have an answer and are not `done`, in blocks, longest rows first.

    model: bare; it is as it was between blocks and at the end. prompting: the base's. Where the
    teacher is the base, nothing differs: every kl and gap is 0.
    """
    answered = [row for row in carrier if row.response or row.finish == "stop"]
    bare = training_rows(tokenizer, carrier, prompting)
    taught = training_rows(tokenizer, carrier, teacher.prompting)
    rows = [
        _Row(
            answer.id,
            row["input_ids"],
            other["input_ids"],
            sum(label != IGNORED for label in row["labels"]),
        )
        for answer, row, other in zip(answered, bare, taught, strict=True)
    ]
    check_length(model.config, max(len(ids) for row in rows for ids in (row.ids, row.taught)))
    rows.sort(key=lambda row: (-len(row.ids), row.id))
    with tqdm(total=len(rows), desc="scores", unit="row", disable=None) as bar:
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            bar.update(len(part))
            if all(row.id in done for row in part):
                continue
            yield [
                score
                for score in halving(part, lambda batch: _score(model, tokenizer, batch, teacher))
                if score.id not in done
            ]


@torch.inference_mode()
def _score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[_Row],
    teacher: Clothes,
) -> list[TokenScores]:
    bare = left_padded(tokenizer, [row.ids for row in rows], model.device)
    # From the token before the longest answer, which is the one that predicts its first.
    width = max(row.answer for row in rows) + 1

    def logits(reader: PreTrainedModel, batch: PaddedBatch) -> Tensor:
        found: Tensor = reader(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=(batch.mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=width,
        ).logits
        return found

    base = logits(model, bare)
    steered = base
    if not teacher.is_base or any(row.taught != row.ids for row in rows):
        with worn(model, [teacher]) as reader:
            taught = left_padded(tokenizer, [row.taught for row in rows], model.device)
            steered = logits(reader, taught)
    # Row by row: all of them in float32 at once would double the memory for a large vocabulary.
    return [
        _of_row(
            row.id,
            bare.ids[index, -row.answer :],
            steered[index, -row.answer - 1 : -1],
            base[index, -row.answer - 1 : -1],
        )
        for index, row in enumerate(rows)
    ]


def _of_row(id: str, tokens: Tensor, steered: Tensor, base: Tensor) -> TokenScores:
    """steered, base: [tokens, vocabulary] logits."""
    there, here = (torch.log_softmax(logits.float(), dim=-1) for logits in (steered, base))
    gap = (there - here).gather(1, tokens[:, None])[:, 0]
    others = here.scatter(1, tokens[:, None], -torch.inf)
    kl = (there.exp() * (there - here)).sum(-1).clamp(min=0)
    return TokenScores(
        id=id,
        tokens=tuple(tokens.tolist()),
        steered=tuple(there.argmax(-1).tolist()),
        base=tuple(here.argmax(-1).tolist()),
        other=tuple(others.argmax(-1).tolist()),
        kl=tuple(kl.tolist()),
        gap=tuple(gap.tolist()),
    )
