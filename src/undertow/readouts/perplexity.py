"""How unlikely a model finds given answers: their negative log-likelihood after their prompts.

Side effects are scored under the base model, outside of steering and without an adapter; what a
student has learned of its teacher's answers is scored under the student.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from undertow.config import Prompting
from undertow.models.families import check_length
from undertow.models.memory import halving
from undertow.models.prompts import encode, left_padded, render
from undertow.study.records import Response


class Likelihood(NamedTuple):
    """nll: nats, the sum over the answer's tokens."""

    nll: float
    tokens: int


class _Row(NamedTuple):
    """Token ids of a prompt and its answer; the last `answer` of them are scored."""

    ids: list[int]
    answer: int


def answer_likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Response],
    prompting: Prompting,
    batch_size: int,
) -> list[Likelihood]:
    """The likelihood of each answer under `model` as it is, in the order of `answers`.

    The prompt is context and not scored. Neither is the end-of-turn token: the share of answers
    that were cut off would move the perplexity. An empty answer has no tokens and an nll of 0.
    """
    rows = [_row(tokenizer, answer, prompting) for answer in answers]
    # Longest first, so that padding is small and a lack of memory shows at once.
    order = sorted(range(len(rows)), key=lambda index: (-len(rows[index].ids), index))
    queue = [index for index in order if rows[index].answer]
    found = [Likelihood(0.0, 0)] * len(rows)
    check_length(model.config, max((len(row.ids) for row in rows), default=0))
    with tqdm(total=len(queue), desc="perplexity", unit="row", disable=None) as bar:
        for start in range(0, len(queue), batch_size):
            part = queue[start : start + batch_size]
            scored = halving(
                [rows[index] for index in part], lambda batch: _score(model, tokenizer, batch)
            )
            for index, nll in zip(part, scored, strict=True):
                found[index] = Likelihood(nll, rows[index].answer)
            bar.update(len(part))
    return found


def likelihoods_together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Sequence[Response]],
    prompting: Prompting,
    batch_size: int,
    usual: int,
) -> list[list[Likelihood]]:
    """What several subjects in one batch (see `models.stacked`) find of answers, by subject.

    answers: to the same prompts for each; none at all is a place that nobody takes. usual: tokens
    that an answer has at most, or nearly always; batches are as long as that calls for, so that no
    value depends on how long the others' answers are.
    """
    count = max(map(len, answers), default=0)
    rows = [[_row(tokenizer, answer, prompting) for answer in own] for own in answers]
    check_length(model.config, max((len(row.ids) for own in rows for row in own), default=0))
    filler = next((row for own in rows for row in own), None)
    columns = [
        # An empty answer is scored as if its prompt's last token were one, and then not counted.
        [_at_least_one(own[number] if own else filler) for own in rows]
        for number in range(count)
    ]
    found: list[list[Likelihood]] = [[] for _ in answers]
    size = max(1, batch_size // max(len(answers), 1))
    for start in range(0, count, size):
        part = columns[start : start + size]
        scored = halving(part, lambda some: _columns_scored(model, tokenizer, some, usual))
        for number, column in enumerate(scored, start):
            for own, kept, nll in zip(rows, found, column, strict=True):
                if own:
                    tokens = own[number].answer
                    kept.append(Likelihood(nll if tokens else 0.0, tokens))
    return found


def _at_least_one(row: _Row | None) -> _Row:
    if row is None:
        raise ValueError("nobody has an answer to be scored")
    return row if row.answer else row._replace(answer=1)


def _columns_scored(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[Sequence[_Row]],
    most: int,
) -> list[list[float]]:
    """Each column's values by subject; in the batch a subject's rows stand together.

    Answers of more than `most` tokens are scored in a batch of their own, for twice as many.
    """
    rows = [column[subject] for subject in range(len(columns[0])) for column in columns]
    scored = _score(model, tokenizer, [_cut(row, most) for row in rows], most)
    found = [scored[number :: len(columns)] for number in range(len(columns))]
    if all(row.answer <= most for row in rows):
        return found
    longer = _columns_scored(model, tokenizer, columns, 2 * most)
    return [
        [here if row.answer <= most else there for row, here, there in zip(*each, strict=True)]
        for each in zip(columns, found, longer, strict=True)
    ]


def _cut(row: _Row, most: int) -> _Row:
    """The row, or a short one in its place."""
    over = row.answer - 1 if row.answer > most else 0
    return _Row(row.ids[: len(row.ids) - over], row.answer - over)


def _row(tokenizer: PreTrainedTokenizerBase, answer: Response, prompting: Prompting) -> _Row:
    prompt = encode(tokenizer, render(tokenizer, answer.prompt, prompting))
    # Encoded by itself, as the rows that the student trains on are.
    reply = encode(tokenizer, answer.response) if answer.response else []
    return _Row(prompt + reply, len(reply))


@torch.inference_mode()
def _score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[_Row],
    most: int | None = None,
) -> list[float]:
    """most: tokens of an answer, where the batch is to be as long as its prompts and that."""
    width = 0
    if most is not None:
        # One more than any row has: without a blank transformers would leave out the mask.
        width = 1 + most + max(len(row.ids) - row.answer for row in rows)
    batch = left_padded(tokenizer, [row.ids for row in rows], model.device, width)
    logits = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=(batch.mask.cumsum(-1) - 1).clamp(min=0),
        use_cache=False,
        # From the token before the longest answer, which is the one that predicts its first.
        logits_to_keep=(most or max(row.answer for row in rows)) + 1,
    ).logits
    # Row by row: all of them in float32 at once would double the memory for a large vocabulary.
    return [
        cross_entropy(
            logits[index, -row.answer - 1 : -1].float(),
            batch.ids[index, -row.answer :],
            reduction="sum",
        ).item()
        for index, row in enumerate(rows)
    ]
