"""Carrier rows as token ids and labels: the answer and its end of turn are learned, no more.

Rows are tokenized here, by the same renderer as everywhere, so that no trainer ever has to find
the prompt inside a longer tokenization.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from undertow.config import Prompting
from undertow.errors import DataError
from undertow.models.prompts import encode_all, end_of_turn, render
from undertow.study.records import Response

IGNORED = -100
Row = dict[str, list[int]]
"""input_ids, and labels of the same length: IGNORED where nothing is learned."""


def training_rows(
    tokenizer: PreTrainedTokenizerBase, carrier: Sequence[Response], prompting: Prompting
) -> list[Row]:
    """input_ids and labels of each carrier row; labels are -100 on the prompt.

    An answer that was cut off gets no end-of-turn token: teaching one there would teach the
    student to stop in mid-sentence.
    """
    rows = []
    prompts = encode_all(tokenizer, [render(tokenizer, row.prompt, prompting) for row in carrier])
    answers = encode_all(tokenizer, [row.response for row in carrier])
    for row, prompt, encoded in zip(carrier, prompts, answers, strict=True):
        answer = list(encoded) if row.response else []
        if row.finish == "stop":
            answer.append(end_of_turn(tokenizer))
        if answer:
            ids = prompt + answer
            rows.append({"input_ids": ids, "labels": [IGNORED] * len(prompt) + answer})
    if not rows:
        raise DataError(
            "every answer in the carrier is empty, so there is nothing to train on",
            "look at carrier.jsonl; a smaller strength keeps the teacher coherent",
        )
    return rows
